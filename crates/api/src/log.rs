//! Logs: `GET …/logs?…`, one JSON object a line, oldest first.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    pub service: Option<String>,
    pub release: Option<String>,
    pub instance: Option<String>,
    pub job: Option<u32>,
    /// Milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// A regular expression over the message.
    pub grep: Option<String>,
    /// The last so many lines.
    pub limit: Option<u32>,
    #[serde(default)]
    pub follow: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub at_ms: u64,
    /// `api.r12.3` or `j4`.
    pub source: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    pub message: String,
    /// Fields of a line that was a JSON object.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub fields: serde_json::Map<String, serde_json::Value>,
}
