//! How public requests come in: TLS, and who may speak for others.

use std::collections::BTreeMap;
use std::time::Duration;

use fairway_engine::edge::{
    self, AcmeChallenge, CertificateSource, Connections, Entrance, Hsts, Process, TlsEntrance,
};
use fairway_engine::id::ServiceName;
use fairway_engine::release::Listen;

use crate::code;
use crate::diagnostic::Diagnostic;
use crate::keys;
use crate::reader::{Bytes, FromValue, Reader, Texts};
use crate::service::Service;
use crate::variable::{Variable, VariableValue};

/// <https://letsencrypt.org/docs/acme-protocol-updates/>
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// What HTTP/2 begins with, and what leaves room for sixteen times as much on a connection.
const WINDOW_BYTES: std::ops::RangeInclusive<u32> = 64 * 1024..=16 * 1024 * 1024;

/// An account with an authority, before the version of its secret is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExternalAccount {
    key_id: String,
    hmac: Variable,
}

impl ExternalAccount {
    /// # Errors
    /// When the secret has no value.
    pub(crate) fn resolve(
        &self,
        environment: &str,
        secrets: &dyn Fn(&str) -> Option<u32>,
    ) -> Result<edge::ExternalAccount, Box<Diagnostic>> {
        let hmac = self.hmac.resolve(environment, secrets)?;
        Ok(edge::ExternalAccount { key_id: self.key_id.clone(), hmac })
    }
}

/// The account is apart: its secret has a version only in a release.
pub(crate) fn read(
    root: &Reader<'_>,
    listen: &Listen,
    services: &BTreeMap<ServiceName, Service>,
) -> (Entrance, Option<ExternalAccount>) {
    let (tls, account) = tls(root);
    let named = match tls.as_ref().map(|tls| &tls.certificate) {
        Some(CertificateSource::Acme { .. } | CertificateSource::Files { .. }) => true,
        Some(CertificateSource::SelfSigned) | None => false,
    };
    if named {
        let mut routes = services.values().filter_map(|service| service.route.as_ref());
        let nameless = routes.any(|route| route.host.is_none()) && listen.host.is_none();
        if nameless {
            let message = "a certificate is for a host name, and the environment has none";
            let hint = "add host = \"shop.example\", or try it out with tls = \"self-signed\"";
            root.cx.push_at(Diagnostic::error(code::CONFLICT, message).hint(hint), root.value_at("tls"));
        }
    }
    if let Some(TlsEntrance { address, certificate: CertificateSource::Acme { challenge, .. }, .. }) = &tls
        && *challenge == AcmeChallenge::Http01
        && *address == listen.address
    {
        let message = format!("the challenge http-01 is asked without TLS, and all of {address} is with it");
        let hint = "give tls.listen another address than listen, or use challenge = \"tls-alpn-01\"";
        let listen = root.optional_table("tls", &keys::TLS).filter(|table| table.has("listen"));
        let at = listen.map_or_else(|| root.value_at("listen"), |table| table.value_at("listen"));
        root.cx.push_at(Diagnostic::error(code::CONFLICT, message).hint(hint), at);
    }
    let table = root.table("connections", &keys::CONNECTIONS);
    let millis = |key| said::<Duration>(&table, key).map(millis);
    let connections = Connections {
        head_ms: millis("head"),
        idle_ms: millis("idle"),
        idle_drain_ms: millis("idle_drain"),
        linger_ms: millis("linger"),
        ping_ms: millis("ping"),
        pong_ms: millis("pong"),
        tail_ms: millis("tail"),
        window_bytes: window(&table),
        per_client_max: table.get("max_per_client"),
        streams_max: said(&table, "max_streams"),
        http1_only: !table.fixed::<bool>("http2"),
    };
    let entrance = Entrance {
        tls,
        proxy_protocol: root.fixed("proxy_protocol"),
        trusted_proxies: root.get("trusted_proxies").map(|Texts(texts)| texts).unwrap_or_default(),
        connections,
        process: process(root),
    };
    (entrance, account)
}

fn process(root: &Reader<'_>) -> Process {
    let table = root.table("proxy", &keys::PROXY);
    Process {
        drain_ms: said(&table, "drain").map(millis),
        handshake_ms: said(&table, "handshake").map(millis),
        connections_per_core: said(&table, "max_connections"),
        cache_bytes: said(&table, "cache").map(|Bytes(bytes)| bytes),
        access_log: table.fixed("access_log"),
    }
}

/// What is not said is not there: another environment on the same address may say it.
fn said<T: FromValue>(table: &Reader<'_>, key: &str) -> Option<T> {
    let value = table.get(key);
    value.filter(|_| table.has(key))
}

