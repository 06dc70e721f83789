//! How an environment is watched: metrics, alerts, uptime checks and objectives.

use std::collections::BTreeMap;

use fairway_engine::monitoring::{self as engine, Probe, Slo};

use crate::alerts::{self, Alerts};
use crate::code;
use crate::diagnostic::{Diagnostic, Findings};
use crate::environment;
use crate::metrics::{self, Metrics};
use crate::reader::{Reader, Texts};
use crate::span::ByteRange;
use crate::tree::Value;
use crate::value::url;
use crate::variable::Roster;
use crate::{slo, uptime};

/// What the file says, before rule files are read and the versions of secrets are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Monitoring {
    pub metrics: Metrics,
    pub alerts: Alerts,
    pub probes: BTreeMap<String, Probe>,
    pub slos: BTreeMap<String, Slo>,
}

/// `environment_url`: where the environment is reached, for checks that name a path only.
pub(crate) fn read(root: &Reader<'_>, roster: &Roster, environment_url: &str) -> Monitoring {
    Monitoring {
        metrics: metrics::read(root),
        alerts: alerts::read(root),
        probes: uptime::read(root, environment_url),
        slos: slo::read(root, roster),
    }
}

impl Monitoring {
    /// Without the rule files: they are not in fairway.toml. A developer need not have the secrets of the channels:
    /// one without is left out.
    pub(crate) fn resolve(
        &self,
        environment: &str,
        secrets: &dyn Fn(&str) -> Option<u32>,
        findings: &mut Findings,
    ) -> engine::Monitoring {
        let mut channels = BTreeMap::new();
        for (name, channel) in &self.alerts.channels {
            match channel.resolve(environment, secrets) {
                Ok(channel) => {
                    channels.insert(name.clone(), channel);
                }
                Err(_) if environment::is_dev(environment) => {}
                Err(diagnostic) => findings.push(*diagnostic),
            }
        }
        let mut routes = self.alerts.routes.clone();
        for route in &mut routes {
            route.channels.retain(|name| channels.contains_key(name));
        }
        engine::Monitoring {
            source: self.metrics.source.clone(),
            remote_write: self.metrics.remote_write.clone(),
            rules: Vec::new(),
            without: self.metrics.without.clone(),
            channels,
            routes,
            inhibit: self.alerts.inhibit.clone(),
            alertmanager: self.alerts.alertmanager.clone(),
            scrapes: self.metrics.scrapes.clone(),
            probes: self.probes.clone(),
            slos: self.slos.clone(),
        }
    }
}

const LEAVE_OUT: &str = "leave it out; a proxy on this machine can add it";

/// A URL that everybody may read: it stands in the file and in every release.
pub(crate) fn public_url(reader: &Reader<'_>, key: &str) -> Option<String> {
    let url: String = reader.get(key)?;
    if let Some(what) = url::credential(&url) {
        plain_secret(reader, key, what, LEAVE_OUT, reader.value_at(key));
    }
    Some(url)
}

/// As `public_url`, for a list of them.
pub(crate) fn public_urls(reader: &Reader<'_>, key: &str) -> Vec<String> {
    let items = reader.node(key).and_then(|node| node.value.as_array()).unwrap_or_default();
    for item in items {
        if let Some(what) = item.value.as_text().and_then(url::credential) {
            plain_secret(reader, key, what, LEAVE_OUT, item.at);
        }
    }
    texts(reader, key).unwrap_or_default()
}

pub(crate) fn plain_secret(reader: &Reader<'_>, key: &str, what: &str, hint: &str, at: ByteRange) {
    let message =
        format!("{} carries {what}, and everybody who has the file can read it", reader.path_of(key));
    reader.cx.push_at(Diagnostic::error(code::PLAIN_SECRET, message).hint(hint), at);
}

/// The texts of a list, or none when it is not there.
pub(crate) fn texts(reader: &Reader<'_>, key: &str) -> Option<Vec<String>> {
    reader.get(key).map(|Texts(texts)| texts)
}

/// The texts of a table under names of the user's, recorded one by one.
pub(crate) fn text_map<'a>(reader: &Reader<'a>, key: &str) -> Vec<(&'a str, &'a str)> {
    let path = reader.path_of(key);
    reader
        .entries(key)
        .filter_map(|(name, entry)| match &entry.node.value {
            Value::Text(text) => {
                reader.cx.record(format!("{path}.{}", crate::reader::toml_key(name)), &entry.node);
                Some((name, text.as_str()))
            }
            Value::Integer(_)
            | Value::Float { .. }
            | Value::Bool(_)
            | Value::Datetime(_)
            | Value::Array(_)
            | Value::Table(_) => None,
        })
        .collect()
}
