//! Reads one HTTP/1 response, fed in pieces. Does no IO. Bodies are counted and dropped.
//! Framing follows RFC 9112 section 6.3; what is ambiguous there is refused, because a
//! client that guesses would hide a proxy's mistake.

use crate::failure::{Cause, Phase};

/// A proxy's own limit is at most 64 KiB (nginx and HAProxy default to 8 to 16 KiB).
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 128;

/// A chunk size line is up to 16 hex digits and an extension that nobody uses; a trailer
/// line is a header.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// Which response headers the run wants to see.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) version_header: String,
    pub(crate) id_header: String,
}

/// What is kept of a response head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) version: Option<String>,
    pub(crate) id: Option<String>,
    keep_alive: bool,
}

impl Head {
    /// Of HTTP/2, where connections do not end with an answer.
    pub(crate) fn of_h2(head: &http::response::Parts, wanted: &Wanted) -> Head {
        let header = |name: &str| {
            head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Head {
            status: head.status.as_u16(),
            version: header(&wanted.version_header),
            id: header(&wanted.id_header),
            keep_alive: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Collecting head bytes.
    Head,
    Length {
        left: u64,
    },
    ChunkSize,
    ChunkData {
        left: u64,
    },
    /// The CRLF that ends a chunk's data.
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

#[derive(Debug)]
pub(crate) struct ResponseReader {
    state: State,
    raw_head: Vec<u8>,
    line: Vec<u8>,
    head: Option<Head>,
    /// Body bytes after removing the chunk framing.
    body_bytes: u64,
    length: Option<u64>,
}

impl ResponseReader {
    pub(crate) fn new() -> ResponseReader {
        ResponseReader {
            state: State::Head,
            raw_head: Vec::with_capacity(1024),
            line: Vec::new(),
            head: None,
            body_bytes: 0,
            length: None,
        }
    }

    pub(crate) fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The head as it came, complete or not; empty when nothing has come.
    pub(crate) fn raw_head(&self) -> &[u8] {
        &self.raw_head
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// After a complete response: may the connection carry another request?
    pub(crate) fn keeps_alive(&self) -> bool {
        self.is_done() && self.head.as_ref().is_some_and(|head| head.keep_alive)
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.state {
            State::Head => Phase::Head,
            State::Length { .. }
            | State::ChunkSize
            | State::ChunkData { .. }
            | State::ChunkEnd
            | State::Trailers
            | State::UntilClose
            | State::Done => Phase::Body,
        }
    }

    /// The connection ended in order. `Ok` when that completes the response.
    pub(crate) fn end(&mut self, reused: bool) -> Result<(), Cause> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Head if self.raw_head.is_empty() => Err(Cause::Closed { reused }),
            State::Head
            | State::Length { .. }
            | State::ChunkSize
            | State::ChunkData { .. }
            | State::ChunkEnd
            | State::Trailers => Err(Cause::Truncated {
                phase: self.phase(),
                body_bytes: self.body_bytes,
                expected_bytes: self.length,
            }),
        }
    }

    /// Takes the next bytes. Bytes after the end of the response are an error: nothing was
    /// asked that they could answer.
    pub(crate) fn feed(&mut self, mut input: &[u8], wanted: &Wanted) -> Result<(), Cause> {
        while !input.is_empty() {
            let taken = match self.state {
                State::Head => self.feed_head(input, wanted)?,
                State::Length { left } => {
                    let taken = take(input, left);
                    let left = left - taken as u64;
                    self.body_bytes += taken as u64;
                    self.state = if left == 0 { State::Done } else { State::Length { left } };
                    taken
                }
                State::ChunkSize => self.feed_line(input, ResponseReader::chunk_size)?,
                State::ChunkData { left } => {
                    let taken = take(input, left);
                    let left = left - taken as u64;
                    self.body_bytes += taken as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData { left } };
                    taken
                }
                State::ChunkEnd => self.feed_line(input, |reader, line| match line {
                    [] => {
                        reader.state = State::ChunkSize;
                        Ok(())
                    }
                    _ => Err(malformed("no line end after a chunk's data")),
                })?,
                State::Trailers => self.feed_line(input, |reader, line| {
                    if line.is_empty() {
                        reader.state = State::Done;
                    }
                    Ok(())
                })?,
                State::UntilClose => {
                    self.body_bytes += input.len() as u64;
                    input.len()
                }
                State::Done => return Err(malformed("bytes after the end of the response")),
            };
            input = &input[taken..];
        }
        Ok(())
    }

    /// Takes bytes up to the end of the head and parses it there. Returns how many.
    fn feed_head(&mut self, input: &[u8], wanted: &Wanted) -> Result<usize, Cause> {
        let before = self.raw_head.len();
        let room = HEAD_BYTES_MAX - before;
        self.raw_head.extend_from_slice(&input[..input.len().min(room)]);

        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut headers);
        let head_len = match parsed.parse(&self.raw_head) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if self.raw_head.len() < HEAD_BYTES_MAX => return Ok(input.len()),
            Ok(httparse::Status::Partial) => return Err(malformed("response head above 64 KiB")),
            Err(error) => return Err(malformed(&format!("response head: {error}"))),
        };
        let (head, framing, length) = read_head(&parsed, wanted)?;
        let taken = head_len - before;
        // 1xx: an interim response, the real one follows on the same connection.
        let Some(framing) = framing else {
            self.raw_head.clear();
            return Ok(taken);
        };
        self.raw_head.truncate(head_len);
        self.head = Some(head);
        self.state = framing;
        self.length = length;
        Ok(taken)
    }

