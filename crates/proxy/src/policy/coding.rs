//! Which answers are compressed, and how.

use super::etag;
use crate::codec::{Delimiter, RequestHead, ResponseHead, has_token, header_storage};
use crate::snapshot::Compress;

/// A way to compress that clients know (RFC 9110, 8.4.1; RFC 7932; RFC 8878).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The client's favourite; of those that it likes alike the one that costs least for what it saves. `None`: the
    /// answer is to come as it is.
    /// `accept_encoding`: each line of that name; together they are one list (RFC 9110, 5.3).
    pub(crate) fn preferred<'a>(accept_encoding: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Self> {
        let weight_of = |name: &str| {
            let mut any = None;
            for part in accept_encoding.clone().flat_map(|line| line.split(|b| *b == b',')) {
                let mut pieces = part.split(|b| *b == b';');
                let token = pieces.next().unwrap_or_default().trim_ascii();
                let weight = pieces.find_map(weight).unwrap_or(1_000);
                if token.eq_ignore_ascii_case(name.as_bytes())
                    || (name == "gzip" && token.eq_ignore_ascii_case(b"x-gzip"))
                {
                    return weight;
                }
                if token == b"*" {
                    any = Some(weight);
                }
            }
            any.unwrap_or(0)
        };
        let known = [Self::Zstd, Self::Brotli, Self::Gzip].map(|coding| (weight_of(coding.name()), coding));
        let best = known.iter().map(|(weight, _)| *weight).max().filter(|weight| *weight > 0)?;
        known.iter().find(|(weight, _)| *weight == best).map(|(_, coding)| *coding)
    }
}

/// `q=0.5` in thousandths.
fn weight(parameter: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(parameter.trim_ascii()).ok()?;
    let value = text.strip_prefix("q=").or_else(|| text.strip_prefix("Q="))?;
    let value: f32 = value.trim().parse().ok()?;
    // What is out of range is no weight; the cast is of 0 to 1,000.
    Some(if (0.0..=1.0).contains(&value) { (value * 1_000.0) as u32 } else { 0 })
}

/// What is worth compressing.
#[derive(Debug)]
pub(crate) struct Compressible {
    min_bytes: u64,
    /// In lower case.
    types: Vec<String>,
}

/// What compression means for one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// The answer is none that is ever compressed.
    Never,
    /// Others would get it compressed: caches must know.
    Varies,
    /// 304 to a client that has it compressed.
    Unchanged,
    With(Coding),
}

/// What an answer's head says about compressing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Compressible,
    /// Of a type that is not worth it, or not to be touched.
    Other,
    /// It has no type.
    Unsaid,
}

impl Compressible {
    pub(crate) fn of(settings: &Compress) -> Self {
        let types = settings.types.iter().map(|one| one.to_ascii_lowercase()).collect();
        Self { min_bytes: settings.min_bytes, types }
    }

    /// `request`: the head of what was asked.
    pub(crate) fn packing(
        &self,
        head: &ResponseHead<'_, '_>,
        request: &[u8],
        wanted: Option<Coding>,
    ) -> Packing {
        let length = match head.delimiter {
            Delimiter::None if head.status == 304 => return self.unchanged(head, request, wanted),
            Delimiter::None if head.status == 204 => return Packing::Never,
            // To HEAD: what a GET would be answered (RFC 9110, 9.3.2).
            Delimiter::None => head.content_length(),
            Delimiter::Length(bytes) => Some(bytes),
            Delimiter::Chunked | Delimiter::Close => None,
        };
        let known_small = length.is_some_and(|bytes| bytes == 0 || bytes < self.min_bytes);
        if known_small || head.status == 206 || head.is_stream {
            return Packing::Never;
        }
        match (self.kind(head), wanted) {
            (Kind::Other | Kind::Unsaid, _) => Packing::Never,
            (Kind::Compressible, None) => Packing::Varies,
            (Kind::Compressible, Some(coding)) => Packing::With(coding),
        }
    }

    /// A 304 has the tag and the `vary` that the whole answer would have (RFC 9110, 15.4.5), or a cache could not tell
    /// which of its answers still holds. Whether that would be compressed is seldom in it: what the client has says it.
    fn unchanged(&self, head: &ResponseHead<'_, '_>, request: &[u8], wanted: Option<Coding>) -> Packing {
        if self.kind(head) == Kind::Other {
            return Packing::Never;
        }
        let Some(etag) = head.named("etag").next() else { return Packing::Varies };
        let mut storage = header_storage();
        let Ok(asked) = RequestHead::parse(request, &mut storage) else { return Packing::Varies };
        let mut known = asked.named("if-none-match").peekable();
        let is_packed = match known.peek() {
            Some(_) => known.any(|tags| etag::holds_marked(tags, etag)),
            // By the date alone: in doubt the weaker promise.
            None => wanted.is_some(),
        };
        if is_packed { Packing::Unchanged } else { Packing::Varies }
    }

    fn kind(&self, head: &ResponseHead<'_, '_>) -> Kind {
        let mut kind = Kind::Unsaid;
        for header in head.headers {
            let name = header.name;
            if name.eq_ignore_ascii_case("content-encoding") || name.eq_ignore_ascii_case("content-range") {
                return Kind::Other;
            }
            if name.eq_ignore_ascii_case("cache-control") && has_token(header.value, "no-transform") {
                return Kind::Other;
            }
            if name.eq_ignore_ascii_case("content-type") {
                kind = if self.has(header.value) { Kind::Compressible } else { Kind::Other };
            }
        }
        kind
    }

