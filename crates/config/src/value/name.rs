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
    }
}