    /// Takes bytes up to and with the next LF, and hands the line without its CRLF on.
    fn feed_line(
        &mut self,
        input: &[u8],
        complete: impl FnOnce(&mut ResponseReader, &[u8]) -> Result<(), Cause>,
    ) -> Result<usize, Cause> {
        let newline = input.iter().position(|b| *b == b'\n');
        let taken = newline.map_or(input.len(), |at| at + 1);
        if self.line.len() + taken > LINE_BYTES_MAX {
            return Err(malformed("chunk or trailer line above 8 KiB"));
        }
        self.line.extend_from_slice(&input[..taken]);
        if newline.is_some() {
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r\n").ok_or_else(|| malformed("chunk line ends without CR"))?;
            complete(self, line)?;
        }
        Ok(taken)
    }

    fn chunk_size(&mut self, line: &[u8]) -> Result<(), Cause> {
        let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let size = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .ok_or_else(|| malformed(&format!("chunk size {:?}", String::from_utf8_lossy(line))))?;
        self.state = if size == 0 { State::Trailers } else { State::ChunkData { left: size } };
        Ok(())
    }
}

fn take(input: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(input.len(), |left| left.min(input.len()))
}

fn malformed(what: &str) -> Cause {
    Cause::Malformed { what: what.to_owned() }
}

/// The state that reads the body, or `None` for an interim response; and the body's length.
type Framing = (Head, Option<State>, Option<u64>);

fn read_head(parsed: &httparse::Response<'_, '_>, wanted: &Wanted) -> Result<Framing, Cause> {
    let status = parsed.code.ok_or_else(|| malformed("no status"))?;
    let mut head = Head { status, version: None, id: None, keep_alive: parsed.version == Some(1) };
    let (mut length, mut chunked) = (None, false);
    for header in &*parsed.headers {
        let text = || String::from_utf8_lossy(header.value).trim().to_owned();
        let named = |name: &str| header.name.eq_ignore_ascii_case(name);
        if named("content-length") {
            let value = text();
            let parsed: u64 = Some(&value)
                .filter(|value| value.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|value| value.parse().ok())
                .ok_or_else(|| malformed(&format!("content-length {value:?}")))?;
            if length.is_some_and(|earlier| earlier != parsed) {
                return Err(malformed("two different content-lengths"));
            }
            length = Some(parsed);
        } else if named("transfer-encoding") {
            if chunked || !text().eq_ignore_ascii_case("chunked") {
                return Err(malformed(&format!("transfer-encoding {:?}", text())));
            }
            chunked = true;
        } else if named("connection") {
            for token in text().split(',').map(str::trim) {
                if token.eq_ignore_ascii_case("close") {
                    head.keep_alive = false;
                } else if token.eq_ignore_ascii_case("keep-alive") && parsed.version == Some(0) {
                    head.keep_alive = true;
                }
            }
        }
        // Not in the chain above: either may be any header, even one of those.
        if named(&wanted.version_header) {
            head.version = Some(text());
        }
        if named(&wanted.id_header) {
            head.id = Some(text());
        }
    }
    if chunked && length.is_some() {
        return Err(malformed("both content-length and transfer-encoding"));
    }
    let framing = match status {
        101 => return Err(malformed("101 without an upgrade request")),
        100..=199 => None,
        204 | 304 => Some(State::Done),
        _ if chunked => Some(State::ChunkSize),
        _ => Some(match length {
            Some(0) => State::Done,
            Some(left) => State::Length { left },
            None => {
                head.keep_alive = false;
                State::UntilClose
            }
        }),
    };
    Ok((head, framing, length))
}

#[cfg(test)]
mod tests;
