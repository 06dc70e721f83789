'use strict';

// What the front page says.
module.exports = {
  headline: 'Harbour Shop',
  announcement: 'Rope, lanterns and charts since 1894.',
};
