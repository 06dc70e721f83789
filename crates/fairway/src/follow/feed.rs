//! The events of an environment as one stream, over any number of connections.

use std::future::Future;
use std::time::{Duration, Instant};

use fairway_api::Event;
use fairway_api::client::{Client, ClientError, Lines, Target};

use crate::context::Context;
use crate::problem::Problem;

/// A server that is killed is started again within seconds; after a minute somebody has to look.
pub const AWAY_MAX: Duration = Duration::from_secs(60);
/// A restarted server answers within some tens of milliseconds, and asking costs it nothing.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// A connection that lasted this long was a real one: the time away is counted anew.
const SETTLED: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Feed<'a> {
    client: &'a Client,
    target: &'a Target,
    /// The last event that was handed out.
    after: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Connected { lines: Lines<Event>, since: Instant, away_since: Option<Instant> },
    Away { since: Option<Instant>, told: bool },
}

impl<'a> Feed<'a> {
    #[must_use]
    pub fn after(client: &'a Client, target: &'a Target, after: u64) -> Self {
        Self { client, target, after, state: State::Away { since: None, told: false } }
    }

    /// The next event, waited for as long as it takes; dropping the future loses nothing. `rollout` is for the
    /// words when the server stays away.
    ///
    /// # Errors
    /// When the server refuses, or stays away for longer than [`AWAY_MAX`].
    pub async fn next(&mut self, cx: &Context, rollout: Option<u32>) -> Result<Event, Problem> {
        loop {
            match &mut self.state {
                State::Connected { lines, since, away_since } => match lines.next().await {
                    Ok(Some(event)) => {
                        // An event that comes twice, because the cut fell between two, is told once.
                        if event.seq <= self.after {
                            continue;
                        }
                        self.after = event.seq;
                        *away_since = None;
                        return Ok(event);
                    }
                    Ok(None) | Err(ClientError::Interrupted { .. } | ClientError::NotRunning { .. }) => {
                        let was_real = since.elapsed() >= SETTLED;
                        let away_since = away_since.filter(|_| !was_real).unwrap_or_else(Instant::now);
                        self.state = State::Away { since: Some(away_since), told: false };
                    }
                    Err(error @ (ClientError::Api(_) | ClientError::Protocol { .. })) => {
                        return Err(Problem::of_query(error));
                    }
                },
                State::Away { since, told } => {
                    let (since, told) = (*since, *told);
                    if since.is_some() {
                        tokio::time::sleep(ASK_AGAIN).await;
                    }
                    match self.client.events(self.target, self.after, true).await {
                        Ok(lines) => {
                            if told {
                                cx.out.progress("the server is back");
                            }
                            self.state = State::Connected { lines, since: Instant::now(), away_since: since };
                        }
                        Err(ClientError::NotRunning { .. } | ClientError::Interrupted { .. }) => {
                            let since = since.unwrap_or_else(Instant::now);
                            if since.elapsed() > AWAY_MAX {
                                return Err(Problem::ServerGone {
                                    environment: self.target.environment.clone(),
                                    rollout,
                                    waited_s: AWAY_MAX.as_secs(),
                                });
                            }
                            if !told {
                                say_away(cx);
                            }
                            self.state = State::Away { since: Some(since), told: true };
                        }
                        Err(error @ (ClientError::Api(_) | ClientError::Protocol { .. })) => {
                            return Err(Problem::of_query(error));
                        }
                    }
                }
            }
        }
    }
}

fn say_away(cx: &Context) {
    cx.out.progress(format!(
        "the server is away; waiting up to {} s for it (the apps and the proxy run without it)",
        AWAY_MAX.as_secs()
    ));
}

/// A question that may be asked again, asked until the server answers or [`AWAY_MAX`] has passed.
///
/// # Errors
/// What the server refuses, or that it stays away.
pub async fn patient<T, F>(cx: &Context, ask: impl Fn() -> F) -> Result<T, Problem>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let start = Instant::now();
    let mut told = false;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(ClientError::NotRunning { .. } | ClientError::Interrupted { .. })
                if start.elapsed() < AWAY_MAX =>
            {
                if !told {
                    told = true;
                    say_away(cx);
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Err(error) => return Err(Problem::of_query(error)),
        }
    }
}
