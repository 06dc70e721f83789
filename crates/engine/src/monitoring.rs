//! How an environment is watched: settings that come with the release which serves.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::evidence::Number;
use crate::id::ServiceName;
use crate::service::EnvValue;
use crate::time::duration_ms;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Monitoring {
    pub source: MetricsSource,
    /// Where every sample is sent on (Prometheus remote write).
    pub remote_write: Vec<String>,
    /// Prometheus rule files, as they are.
    pub rules: Vec<RuleFile>,
    /// Names of built-in alerts that are switched off.
    pub without: Vec<String>,
    pub channels: BTreeMap<String, Channel>,
    /// The first that matches an alert delivers it; one without matchers takes the rest.
    pub routes: Vec<AlertRoute>,
    pub inhibit: Vec<Inhibit>,
    /// An Alertmanager that gets every alert instead of the channels.
    pub alertmanager: Option<String>,
    pub scrapes: BTreeMap<String, Scrape>,
    pub probes: BTreeMap<String, Probe>,
    pub slos: BTreeMap<String, Slo>,
}

/// Who answers PromQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum MetricsSource {
    #[default]
    BuiltIn,
    /// A Prometheus elsewhere; it scrapes Fairway's `/metrics` and answers for gates and alerts.
    Prometheus { url: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFile {
    pub path: String,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Channel {
    Email {
        host: String,
        port: u16,
        tls: SmtpTls,
        from: String,
        to: Vec<String>,
        username: Option<String>,
        password: Option<EnvValue>,
    },
    /// An incoming-webhook address.
    Slack { url: EnvValue },
    /// An Events API v2 routing key; `url` only for a compatible service elsewhere.
    PagerDuty { key: EnvValue, url: Option<String> },
    /// Alertmanager's JSON, version 4.
    Webhook { url: EnvValue },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SmtpTls {
    /// STARTTLS, and no mail without it.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// Plain text: for a relay on this machine.
    None,
}

/// `key` and the exact text or regular expression (anchored, as in Prometheus) that its value must match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AlertMatch {
    pub label: String,
    pub op: AlertMatchOp,
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertMatchOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertRoute {
    pub matches: Vec<AlertMatch>,
    pub channels: Vec<String>,
    /// Alerts that agree in these labels go out as one message.
    pub group_by: Vec<String>,
    #[serde(with = "duration_ms")]
    pub group_wait: Duration,
    #[serde(with = "duration_ms")]
    pub group_interval: Duration,
    #[serde(with = "duration_ms")]
    pub repeat: Duration,
}

/// While an alert that matches `source` fires, those that match `target` and agree in the labels `equal` are silent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inhibit {
    pub source: Vec<AlertMatch>,
    pub target: Vec<AlertMatch>,
    pub equal: Vec<String>,
}

/// `/metrics` of something that is no service of the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrape {
    pub url: String,
    #[serde(with = "duration_ms")]
    pub every: Duration,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub check: ProbeCheck,
    #[serde(with = "duration_ms")]
    pub every: Duration,
    #[serde(with = "duration_ms")]
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ProbeCheck {
    /// A status of `status` passes (any 2xx when empty).
    Http {
        url: String,
        status: Vec<u16>,
    },
    Tcp {
        address: String,
    },
    /// When the certificate that `address` shows ends.
    Certificate {
        address: String,
        server_name: String,
    },
    Dns {
        name: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slo {
    pub goal: SloGoal,
    /// 0 to 1, exclusive.
    pub objective: Number,
    #[serde(with = "duration_ms")]
    pub window: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum SloGoal {
    /// Requests that did not fail.
    Availability { service: ServiceName },
    /// Requests answered within this time, which must be a bound of the histogram.
    Latency {
        service: ServiceName,
        #[serde(with = "duration_ms")]
        within: Duration,
    },
    /// Two PromQL counters' rates, with `$window` where the range belongs.
    Query { good: String, total: String },
}
