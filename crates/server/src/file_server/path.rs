//! The path of a request, read as the name of a file.

/// Linux refuses paths from there on, so no file can have such a name.
pub(super) const PATH_BYTES_MAX: usize = 4096;

/// A path that is not about a file at all, so that nobody looks at the disk for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    TooLong,
    /// A broken escape, a NUL, or `..`, which every client resolves before it sends.
    Malformed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Parts that may be names of files, joined by `/`; empty for the root. `slash`: the path ended in one.
    Name { path: String, slash: bool },
    /// A part begins with a dot. It is never there, and no page stands in for it.
    Hidden,
    /// No file can have this name (`%2F` within a part, not UTF-8), but an application may have such a place.
    NoFile,
}

/// Decoded once, part by part: what was escaped separates nothing.
///
/// # Errors
/// When it cannot be a path.
pub(super) fn parse(raw: &str) -> Result<Wanted, Refused> {
    if raw.len() > PATH_BYTES_MAX {
        return Err(Refused::TooLong);
    }
    let mut path = String::with_capacity(raw.len());
    let mut can_be_a_file = true;
    let mut hidden = false;
    // As nginx does, an empty part is none.
    for part in raw.split('/').filter(|part| !part.is_empty()) {
        let bytes = decode(part).ok_or(Refused::Malformed)?;
        if bytes.contains(&0) || bytes == b"." || bytes == b".." {
            return Err(Refused::Malformed);
        }
        let is_well_known = path.is_empty() && bytes == b".well-known";
        hidden |= bytes.first() == Some(&b'.') && !is_well_known;
        match String::from_utf8(bytes) {
            Ok(part) if !part.contains(['/', '\\']) => {
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(&part);
            }
            Ok(part) => {
                // Whoever decodes twice must not be led out by what is hidden here.
                hidden |= part.split(['/', '\\']).any(|inner| inner.starts_with('.'));
                can_be_a_file = false;
            }
            Err(_) => can_be_a_file = false,
        }
    }
    Ok(match (hidden, can_be_a_file) {
        (true, _) => Wanted::Hidden,
        (false, false) => Wanted::NoFile,
        (false, true) => Wanted::Name { path, slash: raw.ends_with('/') },
    })
}

/// None when an escape is broken.
fn decode(part: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(high << 4 | low);
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Never served: a part begins with a dot. `/.well-known/` is for everybody (RFC 8615), at the root alone.
pub(super) fn is_hidden(path: &str) -> bool {
    let mut parts = path.split('/');
    let first = parts.next().unwrap_or_default();
    (first.starts_with('.') && first != ".well-known") || parts.any(|part| part.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_name_hidden_no_file_or_refused() {
        let name = |path: &str, slash| Ok(Wanted::Name { path: path.to_owned(), slash });
        let cases = [
            ("/", name("", true)),
            ("/a/b.js", name("a/b.js", false)),
            ("/a/", name("a", true)),
            ("//a///b", name("a/b", false)),
            ("/%61%20b", name("a b", false)),
            ("/%C3%A4", name("ä", false)),
            ("/%252e%252e/x", name("%2e%2e/x", false)),
            ("/.well-known/acme-challenge/t", name(".well-known/acme-challenge/t", false)),
            ("/.env", Ok(Wanted::Hidden)),
            ("/%2eenv", Ok(Wanted::Hidden)),
            ("/%2Egit/config", Ok(Wanted::Hidden)),
            ("/a/.git/config", Ok(Wanted::Hidden)),
            ("/a/.well-known/x", Ok(Wanted::Hidden)),
            ("/.well-known/.env", Ok(Wanted::Hidden)),
            ("/.well-known%2f.env", Ok(Wanted::Hidden)),
            ("/...", Ok(Wanted::Hidden)),
            ("/a%2fb", Ok(Wanted::NoFile)),
            ("/a%5cb", Ok(Wanted::NoFile)),
            ("/a\\b", Ok(Wanted::NoFile)),
            ("/%ff", Ok(Wanted::NoFile)),
            ("/..%2f..%2fetc/passwd", Ok(Wanted::Hidden)),
            ("/a%2f..%2f.env", Ok(Wanted::Hidden)),
            ("/..%5c..%5cetc", Ok(Wanted::Hidden)),
            ("/../etc/passwd", Err(Refused::Malformed)),
            ("/a/%2e%2e/b", Err(Refused::Malformed)),
            ("/a/.%2E/b", Err(Refused::Malformed)),
            ("/./a", Err(Refused::Malformed)),
            ("/a%00.js", Err(Refused::Malformed)),
            ("/100%", Err(Refused::Malformed)),
            ("/%z1", Err(Refused::Malformed)),
            ("/%+1", Err(Refused::Malformed)),
        ];
        for (raw, expected) in cases {
            assert_eq!(parse(raw), expected, "{raw}");
        }
        assert_eq!(parse(&format!("/{}", "a".repeat(PATH_BYTES_MAX))), Err(Refused::TooLong));
    }
}
