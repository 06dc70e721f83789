/// Which fields a head has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Present(u32);

impl Present {
    pub(crate) fn add(&mut self, field: Field) {
        self.0 |= 1 << field as u32;
    }

    pub(crate) fn has(self, field: Field) -> bool {
        self.0 & 1 << field as u32 != 0
    }
}

/// Header fields that mean something to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    /// `Keep-Alive`, `Proxy-Connection`, `TE`, `Trailer`, `HTTP2-Settings`, `Proxy-Authenticate` and
    /// `Proxy-Authorization`: for one hop only, and of no use to us.
    HopByHop,
    Upgrade,
    Expect,
    Cookie,
    RequestId,
    TraceParent,
    /// Only meaningful together with `traceparent`.
    TraceState,
    ForwardedFor,
    ForwardedProto,
    ForwardedHost,
    /// Others that claim something about the path before us: `Forwarded`, `X-Forwarded-Prefix`, `X-Real-IP`.
    ForwardedOther,
    ContentType,
    /// `X-Fairway-Mirror`: marks a copy of a request.
    Mirror,
    /// `If-Match` and `If-None-Match`: tags that a client got from us may not be those that the service gave.
    Condition,
    Other,
}

impl Field {
    pub(crate) fn of(name: &str) -> Self {
        let name = name.as_bytes();
        match name.len() {
            2 if is(name, b"te") => Self::HopByHop,
            4 if is(name, b"host") => Self::Host,
            6 if is(name, b"cookie") => Self::Cookie,
            6 if is(name, b"expect") => Self::Expect,
            7 if is(name, b"upgrade") => Self::Upgrade,
            7 if is(name, b"trailer") => Self::HopByHop,
            8 if is(name, b"if-match") => Self::Condition,
            9 if is(name, b"x-real-ip") => Self::ForwardedOther,
            9 if is(name, b"forwarded") => Self::ForwardedOther,
            10 if is(name, b"connection") => Self::Connection,
            10 if is(name, b"keep-alive") => Self::HopByHop,
            10 if is(name, b"tracestate") => Self::TraceState,
            11 if is(name, b"traceparent") => Self::TraceParent,
            12 if is(name, b"content-type") => Self::ContentType,
            12 if is(name, b"x-request-id") => Self::RequestId,
            13 if is(name, b"if-none-match") => Self::Condition,
            14 if is(name, b"content-length") => Self::ContentLength,
            14 if is(name, b"http2-settings") => Self::HopByHop,
            15 if is(name, b"x-forwarded-for") => Self::ForwardedFor,
            16 if is(name, b"x-forwarded-host") => Self::ForwardedHost,
            16 if is(name, b"x-fairway-mirror") => Self::Mirror,
            16 if is(name, b"proxy-connection") => Self::HopByHop,
            17 if is(name, b"transfer-encoding") => Self::TransferEncoding,
            17 if is(name, b"x-forwarded-proto") => Self::ForwardedProto,
            18 if is(name, b"x-forwarded-prefix") => Self::ForwardedOther,
            18 if is(name, b"proxy-authenticate") => Self::HopByHop,
            19 if is(name, b"proxy-authorization") => Self::HopByHop,
            _ => Self::Other,
        }
    }
}

/// Whether a name is this one, in whatever case. One bit makes the case of letters, and nothing else that a token may
/// hold (RFC 9110, 5.6.2) becomes a letter, a digit or a dash by it; so names are compared by the word.
fn is<const BYTES: usize>(name: &[u8], lowercase: &[u8; BYTES]) -> bool {
    const CASE: u8 = 0x20;
    let Ok(name) = <&[u8; BYTES]>::try_from(name) else { return false };
    let ((words, rest), (like_words, like_rest)) = (name.as_chunks::<8>(), lowercase.as_chunks::<8>());
    let ((halves, rest), (like_halves, like_rest)) = (rest.as_chunks::<4>(), like_rest.as_chunks::<4>());
    let word = |word: &[u8; 8]| u64::from_ne_bytes(*word) | u64::from_ne_bytes([CASE; 8]);
    let half = |half: &[u8; 4]| u32::from_ne_bytes(*half) | u32::from_ne_bytes([CASE; 4]);
    words.iter().zip(like_words).all(|(a, b)| word(a) == u64::from_ne_bytes(*b))
        && halves.iter().zip(like_halves).all(|(a, b)| half(a) == u32::from_ne_bytes(*b))
        && rest.iter().zip(like_rest).all(|(a, b)| a | CASE == *b)
}