fn window(table: &Reader<'_>) -> Option<u32> {
    let Bytes(bytes) = said(table, "window")?;
    let window = u32::try_from(bytes).ok().filter(|bytes| WINDOW_BYTES.contains(bytes));
    if window.is_none() {
        let message = format!("{} must be 64K to 16M", table.path_of("window"));
        let hint = "leave it out for 256K";
        table.cx.push_at(Diagnostic::error(code::BAD_VALUE, message).hint(hint), table.value_at("window"));
    }
    window
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn tls(root: &Reader<'_>) -> (Option<TlsEntrance>, Option<ExternalAccount>) {
    let mut account = None;
    (encrypted(root, &mut account), account)
}

fn encrypted(root: &Reader<'_>, account: &mut Option<ExternalAccount>) -> Option<TlsEntrance> {
    let acme = || CertificateSource::Acme {
        directory: LETS_ENCRYPT.to_owned(),
        contact: None,
        challenge: AcmeChallenge::Http01,
        roots: None,
        preflight: true,
        account: None,
    };
    let plain = root.optional_table("tls", &keys::TLS).is_none();
    let table = root.table("tls", &keys::TLS);
    let certificate = if plain {
        match root.get::<String>("tls").as_deref() {
            Some("acme") => acme(),
            Some("self-signed") => CertificateSource::SelfSigned,
            Some(_) | None => return None,
        }
    } else {
        match table.one_of(&["acme", "certificate", "self_signed"]) {
            Some("acme") => match table.optional_table("acme", &keys::ACME) {
                Some(table) => {
                    *account = external_account(&table);
                    authority(&table)
                }
                None => {
                    shown(&table, "acme");
                    acme()
                }
            },
            Some("certificate") => {
                let Some(key) = table.get("key") else {
                    table.lacks("key", "add key = \"/etc/ssl/shop.key\"");
                    return None;
                };
                CertificateSource::Files { chain: table.get("certificate")?, key }
            }
            Some(_) => {
                shown(&table, "self_signed");
                CertificateSource::SelfSigned
            }
            None => {
                let hint = "add acme = true, certificate and key, or self_signed = true";
                table.lacks("certificate", hint);
                return None;
            }
        }
    };
    if !plain && !matches!(certificate, CertificateSource::Files { .. }) && table.has("key") {
        table.refuse("key", "without certificate");
    }
    let default_address = if root.cx.is_dev() { "127.0.0.1:8443" } else { "0.0.0.0:443" };
    Some(TlsEntrance {
        address: table.get_or("listen", || default_address.to_owned(), |text| format!("{text:?}")),
        certificate,
        redirect: table.fixed("redirect"),
        hsts: hsts(&table),
    })
}

/// What only says yes has no more to be read, and belongs to the list of settings all the same.
fn shown(table: &Reader<'_>, key: &str) {
    let _: Option<bool> = table.get(key);
}

fn authority(table: &Reader<'_>) -> CertificateSource {
    let challenge: String = table.fixed("challenge");
    CertificateSource::Acme {
        directory: table.get_or("directory", || LETS_ENCRYPT.to_owned(), |text| format!("{text:?}")),
        contact: table.get("contact"),
        challenge: if challenge == "tls-alpn-01" { AcmeChallenge::TlsAlpn01 } else { AcmeChallenge::Http01 },
        roots: table.get("roots"),
        preflight: table.fixed("preflight"),
        account: None,
    }
}

fn external_account(table: &Reader<'_>) -> Option<ExternalAccount> {
    let key_id: Option<String> = table.get("eab_kid");
    let hmac = table.optional_table("eab_hmac", &keys::SECRET).and_then(|hmac| {
        let name = hmac.get("secret")?;
        let at = hmac.cx.source.span(hmac.value_at("secret"));
        Some(Variable { value: VariableValue::Secret { name }, at })
    });
    match (key_id, hmac) {
        (Some(key_id), Some(hmac)) => Some(ExternalAccount { key_id, hmac }),
        (None, None) => None,
        (Some(_), None) => {
            if !table.has("eab_hmac") {
                table.lacks("eab_hmac", "add eab_hmac = { secret = \"acme_hmac\" }");
            }
            None
        }
        (None, Some(_)) => {
            if !table.has("eab_kid") {
                table.lacks("eab_kid", "add eab_kid = \"…\", the key id that the authority gave");
            }
            None
        }
    }
}

fn hsts(table: &Reader<'_>) -> Option<Hsts> {
    match table.optional_table("hsts", &keys::HSTS) {
        Some(hsts) => Some(Hsts {
            max_age: hsts.get("max_age")?,
            subdomains: hsts.fixed("subdomains"),
            preload: hsts.fixed("preload"),
        }),
        None => {
            let max_age: Duration = table.get("hsts")?;
            Some(Hsts { max_age, subdomains: false, preload: false })
        }
    }
}
