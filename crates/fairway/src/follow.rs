//! Follows what the server does until it is done: events in, lines out. The server may go away and come back.

mod feed;

use std::time::{Duration, Instant};

use fairway_api::client::{Client, Target};
use fairway_api::{Accepted, EnvironmentStatus, Event, EvidenceStatus, RolloutInfo, RolloutStatus};
use serde_json::json;
use tokio::time::MissedTickBehavior;

pub use feed::{Feed, patient};

use crate::ago;
use crate::context::Context;
use crate::duration;
use crate::evidence::{self, Frame};
use crate::exit::Exit;
use crate::ladder;
use crate::output::{Paint, fold, wrap};
use crate::problem::{Outcome, Problem, ask};

/// How often the live line is brought up to date: a countdown is shown in seconds.
const REFRESH: Duration = Duration::from_secs(1);
/// Without a live line only changes are printed, and the events tell most of them.
const REFRESH_PLAIN: Duration = Duration::from_secs(5);
/// How often the log of a build, or a reader of `--json`, is told counts that grow while every verdict stays.
const COUNTS_PLAIN: Duration = Duration::from_secs(30);
const COUNTS_JSON: Duration = Duration::from_secs(5);
/// A status that takes longer comes from a server that is stuck; the line keeps what it said.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Rollout(u32),
    /// Our deploy is the n-th that leaves the queue; at zero it is the next to be planned.
    Queued {
        before: u32,
    },
}

/// Follows what `accepted` started until it ends, and says what came of it. Ctrl-C detaches.
///
/// # Errors
/// When the rollout did not complete, or the server stays away.
pub async fn rollout(cx: &Context, client: &Client, target: &Target, accepted: &Accepted) -> Outcome {
    tokio::select! {
        ended = until_ended(cx, client, target, accepted) => match ended? {
            Some(info) => Ok(tell(cx, &target.environment, &info)),
            None => {
                // Nothing was started and nothing waits: the answer was all there is.
                cx.out.data(&accepted.summary);
                cx.out.result(Exit::Done, &json!(accepted));
                Ok(Exit::Done)
            }
        },
        _ = tokio::signal::ctrl_c() => {
            let environment = &target.environment;
            let what = match accepted.rollout {
                Some(number) => format!("rollout #{number} goes on"),
                None => "the deploy stays in the queue".to_owned(),
            };
            cx.out.progress(format!(
                "detached: {what} on the server; `fairway watch -e {environment}` comes back to it"
            ));
            cx.out.result(Exit::Interrupted, &json!({ "detached": true, "rollout": accepted.rollout }));
            Ok(Exit::Interrupted)
        }
    }
}

/// The rollout that `accepted` started, when it has completed; none when there was nothing to do.
///
/// # Errors
/// When the rollout did not complete, or the server stays away.
pub async fn until_ended(
    cx: &Context,
    client: &Client,
    target: &Target,
    accepted: &Accepted,
) -> Result<Option<RolloutInfo>, Problem> {
    let wanted = match accepted.rollout {
        Some(number) => Wanted::Rollout(number),
        None => match place_in_queue(cx, client, target, accepted.seq).await? {
            0 => return Ok(None),
            before => Wanted::Queued { before },
        },
    };
    let feed = Feed::after(client, target, accepted.seq.saturating_sub(1));
    let info = Follow { cx, client, target, wanted, feed, is_queue_empty: false, told: Told::default() }
        .until_ended()
        .await?;
    if Exit::of_outcome(&info.outcome) == Exit::Done {
        return Ok(Some(info));
    }
    Err(Problem::Rollout { environment: target.environment.clone(), rollout: Box::new(info) })
}

