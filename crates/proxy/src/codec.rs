//! HTTP/1.1 without IO: bytes in, verdicts and rewritten bytes out.
//!
//! Strict on purpose. Whenever two readings of a message are possible (RFC 9112, sections 3, 6 and 7), some
//! server behind us takes the other one, and a request can be smuggled: such messages are refused, never
//! repaired.

mod body;
mod chunked;
mod field;
mod head;
mod refusal;
mod request;
mod response;

#[cfg(test)]
mod framing_tests;

pub use body::{Body, BodyError, Fed};
pub use chunked::{Chunked, ChunkedError, Framing};
pub(crate) use field::{Field, has_token, tokens};
pub use head::{HEADERS_MAX, HeadScan, REQUEST_HEAD_BYTES_MAX, RESPONSE_HEAD_BYTES_MAX};
pub use refusal::Refusal;
pub(crate) use request::Forward;
pub use request::{BodyLength, HeaderStorage, MinorVersion, RequestHead, header_storage};
pub(crate) use response::Reply;
pub use response::{BadResponse, Delimiter, ResponseHead};

/// Whether `b` may be part of a header name or method (RFC 9110, section 5.6.2).
pub(crate) fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}
