'use strict';

// What the front page says.
module.exports = {
  headline: 'Harbour Shop',
  announcement: 'New: we print your gift note on a card.',
};
