//! `[probe.NAME]`: checks from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use fairway_engine::monitoring::{Probe, ProbeCheck};

use crate::code;
use crate::deploy::show_duration;
use crate::diagnostic::Diagnostic;
use crate::keys;
use crate::monitoring::public_url;
use crate::reader::{Reader, Statuses};
use crate::value::url::{address, host_port};

/// The port of a certificate whose address names none.
const HTTPS: u16 = 443;

/// Whoever waits longer than this for an answer has gone.
const TIMEOUT_MAX: Duration = Duration::from_secs(5);

pub(crate) fn read(root: &Reader<'_>, environment_url: &str) -> BTreeMap<String, Probe> {
    let probes = root.map_of_tables("probe", &keys::UPTIME);
    let probe =
        |(name, reader): &(&str, Reader<'_>)| Some(((*name).to_owned(), probe(reader, environment_url)?));
    probes.iter().filter_map(probe).collect()
}

fn probe(reader: &Reader<'_>, environment_url: &str) -> Option<Probe> {
    let chosen = reader.one_of(&["http", "tcp", "certificate", "dns"]);
    for (key, of) in [("status", "http"), ("server_name", "certificate")] {
        if let Some(chosen) = chosen.filter(|chosen| *chosen != of) {
            reader.refuse_beside(chosen, &[key], &format!("without {of}"));
        }
    }
    let status = reader.get("status").map(|Statuses(status)| status);
    let server_name = reader.get::<String>("server_name");
    let check = match chosen {
        Some("http") => public_url(reader, "http").map(|url| ProbeCheck::Http {
            url: if url.starts_with('/') { format!("{environment_url}{url}") } else { url },
            status: status.unwrap_or_default(),
        }),
        Some("tcp") => {
            at(reader, "tcp", None).map(|(host, port)| ProbeCheck::Tcp { address: address(&host, port) })
        }
        Some("certificate") => at(reader, "certificate", Some(HTTPS)).map(|(host, port)| {
            let address = address(&host, port);
            ProbeCheck::Certificate { address, server_name: server_name.unwrap_or(host) }
        }),
        Some(_) => reader.get("dns").map(|name| ProbeCheck::Dns { name }),
        None => {
            reader.lacks("http, tcp, certificate or dns", "add http = \"https://shop.example/healthz\"");
            None
        }
    };
    let every = reader.fixed::<Duration>("every");
    // A check that is made every two seconds takes two at most, without anybody having to say so.
    let timeout = reader.get_or("timeout", || TIMEOUT_MAX.min(every), show_duration);
    if timeout > every {
        let message = format!("{} is longer than every: checks would pile up", reader.path_of("timeout"));
        let at = reader.value_at(if reader.has("timeout") { "timeout" } else { "every" });
        reader.cx.push_at(Diagnostic::error(code::CONFLICT, message).hint("make every the longer one"), at);
    }
    Some(Probe { check: check?, every, timeout })
}

fn at(reader: &Reader<'_>, key: &str, default: Option<u16>) -> Option<(String, u16)> {
    // A bad one was told by the first pass.
    host_port(&reader.get::<String>(key)?, default).ok()
}
