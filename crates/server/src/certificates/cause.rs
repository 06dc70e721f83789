//! Why there is no certificate: with a code, a next step, and how patient to be.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairway_engine::time::Timestamp;

use super::pair::PairError;
use super::wanted::ChallengeKind;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error("no authority gives a certificate to {name:?} this way: {why}")]
    Name { name: String, why: &'static str },
    #[error("no kind of challenge is allowed")]
    NoChallenges,
    #[error("{name} does not resolve: {why}")]
    Unresolved { name: String, why: String },
    #[error("{name} leads to {address}, where nobody answers: {why}")]
    Unreached { name: String, address: SocketAddr, why: String },
    #[error("{name} leads to {address}, where somebody else answers: {answer}")]
    SomebodyElse { name: String, address: SocketAddr, answer: String },
    #[error("the proxy could not be given the answer: {why}")]
    Edge { why: String },
    #[error("the authority cannot be asked: {why}")]
    Unreachable { why: String, retry_at: Option<Timestamp> },
    #[error("the key of the account with the authority cannot be used: {why}")]
    ExternalAccount { why: String },
    #[error("the authority sets a limit: {detail}")]
    RateLimited { detail: String, retry_at: Option<Timestamp> },
    #[error("the authority refuses ({kind}): {detail}")]
    Refused { kind: String, detail: String },
    #[error("the authority could not confirm {name} by {kind}: {detail}")]
    Challenge { name: String, kind: ChallengeKind, detail: String },
    #[error("for {name} the authority offers no challenge that is allowed, only {}", offered.join(", "))]
    NoCommonChallenge { name: String, offered: Vec<String> },
    #[error("the authority did not finish within {} s", within.as_secs())]
    Slow { within: Duration },
    /// The authority has thrown the nonce away, which it may do at any time: the same again is right.
    #[error("the authority refused several nonces in a row")]
    Nonce,
    /// The authority has forgotten the account: another one is right.
    #[error("the authority does not know the account any more")]
    AccountGone,
    /// The authority has forgotten the order: another one is right.
    #[error("the authority does not know the order any more")]
    OrderGone,
    #[error("what the authority gave cannot be used: {0}")]
    BadIssue(PairError),
    #[error("{}: {fault}", path.display())]
    Files { path: PathBuf, fault: PairError },
    #[error("the certificate in {} has ended", path.display())]
    Ended { path: PathBuf, at: Timestamp },
    #[error("{} cannot be read: {why}", path.display())]
    Unreadable { path: PathBuf, why: String },
    #[error("{} cannot be written: {why}", path.display())]
    Disk { path: PathBuf, why: String },
    #[error("no key or certificate could be made: {why}")]
    Crypto { why: String },
}

/// How long to wait after the first failure, and at most. Each further failure doubles the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    first: Duration,
    most: Duration,
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// Nobody else was asked, and somebody may be setting up a name or a port right now and look at the status.
const OURS: Pace = Pace { first: Duration::from_secs(15), most: minutes(10) };

/// An outage of the authority costs it nothing more; ends in an hour of its end at the latest.
const OUTAGE: Pace = Pace { first: minutes(1), most: minutes(60) };

/// Let's Encrypt allows five failed validations for each name in an hour: these are at 0, 5, 15 and 35 minutes.
const REFUSAL: Pace = Pace { first: minutes(5), most: minutes(12 * 60) };

/// A limit of the authority is counted in hours, mostly.
const LIMIT: Pace = Pace { first: minutes(60), most: minutes(24 * 60) };

/// Longer than every limit of Let's Encrypt (a week). A time further away is a defect, and would mean never.
const AUTHORITY_SAYS_MAX: Duration = minutes(8 * 24 * 60);

