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
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairway_engine::time::Timestamp;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

mod attempt;
mod authority;
mod cause;
mod leaf;
mod meta;
mod offer;
mod pair;
mod preflight;
mod proof;
mod self_signed;
mod shelf;
mod status;
#[cfg(test)]
mod tests;
mod wanted;

pub use cause::Cause;
pub use offer::{Certificate, Edge, Offer, Published, Purpose};
pub use pair::PairError;
pub use preflight::{Lookout, Resolver};
pub use status::{Event, Expiry, Happened, NameState, NameStatus, Step, Trouble};
pub use wanted::{Acme, ChallengeKind, LETS_ENCRYPT, LETS_ENCRYPT_STAGING, Source, Wanted};

use attempt::Attempt;
use leaf::Leaf;
use meta::Meta;
use offer::Board;
use pair::Pair;
use shelf::{Place, Shelf};
use wanted::Slug;

/// Orders at a time. Each is seconds of waiting; authorities allow far more (Let's Encrypt 300 in three hours).
const AT_ONCE_MAX: usize = 4;

/// A user's own files, whether they have changed. Also the longest sleep: a clock that was set is noticed by then.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A proxy that could not be told is told again.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// An authority whose certificates are due again when they are fresh is not asked in a circle.
const RENEW_AFTER_MIN: Duration = Duration::from_secs(60 * 60);

pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

#[derive(Clone)]
pub struct Options {
    pub now: Now,
    /// Random, once for each server: sets that are due together are renewed at different times, and so are servers.
    pub jitter: u64,
    pub lookout: Lookout,
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

struct Set {
    wanted: Wanted,
    /// All that want it.
    environments: BTreeSet<String>,
    place: Place,
    meta: Meta,
    /// That serves. With its files, because somebody may remove those.
    pair: Option<Pair>,
    /// Whether its directory holds only what is needed.
    tidy: bool,
    doing: Doing,
}

enum Doing {
    Resting { due: Timestamp },
    Working { step: Arc<Mutex<Step>>, task: AbortHandle },
}

/// What a task comes back with.
struct Done {
    slug: Slug,
    meta: Meta,
    result: Result<Pair, Cause>,
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
            pairs.map(move |(environment, name)| NameStatus { environment, name, state: state.clone() })
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

    /// Tries a name that has failed again at once. False where there is nothing to try, or where the authority itself
    /// has said when.
    #[must_use]
    pub fn retry(&self, environment: &str, name: &str) -> bool {
        let mut sets = self.inner.sets();
        let found = sets
            .values_mut()
            .find(|set| set.environments.contains(environment) && set.wanted.names.contains(name));
        let Some(set) = found else { return false };
        let Doing::Resting { due } = &mut set.doing else { return false };
        if set.meta.trouble.is_none() || set.meta.binding {
            return false;
        }
        *due = Timestamp(0);
        self.inner.wake.notify_one();
        true
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
        let mut sets = self.sets();
        sets.retain(|slug, set| {
            let keep = by_slug.contains_key(slug);
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
                (set.wanted, set.environments) = (wanted, environments);
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
            let due = match wanted.source {
                Source::Acme(_) | Source::SelfSigned => meta.next_try(),
                Source::Files { .. } => Timestamp(0),
            };
            sets.insert(
                slug,
                Set {
                    wanted,
                    environments,
                    place,
                    meta,
                    pair: stored,
                    tidy: false,
                    doing: Doing::Resting { due },
                },
            );
        }
        self.shelf.retain(|name| sets.keys().any(|slug| slug.as_str() == name));
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
            let step = Arc::new(Mutex::new(Step::Queued));
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
        async move {
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
                        now,
                        step,
                    };
                    attempt.obtain(&mut meta).await
                }
                Source::Files { chain, key } => read_files(chain, key, names.clone()).await,
                Source::SelfSigned => self_signed::make(&names, now),
            };
            let result = match made {
                Ok(pair) => {
                    let fresh = Meta {
                        names: names.iter().cloned().collect(),
                        digest: Some(pair.digest.clone()),
                        renew_at: Some(inner.renew_at(&slug, &pair.leaf)),
                        ..Meta::default()
                    };
                    let brought = inner.bring_in(&slug, &place, &pair, &fresh).await;
                    // What could not be kept is fetched again: the order is still known.
                    brought.map(|()| (meta = fresh, pair).1)
                }
                Err(cause) => Err(cause),
            };
            Done { slug, meta, result }
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
        let Done { slug, meta, result } = done;
        let mut sets = self.sets();
        let Some(set) = sets.get_mut(&slug) else { return };
        let before = std::mem::replace(&mut set.meta, meta);
        set.tidy = false;
        let what = match result {
            Ok(pair) => {
                set.meta.trouble = None;
                let until = pair.leaf.not_after;
                let digest = pair.digest.clone();
                set.pair = Some(pair);
                let news = before.digest.as_ref() != Some(&digest);
                if let Source::Files { chain, .. } = &set.wanted.source
                    && until <= now
                {
                    self.fail(&slug, set, &Cause::Ended { path: chain.clone(), at: until }, now, &before)
                } else {
                    news.then_some(Happened::Obtained { until, digest })
                }
            }
            Err(cause) => self.fail(&slug, set, &cause, now, &before),
        };
        set.doing = Doing::Resting {
            due: match set.wanted.source {
                Source::Acme(_) | Source::SelfSigned => set.meta.next_try(),
                Source::Files { .. } => now + LOOK_EVERY,
            },
        };
        let Some(what) = what else { return };
        let event = Event {
            environments: set.environments.iter().cloned().collect(),
            names: set.wanted.names.iter().cloned().collect(),
            what,
        };
        drop(sets);
        self.board.edge.happened(&event);
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
        // Files are looked at each minute; the same fault is no news.
        (!known || matches!(set.wanted.source, Source::Acme(_))).then_some(Happened::Failed(trouble))
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

impl Set {
    /// Writes files again that somebody has removed: a snapshot that names them would be refused for all. Where that
    /// fails, as on a full disk, the refusal says so.
    fn restore(&self) {
        let lost = self.pair.as_ref().filter(|pair| !self.place.has(&pair.digest));
        if let Some(pair) = lost {
            drop(self.place.prepare().and_then(|()| self.place.store(pair)));
        }
    }

