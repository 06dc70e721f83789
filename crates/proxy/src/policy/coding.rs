//! Which answers are compressed, and how.

use crate::codec::{Delimiter, ResponseHead, has_token};
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
    pub(crate) fn preferred(accept_encoding: &[u8]) -> Option<Self> {
        let weight_of = |name: &str| {
            let mut any = None;
            for part in accept_encoding.split(|b| *b == b',') {
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
    With(Coding),
}

impl Compressible {
    pub(crate) fn of(settings: &Compress) -> Self {
        let types = settings.types.iter().map(|one| one.to_ascii_lowercase()).collect();
        Self { min_bytes: settings.min_bytes, types }
    }

    pub(crate) fn packing(&self, head: &ResponseHead<'_, '_>, wanted: Option<Coding>) -> Packing {
        let length = match head.delimiter {
            Delimiter::None if matches!(head.status, 204 | 304) => return Packing::Never,
            // To HEAD: what a GET would be answered (RFC 9110, 9.3.2).
            Delimiter::None => head.content_length(),
            Delimiter::Length(bytes) => Some(bytes),
            Delimiter::Chunked | Delimiter::Close => None,
        };
        let known_small = length.is_some_and(|bytes| bytes == 0 || bytes < self.min_bytes);
        if known_small || head.status == 206 || head.is_stream() {
            return Packing::Never;
        }
        let mut is_type = false;
        for header in head.headers {
            let name = header.name;
            if name.eq_ignore_ascii_case("content-encoding") || name.eq_ignore_ascii_case("content-range") {
                return Packing::Never;
            }
            if name.eq_ignore_ascii_case("cache-control") && has_token(header.value, "no-transform") {
                return Packing::Never;
            }
            if name.eq_ignore_ascii_case("content-type") {
                is_type = self.has(header.value);
            }
        }
        match (is_type, wanted) {
            (false, _) => Packing::Never,
            (true, None) => Packing::Varies,
            (true, Some(coding)) => Packing::With(coding),
        }
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
            assert_eq!(Coding::preferred(accept.as_bytes()), expect, "{accept}");
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
            assert_eq!(usual.packing(&head, Some(Coding::Gzip)), expect, "{fields}");
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
}
