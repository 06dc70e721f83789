//! One attempt to get a certificate from an authority, from the look at the names to the chain (RFC 8555, section 7).
//!
//! Each step that counts is written down before the next: whoever comes after a kill carries the same order on.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairway_engine::time::Timestamp;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error, Identifier,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::authority::{Authority, detail_of};
use super::cause::{Cause, retry_after_crash};
use super::leaf::Leaf;
use super::meta::Meta;
use super::offer::{Answers, Board};
use super::pair::Pair;
use super::preflight::{Lookout, Nonce, random};
use super::proof;
use super::renewal;
use super::shelf::{Place, Shelf};
use super::status::Step;
use super::wanted::{Acme, ChallengeKind, Slug};
use super::{RENEW_AFTER_MIN, SecretOf};

/// Nonces are thrown away when an authority restarts or balances its load; more often than this in a row it is ill.
const PASSES_MAX: usize = 8;

/// Let's Encrypt looks from several places, and mostly needs seconds; an order that is not done is carried on later.
const POLL_WITHIN: Duration = Duration::from_secs(90);
const POLL: RetryPolicy = RetryPolicy::new().timeout(POLL_WITHIN);

/// For everything, so that an authority that answers slowly all along holds no place for ever.
const WITHIN: Duration = Duration::from_secs(5 * 60);

pub(super) struct Attempt {
    pub(super) slug: Slug,
    pub(super) names: BTreeSet<String>,
    pub(super) acme: Acme,
    pub(super) shelf: Shelf,
    pub(super) place: Place,
    pub(super) board: Arc<Board>,
    pub(super) lookout: Lookout,
    pub(super) secret_of: SecretOf,
    /// The certificate that this one comes for, where the authority wants to know: it may not count such an order
    /// against its limits.
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
    pub(super) now: Timestamp,
    pub(super) step: Arc<Mutex<Step>>,
}

impl Attempt {
    pub(super) async fn obtain(&self, meta: &mut Meta) -> Result<Pair, Cause> {
        check(&self.names)?;
        // Without a disk nothing is asked: a certificate that cannot be kept would be asked for again and again.
        self.place.prepare()?;
        meta.names = self.names.iter().cloned().collect();
        meta.attempts = meta.attempts.saturating_add(1);
        meta.after_crash = Some(retry_after_crash(meta.attempts, self.now));
        self.place.save_meta(meta)?;
        let late = |_| Err(Cause::Slow { within: WITHIN });
        let obtained = tokio::time::timeout(WITHIN, self.passes(meta)).await.unwrap_or_else(late);
        // A proxy that cannot be told now is told with the next offer.
        drop(self.board.change(|held| drop(held.answers.remove(&self.slug))).await);
        obtained
    }

    /// When the authority wants the certificate that serves to be renewed. Where that cannot be told, what was known
    /// before holds.
    pub(super) async fn ask_renewal(&self, meta: &mut Meta, leaf: &Leaf, jitter: f64) {
        let ask = async {
            let authority = Authority::new(&self.acme, self.now).map_err(drop)?;
            let account = authority.account(&self.shelf, &self.acme, &self.secret_of).await.map_err(drop)?;
            renewal::ask(&account, leaf).await
        };
        let again = match tokio::time::timeout(WITHIN, ask).await {
            Ok(Ok((window, again))) => {
                let earliest = meta.obtained_at.map(|at| at + RENEW_AFTER_MIN);
                meta.renew_at = Some(window.moment(leaf, jitter)).max(earliest);
                meta.window = Some(window);
                again
            }
            Ok(Err(())) | Err(_) => renewal::ASK_LATER,
        };
        meta.ask_at = Some(self.now + again);
        // On a full disk the next server asks again.
        drop(self.place.save_meta(meta));
    }

    async fn passes(&self, meta: &mut Meta) -> Result<Pair, Cause> {
        let authority = Authority::new(&self.acme, self.now)?;
        let mut outcome = Err(Cause::Nonce);
        for _ in 0..PASSES_MAX {
            outcome = self.pass(&authority, meta).await;
            match &outcome {
                Err(Cause::OrderGone) => self.note_order(meta, None)?,
                Err(Cause::AccountGone) => {
                    authority.forget_account(&self.shelf, &self.acme);
                    self.note_order(meta, None)?;
                }
                Err(cause) if cause.is_passing() => {}
                Ok(_) | Err(_) => break,
            }
        }
        outcome
    }

