//! The shape that all answers of the API share.

use super::json::{put_key, put_list, put_text};
use super::route::Response;

/// A good answer's parts.
#[derive(Debug, Default)]
pub(super) struct Data {
    /// JSON.
    pub(super) data: String,
    pub(super) warnings: Vec<String>,
    pub(super) infos: Vec<String>,
}

impl Data {
    pub(super) fn new(data: String) -> Self {
        Self { data, ..Self::default() }
    }
}

/// What went wrong, in the API's classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    BadData,
    Execution,
    Timeout,
    Internal,
    Unavailable,
}

#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) class: Class,
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    pub(super) fn bad_data(message: impl Into<String>) -> Self {
        Self::new(Class::BadData, message)
    }

    pub(super) fn parameter(name: &str, why: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter \"{name}\": {why}"))
    }
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    fn status(self) -> u16 {
        match self {
            Self::BadData => 400,
            Self::Execution => 422,
            Self::Timeout | Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }
}

/// Prometheus says no more than ten of each.
const NOTES_MAX: usize = 10;

/// A larger answer helps no one, and the process has others to serve: 50 million points are two gigabytes of JSON.
pub(super) const ANSWER_BYTES_MAX: usize = 256 << 20;

pub(super) fn respond(result: Result<Data, ApiError>) -> Response {
    let result = result.and_then(|data| {
        let too_large = data.data.len() > ANSWER_BYTES_MAX;
        let why = format!(
            "the answer has more than {ANSWER_BYTES_MAX} bytes. Ask for fewer series or a larger step"
        );
        if too_large { Err(ApiError::new(Class::Execution, why)) } else { Ok(data) }
    });
    let (status, body) = match result {
        Ok(data) => {
            let mut body = String::with_capacity(data.data.len() + 64);
            body.push_str("{\"status\":\"success\",\"data\":");
            body.push_str(&data.data);
            for (name, what, notes) in
                [("warnings", "warning", &data.warnings), ("infos", "info", &data.infos)]
            {
                put_notes(&mut body, name, what, notes);
            }
            body.push('}');
            (200, body)
        }
        Err(error) => {
            let mut body = String::from("{\"status\":\"error\"");
            put_key(&mut body, "errorType");
            put_text(&mut body, error.class.name());
            put_key(&mut body, "error");
            put_text(&mut body, &error.message);
            body.push('}');
            (error.class.status(), body)
        }
    };
    Response { status, content_type: "application/json", body: body.into_bytes() }
}

fn put_notes(body: &mut String, name: &str, what: &str, notes: &[String]) {
    if notes.is_empty() {
        return;
    }
    put_key(body, name);
    let omitted = notes.len().saturating_sub(NOTES_MAX);
    let last = (omitted > 0).then(|| format!("{omitted} more {what} annotations omitted"));
    put_list(body, notes.iter().take(NOTES_MAX).chain(&last), |out, note| put_text(out, note));
}
