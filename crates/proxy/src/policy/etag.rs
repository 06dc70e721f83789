//! Entity tags of answers that we compress.
//!
//! The bytes of a compressed answer depend on how it arrived, so a strong tag would promise what does not hold (RFC 9110,
//! 8.8.1): a client or a cache could put parts of two answers together. nginx makes such a tag weak, and with it every
//! `If-Match` of a client that edits what it has read fails. Caddy and Apache add the coding to the tag and leave it
//! strong. Here it becomes weak and carries a mark: `"v1"` is `W/"v1~fw"`, and what a client sends back with the mark
//! reaches the service as the `"v1"` that it gave out, in `If-Match` as well as in `If-None-Match`. `If-Range` is left
//! alone: a part of what the service has is no part of what the client has, and a weak tag never matches there.

use std::borrow::Cow;

/// Before the closing quote. No server known to us ends its tags like that.
const MARK: &[u8] = b"~fw\"";

/// The tag of what we made of an answer with this tag. One that is weak holds for both, and one that is none is the
/// service's own affair: it would not know it again.
pub(crate) fn marked(etag: &[u8]) -> Cow<'_, [u8]> {
    match etag {
        [b'"', opaque @ .., b'"'] if !opaque.contains(&b'"') => {
            Cow::Owned([b"W/\"".as_slice(), opaque, MARK].concat())
        }
        _ => Cow::Borrowed(etag),
    }
}

/// A list of tags as the service knows them.
pub(crate) fn unmarked(list: &[u8]) -> Cow<'_, [u8]> {
    if !list.windows(MARK.len()).any(|bytes| bytes == MARK) {
        return Cow::Borrowed(list);
    }
    let mut out = Vec::with_capacity(list.len());
    let mut rest = list;
    while let Some((before, tag, after)) = next_tag(rest) {
        out.extend_from_slice(before);
        match tag.strip_prefix(b"W/").and_then(|tag| tag.strip_suffix(MARK)) {
            Some(opened) => {
                out.extend_from_slice(opened);
                out.push(b'"');
            }
            None => out.extend_from_slice(tag),
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// Whether the list holds the mark of this tag, as whoever got the compressed answer sends it.
pub(crate) fn holds_marked(list: &[u8], etag: &[u8]) -> bool {
    let marked = marked(etag);
    let mut rest = list;
    while let Some((_, tag, after)) = next_tag(rest) {
        if tag == &*marked {
            return true;
        }
        rest = after;
    }
    false
}

/// What is before the first tag, the tag, and what is behind it. Tags may hold commas.
fn next_tag(list: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let open = list.iter().position(|b| *b == b'"')?;
    let close = open + 1 + list[open + 1..].iter().position(|b| *b == b'"')?;
    let start = if list[..open].ends_with(b"W/") { open - 2 } else { open };
    Some((&list[..start], &list[start..=close], &list[close + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_back_as_it_was() {
        for tag in ["\"v1\"", "\"\"", "\"a,b\"", "\"a;gzip\"", "\"~f\"", "\"\u{e9}\""] {
            let marked = marked(tag.as_bytes());
            assert!(marked.starts_with(b"W/\"") && marked.ends_with(MARK), "{tag}");
            assert_eq!(&*unmarked(&marked), tag.as_bytes());
            assert!(holds_marked(&marked, tag.as_bytes()));
            assert!(!holds_marked(tag.as_bytes(), tag.as_bytes()));
        }
        for tag in ["W/\"v1\"", "v1", "\"v1", "", "\"", "\"a\"b\""] {
            assert_eq!(&*marked(tag.as_bytes()), tag.as_bytes());
            assert_eq!(&*unmarked(tag.as_bytes()), tag.as_bytes());
        }
    }

    #[test]
    fn lists_keep_all_but_the_marks() {
        let check = |list: &str, expect: &str| {
            assert_eq!(String::from_utf8_lossy(&unmarked(list.as_bytes())), expect, "{list}");
        };
        check("*", "*");
        check("W/\"v1~fw\"", "\"v1\"");
        check("\"a\", W/\"b~fw\" ,W/\"c\"", "\"a\", \"b\" ,W/\"c\"");
        check("W/\"a,b~fw\",W/\"~fw\"", "\"a,b\",\"\"");
        // Not ours: strong, or cut off.
        check("\"v1~fw\"", "\"v1~fw\"");
        check("W/\"v1~fw", "W/\"v1~fw");
        check("~fw\" W/\"a", "~fw\" W/\"a");
        check("W/\"a~fw\", \"b", "\"a\", \"b");
    }
}
