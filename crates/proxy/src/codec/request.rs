use std::mem::MaybeUninit;

use super::field::{
    ConnectionOptions, Decimal, Field, Lines, Present, content_length, has_token, is_alias, is_nominated,
    tokens, write,
};
use super::head::find;
use super::{Body, Chunked, HEADERS_MAX, Refusal};
use crate::policy::etag::unmarked;

/// Room for the header lines of one head, so that none of it is allocated.
pub type HeaderStorage<'b> = [MaybeUninit<httparse::Header<'b>>; HEADERS_MAX];

/// Room on the stack; not even cleared.
#[must_use]
pub fn header_storage<'b>() -> HeaderStorage<'b> {
    [const { MaybeUninit::uninit() }; HEADERS_MAX]
}

/// The x in HTTP/1.x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinorVersion {
    Zero,
    One,
}

/// How a request says where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    None,
    Known(u64),
    Chunked,
}

impl BodyLength {
    #[must_use]
    pub fn body(self) -> Body {
        match self {
            Self::None => Body::Done,
            Self::Known(bytes) => Body::length(bytes),
            Self::Chunked => Body::Chunked(Chunked::default()),
        }
    }
}

/// A request head that passed every check. Borrows the bytes that it was read from.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    pub method: &'b str,
    /// Path and query, or `*`.
    pub target: &'b str,
    /// With port if there was one; empty only for HTTP/1.0.
    pub host: &'b str,
    pub version: MinorVersion,
    pub length: BodyLength,
    /// The client wants the connection to stay open.
    pub keep_alive: bool,
    pub expects_continue: bool,
    /// Protocols that the client offers to switch to.
    pub upgrade: Option<&'b [u8]>,
    options: ConnectionOptions,
    present: Present,
    bytes: &'b [u8],
    pub(crate) headers: &'h [httparse::Header<'b>],
}

impl<'h, 'b> RequestHead<'h, 'b> {
    /// `head` is a complete head as [`super::HeadScan`] found it.
    ///
    /// # Errors
    /// The refusal with its status.
    pub fn parse(head: &'b [u8], storage: &'h mut HeaderStorage<'b>) -> Result<Self, Refusal> {
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, storage) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(Refusal::Bad("the head is incomplete")),
            Err(error) => return Err(refusal_of(error, head)),
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Refusal::Bad("the request line is incomplete"));
        };
        let headers: &'h [httparse::Header<'b>] = parsed.headers;
        let version = if version == 0 { MinorVersion::Zero } else { MinorVersion::One };
        let fields = Fields::read(headers)?;
        let length = fields.length(version)?;
        let (authority, target) = split_target(method, target)?;
        // RFC 9112, section 3.2.2: the authority of an absolute target replaces Host.
        let host = match (fields.host, authority) {
            (None, _) if version == MinorVersion::One => return Err(Refusal::Bad("Host is missing")),
            (_, Some(authority)) => authority,
            (Some(host), None) => host,
            (None, None) => "",
        };
        let expects_continue = match fields.expect {
            Some(value) if version == MinorVersion::One => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::Expectation);
                }
                length != BodyLength::None
            }
            Some(_) | None => false,
        };
        let upgrade = fields.upgrade.filter(|value| {
            // h2c over Upgrade would carry requests past every check here.
            version == MinorVersion::One
                && fields.options.upgrade
                && matches!(length, BodyLength::None | BodyLength::Known(0))
                && !has_token(value, "h2c")
        });
        let keep_alive = match version {
            MinorVersion::One => !fields.options.close,
            MinorVersion::Zero => fields.options.keep_alive && !fields.options.close,
        };
        Ok(Self {
            method,
            target,
            host,
            version,
            length,
            keep_alive,
            expects_continue,
            upgrade,
            options: fields.options,
            present: fields.present,
            bytes: head,
            headers,
        })
    }

    /// The path without the query.
    #[must_use]
    pub fn path(&self) -> &'b str {
        find(self.target.as_bytes(), b'?').map_or(self.target, |end| &self.target[..end])
    }

    /// The host without the port.
    #[must_use]
    pub fn host_name(&self) -> &'b str {
        host_name(self.host)
    }

    /// RFC 9110, section 9.2.1: whoever asks wants the answer, and nothing else.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
    }

    /// RFC 9110, section 9.2.2: repeating it has the effect of doing it once.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    pub(crate) fn field(&self, field: Field) -> Option<&'b [u8]> {
        if !self.present.has(field) {
            return None;
        }
        self.headers.iter().find(|header| Field::of(header.name) == field).map(|header| header.value)
    }

    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &'b [u8]> + Clone {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// First value of a cookie.
    pub(crate) fn cookie(&self, name: &str) -> Option<&'b [u8]> {
        self.headers
            .iter()
            .filter(|header| Field::of(header.name) == Field::Cookie)
            .flat_map(|header| header.value.split(|b| *b == b';'))
            .find_map(|pair| {
                let pair = pair.trim_ascii_start();
                pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::trim_ascii_end)
            })
    }

    /// Writes the head for the instance, with the header lines that `add` adds. Hop-by-hop fields are gone, framing is in
    /// one canonical form.
    pub(crate) fn write(&self, out: &mut Vec<u8>, forward: &Forward<'_>, add: impl FnOnce(&mut Vec<u8>)) {
        write(
            out,
            &[self.method.as_bytes(), b" ", forward.target_prefix.as_bytes(), forward.target.as_bytes()],
        );
        write(out, &[b" HTTP/1.1\r\nhost: ", forward.host.as_bytes(), b"\r\n"]);
        let mut lines = Lines::of(self.bytes);
        for header in self.headers {
            let field = Field::of(header.name);
            let keep = match field {
                Field::Host
                | Field::ContentLength
                | Field::TransferEncoding
                | Field::Connection
                | Field::HopByHop
                | Field::Upgrade
                | Field::Expect
                | Field::RequestId
                | Field::ForwardedFor
                | Field::ForwardedProto
                | Field::ForwardedHost
                | Field::ForwardedOther => false,
                Field::TraceParent | Field::TraceState => forward.keep_trace,
                Field::Mirror => forward.keep_mark,
                Field::Cookie | Field::ContentType | Field::Condition => true,
                Field::Other => !is_alias(header.name),
            };
            if keep && !(self.options.nominates && is_nominated(self.headers, header.name)) {
                if field == Field::Condition {
                    lines.flush(out);
                    write(out, &[header.name.as_bytes(), b": ", &unmarked(header.value), b"\r\n"]);
                } else {
                    lines.keep(header, out);
                }
            }
        }
        lines.flush(out);
        add(out);
        match self.length {
            BodyLength::None => {}
            BodyLength::Known(bytes) => {
                write(out, &[b"content-length: ", Decimal::of(bytes).as_bytes(), b"\r\n"])
            }
            BodyLength::Chunked => write(out, &[b"transfer-encoding: chunked\r\n"]),
        }
        if self.expects_continue {
            write(out, &[b"expect: 100-continue\r\n"]);
        }
        if let Some(protocols) = self.upgrade {
            write(out, &[b"connection: upgrade\r\nupgrade: ", protocols, b"\r\n"]);
        }
        write(out, &[b"\r\n"]);
    }
}

