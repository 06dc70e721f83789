use super::field::{
    ConnectionOptions, Decimal, Field, Lines, content_length, has_token, is_nominated, write,
};
use super::request::{HeaderStorage, MinorVersion};
use super::{Body, Chunked};
use crate::policy::coding::Packing;
use crate::policy::etag;
use crate::policy::headers::{self, Change};

/// Why an instance's answer is not passed on; the client gets 502.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    #[error("the response head is malformed")]
    Head,
    #[error("the response has no unambiguous length")]
    Framing,
    #[error("the response body is malformed from its beginning")]
    Body,
    #[error("the instance switched protocols without being asked to")]
    Upgrade,
}

/// Where the body of a response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delimiter {
    /// No body, whatever the header says: HEAD, 1xx, 204, 304.
    None,
    Length(u64),
    Chunked,
    Close,
}

impl Delimiter {
    #[must_use]
    pub fn body(self) -> Body {
        match self {
            Self::None => Body::Done,
            Self::Length(bytes) => Body::length(bytes),
            Self::Chunked => Body::Chunked(Chunked::default()),
            Self::Close => Body::UntilClose,
        }
    }
}

/// A response head that passed every check.
#[derive(Debug)]
pub struct ResponseHead<'h, 'b> {
    pub status: u16,
    pub reason: &'b str,
    pub delimiter: Delimiter,
    /// The instance leaves the connection open for another request.
    pub keep_alive: bool,
    /// Whether it may go on for as long as somebody listens: events, or messages of gRPC.
    pub(crate) is_stream: bool,
    content_length: Option<u64>,
    upgrade: Option<&'b [u8]>,
    options: ConnectionOptions,
    bytes: &'b [u8],
    pub(crate) headers: &'h [httparse::Header<'b>],
}

/// How the response is passed on to the client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply<'a> {
    pub version: MinorVersion,
    /// The client's connection stays open afterwards.
    pub keep_alive: bool,
    /// Complete header lines.
    pub added: &'a [u8],
    /// `added` holds an `x-request-id`, so the instance's is dropped.
    pub request_id: &'a [u8],
    pub changes: &'a [Change],
    pub packing: Packing,
}

impl Reply<'_> {
    /// Whether a field of the instance's is left out for something of ours.
    fn drops(&self, name: &str) -> bool {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let packed = match self.packing {
            Packing::Never => false,
            Packing::Varies => is("vary"),
            Packing::Unchanged => is("vary") || is("etag"),
            // A part of a packed body is no part of the body that was meant.
            Packing::With(_) => is("vary") || is("accept-ranges") || is("etag"),
        };
        packed || self.changes.iter().any(|change| change.drops(name))
    }
}

fn changes_drop(reply: &Reply<'_>, name: &str) -> bool {
    reply.changes.iter().any(|change| change.drops(name))
}

