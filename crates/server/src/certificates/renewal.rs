//! When a certificate is renewed: by the authority's word where it has one (ARI, RFC 9773), otherwise by our own rule.
//! An authority that has to revoke certificates moves their renewal forward, and nobody has to be told.

use std::time::Duration;

use fairway_engine::time::Timestamp;
use instant_acme::{Account, CertificateIdentifier};
use rustls::pki_types::Der;
use serde::{Deserialize, Serialize};

use super::leaf::Leaf;

/// Authorities want to be asked some times a day; one that says less often than daily would tell too late that a
/// certificate is to be revoked, and one that says each second is not heeded (RFC 9773, section 4.3.3).
const ASK_AGAIN: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60 * 60)..=Duration::from_secs(24 * 60 * 60);

/// After an answer that was none, and where the authority has no word on it.
pub(super) const ASK_LATER: Duration = Duration::from_secs(6 * 60 * 60);

/// When the authority wants a certificate to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
}

impl Window {
    /// A moment within, chosen once; `jitter` is between 0 and 1. Never so late that a failure could not be repeated:
    /// a tenth of the life stays.
    pub(super) fn moment(self, leaf: &Leaf, jitter: f64) -> Timestamp {
        let latest = leaf.not_before + leaf.life() * 9 / 10;
        (self.start + self.end.since(self.start).mul_f64(jitter)).min(latest)
    }
}

/// By which an authority knows a certificate; none for one that does not say who has signed it.
pub(super) fn identifier(leaf: &Leaf) -> Option<CertificateIdentifier<'static>> {
    let key = leaf.authority_key.as_deref()?;
    let identifier = CertificateIdentifier::new(Der::from_slice(key), Der::from_slice(&leaf.serial));
    Some(identifier.into_owned())
}

/// The window, and when to ask again.
///
/// # Errors
/// Without a reason: whatever it is, our own rule holds.
pub(super) async fn ask(account: &Account, leaf: &Leaf) -> Result<(Window, Duration), ()> {
    let identifier = identifier(leaf).ok_or(())?;
    let (told, again) = account.renewal_info(&identifier).await.map_err(|_| ())?;
    let at = |time: time::OffsetDateTime| {
        let ms = time.unix_timestamp_nanos() / 1_000_000;
        u64::try_from(ms).map(Timestamp).map_err(|_| ())
    };
    let window = Window { start: at(told.suggested_window.start)?, end: at(told.suggested_window.end)? };
    // A window without an inside is none (section 4.2).
    if window.end <= window.start {
        return Err(());
    }
    Ok((window, again.clamp(*ASK_AGAIN.start(), *ASK_AGAIN.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn leaf() -> Leaf {
        Leaf {
            not_before: Timestamp(100 * DAY_MS),
            not_after: Timestamp(200 * DAY_MS),
            names: Vec::new(),
            public_key: Vec::new(),
            issuer: String::new(),
            // The example of RFC 9773, section 4.1.
            serial: vec![0x00, 0x87, 0x65, 0x43, 0x21],
            authority_key: Some(vec![
                0x69, 0x88, 0x5b, 0x6b, 0x87, 0x46, 0x40, 0x41, 0xe1, 0xb3, 0x7b, 0x84, 0x7b, 0xa0, 0xae,
                0x2c, 0xde, 0x01, 0xc8, 0xd4,
            ]),
        }
    }

    #[test]
    fn the_moment_is_within_the_window_and_never_at_the_last_minute() {
        let window =
            |start: u64, end: u64| Window { start: Timestamp(start * DAY_MS), end: Timestamp(end * DAY_MS) };
        let day = |window: Window, jitter| window.moment(&leaf(), jitter).0 / DAY_MS;
        assert_eq!([day(window(150, 160), 0.0), day(window(150, 160), 0.5)], [150, 155]);
        assert_eq!(day(window(50, 60), 0.9), 59, "what has passed is at once");
        assert_eq!(day(window(199, 300), 1.0), 190);
        assert_eq!(day(window(u64::MAX / DAY_MS, u64::MAX / DAY_MS), 1.0), 190);
    }

    #[test]
    fn a_certificate_is_named_as_the_rfc_does() {
        assert_eq!(identifier(&leaf()).unwrap().to_string(), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
        assert!(identifier(&Leaf { authority_key: None, ..leaf() }).is_none());
    }
}