/// What a request head is written with.
#[derive(Debug)]
pub(crate) struct Forward<'a> {
    /// `/` when stripping a prefix left nothing before the query.
    pub target_prefix: &'a str,
    pub target: &'a str,
    pub host: &'a str,
    /// Whether the client's trace headers are passed on; otherwise a new trace is added.
    pub keep_trace: bool,
    /// Whether the mark of a copy is passed on. Services may hand it on to each other; a visitor who could set it could
    /// make a service leave out what it does only once.
    pub keep_mark: bool,
}

/// Fields that decide about framing and about the connection.
#[derive(Debug, Default)]
struct Fields<'b> {
    host: Option<&'b str>,
    content_length: Option<u64>,
    transfer_encoding: Option<&'b [u8]>,
    expect: Option<&'b [u8]>,
    upgrade: Option<&'b [u8]>,
    options: ConnectionOptions,
    present: Present,
}

impl<'b> Fields<'b> {
    fn read(headers: &[httparse::Header<'b>]) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        for header in headers {
            let field = Field::of(header.name);
            fields.present.add(field);
            match field {
                Field::Host => {
                    let host = host_value(header.value).ok_or(Refusal::Bad("Host is not a host name"))?;
                    if fields.host.replace(host).is_some() {
                        return Err(Refusal::Bad("Host is there twice"));
                    }
                }
                Field::ContentLength => {
                    let length =
                        content_length(header.value).ok_or(Refusal::Bad("Content-Length is not a number"))?;
                    if fields.content_length.replace(length).is_some() {
                        return Err(Refusal::Bad("Content-Length is there twice"));
                    }
                }
                Field::TransferEncoding => {
                    if fields.transfer_encoding.replace(header.value).is_some() {
                        return Err(Refusal::Bad("Transfer-Encoding is there twice"));
                    }
                }
                Field::Expect => {
                    if fields.expect.replace(header.value).is_some() {
                        return Err(Refusal::Expectation);
                    }
                }
                Field::Upgrade => {
                    if fields.upgrade.replace(header.value).is_some() {
                        return Err(Refusal::Bad("Upgrade is there twice"));
                    }
                }
                Field::Connection => fields.options.read(header.value),
                Field::HopByHop
                | Field::Cookie
                | Field::RequestId
                | Field::TraceParent
                | Field::TraceState
                | Field::ForwardedFor
                | Field::ForwardedProto
                | Field::ForwardedHost
                | Field::ForwardedOther
                | Field::ContentType
                | Field::Mirror
                | Field::Condition
                | Field::Other => {}
            }
        }
        // Who lists these wants us to read the message one way and the server behind us another.
        let dangerous = ["host", "content-length", "transfer-encoding"];
        if fields.options.nominates && dangerous.iter().any(|name| is_nominated(headers, name)) {
            return Err(Refusal::Bad("Connection lists a field that is not hop-by-hop"));
        }
        Ok(fields)
    }

