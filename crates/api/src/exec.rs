//! `exec`: standard input goes up as the request body, frames come down as lines.

use serde::{Deserialize, Serialize};

/// Sent as the header `fairway-exec` (JSON), as the body is the standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// `api.r12.3`, or a service: any ready copy of it.
    pub target: String,
    pub command: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "frame")]
pub enum ExecFrame {
    /// Text; what is not UTF-8 is replaced.
    Stdout {
        data: String,
    },
    Stderr {
        data: String,
    },
    Exit {
        code: i32,
        detail: String,
    },
}
