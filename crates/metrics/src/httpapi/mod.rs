//! Prometheus' HTTP API as questions and answers, without a network.