/// How many deploys leave the queue until the one that was queued by event `seq` has; zero when none was. It may have
/// left already: what happened since is counted back.
async fn place_in_queue(cx: &Context, client: &Client, target: &Target, seq: u64) -> Result<u32, Problem> {
    let mut place: i64 = 0;
    let mut was_queued = false;
    let mut events = ask(client.events(target, seq.saturating_sub(1), false)).await?;
    while let Some(event) = events.next().await.map_err(Problem::of_query)? {
        match event.kind.as_str() {
            "deploy_queued" if event.seq == seq => was_queued = true,
            "deploy_queued" => place -= 1,
            "deploy_dequeued" => place += 1,
            _ => {}
        }
    }
    let queued = feed::patient(cx, || client.environment(target)).await?.queued;
    let place = u32::try_from(place + i64::from(queued)).unwrap_or(1).max(1);
    Ok(if was_queued { place } else { 0 })
}

fn tell(cx: &Context, environment: &str, info: &RolloutInfo) -> Exit {
    let took = duration::show_ms(info.requested_ms, info.ended_ms);
    let switched = match info.switched_ms {
        Some(at) => format!(", all traffic on it after {}", duration::show_ms(info.requested_ms, at)),
        None => String::new(),
    };
    let done = cx.out.colours().paint(Paint::Good, "done");
    cx.out.data(format!(
        "{done}: {environment} serves {} (rollout #{}, {took}{switched})",
        info.to, info.number
    ));
    cx.out.result(Exit::Done, &json!(info));
    Exit::Done
}

struct Follow<'a> {
    cx: &'a Context,
    client: &'a Client,
    target: &'a Target,
    wanted: Wanted,
    feed: Feed<'a>,
    /// Seen empty once, while ours should be in it.
    is_queue_empty: bool,
    told: Told,
}

/// What was said last without a live line.
#[derive(Debug, Default)]
struct Told {
    waiting: String,
    /// Where the evidence stood.
    stand: Option<String>,
    evidence: Option<EvidenceStatus>,
    at: Option<Instant>,
}

impl Told {
    /// Is the evidence worth being told again? At once when a verdict or a weight changes, else once in `every`.
    fn is_news(&mut self, rollout: &RolloutStatus, every: Duration, now: Instant) -> bool {
        let stand = evidence::stand(rollout);
        let is_old = self.at.is_none_or(|at| now.duration_since(at) >= every);
        let is_news = stand != self.stand || (is_old && rollout.evidence != self.evidence);
        if is_news {
            self.stand = stand;
            self.evidence.clone_from(&rollout.evidence);
            self.at = Some(now);
        }
        is_news && rollout.evidence.is_some()
    }
}

