//! What Fairway would otherwise own, in the formats of others.
