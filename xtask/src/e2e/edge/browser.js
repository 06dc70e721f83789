// Clients of every kind. Takes orders as lines of JSON on stdin, and answers each by a line of JSON on stdout.
'use strict';
const crypto = require('node:crypto');
const dgram = require('node:dgram');
const http2 = require('node:http2');
const net = require('node:net');
const readline = require('node:readline');
const tls = require('node:tls');
const zlib = require('node:zlib');

const kept = new Map();
let next = 0;
const keep = (what) => { kept.set(++next, what); return { handle: next }; };

// A connection, with the header of a balancer before anything else.
function connect(order) {
  return new Promise((resolve, reject) => {
    const plain = net.connect(order.port, '127.0.0.1');
    plain.once('error', reject);
    plain.once('connect', () => {
      if (order.before) plain.write(Buffer.from(order.before, 'base64'));
      if (!order.tls) return resolve(plain);
      const socket = tls.connect({
        socket: plain,
        servername: net.isIP(order.host) ? undefined : order.host,
        // Without an authority that is believed, any certificate will do.
        ...(order.ca ? { ca: order.ca } : { rejectUnauthorized: false }),
        ALPNProtocols: [order.http === 2 ? 'h2' : 'http/1.1'],
      });
      socket.once('error', reject);
      socket.once('secureConnect', () => resolve(socket));
    });
  });
}

function whoIs(socket) {
  if (!socket.getPeerCertificate) return {};
  const certificate = socket.getPeerCertificate();
  return {
    alpn: socket.alpnProtocol || null,
    protocol: socket.getProtocol(),
    names: certificate.subjectaltname || '',
    issuer: (certificate.issuer && certificate.issuer.CN) || '',
    fingerprint: certificate.fingerprint256 || '',
  };
}

const within = (ms, what, promise) => {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`${what}: nothing within ${ms} ms`)), ms); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

function headOf(order) {
  const headers = order.headers || [];
  const host = order.authority || `${order.host}:${order.port}`;
  const lines = [`${order.method || 'GET'} ${order.path} HTTP/1.1`, `host: ${host}`];
  for (const [name, value] of headers) lines.push(`${name}: ${value}`);
  if (order.body !== undefined) lines.push(`content-length: ${Buffer.byteLength(order.body)}`);
  return lines.join('\r\n') + '\r\n\r\n' + (order.body || '');
}

// Reads one answer. Whatever comes before its end is an error.
function answer(socket, method) {
  return new Promise((resolve, reject) => {
    let bytes = Buffer.alloc(0);
    const end = (error, value) => {
      socket.removeListener('data', data);
      socket.removeListener('close', close);
      socket.removeListener('error', end);
      return error ? reject(error) : resolve(value);
    };
    const look = (closed) => {
      const at = bytes.indexOf('\r\n\r\n');
      if (at < 0) return closed && end(new Error(`closed after ${bytes.length} bytes, without a whole head`));
      const [first, ...lines] = bytes.subarray(0, at).toString('latin1').split('\r\n');
      const headers = {};
      for (const line of lines) {
        const colon = line.indexOf(':');
        const name = line.slice(0, colon).toLowerCase();
        headers[name] = name in headers ? `${headers[name]}, ${line.slice(colon + 1).trim()}` : line.slice(colon + 1).trim();
      }
      const status = Number(first.split(' ')[1]);
      const rest = bytes.subarray(at + 4);
      const done = (body) => end(null, { status, headers, body: body.toString('latin1') });
      if (method === 'HEAD' || status === 204 || status === 304 || status === 101) return done(Buffer.alloc(0));
      if (headers['transfer-encoding']) {
        const parts = [];
        let place = 0;
        for (;;) {
          const line = rest.indexOf('\r\n', place);
          if (line < 0) return closed && end(new Error('closed within a chunk'));
          const size = parseInt(rest.subarray(place, line).toString(), 16);
          if (rest.length < line + 2 + size + 2) return closed && end(new Error('closed within a chunk'));
          if (size === 0) return done(Buffer.concat(parts));
          parts.push(rest.subarray(line + 2, line + 2 + size));
          place = line + 2 + size + 2;
        }
      }
      if (headers['content-length'] !== undefined) {
        const length = Number(headers['content-length']);
        if (rest.length >= length) return done(rest.subarray(0, length));
        return closed && end(new Error(`closed after ${rest.length} of ${length} bytes`));
      }
      return closed && done(rest);
    };
    const data = (chunk) => { bytes = Buffer.concat([bytes, chunk]); look(false); };
    const close = () => look(true);
    socket.on('data', data);
    socket.once('close', close);
    socket.once('error', end);
  });
}

function session(order, socket) {
  const client = http2.connect(`http${order.tls ? 's' : ''}://${order.host}:${order.port}`, { createConnection: () => socket });
  client.on('error', () => {});
  return client;
}

