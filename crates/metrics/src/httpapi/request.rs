//! A request and its parameters.

use std::borrow::Cow;

use super::envelope::ApiError;
use super::text::quoted;
use super::time::{Moment, parse_time};
use crate::promql::parse_selector;
use crate::select::Matcher;

/// A longer form is refused, as by Go's `net/http`. The server must not read more.
pub const FORM_BYTES_MAX: usize = 10 << 20;

/// Selectors of one request. Each is a question of its own to the store, and a form has room for a million.
const SELECTORS_MAX: usize = 1_000;

/// What came over the wire, as far as answers depend on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    pub method: &'a str,
    /// Without query, escapes as they came.
    pub path: &'a str,
    /// After the `?`; empty when there is none.
    pub query: &'a str,
    /// The body of a POST as `application/x-www-form-urlencoded`; empty for anything else.
    pub form: &'a [u8],
    /// The `Accept` header, for `/federate`; empty when there is none.
    pub accept: &'a str,
}

/// Parameters: those of the body before those of the URL.
#[derive(Debug)]
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    /// How many of the pairs are of the body.
    of_body: usize,
    /// The first thing that was no parameter. Most endpoints do not care, as in Prometheus.
    pub(super) error: Option<String>,
}

impl Params {
    pub(super) fn of(request: &Request<'_>) -> Self {
        let mut params = Self { pairs: Vec::new(), of_body: 0, error: None };
        if request.form.len() > FORM_BYTES_MAX {
            params.error = Some("http: POST too large".to_owned());
        } else {
            params.read(&String::from_utf8_lossy(request.form));
        }
        params.of_body = params.pairs.len();
        params.read(request.query);
        params
    }

    fn read(&mut self, text: &str) {
        for part in text.split('&').filter(|part| !part.is_empty()) {
            if part.contains(';') {
                self.error.get_or_insert_with(|| "invalid semicolon separator in query".to_owned());
                continue;
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match (unescaped(name, true), unescaped(value, true)) {
                (Ok(name), Ok(value)) => self.pairs.push((name, value)),
                (Err(bad), _) | (_, Err(bad)) => {
                    self.error.get_or_insert_with(|| format!("invalid URL escape {}", quoted(&bad)));
                }
            }
        }
    }

    /// The first value; empty when there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        let found = self.pairs.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// The first one of the URL; empty when there is none.
    pub(super) fn of_url(&self, name: &str) -> &str {
        let mut of_url = self.pairs.iter().skip(self.of_body);
        of_url.find(|(known, _)| known == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// `None` when there is none, or 0: no limit.
    pub(super) fn limit(&self) -> Result<Option<usize>, ApiError> {
        let text = self.get("limit");
        if text.is_empty() {
            return Ok(None);
        }
        let limit = integer(text).map_err(|why| ApiError::parameter("limit", why))?;
        if limit < 0 {
            return Err(ApiError::parameter("limit", "limit must be non-negative"));
        }
        Ok(usize::try_from(limit).ok().filter(|limit| *limit > 0))
    }

    pub(super) fn time(&self, name: &str, default: Moment) -> Result<Moment, ApiError> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(default);
        }
        let invalid = |why| ApiError::parameter(name, format!("invalid time value for '{name}': {why}"));
        parse_time(text).map_err(invalid)
    }

    /// The selectors of `match[]`, each with something that it demands. The error is the message alone: endpoints
    /// wrap it in different ways.
    pub(super) fn matchers(&self) -> Result<Vec<Vec<Matcher>>, String> {
        let mut sets = Vec::new();
        if self.all("match[]").nth(SELECTORS_MAX).is_some() {
            return Err(format!("more than {SELECTORS_MAX} match[] parameters"));
        }
        for text in self.all("match[]") {
            sets.push(parse_selector(text).map_err(|error| match error.message.as_str() {
                // What a query calls a vector selector.
                "vector selector must contain at least one non-empty matcher" => {
                    "match[] must contain at least one non-empty matcher".to_owned()
                }
                _ => error.to_string(),
            })?);
        }
        Ok(sets)
    }
}

/// A whole number, as Go's `strconv.Atoi` reads it, or its words.
pub(super) fn integer(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("strconv.Atoi: parsing {}: invalid syntax", quoted(text)));
    }
    text.parse().map_err(|_| format!("strconv.Atoi: parsing {}: value out of range", quoted(text)))
}

/// Escapes undone; a plus is a blank in parameters, and itself in paths. The error is the bad escape.
pub(super) fn unescaped(text: &str, plus: bool) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let digits =
                    after.first_chunk::<2>().filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                let Some(digits) = digits else {
                    let bad = after.iter().take(2).copied();
                    return Err(
                        String::from_utf8_lossy(&[b'%'].into_iter().chain(bad).collect::<Vec<_>>()).into()
                    );
                };
                let value = |digit: u8| match digit {
                    b'0'..=b'9' => digit - b'0',
                    _ => (digit | 32) - b'a' + 10,
                };
                bytes.push(value(digits[0]) << 4 | value(digits[1]));
                rest = &after[2..];
            }
            b'+' if plus => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    Ok(match String::from_utf8_lossy(&bytes) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_comes_before_the_url() {
        let request = Request {
            query: "a=1&b=%C3%A9+x&c&=&%zz=1&d=1;2",
            form: b"a=2&match[]=up",
            ..Request::default()
        };
        let params = Params::of(&request);
        assert_eq!(
            (params.get("a"), params.of_url("a"), params.get("b"), params.get("c")),
            ("2", "1", "é x", "")
        );
        assert_eq!(params.all("a").collect::<Vec<_>>(), ["2", "1"]);
        assert_eq!(params.error.as_deref(), Some("invalid URL escape \"%zz\""));
    }

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        assert_eq!((integer("+5"), integer("-5")), (Ok(5), Ok(-5)));
        assert_eq!(integer("x"), Err("strconv.Atoi: parsing \"x\": invalid syntax".to_owned()));
        let large = "99999999999999999999";
        assert_eq!(integer(large), Err(format!("strconv.Atoi: parsing \"{large}\": value out of range")));
    }
}
