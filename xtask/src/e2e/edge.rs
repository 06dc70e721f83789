//! What a project asks of the edge in its fairway.toml, as clients of every kind meet it: TLS and its certificates, limits,
//! headers, compression, calls of gRPC, WebSockets, and balancers in front.

mod authority;
mod browser;
mod certificates;
mod files;
mod messages;
mod place;
mod policies;
mod streams;

use std::path::Path;

use crate::checks::Count;
use crate::fault::Done;
use crate::home::{Home, Show};

type Story = fn(&mut Home) -> Done<Vec<String>>;

const STORIES: [(&str, Story); 12] = [
    (
        "TLS with a certificate of its own making, over a deploy and a rollback under load",
        certificates::self_signed,
    ),
    ("certificates from an authority, over its absence and kill -9", authority::certificates),
    ("certificate files that are replaced, and broken ones", files::replaced),
    ("two environments on one address show each its own certificate", certificates::by_name),
    ("an address for TLS that somebody has is named", certificates::taken),
    ("settings of the edge that are wrong are told where they are", messages::refused),
    ("compression and headers, a service's own settings, and back by a rollback", policies::answers),
    ("limits of requests, and whose word counts about clients", policies::limits),
    ("failing copies: timeouts, retries, ejection and requests that wait", policies::failures),
    ("calls of gRPC over TLS, and a stream that outlives a deploy until its drain", streams::calls),
    ("a WebSocket over TLS, over a deploy", streams::web_socket),
    ("a balancer in front says whose connection it passes on", streams::balancer),
];

pub fn run(fairway: &Path) -> Count {
    let mut count = Count::default();
    for (name, story) in STORIES {
        count.check(name, || {
            let mut home = Home::new(fairway, Show::Nothing)?;
            let findings = story(&mut home).unwrap_or_else(|fault| vec![fault.to_string()]);
            if !findings.is_empty() {
                home.keep();
            }
            Ok(findings)
        });
    }
    count
}
