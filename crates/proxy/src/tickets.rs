//! Keys by which clients resume their TLS sessions: tickets, which nobody but us can read (RFC 5077, and RFC 8446,
//! section 4.6.1). One set for all cores, listeners and snapshots of a process, handed to its successor: a new
//! certificate, another core and an upgrade cost no client a whole handshake.
//!
//! The library has tickets of its own, whose keys cannot be handed on.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

/// A key makes tickets for so long, and opens them for as long again. Whoever steals one can read the resumed sessions
/// of this time, so that it must not be long; clients come back within minutes, mostly.
const ROTATE_S: u64 = 6 * 60 * 60;

/// A session has some hundred bytes: secret, host name, protocol. More is not ours, and guesses at keys by long texts
/// are not tried (Len, Grubbs, Ristenpart: Partitioning Oracle Attacks, 2021).
const TICKET_BYTES_MAX: usize = 2048;

const NAME_LEN: usize = 16;
const TAG_LEN: usize = 16;

/// The machine gives no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the machine gives no random numbers")]
pub(crate) struct NoRandom;

/// A key as it goes to a successor, over a socket in a directory of this user.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct TicketKey {
    /// Unix time.
    made_s: u64,
    /// Stands at the front of its tickets.
    name: [u8; NAME_LEN],
    secret: [u8; 32],
}

/// It is a secret.
impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKey(made {})", self.made_s)
    }
}

impl TicketKey {
    fn new(now_s: u64) -> Result<Self, NoRandom> {
        let (mut name, mut secret) = ([0; NAME_LEN], [0; 32]);
        let random = SystemRandom::new();
        random.fill(&mut name).and_then(|()| random.fill(&mut secret)).map_err(|_| NoRandom)?;
        Ok(Self { made_s: now_s, name, secret })
    }

    fn aead(&self) -> LessSafeKey {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.secret);
        LessSafeKey::new(key.expect("a key of this kind has 32 bytes"))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Tickets(Arc<Ring>);

/// The newest first; at most two.
struct Ring(RwLock<Vec<(TicketKey, LessSafeKey)>>);

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ring")
    }
}

impl Tickets {
    /// `handed`: the keys of a predecessor, newest first; none where there is none.
    ///
    /// # Errors
    /// When the machine gives no random numbers.
    pub(crate) fn new(handed: Vec<TicketKey>) -> Result<Self, NoRandom> {
        Self::at(handed, now_s())
    }

    fn at(handed: Vec<TicketKey>, now_s: u64) -> Result<Self, NoRandom> {
        let keys = handed.into_iter().take(2).map(|key| {
            let aead = key.aead();
            (key, aead)
        });
        let ring = Ring(RwLock::new(keys.collect()));
        ring.rotate(now_s)?;
        Ok(Self(Arc::new(ring)))
    }

    pub(crate) fn producer(&self) -> Arc<dyn ProducesTickets> {
        Arc::clone(&self.0) as Arc<dyn ProducesTickets>
    }

    /// For a successor.
    pub(crate) fn keys(&self) -> Vec<TicketKey> {
        self.0.read().iter().map(|(key, _)| key.clone()).collect()
    }
}

impl Ring {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<(TicketKey, LessSafeKey)>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new key where the newest has had its time.
    fn rotate(&self, now_s: u64) -> Result<(), NoRandom> {
        // A clock that was put back makes no key older than it is.
        let is_current = |key: &TicketKey| now_s < key.made_s.saturating_add(ROTATE_S);
        if self.read().first().is_some_and(|(key, _)| is_current(key)) {
            return Ok(());
        }
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if keys.first().is_some_and(|(key, _)| is_current(key)) {
            return Ok(());
        }
        let key = TicketKey::new(now_s)?;
        keys.retain(|(key, _)| now_s < key.made_s.saturating_add(2 * ROTATE_S));
        keys.insert(0, (key.clone(), key.aead()));
        keys.truncate(2);
        Ok(())
    }

