'use strict';

// The shop's front.
//
// PORT      where to listen (3000)
// HOST      address to listen on (127.0.0.1)
// API_URL   where the API is (http://127.0.0.1:4000)

const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { randomUUID } = require('node:crypto');

const api = require('./api');
const page = require('./page');

const version = fs.readFileSync(path.join(__dirname, '..', 'VERSION'), 'utf8').trim();
const style = fs.readFileSync(path.join(__dirname, 'style.css'));
const port = Number(process.env.PORT || 3000);
const host = process.env.HOST || '127.0.0.1';
const apiUrl = process.env.API_URL || 'http://127.0.0.1:4000';

const FORM_BYTES_MAX = 16 * 1024;

// After SIGTERM: connections that have not sent a request are given this long, requests
// under way that long.
const FIRST_REQUEST_MS = 1000;
const DRAIN_MS_MAX = 25000;

let draining = false;
let active = 0;

function log(level, event, fields) {
  const line = { at: new Date().toISOString(), level, service: 'web', version, pid: process.pid, event, ...fields };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

// Whoever read the log is gone. Customers matter more than the log.
process.stdout.on('error', () => {});

function requestId(request) {
  const given = request.headers['x-request-id'];
  return given && given.length <= 128 && /^[\x20-\x7e]+$/.test(given) ? given : randomUUID();
}

function readForm(request) {
  return new Promise((resolve, reject) => {
    let text = '';
    request.setEncoding('utf8');
    request.on('data', (piece) => {
      // Beyond the limit it is read and dropped: closing with unread data would reset the
      // connection and take the answer along.
      if (text.length <= FORM_BYTES_MAX) text += piece;
    });
    request.on('end', () => resolve(text.length <= FORM_BYTES_MAX ? new URLSearchParams(text) : null));
    request.on('error', reject);
    request.on('close', () => reject(new Error('the client went away')));
  });
}

const html = 'text/html; charset=utf-8';

async function front(id) {
  const answer = await api.call(apiUrl, id, 'GET', '/api/products');
  if (answer.status !== 200) throw new Error(`the API answered ${answer.status}`);
  return { status: 200, type: html, body: page.front(version, answer.body.products, randomUUID()) };
}

async function placeOrder(request, id) {
  const form = await readForm(request);
  if (!form) return { status: 413, type: html, body: page.message(version, 'Too long', 'The order is too long.') };
  const answer = await api.call(apiUrl, id, 'POST', '/api/orders', page.order(form));
  if (answer.status === 200 || answer.status === 201) {
    return { status: 303, type: html, body: '', headers: { location: '/thanks' } };
  }
  if (answer.status >= 500) throw new Error(`the API answered ${answer.status}`);
  return { status: answer.status, type: html, body: page.message(version, 'Not ordered', answer.body.error) };
}

async function route(request, id) {
  const { pathname } = new URL(request.url, 'http://shop');
  const method = request.method === 'HEAD' ? 'GET' : request.method;
  switch (`${method} ${pathname}`) {
    case 'GET /':
      return front(id);
    case 'POST /orders':
      return placeOrder(request, id);
    case 'GET /thanks':
      return { status: 200, type: html, body: page.message(version, 'Thank you', 'We pack your order at once.') };
    case 'GET /style.css':
      return { status: 200, type: 'text/css', body: style, headers: { 'cache-control': 'max-age=3600' } };
    case 'GET /livez':
      return { status: 200, type: 'application/json', body: '{"alive":true}\n' };
    case 'GET /healthz':
      return draining
        ? { status: 503, type: 'application/json', body: '{"ready":false,"cause":"shutting down"}\n' }
        : { status: 200, type: 'application/json', body: JSON.stringify({ ready: true, version }) + '\n' };
    default:
      return { status: 404, type: html, body: page.message(version, 'Not found', 'There is no such page.') };
  }
}

async function handle(request, response) {
  const began = process.hrtime.bigint();
  const id = requestId(request);
  active += 1;
  response.on('close', () => { active -= 1; });
  let answer;
  try {
    answer = await route(request, id);
  } catch (error) {
    log('error', 'request failed', { request_id: id, cause: error.message });
    answer = {
      status: 503,
      type: html,
      body: page.message(version, 'Back in a moment', 'The shop cannot reach its store room.'),
      headers: { 'retry-after': '1' },
    };
  }
  // A request body that nobody wanted must still be read, see readForm.
  request.resume();
  response.writeHead(answer.status, {
    'content-type': answer.type,
    'content-length': Buffer.byteLength(answer.body),
    'cache-control': 'no-store',
    'x-shop-version': version,
    'x-request-id': id,
    ...(draining ? { connection: 'close' } : {}),
    ...answer.headers,
  });
  response.end(answer.body);
  if (!['/healthz', '/livez'].includes(request.url)) {
    const ms = Math.round(Number(process.hrtime.bigint() - began) / 1e4) / 100;
    log('info', 'request', { request_id: id, method: request.method, path: request.url, status: answer.status, ms });
  }
}

const server = http.createServer((request, response) => {
  handle(request, response).catch((error) => {
    log('error', 'answer failed', { cause: error.stack });
    response.destroy();
  });
});

// Longer than the idle time of what is in front of us: whoever sends must be the one who
// closes, or a request meets a closing connection. Node's own 5 seconds are too short.
server.keepAliveTimeout = 75000;

server.on('error', (error) => {
  log('error', 'cannot listen', { address: `${host}:${port}`, cause: error.message });
  process.exitCode = 1;
});

function stop(signal) {
  if (draining) return;
  draining = true;
  log('info', 'stopping', { signal });
  const began = Date.now();
  server.close(() => {
    log('info', 'stopped', { all_requests_ended: true });
    process.exit(0);
  });
  setInterval(() => {
    const waited = Date.now() - began;
    server.closeIdleConnections();
    if (active === 0 && waited > FIRST_REQUEST_MS) server.closeAllConnections();
    if (waited > DRAIN_MS_MAX) {
      log('error', 'stopped', { all_requests_ended: false, active });
      process.exit(1);
    }
  }, 50);
}

process.on('SIGTERM', stop);
process.on('SIGINT', stop);
server.listen({ port, host, backlog: 511 }, () => log('info', 'listening', { address: `${host}:${port}`, api: apiUrl }));
