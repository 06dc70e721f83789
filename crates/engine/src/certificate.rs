//! What the record says of certificates. Ordering and renewing them is the server's; here is decided what of it is news,
//! so that one that fails for a year is a few lines of the record and not one for each attempt.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::time::Timestamp;

/// Kept for `history`: of a few names, what happened since the last renewals.
pub const CERTIFICATE_NEWS_MAX: usize = 16;

/// What the server tells of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateStep {
    Obtained {
        how: CertificateGain,
        until: Timestamp,
        /// Of chain and key: another one is another certificate.
        digest: String,
    },
    Failed {
        /// `certificate/…`: what the cause is known by. The words may be others each time.
        code: String,
        why: String,
        /// The end of the one that serves meanwhile.
        until: Option<Timestamp>,
        retry_at: Timestamp,
    },
    LetGo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateGain {
    /// The first one.
    Issued,
    /// In place of another one.
    Renewed,
    /// It was there before: on disk, of another environment, or what was wrong with it has passed.
    Kept,
}

/// What was last written down of one certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStanding {
    /// Of the one that serves.
    pub digest: Option<String>,
    pub until: Option<Timestamp>,
    pub trouble: Option<CertificateTrouble>,
    /// Who asked for another attempt, until it is known what came of it.
    pub asked_by: Option<String>,
    /// When each cause was last written down, by its code. Outlives the trouble: one that comes and goes is not told
    /// each time.
    pub told: BTreeMap<String, Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateTrouble {
    pub since: Timestamp,
    pub code: String,
}

/// One line of `history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateNews {
    pub at: Timestamp,
    pub names: Vec<String>,
    pub what: CertificateChange,
    /// Who asked for it; nobody for what Fairway does by itself.
    pub by: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum CertificateChange {
    /// Asked for, and what comes of it is not known yet.
    Retried,
    Obtained {
        source: String,
        how: CertificateGain,
        until: Timestamp,
        failing_since: Option<Timestamp>,
    },
    Failed {
        source: String,
        code: String,
        why: String,
        until: Option<Timestamp>,
    },
}

/// Of one certificate in its environment. No host name has a comma.
#[must_use]
pub fn key_of(names: &[String]) -> String {
    names.join(",")
}

impl Environment {
    /// An attempt that somebody asked for and what came of it are one line.
    pub(crate) fn tell_of_certificate(
        &mut self,
        at: Timestamp,
        names: &[String],
        what: CertificateChange,
        by: Option<String>,
    ) {
        let news = &mut self.certificate_news;
        if by.is_some() {
            news.retain(|old| old.names != names || old.what != CertificateChange::Retried);
        }
        if news.len() >= CERTIFICATE_NEWS_MAX {
            news.pop_front();
        }
        news.push_back(CertificateNews { at, names: names.to_vec(), what, by });
    }
}
