'use strict';

const http = require('node:http');

const agent = new http.Agent({ keepAlive: true, maxSockets: 128 });
const TIMEOUT_MS = 5000;
const ANSWER_BYTES_MAX = 1024 * 1024;

// Calls the API. Resolves to { status, body }; rejects when there is no proper answer.
async function call(base, requestId, method, path, fields) {
  try {
    return await once(base, requestId, method, path, fields);
  } catch (error) {
    // The API closed a kept connection in the very moment we used it. To read again is
    // harmless; an order might have arrived, so it is never sent twice.
    if (method === 'GET' && error.connectionWasReused) {
      return once(base, requestId, method, path, fields);
    }
    throw error;
  }
}

function once(base, requestId, method, path, fields) {
  return new Promise((resolve, reject) => {
    const body = fields === undefined ? undefined : JSON.stringify(fields);
    const headers = { 'x-request-id': requestId, accept: 'application/json' };
    if (body !== undefined) {
      headers['content-type'] = 'application/json';
      headers['content-length'] = Buffer.byteLength(body);
    }
    const url = new URL(path, base);
    const request = http.request(url, { method, headers, agent, timeout: TIMEOUT_MS }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (piece) => {
        text += piece;
        if (text.length > ANSWER_BYTES_MAX) request.destroy(new Error('the answer is too long'));
      });
      response.on('error', reject);
      response.on('end', () => {
        try {
          resolve({ status: response.statusCode, body: JSON.parse(text) });
        } catch {
          reject(new Error(`the API answered ${response.statusCode} and no JSON`));
        }
      });
    });
    request.on('timeout', () => request.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)));
    request.on('error', (error) => {
      error.connectionWasReused = request.reusedSocket && ['ECONNRESET', 'EPIPE'].includes(error.code);
      reject(error);
    });
    request.end(body);
  });
}

module.exports = { call };
