//! A question over HTTP/2 without TLS, begun without asking (RFC 9113, section 3.3): what services that speak nothing
//! else can be asked. One request, of which the status counts; the frames are written and read here, because the probe
//! is a machine of its own and a runtime would be its larger part.

/// The path of gRPC's own health service; a check of it asks as gRPC does, and wants to hear that the server serves
/// (grpc.health.v1).
const GRPC: &str = "/grpc.health.v1.Health/Check";

/// A message without fields: not compressed, no bytes. Asks about the server as a whole.
const GRPC_QUESTION: [u8; 5] = [0; 5];

/// `status: SERVING`.
const GRPC_SERVING: [u8; 7] = [0, 0, 0, 0, 2, 0x08, 0x01];

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// We allow no larger one, as nothing else was agreed (RFC 9113, section 4.2).
const FRAME_BYTES_MAX: usize = 16_384;
const FRAME_HEADER_BYTES: usize = 9;

/// All frames that come before the answer: settings, a window, perhaps a ping.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The only stream.
const STREAM: u32 = 1;

/// Everything that is sent to ask.
pub(super) fn question(port: u16, path: &str) -> Vec<u8> {
    let is_grpc = path == GRPC;
    // Fields by their numbers in the table that everybody has (RFC 7541, appendix A), values as they are.
    let mut fields = vec![if is_grpc { 0x83 } else { 0x82 }, 0x86];
    let mut put = |name: &[u8], value: &str| {
        fields.extend_from_slice(name);
        put_text(&mut fields, value);
    };
    put(&[0x01], &format!("localhost:{port}"));
    put(&[0x04], path);
    put(&[0x0f, 58 - 15], "fairway-probe");
    if is_grpc {
        put(&[0x0f, 31 - 15], "application/grpc");
        put(b"\0\x02te", "trailers");
    }
    let mut bytes = PREFACE.to_vec();
    put_frame(&mut bytes, SETTINGS, 0, 0, &[]);
    let ends = if is_grpc { 0 } else { END_STREAM };
    put_frame(&mut bytes, HEADERS, END_HEADERS | ends, STREAM, &fields);
    if is_grpc {
        put_frame(&mut bytes, DATA, END_STREAM, STREAM, &GRPC_QUESTION);
    }
    bytes
}

/// Tells the server that it may close.
pub(super) fn goodbye() -> Vec<u8> {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, GOAWAY, 0, 0, &[0; 8]);
    bytes
}

/// What all that has come says; `None` when that is not enough yet.
pub(super) fn verdict(mut bytes: &[u8], path: &str) -> Option<Result<(), String>> {
    let broken = |why: &str| Some(Err(why.to_owned()));
    let mut is_first = true;
    loop {
        // Told from the first bytes: what speaks something else may say little, and wait.
        if is_first && bytes.len() > 3 && bytes[3] != SETTINGS {
            return broken("the answer is not HTTP/2");
        }
        let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
        let [a, b, c, kind, flags, id @ ..] = *header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let id = u32::from_be_bytes(id) & 0x7fff_ffff;
        if length > FRAME_BYTES_MAX {
            return broken("the answer is not HTTP/2");
        }
        let payload = rest.get(..length)?;
        bytes = &rest[length..];
        is_first = false;
        match (kind, id) {
            (HEADERS, STREAM) => match unpadded(payload, flags).and_then(status) {
                Some(100..=199) => {}
                Some(200) if path == GRPC && flags & END_STREAM == 0 => {}
                Some(200) if path == GRPC => return broken("answers without a health status"),
                Some(200..=399) => return Some(Ok(())),
                Some(status) => return Some(Err(format!("answers {status}"))),
                None => return broken("the answer has no status that can be read"),
            },
            // Of one frame: a message of two bytes is not split.
            (DATA, STREAM) if path == GRPC => match unpadded(payload, flags)? {
                [] => {}
                answer if answer.starts_with(&GRPC_SERVING) => return Some(Ok(())),
                _ => return broken("says that it does not serve"),
            },
            (RESET, STREAM) => return broken("the request was reset"),
            (GOAWAY, 0) => return broken("the connection was ended without an answer"),
            // Settings, windows and pings need no answer for as long as one request takes.
            _ => {}
        }
    }
}

fn put_frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

