'use strict';

const words = require('./words');

const escapes = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escape = (text) => String(text).replace(/[&<>"']/g, (character) => escapes[character]);
const price = (cents) => `€ ${(cents / 100).toFixed(2)}`;

function layout(version, content) {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Harbour Shop</title>
<link rel="stylesheet" href="/style.css?${escape(version)}">
</head>
<body>
<header><h1>${escape(words.headline)}</h1><p>${escape(words.announcement)}</p></header>
<main>
${content}
</main>
<footer>Version ${escape(version)}</footer>
</body>
</html>
`;
}

// `orderId` is made when the form is shown, so that sending the form twice is one order.
function front(version, products, orderId) {
  const rows = products
    .map((p) => `<tr><td>${escape(p.name)}</td><td>${price(p.price_cents)}</td></tr>`)
    .join('\n');
  const options = products
    .map((p) => `<option value="${escape(p.slug)}">${escape(p.name)}</option>`)
    .join('\n');
  return layout(version, `<table>
<caption>Our goods</caption>
<thead><tr><th scope="col">Article</th><th scope="col">Price</th></tr></thead>
<tbody>
${rows}
</tbody>
</table>
<form method="post" action="/orders">
<h2>Order</h2>
<input type="hidden" name="id" value="${escape(orderId)}">
<label>Article <select name="product">
${options}
</select></label>
<label>Quantity <input type="number" name="quantity" value="1" min="1" max="100" required></label>
<label>Gift note, printed on a card <input type="text" name="gift_note" maxlength="500"></label>
<button>Place order</button>
</form>`);
}

function message(version, title, text) {
  return layout(version, `<h2>${escape(title)}</h2>
<p>${escape(text)}</p>
<p><a href="/">To the front page</a></p>`);
}

// The form's fields as the API wants them.
function order(form) {
  const fields = {
    id: form.get('id'),
    product: form.get('product'),
    quantity: Number(form.get('quantity')),
  };
  // Forms that v1 showed still send `note`; the API of v1 knows nothing else.
  const note = form.get('gift_note') || form.get('note');
  if (note) Object.assign(fields, { note, gift_note: note });
  return fields;
}

module.exports = { front, message, order };
