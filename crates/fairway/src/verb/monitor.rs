//! `fairway monitor`

use std::time::{Duration, Instant};

use fairway_api::{EnvironmentStatus, Health};
use serde_json::json;

use crate::ago;
use crate::context::Context;
use crate::duration;
use crate::exit::Exit;
use crate::ladder;
use crate::output::Paint;
use crate::problem::{Outcome, Problem};

/// Short enough to see a copy that goes down and comes back.
const ASK: Duration = Duration::from_millis(500);
/// A server that takes longer does not tell, and unknown is not healthy.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Watch an environment for some time and exit by its health
///
/// Prints what changes. Exits with 0 when it was serving in full all the time, with 1 when it was not, with 6 when
/// that could not be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fairway monitor -e production --for 5m && echo healthy")]
pub struct Args {
    /// How long
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    time: Duration,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let mut seen = Seen::default();
        let start = Instant::now();
        let watch = async {
            loop {
                let asked = tokio::time::timeout(ANSWER_TIMEOUT, client.environment(&target)).await;
                match asked {
                    Ok(Ok(status)) => seen.status(cx, &status),
                    Ok(Err(fairway_api::client::ClientError::Api(error))) => {
                        return Err(Problem::Refused(Box::new(error)));
                    }
                    Ok(Err(error)) => seen.silence(cx, &error.to_string()),
                    Err(_) => seen.silence(cx, "the server takes too long to answer"),
                }
                let left = args.time.saturating_sub(start.elapsed());
                if left.is_zero() {
                    return Ok(());
                }
                if cx.out.is_live() {
                    cx.out.step(&format!("{} left", duration::show(left)));
                }
                tokio::time::sleep(ASK.min(left)).await;
            }
        };
        tokio::select! {
            watched = watch => watched?,
            _ = tokio::signal::ctrl_c() => {
                cx.out.result(Exit::Interrupted, &json!(null));
                return Ok(Exit::Interrupted);
            }
        }
        cx.out.clear();
        let exit = seen.exit();
        cx.out.data(seen.verdict(&target.environment, args.time));
        cx.out.result(
            exit,
            &json!({
                "unhealthy": seen.unhealthy,
                "silent": seen.silent,
                "asked": seen.asked,
                "requests": seen.requests(),
                "errors": seen.errors(),
            }),
        );
        Ok(exit)
    })
}

#[derive(Debug, Default)]
struct Seen {
    asked: u32,
    unhealthy: u32,
    silent: u32,
    last: Option<(Option<Health>, String)>,
    /// Requests and errors at the start, and now.
    first: Option<(u64, u64)>,
    now: (u64, u64),
}

impl Seen {
    fn status(&mut self, cx: &Context, status: &EnvironmentStatus) {
        self.asked += 1;
        match status.health {
            Health::Serving => {}
            Health::Degraded | Health::Failing | Health::Down => self.unhealthy += 1,
            Health::Unknown => self.silent += 1,
        }
        let traffic = &status.traffic;
        self.now = (traffic.iter().map(|one| one.requests).sum(), traffic.iter().map(|one| one.errors).sum());
        self.first.get_or_insert(self.now);
        let (word, paint) = ladder::health_word(status.health);
        self.change(cx, Some(status.health), status.summary.clone(), word, paint);
        cx.out.event("health", &json!({ "health": status.health, "summary": status.summary }));
    }

    fn silence(&mut self, cx: &Context, why: &str) {
        self.asked += 1;
        self.silent += 1;
        self.change(cx, None, why.to_owned(), "unknown", Paint::Warn);
        cx.out.event("health", &json!({ "health": "unknown", "summary": why }));
    }

    fn change(&mut self, cx: &Context, health: Option<Health>, summary: String, word: &str, paint: Paint) {
        let now = Some((health, summary));
        if self.last != now {
            let word = cx.out.colours().paint(paint, word);
            let summary =
                now.as_ref().map(|(_, summary)| crate::output::printable(summary)).unwrap_or_default();
            cx.out.data(format!("{}  {word}  {summary}", ago::clock(ago::now_ms())));
            self.last = now;
        }
    }

    /// Counted since the proxy started, so a proxy that started anew counts from zero.
    fn requests(&self) -> u64 {
        self.now.0.saturating_sub(self.first.unwrap_or_default().0)
    }

    fn errors(&self) -> u64 {
        self.now.1.saturating_sub(self.first.unwrap_or_default().1)
    }

    fn exit(&self) -> Exit {
        match (self.unhealthy, self.silent) {
            (0, 0) => Exit::Done,
            (0, _) => Exit::Unknown,
            (_, _) => Exit::Failed,
        }
    }

    fn verdict(&self, environment: &str, time: Duration) -> String {
        let time = duration::show(time);
        let share = |count: u32| f64::from(count) * 100.0 / f64::from(self.asked.max(1));
        let traffic = format!("{} requests, {} errors", self.requests(), self.errors());
        if self.unhealthy > 0 {
            return format!(
                "{environment} was not healthy {:.0} % of {time}: {traffic}",
                share(self.unhealthy)
            );
        }
        if self.silent > 0 {
            return format!("{environment}: not known {:.0} % of {time}: {traffic}", share(self.silent));
        }
        format!("{environment} was healthy for {time}: {traffic}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_knowing_is_neither_healthy_nor_ill() {
        let seen = |unhealthy, silent| Seen { asked: 10, unhealthy, silent, ..Seen::default() };
        assert_eq!(seen(0, 0).exit(), Exit::Done);
        assert_eq!(seen(0, 1).exit(), Exit::Unknown);
        assert_eq!(seen(1, 5).exit(), Exit::Failed);
    }

    #[test]
    fn a_proxy_that_started_anew_does_not_make_negative_errors() {
        let seen = Seen { first: Some((100, 5)), now: (3, 0), ..Seen::default() };
        assert_eq!((seen.requests(), seen.errors()), (0, 0));
    }
}