impl<'h, 'b> ResponseHead<'h, 'b> {
    /// `method` is that of the request: it decides whether there is a body.
    ///
    /// # Errors
    /// When the answer cannot be trusted.
    pub fn parse(
        head: &'b [u8],
        storage: &'h mut HeaderStorage<'b>,
        method: &str,
    ) -> Result<Self, BadResponse> {
        let mut parsed = httparse::Response::new(&mut []);
        let done = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut parsed, head, storage)
            .is_ok_and(|status| status.is_complete());
        let (true, Some(status), Some(version)) = (done, parsed.code, parsed.version) else {
            return Err(BadResponse::Head);
        };
        if status < 100 {
            return Err(BadResponse::Head);
        }
        let headers: &'h [httparse::Header<'b>] = parsed.headers;
        let (mut length, mut coding, mut upgrade) = (None, None, None);
        let mut is_stream = false;
        let mut options = ConnectionOptions::default();
        for header in headers {
            let field = Field::of(header.name);
            if field == Field::ContentLength {
                let value = content_length(header.value).ok_or(BadResponse::Framing)?;
                if length.replace(value).is_some() {
                    return Err(BadResponse::Framing);
                }
            } else if field == Field::TransferEncoding {
                if coding.replace(header.value).is_some() {
                    return Err(BadResponse::Framing);
                }
            } else if field == Field::Connection {
                options.read(header.value);
            } else if field == Field::Upgrade {
                upgrade = Some(header.value);
            } else if field == Field::ContentType {
                is_stream |= header.value.starts_with(b"text/event-stream")
                    || header.value.starts_with(b"application/grpc");
            }
        }
        let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        let delimiter = match (length, coding) {
            (Some(_), Some(_)) => return Err(BadResponse::Framing),
            (_, Some(coding)) if version == 0 || !coding.eq_ignore_ascii_case(b"chunked") => {
                return Err(BadResponse::Framing);
            }
            (_, _) if bodiless => Delimiter::None,
            (None, Some(_)) => Delimiter::Chunked,
            (Some(bytes), None) => Delimiter::Length(bytes),
            (None, None) => Delimiter::Close,
        };
        let keep_alive =
            !options.close && (version == 1 || options.keep_alive) && delimiter != Delimiter::Close;
        Ok(Self {
            status,
            reason: parsed.reason.unwrap_or_default(),
            delimiter,
            keep_alive,
            is_stream,
            content_length: length,
            upgrade,
            options,
            bytes: head,
            headers,
        })
    }

    /// What it says about the length of a body, whether there is one or not.
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// Tells caches that the answer depends on what the client accepts.
    fn write_vary(&self, line: &mut impl FnMut(&[&[u8]]), reply: &Reply<'_>) {
        let mut says_so = reply.changes.iter().any(Change::varies_by_encoding);
        if !changes_drop(reply, "vary") {
            for value in self.named("vary") {
                says_so |= has_token(value, "accept-encoding") || has_token(value, "*");
                line(&[b"vary: ", value, b"\r\n"]);
            }
        }
        // Also where the route says what they depend on: that they are compressed is our doing.
        if !says_so {
            line(&[b"vary: accept-encoding\r\n"]);
        }
    }

    /// The tag of what the client gets, or has already: not that of the service's own bytes.
    fn write_etag(&self, line: &mut impl FnMut(&[&[u8]]), reply: &Reply<'_>) {
        if let Some(etag) = self.header("etag").filter(|_| !changes_drop(reply, "etag")) {
            line(&[b"etag: ", &etag::marked(etag), b"\r\n"]);
        }
    }

    /// Writes the head for the client.
    pub(crate) fn write(&self, out: &mut Vec<u8>, reply: &Reply<'_>) {
        let digits = [self.status / 100, self.status / 10 % 10, self.status % 10].map(|d| b'0' + (d as u8));
        write(out, &[b"HTTP/1.1 ", &digits, b" ", self.reason.as_bytes(), b"\r\n"]);
        let mut lines = Lines::of(self.bytes);
        for header in self.headers {
            let keep = match Field::of(header.name) {
                Field::ContentLength
                | Field::TransferEncoding
                | Field::Connection
                | Field::HopByHop
                | Field::Upgrade => false,
                Field::RequestId => reply.request_id.is_empty(),
                Field::Host
                | Field::Expect
                | Field::Cookie
                | Field::TraceParent
                | Field::TraceState
                | Field::ForwardedFor
                | Field::ForwardedProto
                | Field::ForwardedHost
                | Field::ForwardedOther
                | Field::ContentType
                | Field::Mirror
                | Field::Condition
                | Field::Other => true,
            };
            if keep
                && !reply.drops(header.name)
                && !(self.options.nominates && is_nominated(self.headers, header.name))
            {
                lines.keep(header, out);
            }
        }
        lines.flush(out);
        let mut line = |parts: &[&[u8]]| write(out, parts);
        if self.status >= 200 {
            for added in headers::kept(reply.added, reply.changes) {
                line(&[added]);
            }
            for change in reply.changes {
                let has = |name: &str| self.header(name).is_some() || headers::holds(reply.added, name);
                line(&[change.line(has)]);
            }
            match reply.packing {
                Packing::Never => {}
                Packing::Varies => self.write_vary(&mut line, reply),
                Packing::With(coding) => {
                    self.write_vary(&mut line, reply);
                    self.write_etag(&mut line, reply);
                    line(&[b"content-encoding: ", coding.name().as_bytes(), b"\r\n"]);
                }
                Packing::Unchanged => {
                    self.write_vary(&mut line, reply);
                    self.write_etag(&mut line, reply);
                }
            }
            let delimiter = match (reply.packing, self.delimiter) {
                (Packing::With(_), Delimiter::Length(_)) => Delimiter::Chunked,
                (_, delimiter) => delimiter,
            };
            match (delimiter, reply.version) {
                // What a HEAD or 304 says about the length describes the body that is not there, unless that would be
                // compressed.
                (Delimiter::None, _) => match self.content_length {
                    Some(bytes) if self.status != 204 && !matches!(reply.packing, Packing::With(_)) => {
                        line(&[b"content-length: ", Decimal::of(bytes).as_bytes(), b"\r\n"]);
                    }
                    Some(_) | None => {}
                },
                (Delimiter::Length(bytes), _) => {
                    line(&[b"content-length: ", Decimal::of(bytes).as_bytes(), b"\r\n"]);
                }
                (Delimiter::Chunked | Delimiter::Close, MinorVersion::One) => {
                    line(&[b"transfer-encoding: chunked\r\n"]);
                }
                (Delimiter::Chunked | Delimiter::Close, MinorVersion::Zero) => {}
            }
        }
        match (self.status, self.upgrade, reply.keep_alive, reply.version) {
            (101, Some(protocol), _, _) => {
                line(&[b"connection: upgrade\r\nupgrade: ", protocol, b"\r\n"]);
            }
            (100..=199, _, _, _) => {}
            (_, _, false, _) => line(&[b"connection: close\r\n"]),
            (_, _, true, MinorVersion::Zero) => line(&[b"connection: keep-alive\r\n"]),
            (_, _, true, MinorVersion::One) => {}
        }
        line(&[b"\r\n"]);
    }
}
