//! Handing over: the same alerts, routes and dashboards as files for Prometheus, Alertmanager and Grafana.
//!
//! No file holds a secret. Where one belongs, a file to read it from is named, and [`Export::secrets`] says what has
//! to be put there.

mod alertmanager;
mod grafana;
mod prometheus;

pub use alertmanager::{
    AlertmanagerConfig, Channel, ChannelKind, Inhibition, MailTls, MatchOp, Matching, Route, alertmanager,
};
pub use grafana::{GrafanaSource, grafana};
pub use prometheus::{ScrapeOptions, prometheus};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// In the order in which one reads them.
    pub files: Vec<ExportFile>,
    pub secrets: Vec<SecretFile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportFile {
    /// Relative, with `/`.
    pub path: String,
    pub text: String,
}

/// A secret that the receiving program reads by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    pub path: String,
    /// For people: `the SMTP password of channel ops`.
    pub what: String,
}

/// A name as part of a file's: what is not a letter, digit, `.`, `_` or `-` becomes `-`, and it begins with neither a
/// dot nor a dash.
fn file_name(name: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = name.chars().map(|c| if safe(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches(['.', '-']);
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests;
