//! What is shown of certificates, and what is noted of them.

use std::fmt;

use fairway_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::wanted::ChallengeKind;

/// One name of one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameStatus {
    pub environment: String,
    pub name: String,
    pub state: NameState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameState {
    Valid {
        until: Timestamp,
        renew_at: Timestamp,
    },
    /// `until`: the end of the certificate that serves meanwhile, where there is one.
    Ordering {
        step: Step,
        until: Option<Timestamp>,
    },
    Failed {
        trouble: Trouble,
        until: Option<Timestamp>,
    },
    /// The user's own files.
    Manual {
        until: Timestamp,
    },
    SelfSigned {
        until: Timestamp,
        renew_at: Timestamp,
    },
}

impl NameState {
    /// Until when the name can be served over TLS.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Valid { until, .. } | Self::Manual { until } | Self::SelfSigned { until, .. } => {
                Some(*until)
            }
            Self::Ordering { until, .. } | Self::Failed { until, .. } => *until,
        }
    }
}

/// Where an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Other orders are under way.
    Queued,
    /// Whether the names lead to this machine.
    Preflight(ChallengeKind),
    Account,
    Order,
    /// The proxy is given the answers.
    Challenge,
    /// The authority looks at them.
    Validation,
    Certificate,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queued => f.write_str("waiting for its turn"),
            Self::Preflight(kind) => write!(f, "checking that the name leads here ({kind})"),
            Self::Account => f.write_str("opening the account"),
            Self::Order => f.write_str("placing the order"),
            Self::Challenge => f.write_str("giving the proxy the answer to the challenge"),
            Self::Validation => f.write_str("waiting for the authority to check the name"),
            Self::Certificate => f.write_str("fetching the certificate"),
        }
    }
}

/// Why there is no certificate, or no newer one. Kept over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// `certificate/…`
    pub code: String,
    pub why: String,
    pub hint: Option<String>,
    pub retry_at: Timestamp,
}

/// For the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub environments: Vec<String>,
    pub names: Vec<String>,
    pub what: Happened,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// The first one, or a newer one.
    Obtained {
        until: Timestamp,
        digest: String,
    },
    Failed(Trouble),
}

/// For a gauge: when the certificate of a name ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub environment: String,
    pub name: String,
    pub until: Timestamp,
}
