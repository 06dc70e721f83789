//! An error as people meet it: code, span, cause, the last log lines, and what to do next.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Stable, `rollout/none`, `config/unknown-key`.
    pub code: String,
    pub message: String,
    /// The chain below the message, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<SourceSpan>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
    /// The last lines of the instance or job concerned, oldest first, 20 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Exit code for the command line: 1 failed, 2 usage or configuration, 4 denied, 5 rolled back, 6 unknown,
    /// 7 superseded or stale.
    pub exit: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSpan {
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// The source line itself.
    pub text: String,
    /// How many characters are meant.
    pub length: u32,
}

/// Another place that belongs to the error ("the other route is here").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Related {
    pub message: String,
    pub span: SourceSpan,
}

impl ApiError {
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            causes: Vec::new(),
            span: None,
            related: Vec::new(),
            last_lines: Vec::new(),
            hint: None,
            exit: 1,
        }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    #[must_use]
    pub fn exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    #[must_use]
    pub fn lines(mut self, lines: Vec<String>) -> Self {
        self.last_lines = lines;
        self
    }
}
