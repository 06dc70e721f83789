//! What a URL carries, and addresses with a port.

use super::name;

/// Parts of a query by whose value one is let in.
const KEYS: [&str; 12] = [
    "token",
    "access_token",
    "auth",
    "auth_token",
    "key",
    "api_key",
    "apikey",
    "routing_key",
    "secret",
    "password",
    "sig",
    "signature",
];

/// Places whose URLs are themselves the credential: hosts, with the beginning of the path.
const WEBHOOKS: [(&str, &str); 7] = [
    ("hooks.slack.com", "/"),
    ("discord.com", "/api/webhooks/"),
    ("discordapp.com", "/api/webhooks/"),
    ("hooks.zapier.com", "/hooks/"),
    ("webhook.office.com", "/"),
    ("events.pagerduty.com", "/integration/"),
    ("api.telegram.org", "/bot"),
];

/// What in a URL lets everybody in who reads it.
pub(crate) fn credential(url: &str) -> Option<&'static str> {
    let (_, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Some("a login");
    }
    let host = authority.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let is = |known: &str| host == known || host.strip_suffix(known).is_some_and(|rest| rest.ends_with('.'));
    if WEBHOOKS.iter().any(|(known, start)| is(known) && path.len() > start.len() && path.starts_with(start))
    {
        return Some("an address that only its owner may know");
    }
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    let has_value = |part: &str| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        !value.is_empty() && KEYS.contains(&key.to_ascii_lowercase().as_str())
    };
    query.split('&').any(has_value).then_some("a token")
}

/// `url` with `path` when it has none of its own.
pub(crate) fn with_path(url: &str, path: &str) -> String {
    match url.split_once("://") {
        Some((_, rest)) if !rest.contains(['/', '?', '#']) => format!("{url}{path}"),
        Some(_) | None => url.to_owned(),
    }
}

/// `host:port` and its host; `[::1]:port` too. Without a port it has `default`.
///
/// # Errors
/// Why the text is not an address.
pub(crate) fn host_port(text: &str, default: Option<u16>) -> Result<(String, u16), &'static str> {
    if text.contains("://") {
        return Err("it has no scheme: a host, a colon and a port");
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, port) = rest.split_once(']').ok_or("the ']' is missing")?;
        ip.parse::<std::net::Ipv6Addr>().map_err(|_| "what stands in brackets is no IPv6 address")?;
        return Ok((ip.to_owned(), port_of(port.strip_prefix(':'), default)?));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    name::host(host).map_err(|_| "its host has letters, digits, '.' and '-'")?;
    Ok((host.to_owned(), port_of(port, default)?))
}

fn port_of(text: Option<&str>, default: Option<u16>) -> Result<u16, &'static str> {
    match text {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse::<u16>().ok().filter(|port| *port > 0).ok_or("the port is 1 to 65535")
        }
        Some(_) => Err("the port is a number"),
        None => default.ok_or("the port is missing"),
    }
}

/// The address as it is connected to.
pub(crate) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_one_in_is_recognised() {
        for url in [
            "https://user:pass@x.example/",
            "https://token@x.example",
            "https://hooks.slack.com/services/T0/B0/x",
            "https://HOOKS.slack.com/services/T0/B0/x",
            "https://discord.com/api/webhooks/1/x",
            "https://acme.webhook.office.com/webhookb2/x",
            "https://x.example/hook?token=abc",
            "https://x.example/?a=1&Access_Token=abc#frag",
        ] {
            assert!(credential(url).is_some(), "{url}");
        }
        for url in [
            "https://bot.example/alerts",
            "http://127.0.0.1:9090/api/v1/write",
            "https://x.example/?token=",
            "https://x.example/a@b",
            "https://notdiscord.com/api/webhooks/1/x",
            "https://x.example/#token=1",
            "",
        ] {
            assert!(credential(url).is_none(), "{url}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        assert_eq!(host_port("db.example:5432", None), Ok(("db.example".to_owned(), 5432)));
        assert_eq!(host_port("[::1]:80", None), Ok(("::1".to_owned(), 80)));
        assert_eq!(host_port("shop.example", Some(443)), Ok(("shop.example".to_owned(), 443)));
        assert_eq!(address("::1", 80), "[::1]:80");
        for bad in [
            "",
            "a",
            ":80",
            "a:",
            "a:0",
            "a:x",
            "a:99999",
            "https://a:1",
            "a b:1",
            "[::1",
            "[x]:1",
            "a:1:2",
            "a:+1",
        ] {
            assert!(host_port(bad, None).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_path_is_added_only_where_there_is_none() {
        assert_eq!(with_path("http://a:1", "/metrics"), "http://a:1/metrics");
        assert_eq!(with_path("http://a:1/", "/metrics"), "http://a:1/");
    }
}
