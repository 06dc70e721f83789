//! Prometheus text and OpenMetrics, read and written.