    async fn pass(&self, authority: &Authority, meta: &mut Meta) -> Result<Pair, Cause> {
        let told = |error: Error| authority.cause(&error);
        // Nobody is asked for names that do not lead here.
        let mut kinds = match meta.order {
            None => Some(self.kinds(meta.attempts).await?),
            Some(_) => None,
        };
        self.at(Step::Account);
        let account = authority.account(&self.shelf, &self.acme, &self.secret_of).await?;
        self.at(Step::Order);
        let mut order = self.order(&account, authority, meta).await?;
        if order.state().status == OrderStatus::Pending {
            let kinds = match kinds.take() {
                Some(kinds) => kinds,
                None => self.kinds(meta.attempts).await?,
            };
            self.answer(&mut order, authority, &kinds).await?;
            self.at(Step::Validation);
            self.validated(&mut order, authority, meta).await?;
        }
        let key = match (order.state().status, self.place.order_key()) {
            (OrderStatus::Ready, Some(key)) => {
                order.finalize_csr(&self.request(&key)?).await.map_err(told)?;
                key
            }
            (OrderStatus::Processing | OrderStatus::Valid, Some(key)) => key,
            // Without its key the certificate of an order is of no use.
            (_, None) | (OrderStatus::Pending | OrderStatus::Invalid, Some(_)) => {
                return Err(Cause::OrderGone);
            }
        };
        self.at(Step::Certificate);
        let chain = match order.poll_certificate(&POLL).await {
            Ok(chain) => chain,
            Err(Error::Timeout(_)) => return Err(slow()),
            Err(error) => {
                let cause = told(error);
                if matches!(cause, Cause::Refused { .. }) {
                    self.note_order(meta, None)?;
                }
                return Err(cause);
            }
        };
        let pair = Pair::read(chain.into_bytes(), key.into_bytes(), &self.names);
        let pair = match pair {
            Ok(pair) => pair,
            Err(fault) => {
                self.note_order(meta, None)?;
                return Err(Cause::BadIssue(fault));
            }
        };
        self.place.store(&pair)?;
        Ok(pair)
    }

    /// The first kind of challenge for which all names lead here; all kinds, where that is not looked at. Where none
    /// does, the fault of the preferred one.
    async fn kinds(&self, attempts: u32) -> Result<Vec<ChallengeKind>, Cause> {
        let mut kinds = self.acme.challenges.clone();
        // What this machine sees as right the world may not: a closed port 80 must not hide an open 443.
        let turned = usize::try_from(attempts.saturating_sub(1)).unwrap_or(0) % kinds.len().max(1);
        kinds.rotate_left(turned);
        if !self.acme.preflight {
            return if kinds.is_empty() { Err(Cause::NoChallenges) } else { Ok(kinds) };
        }
        let mut first = Err(Cause::NoChallenges);
        for kind in kinds {
            self.at(Step::Preflight(kind));
            match self.preflight(kind).await {
                Ok(()) => return Ok(vec![kind]),
                Err(cause) if first == Err(Cause::NoChallenges) => first = Err(cause),
                Err(_) => {}
            }
        }
        first
    }

    async fn preflight(&self, kind: ChallengeKind) -> Result<(), Cause> {
        match kind {
            ChallengeKind::Http01 => {
                let nonce = Nonce::new()?;
                let http = [(nonce.token.clone(), nonce.answer.clone())].into();
                self.publish(Answers { http, tls: Vec::new() }).await?;
                for name in &self.names {
                    self.lookout.over_http(name, &nonce).await?;
                }
            }
            ChallengeKind::TlsAlpn01 => {
                let mut tls = Vec::new();
                for name in &self.names {
                    let digest = blake3::hash(random()?.as_bytes());
                    tls.push(proof::make(&self.place, name, digest.as_bytes())?);
                }
                self.publish(Answers { tls: tls.clone(), ..Answers::default() }).await?;
                for (name, proof) in self.names.iter().zip(&tls) {
                    self.lookout.over_tls(name, proof).await?;
                }
            }
        }
        Ok(())
    }

    async fn publish(&self, answers: Answers) -> Result<(), Cause> {
        self.board.change(|held| drop(held.answers.insert(self.slug.clone(), answers))).await
    }

