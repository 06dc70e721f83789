//! Samples on the wire between systems: remote write and OTLP.
