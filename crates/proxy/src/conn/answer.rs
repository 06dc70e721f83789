//! Answers that the proxy gives by itself.

use std::future::poll_fn;
use std::io::{IoSlice, Write as _};

use crate::buffer::HeadBuffer;
use crate::deadline::Deadline;
use crate::stream::Stream;

/// An answer without an instance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    pub status: u16,
    pub content_type: &'a str,
    pub body: &'a str,
    pub retry_after_s: Option<u32>,
    /// Complete header lines.
    pub added: &'a [u8],
}

impl<'a> Answer<'a> {
    pub(super) fn plain(status: u16, body: &'a str, added: &'a [u8]) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body, retry_after_s: None, added }
    }

    /// Returns whether the client's kernel side took all of it. `is_head`: the body stays away.
    pub(super) async fn send(
        &self,
        client: &Stream,
        deadline: &Deadline,
        keep_alive: bool,
        is_head: bool,
    ) -> bool {
        let mut out = HeadBuffer::take();
        let memory = "memory can be written to";
        write!(
            *out,
            "HTTP/1.1 {} {}\r\ncontent-type: {}\r\n",
            self.status,
            reason(self.status),
            self.content_type
        )
        .expect(memory);
        write!(*out, "content-length: {}\r\ncache-control: no-store\r\n", self.body.len()).expect(memory);
        if let Some(seconds) = self.retry_after_s {
            write!(*out, "retry-after: {seconds}\r\n").expect(memory);
        }
        out.extend_from_slice(self.added);
        out.extend_from_slice(if keep_alive {
            b"connection: keep-alive\r\n\r\n"
        } else {
            b"connection: close\r\n\r\n"
        });
        if !is_head {
            out.extend_from_slice(self.body.as_bytes());
        }
        let mut sent = 0;
        let writing = poll_fn(|cx| {
            loop {
                match client.poll_write(cx, &[IoSlice::new(&out[sent..])]) {
                    std::task::Poll::Ready(Ok(bytes)) => {
                        sent += bytes;
                        if sent == out.len() {
                            return std::task::Poll::Ready(true);
                        }
                    }
                    std::task::Poll::Ready(Err(_)) => return std::task::Poll::Ready(false),
                    std::task::Poll::Pending => return std::task::Poll::Pending,
                }
            }
        });
        deadline.within(writing).await.unwrap_or(false)
    }
}

pub(super) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
