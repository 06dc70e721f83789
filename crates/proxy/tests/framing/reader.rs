//! Messages as a reader takes them that accepts one reading only. What it calls ambiguous, two servers can take in two
//! ways.

/// A message, as far as it came.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub first_line: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<String>,
}

/// Where the reader is with the bytes that it has.
#[derive(Debug)]
pub enum Read {
    /// A message, and where it ends.
    Whole(Message, usize),
    /// A head, and a body that is not all there.
    Part(Message),
    /// No complete head.
    Nothing,
}

/// Of which kind a message is, and how it can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Request,
    Answer { to_head: bool },
}

impl Message {
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn status(&self) -> u16 {
        self.first_line.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// Reads one message from the front. `is_end`: nothing follows the bytes.
pub fn read(bytes: &[u8], kind: Kind, is_end: bool) -> Result<Read, String> {
    let mut at = 0;
    let mut message = Message::default();
    loop {
        let Some(line) = line(bytes, &mut at)? else { return Ok(Read::Nothing) };
        if message.first_line.is_empty() {
            message.first_line = first_line(line, kind)?;
        } else if line.is_empty() {
            break;
        } else {
            message.fields.push(field(line)?);
        }
    }
    let hosts = message.all("host").count();
    if kind == Kind::Request && hosts != 1 {
        return Err(format!("{hosts} times Host"));
    }
    let lengths: Vec<&str> = message.all("content-length").collect();
    let codings: Vec<&str> = message.all("transfer-encoding").collect();
    let length = match (&lengths[..], &codings[..]) {
        ([], [] | ["chunked"]) => None,
        ([one], []) if one.len() < 20 && one.bytes().all(|b| b.is_ascii_digit()) && !one.is_empty() => {
            one.parse::<usize>().ok()
        }
        (_, _) => return Err(format!("Content-Length {lengths:?} and Transfer-Encoding {codings:?}")),
    };
    let is_chunked = !codings.is_empty();
    let until_end = match kind {
        Kind::Request => false,
        Kind::Answer { to_head } if to_head || matches!(message.status(), 100..=199 | 204 | 304) => {
            return Ok(Read::Whole(message, at));
        }
        Kind::Answer { .. } => length.is_none() && !is_chunked,
    };
    let rest = &bytes[at..];
    if is_chunked {
        return chunks(rest, message, at);
    }
    if until_end {
        message.body = rest.to_vec();
        return Ok(if is_end { Read::Whole(message, bytes.len()) } else { Read::Part(message) });
    }
    let length = length.unwrap_or(0);
    if rest.len() < length {
        message.body = rest.to_vec();
        return Ok(Read::Part(message));
    }
    message.body = rest[..length].to_vec();
    Ok(Read::Whole(message, at + length))
}

/// A line without its end.
fn line<'b>(bytes: &'b [u8], at: &mut usize) -> Result<Option<&'b [u8]>, String> {
    let Some(end) = bytes[*at..].iter().position(|b| *b == b'\n') else { return Ok(None) };
    let line = &bytes[*at..*at + end];
    *at += end + 1;
    let line = line.strip_suffix(b"\r").ok_or("a line ends without CR")?;
    if line.iter().any(|b| (*b < b' ' && *b != b'\t') || *b == 0x7f) {
        return Err(format!("control characters in {:?}", String::from_utf8_lossy(line)));
    }
    Ok(Some(line))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn first_line(line: &[u8], kind: Kind) -> Result<String, String> {
    let text = String::from_utf8_lossy(line).into_owned();
    let parts: Vec<&str> = text.split(' ').collect();
    let good = match (kind, &parts[..]) {
        (Kind::Request, [method, target, version]) => {
            let is_target = target.starts_with('/') || *target == "*" || target.starts_with("http://");
            is_token(method) && is_target && ["HTTP/1.1", "HTTP/1.0"].contains(version)
        }
        (Kind::Answer { .. }, ["HTTP/1.1" | "HTTP/1.0", status, ..]) => {
            status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit())
        }
        (_, _) => false,
    };
    if good { Ok(text) } else { Err(format!("the first line {text:?}")) }
}

fn field(line: &[u8]) -> Result<(String, String), String> {
    let text = String::from_utf8_lossy(line).into_owned();
    let (name, value) = text.split_once(':').ok_or_else(|| format!("no colon in {text:?}"))?;
    if is_token(name) {
        Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
    } else {
        Err(format!("the name {name:?}"))
    }
}

fn chunks(bytes: &[u8], mut message: Message, head: usize) -> Result<Read, String> {
    let mut at = 0;
    loop {
        let Some(size) = line(bytes, &mut at)? else { return Ok(Read::Part(message)) };
        let size = String::from_utf8_lossy(size).into_owned();
        if size.is_empty() || size.len() > 15 || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("the chunk size {size:?}"));
        }
        let size = usize::from_str_radix(&size, 16).map_err(|error| error.to_string())?;
        if size == 0 {
            break;
        }
        let rest = &bytes[at..];
        message.body.extend_from_slice(&rest[..size.min(rest.len())]);
        if rest.len() < size + 2 {
            return Ok(Read::Part(message));
        }
        if &rest[size..size + 2] != b"\r\n" {
            return Err("a chunk does not end where its size says".to_owned());
        }
        at += size + 2;
    }
    loop {
        let Some(line) = line(bytes, &mut at)? else { return Ok(Read::Part(message)) };
        if line.is_empty() {
            return Ok(Read::Whole(message, head + at));
        }
        message.trailers.push(field(line)?.0);
    }
}

#[test]
fn the_reader_takes_one_reading_only() {
    let request = |text: &str| read(text.as_bytes(), Kind::Request, false);
    let whole = |text: &str| matches!(request(text), Ok(Read::Whole(_, end)) if end == text.len());
    assert!(whole("GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
    assert!(whole("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab"));
    assert!(whole(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx: y\r\n\r\n"
    ));
    for ambiguous in [
        "GET / HTTP/1.1\nhost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;x\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
    ] {
        assert!(request(ambiguous).is_err(), "{ambiguous:?}");
    }
}
