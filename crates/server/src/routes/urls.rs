//! Where visitors reach an environment.

use std::net::SocketAddr;

use fairway_api::UrlStatus;
use fairway_engine::Environment;

use super::edge;
use crate::certificates::NameStatus;

/// With TLS first, and only where there is a certificate. `certificates`: of all environments.
#[must_use]
pub fn urls(environment: &Environment, certificates: &[NameStatus]) -> Vec<UrlStatus> {
    let Some(release) = edge::facing(environment) else { return Vec::new() };
    let Some(listen) = &environment.routes.table.listen else { return Vec::new() };
    let mut hosts = edge::hosts(environment, release);
    // One that has no host of its own is reached by the machine's names: the address says it best.
    if hosts.len() > 1 {
        hosts.remove("localhost");
    }
    let key = environment.key.to_string();
    let until = |host: &str| {
        let found = certificates.iter().find(|one| one.environment == key && one.name == host);
        found.and_then(|one| one.state.until())
    };
    let tls = release.spec.entrance.tls.as_ref();
    let mut urls = Vec::new();
    if let Some((tls, address)) = tls.and_then(|tls| Some((tls, tls.address.parse::<SocketAddr>().ok()?))) {
        urls.extend(hosts.iter().filter_map(|host| {
            let until_ms = Some(until(host)?.0);
            Some(UrlStatus { url: url("https", host, address.port(), 443), redirects: false, until_ms })
        }));
        if tls.address == listen.address {
            return urls;
        }
    }
    let Ok(address) = listen.address.parse::<SocketAddr>() else { return urls };
    let is_redirected = |host: &str| tls.is_some_and(|tls| tls.redirect) && until(host).is_some();
    urls.extend(hosts.iter().map(|host| UrlStatus {
        url: url("http", host, address.port(), 80),
        redirects: is_redirected(host),
        until_ms: None,
    }));
    urls
}

fn url(scheme: &str, host: &str, port: u16, usual: u16) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if port == usual { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use fairway_engine::edge::{CertificateSource, TlsEntrance};
    use fairway_engine::time::Timestamp;

    use super::*;
    use crate::certificates::NameState;
    use crate::testing::{World, key, release};

    fn shown(host: Option<&str>, listen: &str, tls: Option<&str>, certified: &[&str]) -> Vec<String> {
        let dev = key("dev");
        let mut spec = release(listen);
        spec.listen.host = host.map(str::to_owned);
        spec.entrance.tls = tls.map(|address| TlsEntrance {
            address: address.to_owned(),
            certificate: CertificateSource::SelfSigned,
            redirect: true,
            hsts: None,
        });
        let world = World::deployed(&dev, spec);
        let certificates: Vec<NameStatus> = certified
            .iter()
            .map(|name| NameStatus {
                environment: dev.to_string(),
                name: (*name).to_owned(),
                source: "self-signed".to_owned(),
                issuer: None,
                state: NameState::Manual { until: Timestamp(7) },
            })
            .collect();
        let urls = urls(world.of(&dev), &certificates);
        assert!(urls.iter().all(|one| one.until_ms.is_some() == one.url.starts_with("https:")));
        urls.into_iter().map(|one| if one.redirects { format!("{} →", one.url) } else { one.url }).collect()
    }

    #[test]
    fn visitors_are_shown_the_address_with_tls_first() {
        let host = Some("shop.example");
        assert_eq!(shown(host, "0.0.0.0:80", None, &[]), ["http://shop.example"]);
        let tls = Some("0.0.0.0:443");
        let both = shown(host, "0.0.0.0:80", tls, &["shop.example"]);
        assert_eq!(both, ["https://shop.example", "http://shop.example →"]);
        assert_eq!(shown(host, "0.0.0.0:80", tls, &["other.example"]), ["http://shop.example"], "none yet");
        let odd = shown(host, "0.0.0.0:8080", Some("0.0.0.0:8443"), &["shop.example"]);
        assert_eq!(odd, ["https://shop.example:8443", "http://shop.example:8080 →"]);
    }

    #[test]
    fn without_a_host_the_address_is_shown() {
        assert_eq!(shown(None, "127.0.0.1:8080", None, &[]), ["http://localhost:8080"]);
        let tls = Some("[::1]:8443");
        let both = shown(None, "[::1]:8080", tls, &["localhost", "::1"]);
        assert_eq!(both, ["https://[::1]:8443", "http://[::1]:8080 →"]);
    }
}
