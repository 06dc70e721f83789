//! Certificates for the names that environments serve: ordered from an authority and renewed by themselves (ACME,
//! RFC 8555), read from files of the user's own, or self-signed for development.
//!
//! [`Certificates`] is told what is [`Wanted`], and says what the proxy should have ([`Offer`]): certificates as
//! files, and answers to challenges. It brings offers there through an [`Edge`], and goes on only when the proxy has
//! confirmed them. Nothing here knows of routes or releases.
//!
//! What must stay true: no authority is asked for a name that does not lead here, or before the time that it gave, or
//! without a disk to keep its answer; a certificate that works is served until a newer one works; what failed is
//! tried again by itself, ever less often, over restarts too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairway_engine::certificate::CertificateGain;
use fairway_engine::id::EnvironmentKey;
use fairway_engine::time::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinSet;

mod attempt;
mod authority;
mod cause;
mod leaf;
mod meta;
mod offer;
mod own_files;
mod pair;
mod preflight;
mod proof;
mod renewal;
mod self_signed;
mod set;
mod shelf;
mod status;
#[cfg(test)]
mod tests;
mod wanted;

pub use cause::Cause;
pub use offer::{Certificate, Edge, Offer, Published, Purpose};
pub use pair::PairError;
pub use preflight::{Lookout, Resolver};
pub use status::{Ending, Event, Expiry, Happened, NameState, NameStatus, NotRetried, Step, Trouble};
pub use wanted::{Acme, ChallengeKind, ExternalAccount, LETS_ENCRYPT, LETS_ENCRYPT_STAGING, Source, Wanted};

use attempt::Attempt;
use leaf::Leaf;
use meta::Meta;
use offer::Board;
use own_files::{Look, Seen};
use pair::Pair;
use set::{Doing, Set};
use shelf::{Place, Shelf};
use wanted::Slug;

/// Orders at a time. Each is seconds of waiting; authorities allow far more (Let's Encrypt 300 in three hours).
const AT_ONCE_MAX: usize = 4;

/// A user's own files, whether they have changed: two questions to the kernel. Whoever replaces them looks at once
/// whether it worked. Also the longest sleep: a clock that was set is noticed by then.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A proxy that could not be told is told again.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// Files that stay wrong are told again, for a record that was not to be had or knew of it a moment ago.
const TROUBLE_AGAIN: Duration = Duration::from_secs(60 * 60);

/// An authority whose certificates are due again when they are fresh is not asked in a circle.
const RENEW_AFTER_MIN: Duration = Duration::from_secs(60 * 60);

pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The value of one version of a secret of an environment; the error says why not, in one sentence.
pub type SecretOf = Arc<dyn Fn(&EnvironmentKey, &str, u32) -> Result<String, String> + Send + Sync>;

#[derive(Clone)]
pub struct Options {
    pub now: Now,
    /// Random, once for each server: sets that are due together are renewed at different times, and so are servers.
    pub jitter: u64,
    pub lookout: Lookout,
    pub secret_of: SecretOf,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Options({:?})", self.lookout)
    }
}

/// A handle; clones are of the same.
#[derive(Clone)]
pub struct Certificates {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificates({} sets)", self.inner.sets().len())
    }
}

struct Inner {
    options: Options,
    shelf: Shelf,
    board: Arc<Board>,
    sets: Mutex<BTreeMap<Slug, Set>>,
    wake: Notify,
}

