//! What is shown of certificates, and what is noted of them.

use std::fmt;
use std::time::Duration;

use fairway_engine::certificate::CertificateGain;
use fairway_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::wanted::ChallengeKind;

/// One name of one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameStatus {
    pub environment: String,
    pub name: String,
    /// Where it comes from: the authority's host, a file, `self-signed`.
    pub source: String,
    /// Who has signed the certificate that serves.
    pub issuer: Option<String>,
    pub state: NameState,
}

/// A certificate that ends without another in sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// Nobody need get up for it.
    Soon,
    /// Somebody has to.
    Now,
    /// Browsers refuse to connect.
    Over,
}

/// As the alerts that are built in say it (`CertificateExpires`, `CertificateExpiresNow`).
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
const NOW: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// Why a name is not tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRetried {
    Unknown,
    UnderWay,
    /// It has a certificate, and nothing has failed.
    Good {
        until: Timestamp,
    },
    /// The authority itself has said when.
    Limited {
        why: String,
        until: Timestamp,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameState {
    Valid {
        until: Timestamp,
        renew_at: Timestamp,
        /// The authority has said when, not our own rule.
        suggested: bool,
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
    /// Whether it ends before it is renewed, as far as that is known.
    #[must_use]
    pub fn ending(&self, now: Timestamp) -> Option<Ending> {
        let until = self.until()?;
        let left = until.since(now);
        let is_renewed = match self {
            // Some authorities give certificates of a few days: as long as they are renewed, that is well.
            Self::Valid { .. } | Self::SelfSigned { .. } | Self::Ordering { .. } => true,
            Self::Failed { .. } | Self::Manual { .. } => false,
        };
        match left {
            Duration::ZERO => Some(Ending::Over),
            _ if is_renewed => None,
            left if left < NOW => Some(Ending::Now),
            left if left < SOON => Some(Ending::Soon),
            _ => None,
        }
    }

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
    /// The authority is asked when it wants the certificate to be renewed; nothing is ordered.
    Renewal,
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
            Self::Renewal => f.write_str("asking when to renew it"),
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

/// For the record, which knows what of it is news: the same may be told again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub environments: Vec<String>,
    pub names: Vec<String>,
    /// As in [`NameStatus`].
    pub source: String,
    /// The end of the certificate that serves, where there is one.
    pub until: Option<Timestamp>,
    pub what: Happened,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    Obtained {
        how: CertificateGain,
        until: Timestamp,
        digest: String,
    },
    Failed(Trouble),
    /// The environments do not want it any more.
    LetGo,
}

/// For a gauge: when the certificate of a name ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub environment: String,
    pub name: String,
    pub until: Timestamp,
}
