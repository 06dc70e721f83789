//! Settings that cannot be: the error has the place, a cause and a next step.

use super::place::{Place, expect_in};
use crate::fault::Done;
use crate::home::Home;

/// In `[env.dev]`, and what is said of it.
const REFUSED: [(&str, &[&str]); 12] = [
    ("tls = \"on\"", &["tls", "\"self-signed\""]),
    ("tls = { self_signed = true, acme = true }", &["self_signed", "acme"]),
    ("tls = { listen = \"0.0.0.0:443\" }", &["acme = true", "self_signed = true"]),
    ("tls = { certificate = \"/c.pem\" }", &["key = "]),
    ("tls = \"acme\"", &["host = "]),
    ("host = \"a.test\"\ntls = { acme = true, listen = \"LISTEN\" }", &["http-01", "listen"]),
    ("edge = { compresss = true }", &["compresss", "compress"]),
    ("edge.headers = { content-length = \"5\" }", &["content-length", "connection"]),
    ("edge.rate_limit = [{ within = \"1s\" }]", &["requests"]),
    ("edge.max_url = \"9K\"", &["max_url", "8 KiB"]),
    ("edge.timeouts.response = \"1ms\"", &["timeouts.response", "10ms"]),
    ("trusted_proxies = [\"10.0.0.0/33\"]", &["trusted_proxies", "10.0.0.0/33"]),
];

pub fn refused(home: &mut Home) -> Done<Vec<String>> {
    let place = Place::new(home)?;
    let mut findings = Vec::new();
    for (setting, words) in REFUSED {
        place.write("", "", &setting.replace("LISTEN", &place.http.to_string()))?;
        let ran = place.fairway(&["validate"])?;
        if ran.code == 0 {
            findings.push(format!("{setting} is taken"));
            continue;
        }
        let what = format!("the error of {setting}");
        expect_in(&mut findings, &what, &ran.stderr, words);
        expect_in(&mut findings, &what, &ran.stderr, &["fairway.toml:"]);
        let deployed = place.fairway(&["deploy", "-e", "dev"])?;
        if deployed.code == 0 {
            findings.push(format!("{setting} is deployed"));
        }
    }
    Ok(findings)
}
