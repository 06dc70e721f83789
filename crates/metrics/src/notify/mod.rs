//! From firing alerts to messages: routing, grouping, inhibition, silences, repetition.
