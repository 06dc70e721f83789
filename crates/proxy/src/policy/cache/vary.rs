//! Which requests a kept answer is for, beyond their address (RFC 9111, 4.1).

use crate::codec::{RequestHead, ResponseHead, tokens};

/// Names in one `vary`. Who names more depends on everything.
const NAMES_MAX: usize = 16;

/// Fields of a request that an answer depends on, with the values that it was given for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Vary(Box<[Field]>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    /// In lower case.
    name: Box<str>,
    value: Box<[u8]>,
}

impl Vary {
    /// `None`: no other request may get the answer.
    pub(crate) fn of(answer: &ResponseHead<'_, '_>, request: &RequestHead<'_, '_>) -> Option<Self> {
        let mut names: Vec<Box<str>> = Vec::new();
        let mut add = |name: &[u8]| {
            let name = std::str::from_utf8(name).ok().filter(|name| *name != "*")?.to_ascii_lowercase();
            if !names.iter().any(|known| **known == *name) {
                names.push(name.into());
            }
            (names.len() <= NAMES_MAX).then_some(())
        };
        for header in answer.headers {
            if header.name.eq_ignore_ascii_case("vary") {
                for name in tokens(header.value) {
                    add(name)?;
                }
            }
            // Whoever packs and forgets to say that others would get it otherwise must not break others.
            if header.name.eq_ignore_ascii_case("content-encoding") {
                add(b"accept-encoding")?;
            }
        }
        let with_value = |name: Box<str>| {
            let value = value(&name, request).into();
            Field { name, value }
        };
        Some(Self(names.into_iter().map(with_value).collect()))
    }

    pub(crate) fn fits(&self, request: &RequestHead<'_, '_>) -> bool {
        self.0.iter().all(|field| *value(&field.name, request) == *field.value)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|field| field.name.len() + field.value.len() + size_of::<Field>()).sum()
    }
}

/// All lines as one list, without the white space that clients write differently.
fn value(name: &str, request: &RequestHead<'_, '_>) -> Vec<u8> {
    let mut out = Vec::new();
    for value in request.named(name) {
        for token in tokens(value) {
            out.extend_from_slice(token);
            out.push(b',');
        }
    }
    if name.starts_with("accept") {
        out.retain(|b| *b != b' ' && *b != b'\t');
        out.make_ascii_lowercase();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::header_storage;

    /// Whether an answer that says `vary`, given to `first`, may be given to `second`. `None`: to nobody.
    fn shared(vary: &str, first: &str, second: &str) -> Option<bool> {
        let answer = format!("HTTP/1.1 200 OK\r\n{vary}\r\n");
        let [first, second] =
            [first, second].map(|fields| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let (mut a, mut b, mut c) = (header_storage(), header_storage(), header_storage());
        let answer = ResponseHead::parse(answer.as_bytes(), &mut a, "GET").unwrap();
        let first = RequestHead::parse(first.as_bytes(), &mut b).unwrap();
        let second = RequestHead::parse(second.as_bytes(), &mut c).unwrap();
        Vary::of(&answer, &first).map(|vary| vary.fits(&second))
    }

    #[test]
    fn an_answer_is_for_those_who_would_get_the_same() {
        let check = |vary: &str, first: &str, second: &str, expect: Option<bool>| {
            assert_eq!(shared(vary, first, second), expect, "{vary:?} {first:?} {second:?}");
        };
        check("", "X: 1\r\n", "X: 2\r\n", Some(true));
        check("Vary: X\r\n", "X: 1\r\n", "x:  1 \r\n", Some(true));
        check("Vary: X\r\n", "X: 1\r\n", "X: 2\r\n", Some(false));
        check("Vary: X\r\n", "X: 1\r\n", "", Some(false));
        check("Vary: X\r\n", "", "", Some(true));
        check("Vary: a, X\r\n", "X: 1,2\r\n", "X: 1\r\nX: 2\r\n", Some(true));
        check("Vary: a\r\nVary: X\r\n", "X: 1\r\n", "X: 2\r\n", Some(false));
        check(
            "Vary: accept-encoding\r\n",
            "Accept-Encoding: gzip, br\r\n",
            "accept-encoding: GZIP,br\r\n",
            Some(true),
        );
        check("Vary: x\r\n", "X: A\r\n", "X: a\r\n", Some(false));
        check("Content-Encoding: gzip\r\n", "Accept-Encoding: gzip\r\n", "", Some(false));
        check("Vary: *\r\n", "", "", None);
        check("Vary: x, *\r\n", "", "", None);
        let many = (0..17).map(|n| format!("Vary: x{n}\r\n")).collect::<String>();
        check(&many, "", "", None);
    }
}
