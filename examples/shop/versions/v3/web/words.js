'use strict';

// What the front page says.
module.exports = {
  headline: 'Harbour Shop, by night',
  announcement: 'Open around the clock, and easier on the eyes.',
};