    fn has(&self, content_type: &[u8]) -> bool {
        let essence = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let Ok(essence) = std::str::from_utf8(essence) else { return false };
        self.types.iter().any(|wanted| is_of(essence, wanted))
    }
}

/// `text/*` holds all of a kind, `application/*+json` all with that ending.
fn is_of(essence: &str, wanted: &str) -> bool {
    match wanted.split_once('*') {
        None => essence.eq_ignore_ascii_case(wanted),
        Some((start, end)) => {
            let (bytes, long) = (essence.as_bytes(), essence.len() > start.len() + end.len());
            long && bytes[..start.len()].eq_ignore_ascii_case(start.as_bytes())
                && bytes[bytes.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::header_storage;

    #[test]
    fn the_client_chooses() {
        let check = |accept: &str, expect: Option<Coding>| {
            let lines = accept.split('|').map(str::as_bytes);
            assert_eq!(Coding::preferred(lines), expect, "{accept}");
        };
        check("", None);
        check("identity", None);
        check("gzip", Some(Coding::Gzip));
        check("x-gzip", Some(Coding::Gzip));
        check("gzip, deflate, br, zstd", Some(Coding::Zstd));
        check("gzip, deflate, br", Some(Coding::Brotli));
        check("br;q=0.5, gzip;q=0.8", Some(Coding::Gzip));
        check("gzip;q=0, br;q=0", None);
        check("*", Some(Coding::Zstd));
        check("zstd;q=0, *;q=0.1", Some(Coding::Brotli));
        check("gzip;q=2", None);
        check("GZIP ; Q=1", Some(Coding::Gzip));
        check(";;;,,q=,*;q=x", Some(Coding::Zstd));
        check("identity|br", Some(Coding::Brotli));
        check("gzip;q=0.5|br;q=0.4, zstd;q=0", Some(Coding::Gzip));
    }

    #[test]
    fn what_is_worth_it() {
        let usual = Compressible::of(&Compress {
            min_bytes: 1_000,
            types: vec!["text/*".into(), "application/*+json".into(), "Application/JSON".into()],
        });
        let check = |fields: &str, expect: Packing| {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            let mut storage = header_storage();
            let head = ResponseHead::parse(text.as_bytes(), &mut storage, "GET").unwrap();
            assert_eq!(usual.packing(&head, b"", Some(Coding::Gzip)), expect, "{fields}");
        };
        let with = Packing::With(Coding::Gzip);
        check("content-type: text/html; charset=utf-8\r\n", with);
        check("Content-Type: TEXT/CSS\r\ncontent-length: 1000\r\n", with);
        check("content-type: text/css\r\ncontent-length: 999\r\n", Packing::Never);
        check("content-type: application/problem+json\r\n", with);
        check("content-type: application/json\r\n", with);
        check("content-type: application/+json\r\n", Packing::Never);
        check("content-type: image/png\r\n", Packing::Never);
        check("content-type: text/\r\n", Packing::Never);
        check("", Packing::Never);
        check("content-type: text/html\r\ncontent-encoding: br\r\n", Packing::Never);
        check("content-type: text/html\r\ncache-control: public, No-Transform\r\n", Packing::Never);
        check("content-type: text/event-stream\r\n", Packing::Never);
    }

    #[test]
    fn what_a_304_is_about() {
        let usual = Compressible::of(&Compress { min_bytes: 0, types: vec!["text/*".into()] });
        let check = |fields: &str, conditions: &str, wanted, expect: Packing| {
            let text = format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n");
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{conditions}\r\n");
            let mut storage = header_storage();
            let head = ResponseHead::parse(text.as_bytes(), &mut storage, "GET").unwrap();
            let found = usual.packing(&head, request.as_bytes(), wanted);
            assert_eq!(found, expect, "{fields:?} {conditions:?}");
        };
        let (tag, gzip) = ("etag: \"v1\"\r\n", Some(Coding::Gzip));
        let (packed, plain) = ("If-None-Match: W/\"v1~fw\"\r\n", "If-None-Match: \"v1\"\r\n");
        check(tag, packed, gzip, Packing::Unchanged);
        // It has the plain one from before, or sees no use in a compressed one any more.
        check(tag, plain, gzip, Packing::Varies);
        check(tag, packed, None, Packing::Unchanged);
        check(tag, &format!("If-None-Match: \"v0\"\r\n{packed}"), gzip, Packing::Unchanged);
        check(tag, "If-None-Match: W/\"v0~fw\"\r\n", gzip, Packing::Varies);
        check(tag, "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", gzip, Packing::Unchanged);
        check(tag, "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", None, Packing::Varies);
        check("", packed, gzip, Packing::Varies);
        check(&format!("{tag}content-type: text/css\r\n"), packed, gzip, Packing::Unchanged);
        check(&format!("{tag}content-type: image/png\r\n"), packed, gzip, Packing::Never);
        check(&format!("{tag}cache-control: no-transform\r\n"), packed, gzip, Packing::Never);
    }
}
