//! Names that are not the engine's: variables, secrets, hosts, addresses, users, header and cookie names.

/// # Errors
/// Why the text is not the name of an environment variable.
pub(crate) fn variable(text: &str) -> Result<(), &'static str> {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts || !text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err("a variable's name has letters, digits and '_' and does not start with a digit");
    }
    Ok(())
}

/// # Errors
/// Why the text is not the name of a secret.
pub(crate) fn secret(text: &str) -> Result<(), &'static str> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if text.is_empty() || text.len() > 64 || !plain || text.starts_with('.') {
        return Err("a secret's name has 1 to 64 letters, digits, '_', '-' and '.'");
    }
    Ok(())
}

/// # Errors
/// Why the text is not a host name.
pub(crate) fn host(text: &str) -> Result<(), &'static str> {
    if text.contains("://") || text.contains('/') {
        return Err("it has no scheme and no path");
    }
    if text.contains(':') {
        return Err("the port belongs to listen");
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    if text.len() > 253 || !text.split('.').all(label) {
        return Err("its parts have letters, digits and '-', at most 63 each");
    }
    Ok(())
}

/// # Errors
/// Why the text is not an address and a port to listen on.
pub(crate) fn listen(text: &str) -> Result<(), &'static str> {
    text.parse::<std::net::SocketAddr>().map(|_| ()).map_err(|_| "it is an IP address, a colon and a port")
}

/// # Errors
/// Why the text is not a network.
pub(crate) fn network(text: &str) -> Result<(), &'static str> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<std::net::IpAddr>() else {
        return Err("it is an IP address, or one with a slash and a number of bits");
    };
    let width = if address.is_ipv4() { 32u8 } else { 128 };
    match bits.map(str::parse::<u8>) {
        None => Ok(()),
        Some(Ok(bits)) if bits <= width => Ok(()),
        Some(_) => Err("an IPv4 network has 0 to 32 bits, an IPv6 network 0 to 128"),
    }
}

/// # Errors
/// Why the text is not a media type, or all of a kind.
pub(crate) fn media_type(text: &str) -> Result<(), &'static str> {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-*".contains(&b))
    };
    match text.split_once('/') {
        Some((kind, of)) if is_part(kind) && is_part(of) => Ok(()),
        Some(_) | None => Err("it has two parts with a slash between them, and no parameters"),
    }
}

/// # Errors
/// Why the text is not a public URL.
pub(crate) fn url(text: &str) -> Result<(), &'static str> {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return Err("it must start with http:// or https://");
    };
    if rest.is_empty() || rest.starts_with('/') || text.chars().any(|c| c.is_control() || c == ' ') {
        return Err("it needs a host and may not have blanks");
    }
    Ok(())
}

/// # Errors
/// Why the text is not a user to run as.
pub(crate) fn user(text: &str) -> Result<(), &'static str> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$'));
    if text.is_empty() || text.len() > 32 || !plain || text.starts_with('-') {
        return Err("it has 1 to 32 letters, digits, '_', '-' and '.'");
    }
    Ok(())
}

/// A token of RFC 9110: the name of a header or of a cookie.
///
/// # Errors
/// Why the text is not one.
pub(crate) fn token(text: &str) -> Result<(), &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if text.is_empty() || text.len() > 100 || !text.chars().all(allowed) {
        return Err("it has 1 to 100 letters, digits and '-' or '_'");
    }
    Ok(())
}

/// A value that may stand in a header or a cookie.
///
/// # Errors
/// Why the text may not.
pub(crate) fn header_value(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 1000 || !text.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return Err("it has 1 to 1000 printable ASCII characters");
    }
    Ok(())
}

/// The name of a channel, a probe, an objective, a scrape or an experiment: it becomes the value of a label and part
/// of the names of rules.
///
/// # Errors
/// Why the text is not one.
pub(crate) fn thing(text: &str) -> Result<(), &'static str> {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if !starts || !plain || text.len() > 64 {
        return Err("it has 1 to 64 letters, digits, '-' and '_', and starts with a letter");
    }
    Ok(())
}

/// A name of Prometheus's classic form, for a label or an alert.
///
/// # Errors
/// Why the text is not one.
pub(crate) fn label(text: &str) -> Result<(), &'static str> {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !starts || !plain || text.len() > 128 {
        return Err("it has 1 to 128 letters, digits and '_', and does not start with a digit");
    }
    Ok(())
}