    fn seal(&self, message: &[u8], now_s: u64) -> Option<Vec<u8>> {
        if message.len() + NAME_LEN + NONCE_LEN + TAG_LEN > TICKET_BYTES_MAX {
            return None;
        }
        self.rotate(now_s).ok()?;
        let keys = self.read();
        let (key, aead) = keys.first()?;
        // At random: a counter would tell how many visitors there are, and is not shared with a predecessor.
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME_LEN + NONCE_LEN + message.len() + TAG_LEN);
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(message);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let body = &mut ticket[NAME_LEN + NONCE_LEN..];
        let tag = aead.seal_in_place_separate_tag(nonce, Aad::from(key.name), body).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now_s: u64) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (name, rest) = ticket.split_at_checked(NAME_LEN)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.read();
        let (key, aead) = keys.iter().find(|(key, _)| key.name == name)?;
        if now_s >= key.made_s.saturating_add(2 * ROTATE_S) {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut message = sealed.to_vec();
        let length = aead.open_in_place(nonce, Aad::from(key.name), &mut message).ok()?.len();
        message.truncate(length);
        Some(message)
    }
}

impl ProducesTickets for Ring {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(2 * ROTATE_S).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now_s())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, now_s())
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(tickets: &Tickets) -> &Ring {
        &tickets.0
    }

    #[test]
    fn a_ticket_lives_for_one_to_two_rotations() {
        let tickets = Tickets::at(Vec::new(), 1000).unwrap();
        let ring = ring(&tickets);
        let early = ring.seal(b"session", 1000).unwrap();
        let late = ring.seal(b"session", 1000 + ROTATE_S).unwrap();
        assert_eq!(ring.read().len(), 2);
        assert_eq!(ring.open(&early, 999 + 2 * ROTATE_S).as_deref(), Some(&b"session"[..]));
        assert_eq!(ring.open(&early, 1000 + 2 * ROTATE_S), None);
        let _ = ring.seal(b"session", 1000 + 2 * ROTATE_S).unwrap();
        assert_eq!(ring.open(&early, 1000), None, "its key is gone");
        assert_eq!(ring.open(&late, 1000 + 2 * ROTATE_S).as_deref(), Some(&b"session"[..]));
    }

    #[test]
    fn a_successor_opens_the_tickets_of_its_predecessor() {
        let before = Tickets::at(Vec::new(), 0).unwrap();
        let ticket = ring(&before).seal(b"session", 0).unwrap();
        let line = serde_json::to_string(&before.keys()).unwrap();
        let after = Tickets::at(serde_json::from_str(&line).unwrap(), 10).unwrap();
        assert_eq!(ring(&after).open(&ticket, 10).as_deref(), Some(&b"session"[..]));
        assert_eq!(after.keys().len(), 1, "it goes on with the same key");
        let stranger = Tickets::at(Vec::new(), 0).unwrap();
        assert_eq!(ring(&stranger).open(&ticket, 10), None);
    }

    #[test]
    fn what_was_changed_is_no_ticket() {
        let tickets = Tickets::at(Vec::new(), 0).unwrap();
        let whole = ring(&tickets).seal(b"session", 0).unwrap();
        for at in 0..whole.len() {
            assert_eq!(ring(&tickets).open(&whole[..at], 0), None);
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_eq!(ring(&tickets).open(&changed, 0), None, "{at}");
        }
        assert_eq!(ring(&tickets).open(&vec![0; TICKET_BYTES_MAX + 1], 0), None);
        assert_eq!(ring(&tickets).seal(&vec![0; TICKET_BYTES_MAX], 0), None);
    }

    #[test]
    fn no_key_is_written_into_a_log() {
        let tickets = Tickets::at(Vec::new(), 7).unwrap();
        assert_eq!(format!("{tickets:?} {:?}", tickets.keys()), "Tickets(Ring) [TicketKey(made 7)]");
    }
}
