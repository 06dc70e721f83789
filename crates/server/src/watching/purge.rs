//! Asks the hooks of releases to empty what stands before their environments, when the engine says that they are due.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fairway_engine::id::EnvironmentKey;
use fairway_engine::purge::PurgeHook;
use fairway_engine::service::EnvValue;
use fairway_engine::time::Timestamp;
use fairway_engine::{Input, Outcome, State};
use hyper::Method;
use hyper::header::HeaderName;
use tokio::task::JoinSet;

use super::Watching;
use crate::notify::Secret;
use crate::outgoing::{Outgoing, Request};

/// Of an answer only the status counts, and the beginning where it is a refusal.
const ANSWER_BYTES_MAX: usize = 64 << 10;
const ANSWER_CHARS_SHOWN: usize = 200;

/// Between attempts: a second, then twice as long each time, up to this.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// When no event says otherwise: one that was missed is found after this.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// After an outcome that could not be recorded (the disk is full).
const TELL_AGAIN: Duration = Duration::from_secs(1);

type Key = (EnvironmentKey, Timestamp);

#[derive(Clone, Debug)]
struct Due {
    key: Key,
    /// None when its release is gone.
    hook: Option<PurgeHook>,
}

fn due(state: &State) -> Vec<Due> {
    let of_environment = |env: &fairway_engine::Environment| {
        let due = env.purge.as_ref()?;
        let release = env.release(due.release);
        let hook = release.and_then(|release| release.spec.deploy.purge.clone());
        Some(Due { key: (env.key.clone(), due.since), hook })
    };
    state.environments.values().filter_map(of_environment).collect()
}

pub async fn run(watching: Arc<Watching>) {
    let mut news = watching.pump.follow();
    let mut asking: JoinSet<Key> = JoinSet::new();
    let mut under_way: BTreeSet<Key> = BTreeSet::new();
    loop {
        for due in watching.pump.shared.read(due) {
            if under_way.insert(due.key.clone()) {
                asking.spawn(purge(Arc::clone(&watching), due));
            }
        }
        tokio::select! {
            Some(done) = asking.join_next() => match done {
                Ok(key) => drop(under_way.remove(&key)),
                // Only a defect panics there; whatever it was may be asked again.
                Err(_) => under_way.clear(),
            },
            // Missed or read: there is news.
            _ = news.recv() => while news.try_recv().is_ok() {},
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Returns when how it went is on the record: until then it is due still.
async fn purge(watching: Arc<Watching>, due: Due) -> Key {
    let (environment, since) = due.key.clone();
    let vault = Arc::clone(&watching.vault);
    let of = environment.clone();
    let prepared = tokio::task::spawn_blocking(move || {
        let hook = due.hook.ok_or("the release whose hook it is was removed")?;
        Asked::of(hook, |name, version| vault.value(&of, name, version))
    });
    let (attempts, failure) = match prepared.await {
        Ok(Ok(asked)) => asked.carry_out(&watching.outgoing).await,
        Ok(Err(why)) => (0, Some(why)),
        Err(_) => (0, Some("the request could not be made".to_owned())),
    };
    let outcome = Outcome::Purged { since, attempts, failure };
    if watching.pump.recorded_outcome(Input::Outcome { environment, outcome }).await.is_err() {
        tokio::time::sleep(TELL_AGAIN).await;
    }
    due.key
}

/// A hook with its secrets.
#[derive(Debug)]
struct Asked {
    method: Method,
    url: Secret,
    headers: Vec<(HeaderName, Secret)>,
    body: String,
    attempts: u32,
    /// After the first attempt.
    pause: Duration,
    timeout: Duration,
}

impl Asked {
    fn of(hook: PurgeHook, secret: impl Fn(&str, u32) -> Result<String, String>) -> Result<Self, String> {
        let value = |value: &EnvValue| match value {
            EnvValue::Literal(text) => Ok(Secret::new(text.clone())),
            EnvValue::Secret { name, version } => secret(name, *version)
                .map(Secret::new)
                .map_err(|why| format!("secret {name} (version {version}) cannot be read: {why}")),
            EnvValue::Ref(_) => Err("a reference is no value of a purge hook".to_owned()),
        };
        let header = |(name, written): (&String, &EnvValue)| {
            let name = name.parse().map_err(|_| format!("{name} is no header field"))?;
            Ok::<_, String>((name, value(written)?))
        };
        Ok(Self {
            method: hook.method.parse().map_err(|_| format!("{} is no method", hook.method))?,
            url: value(&hook.url)?,
            headers: hook.headers.iter().map(header).collect::<Result<_, _>>()?,
            body: hook.body.unwrap_or_default(),
            attempts: hook.attempts,
            pause: PAUSE_MIN,
            timeout: hook.timeout,
        })
    }

    /// How many attempts it took, and why it came to nothing.
    async fn carry_out(&self, outgoing: &Outgoing) -> (u32, Option<String>) {
        let mut pause = self.pause;
        let mut attempt = 1;
        loop {
            match self.ask(outgoing).await {
                Ok(()) => return (attempt, None),
                Err(failed) if failed.is_final || attempt >= self.attempts => {
                    return (attempt, Some(failed.why));
                }
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            attempt += 1;
        }
    }

    async fn ask(&self, outgoing: &Outgoing) -> Result<(), Failed> {
        let headers = self.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
        let request = Request {
            method: self.method.clone(),
            headers: headers.collect(),
            body: self.body.clone().into(),
            within: self.timeout,
            answer_bytes_max: ANSWER_BYTES_MAX,
            ..Request::get(self.url.expose())
        };
        let answer = outgoing
            .send(request)
            .await
            .map_err(|error| Failed { why: self.redact(&error.to_string()), is_final: false })?;
        match answer.status {
            200..=299 => Ok(()),
            status => {
                let text = self.redact(&String::from_utf8_lossy(&answer.body));
                let shown: String = text.trim().chars().take(ANSWER_CHARS_SHOWN).collect();
                // What is wrong with the request will be so the next time; too many and too early will not.
                let is_final = matches!(status, 400..=499) && !matches!(status, 408 | 425 | 429);
                Err(Failed { why: format!("the answer was {status}: {shown}"), is_final })
            }
        }
    }

    /// An answer may quote what it was sent.
    fn redact(&self, text: &str) -> String {
        self.headers.iter().fold(self.url.redact(text), |text, (_, value)| value.redact(&text))
    }
}

struct Failed {
    why: String,
    is_final: bool,
}

#[cfg(test)]
mod tests;