/// # Errors
/// Why the text is not a short line.
pub(crate) fn line(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 1000 || text.chars().any(char::is_control) {
        return Err("it has 1 to 1000 characters and no control characters");
    }
    Ok(())
}

/// # Errors
/// Why the text cannot be PromQL. What it means is found out where there is a parser.
pub(crate) fn promql(text: &str) -> Result<(), &'static str> {
    /// Longer than anything that was written by hand. The evaluator has bounds of its own.
    const PROMQL_LEN_MAX: usize = 10_000;
    if text.trim().is_empty() {
        return Err("it is empty");
    }
    if text.len() > PROMQL_LEN_MAX {
        return Err("it is longer than 10000 bytes");
    }
    if text.contains('\0') {
        return Err("it has a NUL character");
    }
    Ok(())
}

/// `ops@shop.example`, or `Operations <ops@shop.example>`. It ends up in a header: no line may end in it.
///
/// # Errors
/// Why the text is not a mail address.
pub(crate) fn email(text: &str) -> Result<(), &'static str> {
    let address = match text.strip_suffix('>').and_then(|text| text.split_once('<')) {
        Some((shown, address)) => {
            if shown.chars().any(|c| c.is_control() || "<>\"".contains(c)) {
                return Err("the name before the address has a character that a header may not have");
            }
            address
        }
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else {
        return Err("it has no '@'");
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    if local.is_empty() || local.len() > 64 || !local.chars().all(plain) || text.len() > 320 {
        return Err("what stands before the '@' is no mailbox");
    }
    host(domain).map_err(|_| "what stands after the '@' is no host name")
}

/// True when a variable is by its name one whose value nobody else should read.
pub(crate) fn looks_secret(variable: &str, text: &str) -> bool {
    const WORDS: [&str; 8] =
        ["SECRET", "PASSWORD", "PASSWD", "TOKEN", "API_KEY", "PRIVATE_KEY", "ACCESS_KEY", "CREDENTIAL"];
    // The name of a file, an address or a number of seconds is no secret.
    const ENDS: [&str; 6] = ["_FILE", "_PATH", "_TTL", "_EXPIRY", "_EXPIRES_IN", "_URL"];
    let variable = variable.to_ascii_uppercase();
    let excepted = ENDS.iter().any(|end| variable.ends_with(end));
    !text.is_empty() && !excepted && WORDS.iter().any(|word| variable.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        assert!(looks_secret("STRIPE_API_KEY", "x") && looks_secret("db_password", "x"));
        assert!(!looks_secret("TOKEN_TTL", "60") && !looks_secret("PASSWORD_FILE", "/x"));
        assert!(!looks_secret("LOG_LEVEL", "info") && !looks_secret("PASSWORD", ""));
    }

    #[test]
    fn each_name_refuses_what_would_break_where_it_ends_up() {
        assert!(variable("LOG_LEVEL").is_ok() && variable("1A").is_err() && variable("A=B").is_err());
        assert!(variable("").is_err());
        assert!(secret("stripe_key").is_ok() && secret("../x").is_err() && secret("").is_err());
        assert!(host("shop.example").is_ok() && host("http://x").is_err() && host("a:80").is_err());
        assert!(host("a..b").is_err() && host("").is_err());
        assert!(listen("0.0.0.0:80").is_ok() && listen("[::]:80").is_ok() && listen("80").is_err());
        assert!(url("https://a.example").is_ok() && url("a.example").is_err() && url("http:///x").is_err());
        assert!(
            user("www-data").is_ok() && user("1000").is_ok() && user("a b").is_err() && user("-x").is_err()
        );
        assert!(token("X-Canary").is_ok() && token("a b").is_err() && token("a\r\n").is_err());
        assert!(header_value("yes").is_ok() && header_value("a\r\nb").is_err());
        assert!(thing("new-checkout").is_ok() && thing("1a").is_err() && thing("a b").is_err());
        assert!(thing("").is_err() && thing(&"a".repeat(65)).is_err());
        assert!(label("le").is_ok() && label("a-b").is_err() && label("").is_err());
        assert!(line("x").is_ok() && line("").is_err() && line("a\nb").is_err());
        assert!(promql("up").is_ok() && promql(" ").is_err() && promql(&"1+".repeat(6000)).is_err());
        assert!(email("ops@shop.example").is_ok() && email("Ops <ops@shop.example>").is_ok());
        for bad in ["", "ops", "@x", "a@", "a b@x", "a@x\r\nBcc: b@x", "A\r\nBcc: x <a@x>", "a@b@c d", "<a@x"]
        {
            assert!(email(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
