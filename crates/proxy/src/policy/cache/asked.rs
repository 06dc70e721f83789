//! What a request means to the cache.
//!
//! Of a request's own directives `only-if-cached` and `no-store` are followed. `no-cache`, `max-age` and the like are
//! not, which RFC 9111, 5.2.1 leaves to us: whoever reloads in a loop would otherwise reach the service every time.

use super::control::Control;
use super::stored::Stored;
use crate::codec::{BodyLength, Field, RequestHead};

/// Fields by which some services choose another resource or method than the address says. A visitor who sends one could
/// put the answer into the cache for everybody.
const UNKEYED: &[&str] = &[
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

/// Fields that say who asks. Only the first is known to HTTP; services that read the others mean the same.
const IDENTIFYING: &[&str] = &["authorization", "x-api-key", "x-auth-token", "x-access-token"];

pub(super) fn is_identifying(name: &str) -> bool {
    IDENTIFYING.iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Lookup(Lookup),
    /// Neither taken from the cache nor put into it.
    Bypass,
    /// As `Bypass`, because of its method, which is safe.
    Method,
    /// What it changes is not what is kept any more.
    Unsafe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lookup {
    pub is_head: bool,
    /// 504 rather than a way to the service.
    pub only_if_cached: bool,
    pub may_store: bool,
    /// It says who it is from.
    pub has_authorization: bool,
    /// It has cookies, of which only the service knows whether they say who it is from.
    pub has_cookies: bool,
}

impl Asked {
    /// `ours`: the cookie that is not the service's. `trusts`: what came before is believed to have set its fields.
    pub(crate) fn of(head: &RequestHead<'_, '_>, ours: Option<&str>, trusts: bool) -> Self {
        match head.method {
            "GET" | "HEAD" => {}
            "OPTIONS" | "TRACE" => return Self::Method,
            _ => return Self::Unsafe,
        }
        if head.upgrade.is_some() || !matches!(head.length, BodyLength::None | BodyLength::Known(0)) {
            return Self::Bypass;
        }
        let mut lookup = Lookup {
            is_head: head.method == "HEAD",
            only_if_cached: false,
            may_store: true,
            has_authorization: false,
            has_cookies: false,
        };
        for header in head.headers {
            let is = |other: &str| header.name.eq_ignore_ascii_case(other);
            if is("range") || is("if-match") || is("if-unmodified-since") {
                return Self::Bypass;
            }
            if !trusts && UNKEYED.iter().any(|name| is(name)) {
                return Self::Bypass;
            }
            if !trusts && starts_with(header.name, "x-forwarded-") && Field::of(header.name) == Field::Other {
                return Self::Bypass;
            }
            lookup.has_authorization |= is_identifying(header.name);
            if Field::of(header.name) == Field::Cookie {
                lookup.has_cookies |= cookies(header.value).any(|name| ours.map(str::as_bytes) != Some(name));
            }
        }
        let control = Control::of(head.named("cache-control"));
        lookup.only_if_cached = control.only_if_cached;
        lookup.may_store = !lookup.is_head && !control.no_store;
        Self::Lookup(lookup)
    }
}

impl Lookup {
    /// Whether an answer that fits the address is for this visitor. One that does not say that it is for everybody is
    /// not for those who may get their own.
    pub(crate) fn takes(&self, stored: &Stored) -> bool {
        (!self.has_authorization || stored.is_public) && (!self.has_cookies || stored.is_explicit)
    }
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Names of cookies.
fn cookies(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let pairs = value.split(|b| *b == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::header_storage;

    fn asked(method: &str, fields: &str, trusts: bool) -> Asked {
        let text = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut storage = header_storage();
        Asked::of(&RequestHead::parse(text.as_bytes(), &mut storage).unwrap(), Some("side"), trusts)
    }

    #[test]
    fn what_requests_mean() {
        let usual = Lookup {
            is_head: false,
            only_if_cached: false,
            may_store: true,
            has_authorization: false,
            has_cookies: false,
        };
        let check = |method: &str, fields: &str, expect: Asked| {
            assert_eq!(asked(method, fields, false), expect, "{method} {fields:?}");
        };
        check("GET", "", Asked::Lookup(usual));
        check("HEAD", "", Asked::Lookup(Lookup { is_head: true, may_store: false, ..usual }));
        check("OPTIONS", "", Asked::Method);
        check("POST", "", Asked::Unsafe);
        check("PURGE", "", Asked::Unsafe);
        check("GET", "Content-Length: 3\r\n", Asked::Bypass);
        check("GET", "Transfer-Encoding: chunked\r\n", Asked::Bypass);
        check("GET", "Content-Length: 0\r\n", Asked::Lookup(usual));
        check("GET", "Range: bytes=0-1\r\n", Asked::Bypass);
        check("GET", "If-Match: \"a\"\r\n", Asked::Bypass);
        check("GET", "Connection: upgrade\r\nUpgrade: websocket\r\n", Asked::Bypass);
        check("GET", "X-HTTP-Method-Override: DELETE\r\n", Asked::Bypass);
        check("GET", "X-Forwarded-Server: evil\r\n", Asked::Bypass);
        check("GET", "X-Forwarded-Host: evil\r\n", Asked::Lookup(usual));
        check("GET", "X-Api-Key: x\r\n", Asked::Lookup(Lookup { has_authorization: true, ..usual }));
        check("GET", "Authorization: x\r\n", Asked::Lookup(Lookup { has_authorization: true, ..usual }));
        check("GET", "Cookie: side=r1; \r\n", Asked::Lookup(usual));
        check("GET", "Cookie: side=r1; sid=7\r\n", Asked::Lookup(Lookup { has_cookies: true, ..usual }));
        check("GET", "Cookie: sid\r\n", Asked::Lookup(Lookup { has_cookies: true, ..usual }));
        check("GET", "Cache-Control: no-store\r\n", Asked::Lookup(Lookup { may_store: false, ..usual }));
        check("GET", "Cache-Control: no-cache, max-age=0\r\nPragma: no-cache\r\n", Asked::Lookup(usual));
        check(
            "GET",
            "Cache-Control: only-if-cached\r\n",
            Asked::Lookup(Lookup { only_if_cached: true, ..usual }),
        );
        assert_eq!(asked("GET", "X-Forwarded-Port: 443\r\n", true), Asked::Lookup(usual));
    }
}
