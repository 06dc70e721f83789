//! Where a request goes.

use hyper::Uri;

use super::OutgoingError;

#[derive(Clone)]
pub(super) struct Address {
    /// Without credentials.
    pub(super) uri: Uri,
    /// `host:port`, for people.
    pub(super) host: String,
    pub(super) secure: bool,
    /// From `user:password@`.
    pub(super) authorization: Option<String>,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, OutgoingError> {
        let unusable = |why: &str| OutgoingError::Address { why: why.to_owned() };
        let uri: Uri = url.parse().map_err(|_| unusable("it does not have the form http://host/path"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err(unusable("it starts with neither http:// nor https://")),
        };
        let authority = uri.authority().ok_or_else(|| unusable("it names no host"))?.as_str();
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host.to_owned()),
            None => (None, authority.to_owned()),
        };
        if host.is_empty() || host.starts_with(':') {
            return Err(unusable("it names no host"));
        }
        let authorization = credentials.map(|text| {
            let (user, password) = text.split_once(':').unwrap_or((text, ""));
            let pair = [&decoded(user), b":".as_slice(), &decoded(password)].concat();
            format!("Basic {}", base64(&pair))
        });
        let mut parts = uri.into_parts();
        parts.authority = Some(host.parse().map_err(|_| unusable("its host is none"))?);
        let uri =
            Uri::from_parts(parts).map_err(|_| unusable("it does not have the form http://host/path"))?;
        Ok(Self { uri, host, secure, authorization })
    }
}

/// The part of an address that may be shown.
pub(super) fn host_of(url: &str) -> String {
    Address::parse(url).map_or_else(|_| "?".to_owned(), |address| address.host)
}

/// `%40` is `@`. What is no escape stays as it is.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits =
            after.get(..2).filter(|_| first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) & 63;
            let letter = ALPHABET.get(index as usize).copied().unwrap_or(b'=');
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, uri: &str, host: &str, authorization: Option<&str>) {
        let address = Address::parse(url).unwrap();
        assert_eq!(
            (address.uri.to_string().as_str(), address.host.as_str(), address.authorization.as_deref()),
            (uri, host, authorization)
        );
    }

    #[test]
    fn credentials_leave_the_address() {
        check("http://a:9090/x?y=1", "http://a:9090/x?y=1", "a:9090", None);
        check("https://[::1]:1/", "https://[::1]:1/", "[::1]:1", None);
        check("http://ada:l%40ve@h/x", "http://h/x", "h", Some("Basic YWRhOmxAdmU="));
        check("http://token@h/", "http://h/", "h", Some("Basic dG9rZW46"));
        check("http://a:b%zz@h/", "http://h/", "h", Some("Basic YTpiJXp6"));
    }

    #[test]
    fn what_is_no_address_is_refused_without_being_shown() {
        for url in
            ["", "/x", "h:1/secret", "ftp://h/secret", "http://", "http://:80/secret", "http://a b/secret"]
        {
            let Err(error) = Address::parse(url) else { panic!("{url:?} was taken") };
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