function request2(client, order) {
  return new Promise((resolve, reject) => {
    const headers = { ':method': order.method || 'GET', ':path': order.path, ...Object.fromEntries(order.headers || []) };
    if (order.authority) headers[':authority'] = order.authority;
    const stream = client.request(headers);
    const chunks = [];
    let head;
    let trailers = {};
    stream.on('response', (fields) => { head = fields; });
    stream.on('trailers', (fields) => { trailers = { ...fields }; });
    stream.on('data', (chunk) => chunks.push(chunk));
    stream.on('error', reject);
    stream.on('close', () => {
      if (!head) return reject(new Error(`closed without an answer (code ${stream.rstCode})`));
      if (stream.rstCode) return reject(new Error(`reset with code ${stream.rstCode}`));
      resolve({ status: head[':status'], headers: { ...head }, trailers, body: Buffer.concat(chunks).toString('latin1') });
    });
    if (order.body === undefined) stream.end(); else stream.end(order.body);
  });
}

// As text. What this Node cannot unpack is believed by its first bytes.
function unpacked(got) {
  const body = Buffer.from(got.body, 'latin1');
  switch (got.headers['content-encoding']) {
    case undefined: return body.toString();
    case 'gzip': return zlib.gunzipSync(body).toString();
    case 'br': return zlib.brotliDecompressSync(body).toString();
    case 'zstd': return zlib.zstdDecompressSync ? zlib.zstdDecompressSync(body).toString() : null;
    default: return undefined;
  }
}

async function request(order) {
  const socket = await connect(order);
  const peer = whoIs(socket);
  try {
    if (order.http === 2) {
      const client = session(order, socket);
      const got = await request2(client, order);
      client.close();
      return { ...got, unpacked: unpacked(got), ...peer };
    }
    socket.write(headOf(order));
    const got = await answer(socket, order.method);
    return { ...got, unpacked: unpacked(got), ...peer };
  } finally {
    socket.destroy();
  }
}

// Requests at a fixed rate that are never repeated: every other one on a connection of its own, the others on a few
// that are kept: HTTP/2 in turn with HTTP/1.1. A server may end a kept connection, if it says so.
function load(order) {
  const told = { sent: 0, ok: 0, fresh: 0, kept: 0, failed: [], versions: {}, certificates: {} };
  const two = [];
  const one = [];
  const waiting = new Set();
  const fail = (kind, error) => { if (told.failed.length < 50) told.failed.push(`${kind} at ${Date.now()}: ${error.message}`); };
  const note = (got, kind) => {
    if (got.status !== (order.status || 200)) return fail(kind, new Error(`answered ${got.status}`));
    told.ok++;
    const version = got.headers['x-version'];
    told.versions[version] = (told.versions[version] || 0) + 1;
  };
  const kinds = [
    async () => { told.fresh++; const got = await request({ ...order, http: 1 }); told.certificates[got.fingerprint] = true; note(got, 'fresh HTTP/1.1'); },
    async () => {
      let place = two.find((place) => !place.client.closed && !place.client.destroyed && !place.going);
      if (!place) {
        const socket = await connect({ ...order, http: 2 });
        told.certificates[whoIs(socket).fingerprint] = true;
        place = { client: session(order, socket), going: false };
        const made = place;
        made.client.on('goaway', () => { made.going = true; });
        two.push(made);
      }
      told.kept++;
      note(await request2(place.client, order), 'kept HTTP/2');
    },
    async () => { told.fresh++; const got = await request({ ...order, http: 2 }); note(got, 'fresh HTTP/2'); },
    async () => {
      const socket = one.pop() || await connect({ ...order, http: 1 });
      told.kept++;
      socket.write(headOf(order));
      const got = await answer(socket, order.method);
      note(got, 'kept HTTP/1.1');
      if (got.headers.connection === 'close') socket.destroy(); else one.push(socket);
    },
  ];
  const names = ['fresh HTTP/1.1', 'kept HTTP/2', 'fresh HTTP/2', 'kept HTTP/1.1'];
  const timer = setInterval(() => {
    const kind = order.only_two ? 1 + (told.sent++ % 2) : told.sent++ % kinds.length;
    const run = within(10_000, names[kind], kinds[kind]()).catch((error) => fail(names[kind], error)).finally(() => waiting.delete(run));
    waiting.add(run);
  }, 1000 / order.rate_per_s);
  return keep({
    end: async () => {
      // A machine with nothing else to do is through with the story before much was asked.
      while (told.sent < 40) await new Promise((resolve) => setTimeout(resolve, 10));
      clearInterval(timer);
      await Promise.all(waiting);
      two.forEach((place) => place.client.destroy());
      one.forEach((socket) => socket.destroy());
      return { ...told, certificates: Object.keys(told.certificates) };
    },
  });
}