    /// The order under way, or a new one.
    async fn order(&self, account: &Account, authority: &Authority, meta: &mut Meta) -> Result<Order, Cause> {
        if let Some(url) = meta.order.clone() {
            return account.order(url).await.map_err(|error| authority.cause_of_order(&error));
        }
        let key = KeyPair::generate().map_err(|error| crypto(&error))?;
        self.place.save_order_key(&key.serialize_pem())?;
        let names: Vec<Identifier> = self.names.iter().cloned().map(Identifier::Dns).collect();
        let placed = match &self.replaces {
            None => account.new_order(&NewOrder::new(&names)).await,
            Some(replaces) => {
                let order = NewOrder::new(&names).replaces(replaces.clone());
                match account.new_order(&order).await {
                    // That it comes in place of another is a courtesy, and nothing to fail for.
                    Err(error) if is_about_replacing(&error) => {
                        account.new_order(&NewOrder::new(&names)).await
                    }
                    placed => placed,
                }
            }
        };
        let order = placed.map_err(|error| authority.cause(&error))?;
        self.note_order(meta, Some(order.url().to_owned()))?;
        Ok(order)
    }

    fn note_order(&self, meta: &mut Meta, order: Option<String>) -> Result<(), Cause> {
        meta.order = order;
        self.place.save_meta(meta)
    }

    /// Publishes the answers to all open challenges, and says so only when the proxy has them.
    async fn answer(
        &self,
        order: &mut Order,
        authority: &Authority,
        kinds: &[ChallengeKind],
    ) -> Result<(), Cause> {
        let told = |error: Error| authority.cause(&error);
        self.at(Step::Challenge);
        let mut answers = Answers::default();
        let mut chosen = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(told)?;
            let open = match authorization.status {
                AuthorizationStatus::Pending => true,
                AuthorizationStatus::Valid => false,
                AuthorizationStatus::Invalid
                | AuthorizationStatus::Revoked
                | AuthorizationStatus::Expired
                | AuthorizationStatus::Deactivated => return Err(Cause::OrderGone),
            };
            if !open {
                chosen.push(None);
                continue;
            }
            let name = authorization.identifier().to_string();
            let offered: Vec<ChallengeType> =
                authorization.challenges.iter().map(|challenge| challenge.r#type.clone()).collect();
            let kind = kinds.iter().copied().find(|kind| offered.contains(&wire(*kind)));
            let found = kind.and_then(|kind| Some((kind, authorization.challenge(wire(kind))?)));
            let Some((kind, challenge)) = found else {
                return Err(Cause::NoCommonChallenge { name, offered: offered.iter().map(spelt).collect() });
            };
            let key_authorization = challenge.key_authorization();
            match kind {
                ChallengeKind::Http01 => {
                    check_token(&challenge.token)?;
                    let answer = key_authorization.as_str().to_owned();
                    answers.http.insert(challenge.token.clone(), answer);
                }
                ChallengeKind::TlsAlpn01 => {
                    let digest = key_authorization.digest();
                    answers.tls.push(proof::make(&self.place, &name, digest.as_ref())?);
                }
            }
            chosen.push(Some(kind));
        }
        self.publish(answers).await?;
        let mut authorizations = order.authorizations();
        for kind in chosen {
            let Some(authorization) = authorizations.next().await else { break };
            let mut authorization = authorization.map_err(told)?;
            let Some(mut challenge) = kind.and_then(|kind| authorization.challenge(wire(kind))) else {
                continue;
            };
            // An order that is carried on may have been at this point already.
            if challenge.status == ChallengeStatus::Pending {
                challenge.set_ready().await.map_err(told)?;
            }
        }
        Ok(())
    }

    async fn validated(
        &self,
        order: &mut Order,
        authority: &Authority,
        meta: &mut Meta,
    ) -> Result<(), Cause> {
        let cause = match order.poll_ready(&POLL).await {
            Ok(OrderStatus::Ready | OrderStatus::Processing | OrderStatus::Valid) => return Ok(()),
            Ok(OrderStatus::Pending | OrderStatus::Invalid) => {
                Cause::Refused { kind: "invalid".to_owned(), detail: "the order has failed".to_owned() }
            }
            Err(Error::Timeout(_)) => return Err(slow()),
            Err(error) => {
                let cause = authority.cause(&error);
                if !matches!(cause, Cause::Refused { .. }) {
                    return Err(cause);
                }
                cause
            }
        };
        // It can come to nothing any more, and the reason is with one of its names.
        self.note_order(meta, None)?;
        Err(self.failed_challenge(order).await.unwrap_or(cause))
    }