impl Cause {
    pub(super) fn disk(path: &Path, error: &std::io::Error) -> Self {
        Self::Disk { path: path.to_owned(), why: error.to_string() }
    }

    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), why: error.to_string() }
    }

    /// For people and programs; never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name { .. } => "certificate/name",
            Self::NoChallenges | Self::NoCommonChallenge { .. } => "certificate/no-challenge",
            Self::Unresolved { .. } => "certificate/unresolved",
            Self::Unreached { .. } => "certificate/unreached",
            Self::SomebodyElse { .. } => "certificate/somebody-else",
            Self::Edge { .. } => "certificate/proxy",
            Self::Unreachable { .. } | Self::Slow { .. } | Self::Nonce => "certificate/authority-unreachable",
            Self::ExternalAccount { .. } => "certificate/account",
            Self::RateLimited { .. } => "certificate/rate-limited",
            Self::Refused { .. } | Self::AccountGone | Self::OrderGone => "certificate/refused",
            Self::Challenge { .. } => "certificate/challenge",
            Self::BadIssue(_) => "certificate/bad-issue",
            Self::Files { .. } | Self::Unreadable { .. } => "certificate/files",
            Self::Ended { .. } => "certificate/ended",
            Self::Disk { .. } => "certificate/disk",
            Self::Crypto { .. } => "certificate/crypto",
        }
    }

    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Name { .. } => "use certificate files of your own for this name, or a self-signed one".to_owned(),
            Self::NoChallenges | Self::NoCommonChallenge { .. } => "allow http-01 or tls-alpn-01".to_owned(),
            Self::Unresolved { name, .. } => {
                format!("create an A or AAAA record for {name} that leads to this machine")
            }
            Self::Unreached { address, .. } => format!(
                "open port {} to the world; where a machine cannot reach its own public address, switch the check \
                 before the order off",
                address.port()
            ),
            Self::SomebodyElse { name, address, .. } => {
                format!("is {} this machine? Correct the records of {name}, or what is in front", address.ip())
            }
            Self::Challenge { name, .. } => {
                format!("the authority asks from the internet: do firewall and every record of {name} let it in?")
            }
            Self::Edge { .. } => "fairway status shows the proxy".to_owned(),
            Self::Unreachable { .. } => "check the directory's address and the way to it".to_owned(),
            Self::Ended { .. } => "replace the files; they are looked at every few seconds".to_owned(),
            Self::ExternalAccount { .. } => {
                "fairway secret set the name in eab_hmac to the key as the authority shows it, then deploy".to_owned()
            }
            Self::Refused { kind, .. } if kind == "externalAccountRequired" => {
                "get a key id and a MAC key from the authority, and set eab_kid and eab_hmac in tls.acme".to_owned()
            }
            Self::Files { .. } | Self::Unreadable { .. } => {
                "the chain begins with the certificate of the name, followed by the intermediate ones; both files \
                 are PEM and readable for the server's user"
                    .to_owned()
            }
            Self::Disk { .. } => "free space, or correct the directory's rights".to_owned(),
            Self::RateLimited { .. }
            | Self::Refused { .. }
            | Self::Slow { .. }
            | Self::Nonce
            | Self::AccountGone
            | Self::OrderGone
            | Self::BadIssue(_)
            | Self::Crypto { .. } => return None,
        })
    }

    /// Whether asking again at once is right, a few times.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Nonce | Self::AccountGone | Self::OrderGone)
    }

    /// Whether the authority itself has said when: nobody's impatience may change that.
    pub(super) fn is_binding(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Unreachable { retry_at: Some(_), .. })
    }

    /// When to try again after the `failures`-th failure in a row. `jitter` is between 0 and 1: sets that failed
    /// together do not come back together.
    pub(super) fn retry_at(&self, failures: u32, now: Timestamp, jitter: f64) -> Timestamp {
        if let Self::RateLimited { retry_at: Some(at), .. } | Self::Unreachable { retry_at: Some(at), .. } =
            self
        {
            // A time in the past says "now", and that it was not understood.
            let at = (*at).clamp(now + OUTAGE.first, now + AUTHORITY_SAYS_MAX);
            return at + OURS.first.mul_f64(jitter);
        }
        let Pace { first, most } = self.pace();
        // 2^20 times the shortest pace is half a year.
        let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(most);
        now + doubled.mul_f64(1.0 + jitter / 10.0)
    }

    fn pace(&self) -> Pace {
        match self {
            Self::Name { .. }
            | Self::NoChallenges
            | Self::Unresolved { .. }
            | Self::Unreached { .. }
            | Self::SomebodyElse { .. }
            | Self::Edge { .. }
            | Self::Files { .. }
            | Self::Ended { .. }
            | Self::Unreadable { .. }
            | Self::Disk { .. }
            | Self::ExternalAccount { .. }
            | Self::Crypto { .. } => OURS,
            Self::Unreachable { .. } | Self::Slow { .. } | Self::Nonce => OUTAGE,
            Self::Refused { .. }
            | Self::Challenge { .. }
            | Self::NoCommonChallenge { .. }
            | Self::AccountGone
            | Self::OrderGone
            | Self::BadIssue(_) => REFUSAL,
            Self::RateLimited { .. } => LIMIT,
        }
    }
}

/// Before an attempt nothing is known but how many there were; written down before the authority is asked, so that a
/// server that is killed in each attempt does not hammer it. The first attempt is simply carried on.
pub(super) fn retry_after_crash(attempts: u32, now: Timestamp) -> Timestamp {
    if attempts <= 1 { now } else { Cause::OrderGone.retry_at(attempts - 1, now, 0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn refused() -> Cause {
        Cause::Refused { kind: "unauthorized".to_owned(), detail: "no".to_owned() }
    }

    #[test]
    fn failures_stay_below_the_limit_of_five_an_hour() {
        let (mut at, mut attempts) = (NOW, 0);
        while at.since(NOW) < minutes(60) {
            attempts += 1;
            at = refused().retry_at(attempts, at, 0.0);
        }
        assert_eq!(attempts, 4);
    }

    #[test]
    fn waits_double_up_to_a_cap_and_never_overflow() {
        let wait = |failures| refused().retry_at(failures, NOW, 0.0).since(NOW);
        assert_eq!([wait(0), wait(1), wait(2), wait(3)], [5, 5, 10, 20].map(minutes));
        assert_eq!([wait(30), wait(u32::MAX)], [720, 720].map(minutes));
        assert_eq!(refused().retry_at(1, NOW, 1.0).since(NOW), Duration::from_secs(330));
    }

    #[test]
    fn the_authoritys_own_time_is_kept_within_reason() {
        let at = |at: Timestamp| {
            let limited = Cause::RateLimited { detail: "too many".to_owned(), retry_at: Some(at) };
            limited.retry_at(1, NOW, 0.0)
        };
        assert_eq!(at(NOW + minutes(180)), NOW + minutes(180));
        assert_eq!(at(Timestamp(0)), NOW + minutes(1));
        assert_eq!(at(Timestamp(u64::MAX)), NOW + AUTHORITY_SAYS_MAX);
    }

    #[test]
    fn a_crash_loop_slows_down() {
        assert_eq!(retry_after_crash(1, NOW), NOW);
        assert_eq!(retry_after_crash(2, NOW), NOW + minutes(5));
        assert_eq!(retry_after_crash(4, NOW), NOW + minutes(20));
    }
}
