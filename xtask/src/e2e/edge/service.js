// Tells what it was asked, and misbehaves on request. With H2C it speaks HTTP/2 without TLS and answers as gRPC does.
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');

const port = Number(process.env.PORT);
const version = process.env.VERSION || '1';
const seen = new Map();
// Of two copies the one that is first to make the file is the bad one.
let isBad = false;
if (process.env.BAD) {
  try {
    fs.closeSync(fs.openSync(process.env.BAD, 'wx'));
    isBad = true;
  } catch {}
}

function answer(request, response) {
  const url = new URL(request.url, 'http://service');
  const send = (status, headers, body) => {
    response.writeHead(status, { 'x-version': version, 'x-copy': String(port), ...headers });
    response.end(body);
  };
  const body = [];
  request.on('data', (chunk) => body.push(chunk));
  request.on('end', () => {
    const asked = { method: request.method, url: request.url, headers: request.headers };
    asked.body_bytes = body.reduce((sum, chunk) => sum + chunk.length, 0);
    switch (url.pathname) {
      case '/text':
        return send(200, { 'content-type': 'text/plain', server: 'node', 'x-frame-options': 'DENY' }, 'so it goes. '.repeat(1000));
      case '/slow':
        return setTimeout(() => send(200, {}, 'late'), Number(url.searchParams.get('ms')));
      case '/bad':
        return send(isBad ? 500 : 200, {}, 'bad or not');
      case '/drop': {
        // The first time nobody gets an answer.
        const id = url.searchParams.get('id');
        const file = `${process.env.DROPPED}-${id}`;
        if (!fs.existsSync(file)) {
          fs.writeFileSync(file, '');
          return request.socket.destroy();
        }
        return send(200, {}, 'the second time');
      }
      case '/end':
        send(200, { connection: 'close' }, 'gone');
        return setTimeout(() => process.exit(1), 20);
      default:
        return send(200, { 'content-type': 'application/json' }, JSON.stringify(asked));
    }
  });
}

function webSocket(request, socket) {
  const key = request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
  const accept = crypto.createHash('sha1').update(key).digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: ${accept}\r\nx-version: ${version}\r\n\r\n`);
  socket.on('error', () => {});
  socket.on('data', (frame) => {
    // Small frames of a client come one at a time here: two bytes, four of the mask, the text.
    const length = frame[1] & 0x7f;
    const text = Buffer.alloc(length);
    for (let n = 0; n < length; n++) text[n] = frame[6 + n] ^ frame[2 + (n % 4)];
    socket.write(Buffer.concat([Buffer.from([frame[0], length]), text]));
    if ((frame[0] & 0x0f) === 8) socket.end();
  });
}

function call(stream, headers) {
  stream.on('error', () => {});
  stream.respond(
    { ':status': 200, 'content-type': 'application/grpc', 'x-version': version, 'x-asked': headers[':path'] },
    { waitForTrailers: true },
  );
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'grpc-message': 'fine' }));
  stream.on('data', (chunk) => stream.write(chunk));
  stream.on('end', () => stream.end());
}

if (process.env.H2C) {
  http2.createServer().on('stream', call).listen(port, '127.0.0.1');
} else {
  // Longer than the proxy keeps a connection unused.
  const server = http.createServer({ keepAliveTimeout: 60_000 }, answer);
  server.on('upgrade', webSocket);
  server.listen(port, '127.0.0.1');
}
process.on('SIGTERM', () => setTimeout(() => process.exit(0), 50));