impl Follow<'_> {
    async fn until_ended(&mut self) -> Result<RolloutInfo, Problem> {
        let every = if self.cx.out.is_live() { REFRESH } else { REFRESH_PLAIN };
        // What happens at once is told by its event.
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + every.min(REFRESH), every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                event = self.feed.next(self.cx, self.rollout_number()) => {
                    let event = event?;
                    show(self.cx, &event);
                    self.queue(&event);
                    if let Some(info) = self.ended(&event).await? {
                        return Ok(info);
                    }
                    if self.cx.out.is_live() {
                        // The event took the live line off the screen; it comes back when no more events wait.
                        tick.reset_immediately();
                    }
                }
                _ = tick.tick() => {
                    // A rollout that ended while its event was lost to us is found here.
                    if let Some(info) = self.refresh().await? {
                        return Ok(info);
                    }
                }
            }
        }
    }

    fn rollout_number(&self) -> Option<u32> {
        match self.wanted {
            Wanted::Rollout(number) => Some(number),
            Wanted::Queued { .. } => None,
        }
    }

    /// Deploys leave the queue in their order; ours becomes the rollout that is planned after ours was taken out.
    fn queue(&mut self, event: &Event) {
        if let Wanted::Queued { before } = self.wanted {
            match (event.kind.as_str(), before) {
                ("deploy_dequeued", _) => self.wanted = Wanted::Queued { before: before.saturating_sub(1) },
                ("rollout_planned", 0) => {
                    if let Some(number) = number(&event.detail["rollout"]["number"]) {
                        self.wanted = Wanted::Rollout(number);
                    }
                }
                _ => {}
            }
        }
    }

    async fn ended(&self, event: &Event) -> Result<Option<RolloutInfo>, Problem> {
        let Wanted::Rollout(wanted) = self.wanted else { return Ok(None) };
        if event.kind != "rollout_ended"
            || number(&event.detail["rollout"]).is_some_and(|number| number != wanted)
        {
            return Ok(None);
        }
        self.in_history(wanted).await
    }

    async fn in_history(&self, wanted: u32) -> Result<Option<RolloutInfo>, Problem> {
        let history = feed::patient(self.cx, || self.client.history(self.target)).await?;
        Ok(history.into_iter().find(|info| info.number == wanted))
    }

    /// Brings the live line up to date; a server that does not answer is the feed's business.
    async fn refresh(&mut self) -> Result<Option<RolloutInfo>, Problem> {
        let status = tokio::time::timeout(STATUS_TIMEOUT, self.client.environment(self.target)).await;
        let Ok(Ok(status)) = status else { return Ok(None) };
        let Wanted::Rollout(wanted) = self.wanted else {
            if status.queued > 0 {
                self.cx.out.step(&format!("{} in the queue", status.queued));
            } else if status.rollout.is_none() {
                // Its event may be on its way to us; when it is not here by the next time, there is none.
                if self.is_queue_empty {
                    return Err(Problem::Failed {
                        code: "deploy/dropped",
                        what: "the deploy was taken out of the queue".to_owned(),
                        causes: vec![status.summary],
                        lines: Vec::new(),
                        hint: Some(format!("fairway deploy -e {}", self.target.environment)),
                        exit: Exit::Superseded,
                    });
                }
                self.is_queue_empty = true;
            }
            return Ok(None);
        };
        match &status.rollout {
            Some(rollout) if rollout.number == wanted => {
                self.tell(&status, rollout);
                Ok(None)
            }
            Some(_) | None => {
                let last = status.last.filter(|info| info.number == wanted);
                Ok(if last.is_some() { last } else { self.in_history(wanted).await.ok().flatten() })
            }
        }
    }

    fn tell(&mut self, status: &EnvironmentStatus, rollout: &RolloutStatus) {
        let out = &self.cx.out;
        let environment = self.target.environment.as_str();
        if out.is_live() {
            let now_ms = ago::now_ms();
            let (columns, colours) = (out.live_width(), out.progress_colours());
            let mut lines = fold("", &ladder::above_evidence(status, rollout, now_ms), columns);
            lines.extend(evidence::block(rollout, &Frame { environment, now_ms, columns, colours }));
            out.step(&lines.join("\n"));
            return;
        }
        let every = if out.is_json() { COUNTS_JSON } else { COUNTS_PLAIN };
        let is_news = self.told.is_news(rollout, every, Instant::now());
        if out.is_json() {
            if is_news {
                out.event("evidence", &evidence_event(rollout));
            }
            return;
        }
        if let Some(waiting) = ladder::waiting_until(rollout).filter(|waiting| *waiting != self.told.waiting)
        {
            out.progress(format!("{}: {waiting}", rollout.phase));
            self.told.waiting = waiting;
        }
        if let Some(line) = evidence::line(rollout).filter(|_| is_news) {
            out.progress(line);
        }
    }
}

/// Where a rollout stands and what it is judged by, for `--json`.
fn evidence_event(rollout: &RolloutStatus) -> serde_json::Value {
    json!({
        "rollout": rollout.number,
        "release": rollout.to,
        "from": rollout.from,
        "phase": rollout.phase,
        "step": rollout.step,
        "steps": rollout.steps.len(),
        "weight": rollout.weight,
        "waiting": rollout.waiting,
        "waiting_until_ms": rollout.waiting_until_ms,
        "paused_by": rollout.paused_by,
        "evidence": rollout.evidence,
    })
}