// A call in both directions over HTTP/2 that stays open.
async function stream(order) {
  const socket = await connect({ ...order, http: 2 });
  const client = session(order, socket);
  const open = client.request({ ':method': 'POST', ':path': order.path, 'content-type': 'application/grpc', te: 'trailers' });
  const state = { got: '', status: null, trailers: {}, code: null, ended_ms: null, error: null };
  const begun = Date.now();
  let heard = () => {};
  open.on('response', (fields) => { state.status = fields[':status']; heard(); });
  open.on('data', (chunk) => { state.got += chunk; heard(); });
  open.on('trailers', (fields) => { state.trailers = { ...fields }; });
  open.on('error', (error) => { state.error = error.message; });
  open.on('close', () => { state.code = open.rstCode; state.ended_ms = Date.now() - begun; heard(); });
  const until = (is) => new Promise((resolve) => { heard = () => is() && resolve(); heard(); });
  return keep({
    say: async (text) => {
      const wanted = state.got + text;
      open.write(text);
      await until(() => state.got === wanted || state.ended_ms !== null);
      return { ...state };
    },
    look: async () => ({ ...state }),
    end: async () => {
      open.end();
      await until(() => state.ended_ms !== null);
      client.destroy();
      return { ...state };
    },
  });
}

function frame(code, text) {
  const mask = crypto.randomBytes(4);
  const bytes = Buffer.from(text);
  return Buffer.concat([Buffer.from([0x80 | code, 0x80 | bytes.length]), mask, bytes.map((byte, n) => byte ^ mask[n % 4])]);
}

async function webSocket(order) {
  const socket = await connect({ ...order, http: 1 });
  const key = crypto.randomBytes(16).toString('base64');
  const headers = [['connection', 'upgrade'], ['upgrade', 'websocket'], ['sec-websocket-version', '13'], ['sec-websocket-key', key]];
  socket.write(headOf({ ...order, headers }));
  const got = await answer(socket);
  if (got.status !== 101) throw new Error(`answered ${got.status}`);
  const state = { text: '', close: null, ended: false };
  let bytes = Buffer.alloc(0);
  let heard = () => {};
  socket.on('data', (chunk) => {
    bytes = Buffer.concat([bytes, chunk]);
    while (bytes.length >= 2 && bytes.length >= 2 + (bytes[1] & 0x7f)) {
      const body = bytes.subarray(2, 2 + (bytes[1] & 0x7f));
      if ((bytes[0] & 0x0f) === 8) state.close = body.length >= 2 ? body.readUInt16BE(0) : 1005; else state.text += body;
      bytes = bytes.subarray(2 + body.length);
    }
    heard();
  });
  socket.on('error', () => {});
  socket.on('close', () => { state.ended = true; heard(); });
  const until = (is) => new Promise((resolve) => { heard = () => is() && resolve(); heard(); });
  return {
    ...keep({
      say: async (text) => {
        const wanted = state.text + text;
        socket.write(frame(1, text));
        await until(() => state.text === wanted || state.ended);
        return { ...state };
      },
      look: async () => ({ ...state }),
      end: async () => {
        socket.write(frame(8, Buffer.from([3, 232])));
        await until(() => state.ended);
        return { ...state };
      },
    }),
    version: got.headers['x-version'],
  };
}

// A name server by which every name is this machine (RFC 1035, 4.1), over TCP as Go's resolver likes it.
function nameServer() {
  const answered = (query) => {
    const question = query.subarray(12, query.indexOf(0, 12) + 5);
    const isAddress = question.subarray(-4).equals(Buffer.from([0, 1, 0, 1]));
    const head = Buffer.from([query[0], query[1], 0x81, 0x80, 0, 1, 0, isAddress ? 1 : 0, 0, 0, 0, 0]);
    const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
    return Buffer.concat(isAddress ? [head, question, record] : [head, question]);
  };
  return new Promise((resolve) => {
    const server = net.createServer((socket) => {
      let bytes = Buffer.alloc(0);
      socket.on('error', () => {});
      socket.on('data', (chunk) => {
        bytes = Buffer.concat([bytes, chunk]);
        // Each message has its length before it.
        while (bytes.length >= 2 && bytes.length >= 2 + bytes.readUInt16BE(0)) {
          const answer = answered(bytes.subarray(2, 2 + bytes.readUInt16BE(0)));
          bytes = bytes.subarray(2 + bytes.readUInt16BE(0));
          socket.write(Buffer.concat([Buffer.from([answer.length >> 8, answer.length & 0xff]), answer]));
        }
      });
    });
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      const datagrams = dgram.createSocket('udp4');
      datagrams.on('message', (query, from) => datagrams.send(answered(query), from.port, from.address));
      datagrams.bind(port, '127.0.0.1', () => resolve({ port }));
    });
  });
}

const verbs = {
  request, load, stream,
  'name server': nameServer,
  'web socket': webSocket,
  say: ({ handle, text }) => kept.get(handle).say(text),
  look: ({ handle }) => kept.get(handle).look(),
  end: async ({ handle }) => { const what = kept.get(handle); kept.delete(handle); return (await what.end()) || {}; },
};

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', async (line) => {
  const order = JSON.parse(line);
  let told;
  try {
    told = await within(order.within_ms || 20_000, order.verb, verbs[order.verb](order));
  } catch (error) {
    told = { error: error.code ? `${error.message} (${error.code})` : error.message };
  }
  process.stdout.write(`${JSON.stringify(told)}\n`);
});
lines.on('close', () => process.exit(0));
