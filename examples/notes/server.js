'use strict';

// Short notes, one JSON line each.
//
// PORT         where to listen (3000)
// NOTES_FILE   where the notes are (notes.jsonl)

const fs = require('node:fs');
const http = require('node:http');

const port = Number(process.env.PORT || 3000);
const file = process.env.NOTES_FILE || 'notes.jsonl';
const NOTE_BYTES_MAX = 4096;

const escapes = { '&': '&amp;', '<': '&lt;', '>': '&gt;' };
const escape = (text) => text.replace(/[&<>]/g, (character) => escapes[character]);

function notes() {
  try {
    return fs.readFileSync(file, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
  } catch (error) {
    if (error.code === 'ENOENT') return [];
    throw error;
  }
}

function answer(response, status, type, body) {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

function page() {
  const items = notes().map((note) => `<li>${escape(note.text)}</li>`).join('\n');
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Notes</title>
<h1>Notes</h1>
<ul>
${items}
</ul>
<form method="post" action="/notes"><label>Note <input name="text" required></label> <button>Keep</button></form>
</html>
`;
}

function keep(request, response) {
  let body = '';
  request.setEncoding('utf8');
  request.on('data', (piece) => {
    if (body.length <= NOTE_BYTES_MAX) body += piece;
  });
  request.on('end', () => {
    const text = new URLSearchParams(body).get('text');
    if (!text || body.length > NOTE_BYTES_MAX) {
      return answer(response, 400, 'text/plain', `text: give 1 to ${NOTE_BYTES_MAX} bytes\n`);
    }
    fs.appendFile(file, `${JSON.stringify({ at: new Date().toISOString(), text })}\n`, (error) => {
      if (error) return answer(response, 500, 'text/plain', `cannot keep the note: ${error.message}\n`);
      response.writeHead(303, { location: '/', 'content-length': 0 });
      response.end();
    });
  });
}

const server = http.createServer((request, response) => {
  try {
    if (request.method === 'POST' && request.url === '/notes') return keep(request, response);
    if (request.url === '/healthz') return answer(response, 200, 'text/plain', 'ok\n');
    if (request.url === '/') return answer(response, 200, 'text/html; charset=utf-8', page());
    answer(response, 404, 'text/plain', 'not found\n');
  } catch (error) {
    console.error(error);
    answer(response, 500, 'text/plain', `cannot read the notes: ${error.message}\n`);
  }
});

server.keepAliveTimeout = 75000;
server.listen(port, () => console.log(`notes at http://localhost:${server.address().port}`));
process.on('SIGTERM', () => server.close(() => process.exit(0)));
