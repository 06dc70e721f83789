//! What a request asks for beside its path: an encoding, a condition, a part.

use std::ops::Range;

use axum::http::{HeaderMap, header};

/// How a file is packed, best first: what packs best is sent of those that the client likes equally.
pub(super) const ENCODINGS: [(&str, &str); 3] = [("br", ".br"), ("zstd", ".zst"), ("gzip", ".gz")];

/// The index into [`ENCODINGS`] of the best one that is there (by `has`) and that the client takes.
pub(super) fn encoding(headers: &HeaderMap, has: impl Fn(&str) -> bool) -> Option<usize> {
    let weight = |name: &str| {
        let mut of_star = 0;
        for item in items(headers, header::ACCEPT_ENCODING) {
            let (coding, weight) = weighted(item);
            if coding.eq_ignore_ascii_case(name) || (name == "gzip" && coding.eq_ignore_ascii_case("x-gzip"))
            {
                return weight;
            }
            if coding == "*" {
                of_star = weight;
            }
        }
        of_star
    };
    let offered = ENCODINGS.iter().enumerate().filter(|(_, (_, ending))| has(ending));
    let weighed = offered.map(|(index, (name, _))| (index, weight(name))).filter(|(_, weight)| *weight > 0);
    // Of equal ones `max_by_key` takes the last.
    weighed.rev().max_by_key(|(_, weight)| *weight).map(|(index, _)| index)
}

/// `gzip;q=0.5` with its weight in thousandths; one that cannot be read counts as refused.
fn weighted(item: &str) -> (&str, u32) {
    let mut parts = item.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    for part in parts {
        let Some((key, value)) = part.split_once('=') else { continue };
        if key.trim().eq_ignore_ascii_case("q") {
            let weight: f64 = value.trim().parse().unwrap_or(0.0);
            // Out of range becomes the end of the range, and NaN zero.
            return (name, (weight.clamp(0.0, 1.0) * 1000.0) as u32);
        }
    }
    (name, 1000)
}

/// What the conditions of a request say about a representation with this ETag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Holds,
    /// The client has it: 304.
    NotModified,
    /// 412.
    Failed,
}

/// RFC 9110, section 13.2.2. There is no date of last modification (that of a tree is the time of its deploy), so
/// conditions on dates are not evaluated.
pub(super) fn condition(headers: &HeaderMap, etag: &str) -> Condition {
    if headers.contains_key(header::IF_MATCH)
        && !items(headers, header::IF_MATCH).any(|item| item == "*" || item == etag)
    {
        return Condition::Failed;
    }
    let weak = |item: &str| item == "*" || item.strip_prefix("W/").unwrap_or(item) == etag;
    if items(headers, header::IF_NONE_MATCH).any(weak) { Condition::NotModified } else { Condition::Holds }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Of(Range<u64>),
    /// 416.
    Unsatisfiable,
}

/// One range of bytes, if the file is still the one that the client has a part of. Several at once may be answered
/// with the whole (RFC 9110, section 14.2), and are: they are rare, and a known way to have a server do much for
/// little.
pub(super) fn part(headers: &HeaderMap, etag: &str, bytes: u64) -> Part {
    let mut values = headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (values.next(), values.next()) else { return Part::Whole };
    if headers.get(header::IF_RANGE).is_some_and(|condition| condition.as_bytes() != etag.as_bytes()) {
        return Part::Whole;
    }
    let Some((unit, range)) = range.to_str().ok().and_then(|range| range.split_once('=')) else {
        return Part::Whole;
    };
    let Some((first, last)) = range.trim().split_once('-') else { return Part::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Part::Whole;
    }
    let (first, last) = (position(first), position(last));
    match (first, last) {
        (Position::Absent, Position::At(suffix)) => {
            if suffix == 0 || bytes == 0 {
                Part::Unsatisfiable
            } else {
                Part::Of(bytes.saturating_sub(suffix)..bytes)
            }
        }
        (Position::At(first), Position::At(last)) if last < first => Part::Whole,
        (Position::At(first), Position::Absent | Position::At(_)) if first >= bytes => Part::Unsatisfiable,
        (Position::At(first), Position::At(last)) => Part::Of(first..last.saturating_add(1).min(bytes)),
        (Position::At(first), Position::Absent) => Part::Of(first..bytes),
        (Position::Absent, Position::Absent) | (Position::Invalid, _) | (_, Position::Invalid) => Part::Whole,
    }
}

#[derive(Clone, Copy)]
enum Position {
    Absent,
    At(u64),
    Invalid,
}

fn position(text: &str) -> Position {
    if text.is_empty() {
        Position::Absent
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Beyond what a number holds is beyond the end of every file.
        Position::At(text.parse().unwrap_or(u64::MAX))
    } else {
        Position::Invalid
    }
}

/// What a page loads by itself says so in browsers of today.
const PARTS_OF_A_PAGE: [&str; 13] = [
    "audio",
    "audioworklet",
    "embed",
    "font",
    "image",
    "manifest",
    "object",
    "script",
    "serviceworker",
    "sharedworker",
    "style",
    "track",
    "worker",
];

/// Does somebody visit a place, or does a page load a part of itself? `ending` is that of the path, if it has one.
pub(super) fn is_visit(headers: &HeaderMap, ending: Option<&str>) -> bool {
    let destination = headers.get("sec-fetch-dest").and_then(|value| value.to_str().ok());
    if destination.is_some_and(|destination| PARTS_OF_A_PAGE.contains(&destination)) {
        return false;
    }
    let mut says_nothing = true;
    let mut takes_anything = false;
    for item in items(headers, header::ACCEPT) {
        says_nothing = false;
        let (kind, weight) = weighted(item);
        if weight > 0 && (kind == "text/html" || kind == "application/xhtml+xml") {
            return true;
        }
        takes_anything |= weight > 0 && kind == "*/*";
    }
    ending.is_none() && (says_nothing || takes_anything)
}