    async fn failed_challenge(&self, order: &mut Order) -> Option<Cause> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let authorization = authorization.ok()?;
            let failed = authorization.challenges.iter().find_map(|challenge| {
                let kind = kind_of(&challenge.r#type)?;
                Some((kind, detail_of(challenge.error.as_ref()?)))
            });
            if let Some((kind, detail)) = failed {
                let name = authorization.identifier().to_string();
                return Some(Cause::Challenge { name, kind, detail });
            }
        }
        None
    }

    /// A certificate signing request for the names.
    fn request(&self, key_pem: &str) -> Result<Vec<u8>, Cause> {
        let key = KeyPair::from_pem(key_pem).map_err(|_| Cause::OrderGone)?;
        let names: Vec<String> = self.names.iter().cloned().collect();
        let mut params = CertificateParams::new(names).map_err(|error| crypto(&error))?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(|error| crypto(&error))?;
        Ok(request.der().to_vec())
    }

    fn at(&self, step: Step) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }
}

/// Whether the same order may do where it does not say what it replaces (RFC 9773, section 5).
fn is_about_replacing(error: &Error) -> bool {
    if let Error::Api(problem) = error {
        let kind = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next());
        return matches!(kind, Some("alreadyReplaced" | "malformed" | "unauthorized"));
    }
    matches!(error, Error::Unsupported(_)) || error.to_string().contains("replaces field mismatch")
}

fn slow() -> Cause {
    Cause::Slow { within: POLL_WITHIN }
}

fn crypto(error: &rcgen::Error) -> Cause {
    Cause::Crypto { why: error.to_string() }
}

/// Names for which every public authority would refuse the order.
fn check(names: &BTreeSet<String>) -> Result<(), Cause> {
    for name in names {
        let why = if name.starts_with("*.") {
            "a wildcard needs a challenge in the DNS"
        } else if name.parse::<IpAddr>().is_ok() {
            "it is an address"
        } else if !name.contains('.') {
            "it has no dot, so it is no public name"
        } else if !name.is_ascii() {
            "it has characters outside ASCII; write it in Punycode (xn--…)"
        } else {
            continue;
        };
        return Err(Cause::Name { name: name.clone(), why });
    }
    Ok(())
}

/// It becomes a path on port 80; RFC 8555 (section 8.1) allows letters, digits, `-` and `_`.
fn check_token(token: &str) -> Result<(), Cause> {
    /// The RFC's are 22 characters and more.
    const CHARS_MAX: usize = 256;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=CHARS_MAX).contains(&token.len()) && token.chars().all(plain) {
        return Ok(());
    }
    let detail = "its token has characters that no token may have".to_owned();
    Err(Cause::Refused { kind: "malformed".to_owned(), detail })
}

fn wire(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

fn kind_of(challenge: &ChallengeType) -> Option<ChallengeKind> {
    [ChallengeKind::Http01, ChallengeKind::TlsAlpn01].into_iter().find(|kind| wire(*kind) == *challenge)
}

fn spelt(challenge: &ChallengeType) -> String {
    if let ChallengeType::Unknown(name) = challenge {
        return name.chars().filter(|c| !c.is_control()).take(40).collect();
    }
    match kind_of(challenge) {
        Some(kind) => kind.to_string(),
        None if *challenge == ChallengeType::Dns01 => "dns-01".to_owned(),
        None => "device-attest-01".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_authority_takes_are_told_before_it_is_asked() {
        let why = |name: &str| match check(&[name.to_owned()].into()) {
            Err(Cause::Name { why, .. }) => why,
            other => panic!("{other:?}"),
        };
        assert!(why("*.a.example").contains("wildcard"));
        assert!(why("192.0.2.1").contains("address") && why("2001:db8::1").contains("address"));
        assert!(why("localhost").contains("no dot"));
        assert!(why("läden.example").contains("Punycode"));
        check(&["a.example".to_owned(), "xn--lden-loa.example".to_owned()].into()).unwrap();
    }

    #[test]
    fn a_token_is_no_path() {
        for token in ["", "../x", "a/b", "a b", "a\r\nb", &"a".repeat(257)] {
            check_token(token).unwrap_err();
        }
        check_token("LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0").unwrap();
    }
}