fn number(value: &serde_json::Value) -> Option<u32> {
    let of_text = || value.as_str()?.trim_start_matches('#').parse().ok();
    value.as_u64().and_then(|number| u32::try_from(number).ok()).or_else(of_text)
}

/// Facts that are steps on the way to another one that is shown.
const QUIET: &[&str] = &[
    "environment_created",
    "instance_draining",
    "instance_planned",
    "instance_started",
    "instance_stopping",
    // Every few seconds, of what the block of evidence tells.
    "measured",
    "observed",
    "release_created",
    "release_dropped",
    "routes_applied",
    "routes_set",
    "scale_advised",
];

/// Columns of `05:57:30.250` and what is between it and the text.
const EVENT_INDENT: usize = 14;

/// One line for an event that people want to see; all of them with `--json`.
pub fn show(cx: &Context, event: &Event) {
    cx.out.event("event", event);
    let is_quiet = QUIET.contains(&event.kind.as_str())
        || (event.kind == "instance_ended" && event.detail["how"]["how"] == "stopped");
    if is_quiet || cx.out.is_json() {
        return;
    }
    let colours = cx.out.progress_colours();
    let paint = match event.kind.as_str() {
        "switched" | "instance_ready" => Paint::Good,
        "instance_suspect" | "instance_down" | "replacement_delayed" | "paused" => Paint::Warn,
        "step_held" | "gate_waived" | "paused_on_evidence" => Paint::Warn,
        "gate_changed" => of_verdict(&event.detail["finding"]["verdict"]["is"]),
        "routes_refused" | "instance_ended" | "restart_abandoned" => Paint::Bad,
        _ => Paint::Bold,
    };
    let time = colours.paint(Paint::Dim, &ago::clock(event.at_ms));
    let summary = crate::output::printable(&event.summary);
    let columns =
        if cx.out.is_live() { cx.out.live_width().saturating_sub(EVENT_INDENT) } else { usize::MAX };
    let painted = |line: String| if paint == Paint::Bold { line } else { colours.paint(paint, &line) };
    let lines = wrap(&summary, columns).into_iter().map(painted);
    let lines = lines.collect::<Vec<_>>().join(&format!("\n{}", " ".repeat(EVENT_INDENT)));
    cx.out.above(&format!("{time}  {lines}"));
}

fn of_verdict(verdict: &serde_json::Value) -> Paint {
    match verdict.as_str() {
        Some("passing") => Paint::Good,
        Some("failing" | "no_data") => Paint::Bad,
        Some("waiting") => Paint::Warn,
        Some(_) | None => Paint::Bold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_grow_are_told_seldom_and_a_verdict_at_once() {
        let mut rollout = evidence::tests::judged();
        let mut told = Told::default();
        let start = Instant::now();
        let every = COUNTS_PLAIN;
        assert!(told.is_news(&rollout, every, start));
        assert!(!told.is_news(&rollout, every, start + every), "nothing has changed");
        rollout.evidence.as_mut().unwrap().arms[0].requests += 1;
        assert!(!told.is_news(&rollout, every, start + every / 2));
        assert!(told.is_news(&rollout, every, start + every));
        rollout.evidence.as_mut().unwrap().gates[1].verdict = "passing".to_owned();
        assert!(told.is_news(&rollout, every, start + every));
        rollout.evidence = None;
        assert!(!told.is_news(&rollout, every, start + every * 3), "there is nothing to tell");
    }

    #[test]
    fn a_rollout_number_is_read_in_each_of_its_forms() {
        assert_eq!(number(&json!(7)), Some(7));
        assert_eq!(number(&json!("#7")), Some(7));
        assert_eq!(number(&json!(null)), None);
        assert_eq!(number(&json!(99_999_999_999_u64)), None);
    }
}