/// What a task comes back with.
struct Done {
    slug: Slug,
    meta: Meta,
    seen: Seen,
    result: Result<Made, Cause>,
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time, on its way to whoever asked")]
enum Made {
    Pair(Pair),
    /// It was only looked at, and what there is stays.
    Same,
}

impl Certificates {
    /// The caller holds the lock of the state directory: two of these on one directory would both order.
    ///
    /// # Errors
    /// When `<state_dir>/certificates` cannot be made or kept to this user.
    pub fn open(state_dir: &Path, options: Options, edge: Arc<dyn Edge>) -> Result<Self, Cause> {
        let inner = Inner {
            options,
            shelf: Shelf::open(state_dir)?,
            board: Arc::new(Board::new(edge)),
            sets: Mutex::default(),
            wake: Notify::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Everything that is wanted from now on; what was wanted before and is not named is let go. Certificates that
    /// are on disk are in the next [`offer`](Self::offer) when this returns. Cheap where nothing has changed.
    pub fn want(&self, wanted: Vec<Wanted>) {
        self.inner.want(wanted);
        self.inner.wake.notify_one();
    }

    /// What every snapshot for the proxy should hold now.
    #[must_use]
    pub fn offer(&self) -> Offer {
        self.inner.board.offer()
    }

    /// Every name of every environment.
    #[must_use]
    pub fn status(&self) -> Vec<NameStatus> {
        let sets = self.inner.sets();
        let states = sets.values().flat_map(|set| {
            let state = set.state();
            let pairs = set.environments.iter().flat_map(|environment| {
                set.wanted.names.iter().map(move |name| (environment.clone(), name.clone()))
            });
            let issuer = set.leaf().map(|leaf| leaf.issuer.clone());
            pairs.map(move |(environment, name)| NameStatus {
                environment,
                name,
                source: set.wanted.source.describe(),
                issuer: issuer.clone(),
                state: state.clone(),
            })
        });
        states.collect()
    }

    /// The end of every certificate that serves.
    #[must_use]
    pub fn expiries(&self) -> Vec<Expiry> {
        let ends = self.status().into_iter().filter_map(|status| {
            let until = status.state.until()?;
            Some(Expiry { environment: status.environment, name: status.name, until })
        });
        ends.collect()
    }

    /// The names of the certificate that [`retry`](Self::retry) would try.
    ///
    /// # Errors
    /// Why it would not.
    pub fn retried(&self, environment: &str, name: &str) -> Result<Vec<String>, NotRetried> {
        let mut sets = self.inner.sets();
        let (set, _) = to_retry(&mut sets, environment, name)?;
        Ok(set.wanted.names.iter().cloned().collect())
    }

    /// Tries a name that has failed again at once.
    ///
    /// # Errors
    /// Why there is nothing to try, or not now.
    pub fn retry(&self, environment: &str, name: &str) -> Result<(), NotRetried> {
        let mut sets = self.inner.sets();
        let (set, doing) = to_retry(&mut sets, environment, name)?;
        // Files are read even if they look as they did, and what comes of it is told.
        (set.doing, set.seen, set.told_at) = (doing, Seen::default(), Timestamp(0));
        self.inner.wake.notify_one();
        Ok(())
    }

    /// Works until it is dropped. One at a time.
    pub async fn run(self) {
        let mut tasks: JoinSet<Done> = JoinSet::new();
        loop {
            let told = self.inner.tell().await;
            let longest = if told.is_ok() { LOOK_EVERY } else { TELL_AGAIN };
            let now = (self.inner.options.now)();
            let next = self.inner.start_due(&mut tasks, now);
            let wait = next.map_or(longest, |next| next.since(now).min(longest));
            tokio::select! {
                () = self.inner.wake.notified() => {}
                Some(joined) = tasks.join_next(), if !tasks.is_empty() => match joined {
                    Ok(done) => self.inner.settle(done),
                    Err(_) => self.inner.recover(),
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// What has failed and may be tried, and what it then waits for.
fn to_retry<'s>(
    sets: &'s mut BTreeMap<Slug, Set>,
    environment: &str,
    name: &str,
) -> Result<(&'s mut Set, Doing), NotRetried> {
    let found = sets
        .values_mut()
        .find(|set| set.environments.contains(environment) && set.wanted.names.contains(name));
    let set = found.ok_or(NotRetried::Unknown)?;
    let until = set.leaf().map(|leaf| leaf.not_after);
    match (&set.doing, &set.meta.trouble, until) {
        (Doing::Working { .. }, _, _) => Err(NotRetried::UnderWay),
        (Doing::Resting { .. }, Some(trouble), _) if set.meta.binding => {
            Err(NotRetried::Limited { why: trouble.why.clone(), until: trouble.retry_at })
        }
        (Doing::Resting { .. }, None, Some(until)) => Err(NotRetried::Good { until }),
        (Doing::Resting { .. }, Some(_), _) | (Doing::Resting { .. }, None, None) => {
            Ok((set, Doing::Resting { due: Timestamp(0) }))
        }
    }
}

impl Inner {
    fn sets(&self) -> MutexGuard<'_, BTreeMap<Slug, Set>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, wanted: Vec<Wanted>) {
        let mut by_slug: BTreeMap<Slug, (Wanted, BTreeSet<String>)> = BTreeMap::new();
        for one in wanted.into_iter().filter(|one| !one.names.is_empty()) {
            let environment = one.environment.clone();
            by_slug.entry(one.slug()).or_insert_with(|| (one, BTreeSet::new())).1.insert(environment);
        }
        // Another source for the same names is no reason to say that nobody wants a certificate for them.
        let is_wanted = |environment: &String, slug: &Slug, set: &Set| {
            let itself = by_slug.get(slug).into_iter();
            let mut all = itself.chain(by_slug.values());
            all.any(|(wanted, by)| by.contains(environment) && wanted.names == set.wanted.names)
        };
        let mut events: Vec<Event> = Vec::new();
        let mut sets = self.sets();
        sets.retain(|slug, set| {
            let keep = by_slug.contains_key(slug);
            let gone: Vec<String> =
                set.environments.iter().filter(|one| !is_wanted(one, slug, set)).cloned().collect();
            if !gone.is_empty() {
                events.push(set.event(gone, Happened::LetGo));
            }
            if !keep {
                if let Doing::Working { task, .. } = &set.doing {
                    task.abort();
                }
                // Its time on the shelf begins now.
                drop(set.place.save_meta(&set.meta));
            }
            keep
        });
        for (slug, (wanted, environments)) in by_slug {
            if let Some(set) = sets.get_mut(&slug) {
                set.restore();
                if set.wanted != wanted && set.meta.trouble.is_some() && !set.meta.binding {
                    // Perhaps that was what was wrong.
                    if let Doing::Resting { due } = &mut set.doing {
                        *due = Timestamp(0);
                    }
                }
                let new = environments.difference(&set.environments).cloned().collect::<Vec<_>>();
                (set.wanted, set.environments) = (wanted, environments);
                if !new.is_empty() {
                    events.extend(set.stands(new));
                }
                continue;
            }
            let place = self.shelf.set(&slug);
            let mut meta = place.meta();
            let stored = meta.digest.as_ref().and_then(|digest| place.pair(digest, &wanted.names));
            match &stored {
                Some(pair) => {
                    let certificate = place.certificate(pair, &meta.names);
                    self.board.held().serving.insert(slug.clone(), certificate);
                }
                // Its files are lost: what is noted of them would put the next order off.
                None => (meta.digest, meta.renew_at) = (None, None),
            }
            let doing = Doing::Resting { due: Timestamp(0) };
            let seen = Seen::default();
            let pair = stored;
            let told_at = Timestamp(0);
            let mut set = Set { wanted, environments, place, meta, pair, seen, tidy: false, doing, told_at };
            if !matches!(set.wanted.source, Source::Files { .. }) {
                set.rest(Timestamp(0));
            }
            // The server before may have ended before it could be told.
            events.extend(set.stands(set.environments.iter().cloned().collect()));
            sets.insert(slug, set);
        }
        self.shelf.retain(|name| sets.keys().any(|slug| slug.as_str() == name));
        drop(sets);
        for event in &events {
            self.board.edge.happened(event);
        }
    }

    /// Takes back what nobody wants, tells the proxy what it does not know yet, and then removes what it has done with.
    async fn tell(&self) -> Result<(), Cause> {
        let wanted: BTreeSet<Slug> = self.sets().keys().cloned().collect();
        let told = self.board.change(|held| {
            held.serving.retain(|slug, _| wanted.contains(slug));
            held.answers.retain(|slug, _| wanted.contains(slug));
        });
        told.await?;
        for set in self.sets().values_mut().filter(|set| !set.tidy) {
            if matches!(set.doing, Doing::Resting { .. }) {
                set.place.tidy(&set.meta);
                set.tidy = true;
            }
        }
        Ok(())
    }

    /// When the next is due, unless something else happens before.
    fn start_due(self: &Arc<Self>, tasks: &mut JoinSet<Done>, now: Timestamp) -> Option<Timestamp> {
        let mut next: Option<Timestamp> = None;
        for (slug, set) in self.sets().iter_mut() {
            let Doing::Resting { due } = set.doing else { continue };
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
                continue;
            }
            if tasks.len() >= AT_ONCE_MAX {
                // Whoever ends wakes the loop.
                continue;
            }
            let step = if set.is_asking(now) { Step::Renewal } else { Step::Queued };
            let step = Arc::new(Mutex::new(step));
            let work = self.work(slug.clone(), set, Arc::clone(&step), now);
            set.doing = Doing::Working { step, task: tasks.spawn(work) };
        }
        next
    }

    fn work(
        self: &Arc<Self>,
        slug: Slug,
        set: &Set,
        step: Arc<Mutex<Step>>,
        now: Timestamp,
    ) -> impl Future<Output = Done> + Send + 'static {
        let (place, names, mut meta) = (set.place.clone(), set.wanted.names.clone(), set.meta.clone());
        let (source, inner) = (set.wanted.source.clone(), Arc::clone(self));
        let (leaf, before) = (set.leaf().cloned(), set.seen);
        let asked = leaf.clone().filter(|_| set.is_asking(now));
        async move {
            let mut seen = before;
            let made = match source {
                Source::Acme(acme) => {
                    let attempt = Attempt {
                        slug: slug.clone(),
                        names: names.clone(),
                        acme,
                        shelf: inner.shelf.clone(),
                        place: place.clone(),
                        board: Arc::clone(&inner.board),
                        lookout: inner.options.lookout.clone(),
                        secret_of: Arc::clone(&inner.options.secret_of),
                        replaces: leaf
                            .as_ref()
                            .filter(|_| meta.window.is_some())
                            .and_then(renewal::identifier),
                        now,
                        step,
                    };
                    match asked {
                        Some(leaf) => {
                            attempt.ask_renewal(&mut meta, &leaf, inner.jitter(&slug, 0)).await;
                            Ok(Made::Same)
                        }
                        None => attempt.obtain(&mut meta).await.map(Made::Pair),
                    }
                }
                Source::Files { chain, key } => {
                    match own_files::look(chain, key, names.clone(), before).await {
                        Look::Same => Ok(Made::Same),
                        Look::New { seen: now, pair } => {
                            seen = now;
                            pair.map(Made::Pair)
                        }
                    }
                }
                Source::SelfSigned => self_signed::make(&names, now).map(Made::Pair),
            };
            let result = match made {
                Ok(Made::Pair(pair)) => {
                    let fresh = Meta {
                        names: names.iter().cloned().collect(),
                        digest: Some(pair.digest.clone()),
                        renew_at: Some(inner.renew_at(&slug, &pair.leaf)),
                        obtained_at: Some(now),
                        ..Meta::default()
                    };
                    let brought = inner.bring_in(&slug, &place, &pair, &fresh).await;
                    // What could not be kept is fetched again: the order is still known, and files are read again.
                    if brought.is_err() {
                        seen = Seen::default();
                    }
                    brought.map(|()| (meta = fresh, Made::Pair(pair)).1)
                }
                Ok(Made::Same) => Ok(Made::Same),
                Err(cause) => Err(cause),
            };
            Done { slug, meta, seen, result }
        }
    }

    /// Makes a pair durable and has the proxy serve it.
    async fn bring_in(&self, slug: &Slug, place: &Place, pair: &Pair, meta: &Meta) -> Result<(), Cause> {
        if self.sets().get(slug).is_some_and(|set| set.serves(&pair.digest)) {
            return Ok(());
        }
        place.prepare()?;
        place.store(pair)?;
        place.save_meta(meta)?;
        let certificate = place.certificate(pair, &meta.names);
        // A proxy that cannot be told now is told later.
        drop(self.board.change(|held| drop(held.serving.insert(slug.clone(), certificate))).await);
        Ok(())
    }

    fn settle(&self, done: Done) {
        let now = (self.options.now)();
        let Done { slug, meta, seen, result } = done;
        let mut sets = self.sets();
        let Some(set) = sets.get_mut(&slug) else { return };
        let before = std::mem::replace(&mut set.meta, meta);
        set.seen = seen;
        let what = match result {
            Ok(Made::Same) => self.settle_same(&slug, set, now, &before),
            Ok(Made::Pair(pair)) => {
                set.tidy = false;
                set.meta.trouble = None;
                let until = pair.leaf.not_after;
                let digest = pair.digest.clone();
                set.pair = Some(pair);
                let how = match &before.digest {
                    None => CertificateGain::Issued,
                    Some(known) if *known == digest => CertificateGain::Kept,
                    Some(_) => CertificateGain::Renewed,
                };
                let news = how != CertificateGain::Kept || before.trouble.is_some();
                if let Source::Files { chain, .. } = &set.wanted.source
                    && until <= now
                {
                    self.fail(&slug, set, &Cause::Ended { path: chain.clone(), at: until }, now, &before)
                } else {
                    news.then_some(Happened::Obtained { how, until, digest })
                }
            }
            Err(cause) => {
                set.tidy = false;
                self.fail(&slug, set, &cause, now, &before)
            }
        };
        set.rest(now);
        let Some(what) = what else { return };
        let event = set.event(set.environments.iter().cloned().collect(), what);
        drop(sets);
        self.board.edge.happened(&event);
    }

    /// Files that have not changed: what was wrong with them still is, and time goes on.
    fn settle_same(&self, slug: &Slug, set: &mut Set, now: Timestamp, before: &Meta) -> Option<Happened> {
        let Source::Files { chain, .. } = &set.wanted.source else { return None };
        if let Some(trouble) = &mut set.meta.trouble {
            trouble.retry_at = now + LOOK_EVERY;
            let trouble = trouble.clone();
            return set.tells(now).then_some(Happened::Failed(trouble));
        }
        let at = set.leaf().map(|leaf| leaf.not_after).filter(|until| *until <= now)?;
        let cause = Cause::Ended { path: chain.clone(), at };
        self.fail(slug, set, &cause, now, before)
    }

    fn fail(
        &self,
        slug: &Slug,
        set: &mut Set,
        cause: &Cause,
        now: Timestamp,
        before: &Meta,
    ) -> Option<Happened> {
        let failures = set.meta.attempts.max(1);
        let trouble = Trouble {
            code: cause.code().to_owned(),
            why: cause.to_string(),
            hint: cause.hint(),
            retry_at: match set.wanted.source {
                Source::Files { .. } => now + LOOK_EVERY,
                Source::Acme(_) | Source::SelfSigned => {
                    cause.retry_at(failures, now, self.jitter(slug, failures))
                }
            },
        };
        set.meta.binding = cause.is_binding();
        set.meta.after_crash = None;
        set.meta.trouble = Some(trouble.clone());
        // On a full disk the next server tries earlier than it should, and writes that down before it asks anybody.
        drop(set.place.save_meta(&set.meta));
        let known = before.trouble.as_ref().is_some_and(|known| known.why == trouble.why);
        // Files are looked at again and again; the same fault is no news.
        let again = set.tells(now) || matches!(set.wanted.source, Source::Acme(_));
        (!known || again).then_some(Happened::Failed(trouble))
    }

    /// A task has panicked, or was called off: whoever is not being worked on any more rests.
    fn recover(&self) {
        let due = (self.options.now)() + LOOK_EVERY;
        for set in self.sets().values_mut() {
            if matches!(&set.doing, Doing::Working { task, .. } if task.is_finished()) {
                set.doing = Doing::Resting { due };
            }
        }
    }

    /// After two thirds of its life, as authorities ask; earlier by up to a 24th of it.
    fn renew_at(&self, slug: &Slug, leaf: &Leaf) -> Timestamp {
        let life = leaf.life();
        let early = (life / 24).mul_f64(self.jitter(slug, 0));
        let at = leaf.not_before + (life * 2 / 3).saturating_sub(early);
        at.max((self.options.now)() + RENEW_AFTER_MIN)
    }

    /// Between 0 and 1, the same on each call.
    fn jitter(&self, slug: &Slug, which: u32) -> f64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.options.jitter.to_le_bytes()).update(slug.as_str().as_bytes());
        let hash = hasher.update(&which.to_le_bytes()).finalize();
        let [a, b, c, d, ..] = *hash.as_bytes();
        f64::from(u32::from_le_bytes([a, b, c, d])) / f64::from(u32::MAX)
    }
}
