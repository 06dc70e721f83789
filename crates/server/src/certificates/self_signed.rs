//! A certificate that nobody believes, so that https can be tried on a laptop.

use std::collections::BTreeSet;
use std::time::Duration;

use fairway_engine::time::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair};
use time::OffsetDateTime;

use super::cause::Cause;
use super::pair::Pair;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Browsers refuse longer ones than 398 days whoever signed them.
const LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

pub(super) fn make(names: &BTreeSet<String>, now: Timestamp) -> Result<Pair, Cause> {
    let fail = |error: rcgen::Error| Cause::Crypto { why: error.to_string() };
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>()).map_err(fail)?;
    params.distinguished_name.push(DnType::CommonName, "Fairway, self-signed");
    // Phones and virtual machines whose clock is behind are to be tried, too.
    params.not_before = date(Timestamp(now.0.saturating_sub(ms(DAY))))?;
    params.not_after = date(now + LIFE)?;
    let key = KeyPair::generate().map_err(fail)?;
    let chain = params.self_signed(&key).map_err(fail)?.pem();
    Pair::read(chain.into_bytes(), key.serialize_pem().into_bytes(), names)
        .map_err(|error| Cause::Crypto { why: error.to_string() })
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn date(at: Timestamp) -> Result<OffsetDateTime, Cause> {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|error| Cause::Crypto { why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_for_names_and_addresses_and_ends() {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into_iter().collect();
        let now = Timestamp(1_800_000_000_000);
        let pair = make(&names, now).unwrap();
        assert_eq!(pair.leaf.not_after, now + LIFE);
        assert_eq!(pair.leaf.life(), LIFE + DAY);
    }

    #[test]
    fn a_clock_far_off_is_no_panic() {
        let names = ["localhost".to_owned()].into_iter().collect();
        make(&names, Timestamp(0)).unwrap();
        make(&names, Timestamp(u64::MAX)).unwrap_err();
    }
}