/// A string with its length before it (RFC 7541, section 5.2).
fn put_text(bytes: &mut Vec<u8>, text: &str) {
    const PREFIX_MAX: usize = 0x7f;
    if text.len() < PREFIX_MAX {
        bytes.push(text.len() as u8);
    } else {
        bytes.push(PREFIX_MAX as u8);
        let mut left = text.len() - PREFIX_MAX;
        while left >= 0x80 {
            bytes.push(left as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
    }
    bytes.extend_from_slice(text.as_bytes());
}

fn unpadded(mut payload: &[u8], flags: u8) -> Option<&[u8]> {
    if flags & PADDED != 0 {
        let (padding, rest) = payload.split_first()?;
        payload = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
    }
    if flags & PRIORITY != 0 {
        payload = payload.get(5..)?;
    }
    Some(payload)
}

/// The status is the first of the fields (RFC 9113, section 8.3), behind changes of the table's size.
fn status(mut fields: &[u8]) -> Option<u16> {
    while let [size, rest @ ..] = fields
        && size & 0xe0 == 0x20
    {
        fields = rest;
        if size & 0x1f == 0x1f {
            let last = fields.iter().position(|byte| byte & 0x80 == 0)?;
            fields = &fields[last + 1..];
        }
    }
    let (first, rest) = fields.split_first()?;
    let name = match first {
        0x80.. => {
            return [200, 204, 206, 304, 400, 404, 500]
                .get(usize::from(first & 0x7f).checked_sub(8)?)
                .copied();
        }
        0x40.. => first & 0x3f,
        _ => first & 0x0f,
    };
    if !(8..=14).contains(&name) {
        return None;
    }
    let (length, value) = rest.split_first()?;
    let value = value.get(..usize::from(length & 0x7f))?;
    let digits = if length & 0x80 == 0 { value.to_vec() } else { unfolded(value)? };
    if digits.len() != 3 {
        return None;
    }
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

/// Three digits of the code of RFC 7541, appendix B: 0, 1 and 2 are five bits, the others six.
fn unfolded(bytes: &[u8]) -> Option<Vec<u8>> {
    let [a, b, rest @ ..] = bytes else { return None };
    let mut bits = u32::from_be_bytes([*a, *b, rest.first().copied().unwrap_or(0xff), 0xff]);
    let mut digits = Vec::new();
    while digits.len() < 3 {
        let (digit, length) = match (bits >> 27, bits >> 26) {
            (short @ 0..=2, _) => (short, 5),
            (_, long @ 0x19..=0x1f) => (long - 0x19 + 3, 6),
            _ => return None,
        };
        digits.push(b'0' + digit as u8);
        bits = bits << length | ((1 << length) - 1);
    }
    Some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(frames: &[(u8, u8, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, flags, stream, payload) in frames {
            put_frame(&mut bytes, *kind, *flags, *stream, payload);
        }
        bytes
    }

    fn says(fields: &[u8]) -> Result<(), String> {
        let bytes =
            frames(&[(SETTINGS, 0, 0, &[0; 6]), (SETTINGS, 1, 0, &[]), (HEADERS, END_HEADERS, 1, fields)]);
        for short in 0..bytes.len() {
            assert_eq!(verdict(&bytes[..short], "/"), None, "{short}");
        }
        verdict(&bytes, "/").unwrap()
    }

    #[test]
    fn a_status_is_read_however_it_is_written() {
        assert_eq!(says(&[0x88]), Ok(()));
        assert_eq!(says(&[0x20, 0x3f, 0xe1, 0x1f, 0x89]), Ok(()), "behind the table's sizes");
        assert_eq!(says(b"\x48\x03302"), Ok(()));
        assert_eq!(says(b"\x08\x03503"), Err("answers 503".to_owned()));
        // RFC 7541, C.6.1: 302; C.6.2: 307.
        assert_eq!(says(&[0x48, 0x82, 0x64, 0x02]), Ok(()));
        assert_eq!(says(&[0x48, 0x83, 0x64, 0x0e, 0xff]), Ok(()));
        assert_eq!(says(&[0x8d]), Err("answers 404".to_owned()));
        for unreadable in
            [&[][..], &[0x82], &[0x48], &[0x48, 0x82, 0x64], &[0x48, 0x81, 0xff], b"\x08\x022x", &[0xff]]
        {
            assert_eq!(says(unreadable), Err("the answer has no status that can be read".to_owned()));
        }
    }

    #[test]
    fn what_is_no_answer_says_what_it_is() {
        let why = |bytes: &[u8]| verdict(bytes, "/").unwrap().unwrap_err();
        assert_eq!(why(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "the answer is not HTTP/2");
        assert_eq!(why(b"\xff\0\0\x04\0\0\0\0\0"), "the answer is not HTTP/2");
        let settings = (SETTINGS, 0, 0, &[][..]);
        assert_eq!(why(&frames(&[settings, (RESET, 0, 1, &[0; 4])])), "the request was reset");
        assert_eq!(
            why(&frames(&[settings, (GOAWAY, 0, 0, &[0; 8])])),
            "the connection was ended without an answer"
        );
    }

    #[test]
    fn a_head_may_be_padded_and_come_behind_an_early_one() {
        let settings = (SETTINGS, 0, 0, &[][..]);
        let early = (HEADERS, END_HEADERS, 1, &b"\x08\x03103"[..]);
        assert_eq!(verdict(&frames(&[settings, early]), "/"), None);
        let padded = (HEADERS, END_HEADERS | PADDED | PRIORITY, 1, &[2, 0, 0, 0, 0, 16, 0x88, 0, 0][..]);
        assert_eq!(verdict(&frames(&[settings, early, padded]), "/"), Some(Ok(())));
    }

    #[test]
    fn the_health_service_of_grpc_must_say_that_it_serves() {
        let says = |answer: &[(u8, u8, u32, &[u8])]| {
            verdict(&frames(&[&[(SETTINGS, 0, 0, &[][..])], answer].concat()), GRPC)
        };
        let head = (HEADERS, END_HEADERS, 1, &[0x88][..]);
        assert_eq!(says(&[head]), None);
        assert_eq!(says(&[head, (DATA, 0, 1, &GRPC_SERVING)]), Some(Ok(())));
        assert!(says(&[head, (DATA, 0, 1, &[0, 0, 0, 0, 2, 8, 2])]).unwrap().is_err());
        assert!(says(&[(HEADERS, END_HEADERS | END_STREAM, 1, &[0x88])]).unwrap().is_err());
    }

    #[test]
    fn a_long_path_is_written_with_a_long_length() {
        let mut bytes = Vec::new();
        put_text(&mut bytes, &"x".repeat(1337 + 127));
        assert_eq!(bytes[..3], [0x7f, 0xb9, 0x0a]);
        assert_eq!(bytes.len(), 3 + 1337 + 127);
    }
}