/// Whether servers that know names only with underscores (RFC 3875, 4.1.18; CGI and its heirs, WSGI and PHP among them)
/// take this name for that of a field which is not passed on as it came.
pub(crate) fn is_alias(name: &str) -> bool {
    if super::head::find(name.as_bytes(), b'_').is_none() {
        return false;
    }
    // The longest name that means something to us has fewer.
    let mut plain = [0; 32];
    let Some(plain) = plain.get_mut(..name.len()) else { return false };
    for (to, from) in plain.iter_mut().zip(name.bytes()) {
        *to = if from == b'_' { b'-' } else { from };
    }
    match std::str::from_utf8(plain).map(Field::of) {
        Ok(
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
            | Field::ForwardedOther
            | Field::Mirror,
        ) => true,
        Ok(
            Field::Cookie
            | Field::TraceParent
            | Field::TraceState
            | Field::ContentType
            | Field::Condition
            | Field::Other,
        )
        | Err(_) => false,
    }
}

/// Elements of a comma-separated list, trimmed, empty ones skipped.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

pub(crate) fn has_token(value: &[u8], token: &str) -> bool {
    tokens(value).any(|found| found.eq_ignore_ascii_case(token.as_bytes()))
}

/// What `Connection` header lines say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ConnectionOptions {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
    /// Other names are listed: those header lines are for this hop only.
    pub nominates: bool,
}

impl ConnectionOptions {
    pub(crate) fn read(&mut self, value: &[u8]) {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.nominates = true;
            }
        }
    }
}

/// Whether a `Connection` line of this head lists `name`.
pub(crate) fn is_nominated(headers: &[httparse::Header<'_>], name: &str) -> bool {
    headers
        .iter()
        .filter(|header| Field::of(header.name) == Field::Connection)
        .any(|header| has_token(header.value, name))
}

#[inline]
pub(crate) fn write(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Neighbouring header lines that are passed on as they came, in one piece each time.
#[derive(Debug)]
pub(crate) struct Lines<'b> {
    head: &'b [u8],
    kept: std::ops::Range<usize>,
}

impl<'b> Lines<'b> {
    /// Of a head that was checked: its lines hold nothing that could be read in two ways.
    pub(crate) fn of(head: &'b [u8]) -> Self {
        Self { head, kept: 0..0 }
    }

    /// Keeps a line of this head. What was kept before and is no neighbour of it is written.
    pub(crate) fn keep(&mut self, header: &httparse::Header<'b>, out: &mut Vec<u8>) {
        let at = |part: &[u8]| (part.as_ptr() as usize).wrapping_sub(self.head.as_ptr() as usize);
        let start = at(header.name.as_bytes());
        let end = at(header.value).wrapping_add(header.value.len());
        if self.kept.end > 0 && self.head.get(self.kept.end..start) == Some(b"\r\n") {
            self.kept.end = end;
        } else {
            self.flush(out);
            self.kept = start..end;
        }
    }

    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) {
        if let Some(lines @ [_, ..]) = self.head.get(self.kept.clone()) {
            out.extend_from_slice(lines);
            out.extend_from_slice(b"\r\n");
        }
        self.kept = 0..0;
    }
}

/// A number in decimal digits, as a header value has it, without an allocation.
#[derive(Debug)]
pub(crate) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(crate) fn of(mut number: u64) -> Self {
        // 2^64 has 20 digits.
        let mut decimal = Self { digits: [b'0'; 20], start: 20 };
        loop {
            decimal.start -= 1;
            decimal.digits[decimal.start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return decimal;
            }
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// Strictly digits, as RFC 9110, section 8.6 has it; no sign, no list, no white space within.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    // 19 digits always fit into 64 bits, and no body is longer.
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0u64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + u64::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_in_any_case_and_with_no_other_character_in_it() {
        let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        for known in ["x-request-id", "http2-settings", "te"] {
            let field = Field::of(known);
            assert_ne!(field, Field::Other);
            assert_eq!(Field::of(&known.to_ascii_uppercase()), field);
            for at in 0..known.len() {
                for other in (0..=127).filter(token) {
                    let mut name = known.as_bytes().to_vec();
                    name[at] = other;
                    let name = String::from_utf8(name).unwrap();
                    let expected = if name.eq_ignore_ascii_case(known) { field } else { Field::Other };
                    assert_eq!(Field::of(&name), expected, "{name}");
                }
            }
        }
    }

    #[test]
    fn numbers_are_written_as_they_are() {
        for number in [0, 7, 10, 1_024, 65_536, u64::MAX] {
            assert_eq!(Decimal::of(number).as_bytes(), number.to_string().as_bytes());
        }
    }
}