    fn length(&self, version: MinorVersion) -> Result<BodyLength, Refusal> {
        let Some(coding) = self.transfer_encoding else {
            return Ok(self.content_length.map_or(BodyLength::None, BodyLength::Known));
        };
        if self.content_length.is_some() {
            return Err(Refusal::Bad("both Content-Length and Transfer-Encoding"));
        }
        if version == MinorVersion::Zero {
            return Err(Refusal::Bad("Transfer-Encoding in HTTP/1.0"));
        }
        if coding.eq_ignore_ascii_case(b"chunked") {
            return Ok(BodyLength::Chunked);
        }
        let chunked = tokens(coding).filter(|token| token.eq_ignore_ascii_case(b"chunked")).count();
        let last = tokens(coding).last().is_some_and(|token| token.eq_ignore_ascii_case(b"chunked"));
        Err(match (chunked, last) {
            (1, true) if tokens(coding).count() > 1 => {
                Refusal::NotImplemented("a transfer coding other than chunked")
            }
            (_, _) => Refusal::Bad("Transfer-Encoding does not end with one chunked"),
        })
    }
}

fn refusal_of(error: httparse::Error, head: &[u8]) -> Refusal {
    match error {
        httparse::Error::HeaderName => Refusal::Bad("a header name is malformed"),
        httparse::Error::HeaderValue => Refusal::Bad("a header value holds control characters"),
        httparse::Error::NewLine => Refusal::Bad("a line end is malformed"),
        httparse::Error::Status => Refusal::Bad("the status is malformed"),
        httparse::Error::Token => Refusal::Bad("the request line is malformed"),
        httparse::Error::TooManyHeaders => Refusal::HeadTooLarge,
        httparse::Error::Version if is_other_version(head) => Refusal::Version,
        httparse::Error::Version => Refusal::Bad("the protocol version is malformed"),
    }
}

/// `HTTP/` digit `.` digit at the end of the request line, but not one of ours.
fn is_other_version(head: &[u8]) -> bool {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let Some(at) = line.len().checked_sub(9) else { return false };
    match &line[at..] {
        [b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor] => {
            // Of ours it is the line before it that is wrong: a space too many.
            let is_ours = (*major, *minor) == (b'1', b'0') || (*major, *minor) == (b'1', b'1');
            major.is_ascii_digit() && minor.is_ascii_digit() && !is_ours
        }
        _ => false,
    }
}

/// Authority (of an absolute target) and path with query.
fn split_target<'b>(method: &str, target: &'b str) -> Result<(Option<&'b str>, &'b str), Refusal> {
    if method == "CONNECT" {
        return Err(Refusal::NotImplemented("CONNECT"));
    }
    if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(Refusal::Bad("the target holds characters that do not belong there"));
    }
    if target.starts_with('/') {
        return Ok((None, target));
    }
    if target == "*" {
        return match method {
            "OPTIONS" => Ok((None, target)),
            _ => Err(Refusal::Bad("the target * is for OPTIONS")),
        };
    }
    let rest = strip_scheme(target, "http://").or_else(|| strip_scheme(target, "https://"));
    let rest = rest.ok_or(Refusal::Bad("the target is neither a path nor an http URL"))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority =
        host_value(authority.as_bytes()).ok_or(Refusal::Bad("the target's host is not a host name"))?;
    match path.as_bytes().first() {
        None => Ok((Some(authority), "/")),
        Some(b'/') => Ok((Some(authority), path)),
        Some(_) => Err(Refusal::Bad("the target has a query but no path")),
    }
}

fn strip_scheme<'b>(target: &'b str, scheme: &str) -> Option<&'b str> {
    let head = target.get(..scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| &target[scheme.len()..])
}

/// `uri-host [":" port]`, with as few characters as host names, IPv4 and bracketed IPv6 addresses need.
fn host_value(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let name = host_name(text);
    let port = text[name.len()..].strip_prefix(':').unwrap_or_default();
    if text.len() > name.len() && (port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let good = match name.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').is_some_and(|address| {
            !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.')
        }),
        None => {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
        }
    };
    good.then_some(text)
}

fn host_name(host: &str) -> &str {
    let address_end = if host.starts_with('[') { host.find(']') } else { None };
    match address_end {
        Some(end) => &host[..=end],
        None => find(host.as_bytes(), b':').map_or(host, |end| &host[..end]),
    }
}