/// The items of a list header, which may be written in several lines. Quoted commas are not expected: an ETag of ours
/// has none.
fn items(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    type List = [(&'static str, &'static str)];

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        list.iter().map(pair).collect()
    }

    #[test]
    fn the_best_encoding_that_is_there_and_taken() {
        let all: &[&str] = &[".br", ".zst", ".gz"];
        let cases: [(&str, &[&str], Option<&str>); 14] = [
            ("gzip, deflate, br, zstd", all, Some("br")),
            ("gzip, deflate, br, zstd", &[".zst", ".gz"], Some("zstd")),
            ("gzip", all, Some("gzip")),
            ("x-gzip", all, Some("gzip")),
            ("GZIP", all, Some("gzip")),
            ("br;q=0.5, gzip", all, Some("gzip")),
            ("br;q=0, *", all, Some("zstd")),
            ("*;q=0", all, None),
            ("identity", all, None),
            ("", all, None),
            ("br;q=0", &[".br"], None),
            ("br;q=x", &[".br"], None),
            ("br;q=NaN", &[".br"], None),
            ("br", &[], None),
        ];
        for (accept, there, expected) in cases {
            let headers = headers(&[("accept-encoding", accept)]);
            let found = encoding(&headers, |ending| there.contains(&ending)).map(|index| ENCODINGS[index].0);
            assert_eq!(found, expected, "{accept}");
        }
        assert_eq!(encoding(&HeaderMap::new(), |_| true), None);
    }

    #[test]
    fn a_range_is_a_part_the_whole_or_unsatisfiable() {
        let cases = [
            ("bytes=0-9", 100, Part::Of(0..10)),
            ("bytes=90-", 100, Part::Of(90..100)),
            ("bytes=90-1000", 100, Part::Of(90..100)),
            ("bytes=-10", 100, Part::Of(90..100)),
            ("bytes=-1000", 100, Part::Of(0..100)),
            ("Bytes=0-0", 1, Part::Of(0..1)),
            ("bytes=0-18446744073709551615", 100, Part::Of(0..100)),
            ("bytes=0-99999999999999999999999", 100, Part::Of(0..100)),
            ("bytes=100-", 100, Part::Unsatisfiable),
            ("bytes=18446744073709551615-", 100, Part::Unsatisfiable),
            ("bytes=-0", 100, Part::Unsatisfiable),
            ("bytes=0-", 0, Part::Unsatisfiable),
            ("bytes=-1", 0, Part::Unsatisfiable),
            ("bytes=5-4", 100, Part::Whole),
            ("bytes=0-1,5-6", 100, Part::Whole),
            ("bytes=-", 100, Part::Whole),
            ("bytes=+1-2", 100, Part::Whole),
            ("bytes=a-b", 100, Part::Whole),
            ("bytes", 100, Part::Whole),
            ("lines=0-1", 100, Part::Whole),
        ];
        for (range, bytes, expected) in cases {
            assert_eq!(part(&headers(&[("range", range)]), "\"e\"", bytes), expected, "{range} of {bytes}");
        }
        let with = |if_range| part(&headers(&[("range", "bytes=0-1"), ("if-range", if_range)]), "\"e\"", 9);
        assert_eq!(with("\"e\""), Part::Of(0..2));
        for other in ["\"f\"", "W/\"e\"", "Sat, 21 Nov 2026 00:00:00 GMT", "e"] {
            assert_eq!(with(other), Part::Whole, "{other}");
        }
    }

    #[test]
    fn conditions_in_the_order_of_the_standard() {
        let cases: [(&List, Condition); 10] = [
            (&[], Condition::Holds),
            (&[("if-none-match", "\"e\"")], Condition::NotModified),
            (&[("if-none-match", "W/\"e\"")], Condition::NotModified),
            (&[("if-none-match", "\"a\", \"e\"")], Condition::NotModified),
            (&[("if-none-match", "*")], Condition::NotModified),
            (&[("if-none-match", "\"a\"")], Condition::Holds),
            (&[("if-match", "\"e\"")], Condition::Holds),
            (&[("if-match", "W/\"e\"")], Condition::Failed),
            (&[("if-match", "\"a\""), ("if-none-match", "\"e\"")], Condition::Failed),
            (&[("if-modified-since", "Sat, 21 Nov 2026 00:00:00 GMT")], Condition::Holds),
        ];
        for (list, expected) in cases {
            assert_eq!(condition(&headers(list), "\"e\""), expected, "{list:?}");
        }
    }

    #[test]
    fn a_visit_is_told_from_a_part_of_a_page() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let cases: [(&List, Option<&str>, bool); 10] = [
            (&[], None, true),
            (&[], Some("png"), false),
            (&[("accept", browser)], None, true),
            (&[("accept", browser)], Some("doe"), true),
            (&[("accept", "*/*")], None, true),
            (&[("accept", "*/*")], Some("doe"), false),
            (&[("accept", "application/json")], None, false),
            (&[("accept", "text/html;q=0")], None, false),
            (&[("accept", "*/*"), ("sec-fetch-dest", "script")], None, false),
            (&[("accept", browser), ("sec-fetch-dest", "document")], None, true),
        ];
        for (list, ending, expected) in cases {
            assert_eq!(is_visit(&headers(list), ending), expected, "{list:?} {ending:?}");
        }
    }
}