    fn serves(&self, digest: &str) -> bool {
        // Without a pair its files were lost: it is stored again.
        self.pair.is_some() && self.meta.digest.as_deref() == Some(digest)
    }

    fn state(&self) -> NameState {
        let until = self.pair.as_ref().map(|pair| pair.leaf.not_after);
        let renew_at = self.meta.renew_at.unwrap_or_default();
        let resting = match (&self.meta.trouble, until, &self.wanted.source) {
            (Some(trouble), until, _) => NameState::Failed { trouble: trouble.clone(), until },
            (None, None, _) => NameState::Ordering { step: Step::Queued, until: None },
            (None, Some(until), Source::Acme(_)) => NameState::Valid { until, renew_at },
            (None, Some(until), Source::Files { .. }) => NameState::Manual { until },
            (None, Some(until), Source::SelfSigned) => NameState::SelfSigned { until, renew_at },
        };
        match (&self.doing, &self.wanted.source) {
            (Doing::Working { step, .. }, Source::Acme(_)) => {
                let step = *step.lock().unwrap_or_else(PoisonError::into_inner);
                NameState::Ordering { step, until }
            }
            // Done in a moment.
            (Doing::Working { .. }, Source::Files { .. } | Source::SelfSigned)
            | (Doing::Resting { .. }, _) => resting,
        }
    }
}

/// They may lie on a disk that does not answer, which must not stop anything else.
async fn read_files(chain: PathBuf, key: PathBuf, names: BTreeSet<String>) -> Result<Pair, Cause> {
    let read = tokio::task::spawn_blocking(move || {
        let bytes = |path: &Path| shelf::read(path).map_err(|error| Cause::unreadable(path, &error));
        let (chain_pem, key_pem) = (bytes(&chain)?, bytes(&key)?);
        Pair::read(chain_pem, key_pem, &names).map_err(|fault| {
            let path = match fault {
                PairError::NoKey | PairError::BadKey { .. } | PairError::UnusableKey { .. } => key,
                PairError::NoCertificate
                | PairError::BadChain { .. }
                | PairError::BadCertificate { .. }
                | PairError::KeyMismatch
                | PairError::NotCovered { .. } => chain,
            };
            Cause::Files { path, fault }
        })
    });
    read.await.unwrap_or_else(|error| Err(Cause::Crypto { why: error.to_string() }))
}
