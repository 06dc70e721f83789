//! Alerts: what fires, who is told, what is silenced. `…/alerts` and below.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `GET …/alerts`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertList {
    pub alerts: Vec<AlertInfo>,
    /// Where every alert goes instead of the channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alertmanager: Option<String>,
    /// What keeps alerts from being known: rules that cannot be evaluated, a Prometheus that does not answer.
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertInfo {
    pub name: String,
    pub state: AlertState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub since_ms: u64,
    /// `s7`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silenced_by: Option<String>,
    /// Fingerprint of the alert that fires and makes this one needless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inhibited_by: Option<String>,
    /// Who is told of it.
    pub channels: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// Its `for` has not passed yet.
    Pending,
    Firing,
}

/// `POST …/alerts/silences`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilenceRequest {
    /// All of them must accept an alert.
    pub matchers: Vec<Matcher>,
    pub for_ms: u64,
    pub comment: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matcher {
    pub label: String,
    pub op: MatcherOp,
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatcherOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

/// `GET …/alerts/silences`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilenceInfo {
    /// `s7`
    pub id: String,
    /// `severity="critical"`
    pub matchers: Vec<String>,
    pub starts_ms: u64,
    pub ends_ms: u64,
    pub by: String,
    pub comment: String,
    pub state: SilenceState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SilenceState {
    Pending,
    Active,
    /// Ended or taken back; listed for five days.
    Expired,
}

/// `GET …/alerts/channels`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInfo {
    pub name: String,
    /// `email`, `slack`, `pagerduty`, `webhook`, `alertmanager`
    pub kind: String,
    /// Whether any route leads there.
    pub is_routed: bool,
    pub state: ChannelState,
    /// Messages, since Fairway's memory began.
    pub sent: u64,
    pub failed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum ChannelState {
    /// Nothing was sent yet.
    Untried,
    Working {
        last_ms: u64,
    },
    Failing {
        since_ms: u64,
        last_ms: u64,
        /// In a row.
        failures: u32,
        why: String,
        /// It does not want this; waiting will not help.
        refused: bool,
    },
}

/// `POST …/alerts/channels/NAME/test`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelTest {
    pub is_taken: bool,
    /// In the channel's words.
    pub answer: String,
}
