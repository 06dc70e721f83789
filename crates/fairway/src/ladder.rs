//! A rollout in one line: phase, steps, what it waits for and until when.

use fairway_api::{EnvironmentStatus, Health, RolloutStatus};

use crate::ago;
use crate::duration;
use crate::evidence;
use crate::output::{Colours, Paint};

/// `5 % → [50 %] → 100 %`: done, current, to come. The bracket says it without colour.
#[must_use]
pub fn steps(rollout: &RolloutStatus, colours: Colours) -> String {
    let current = rollout.step.map(|step| step as usize);
    rollout
        .steps
        .iter()
        .enumerate()
        .map(|(at, step)| {
            let approve = if step.approve { ", then approve" } else { "" };
            let text = format!("{} %{approve}", step.weight);
            match current {
                Some(current) if at == current => colours.paint(Paint::Bold, &format!("[{text}]")),
                Some(current) if at < current => colours.paint(Paint::Good, &text),
                Some(_) | None => colours.paint(Paint::Dim, &text),
            }
        })
        .collect::<Vec<_>>()
        .join(" → ")
}

/// What goes on, for the live line.
#[must_use]
pub fn line(environment: &EnvironmentStatus, rollout: &RolloutStatus, now_ms: u64) -> String {
    parts(environment, rollout, waiting(rollout, now_ms), now_ms).join(" · ")
}

/// As [`line`], in pieces, for where the evidence stands below it: what could not be judged is told there.
#[must_use]
pub fn above_evidence(environment: &EnvironmentStatus, rollout: &RolloutStatus, now_ms: u64) -> Vec<String> {
    let waiting = match evidence::unjudged(rollout) {
        Some(_) => Some("paused: it could not be judged".to_owned()),
        None => waiting(rollout, now_ms),
    };
    parts(environment, rollout, waiting, now_ms)
}

fn parts(
    environment: &EnvironmentStatus,
    rollout: &RolloutStatus,
    waiting: Option<String>,
    now_ms: u64,
) -> Vec<String> {
    let mut parts = vec![format!("#{} {} {}", rollout.number, rollout.to, rollout.phase)];
    if let Some(step) = rollout.step.filter(|_| !rollout.steps.is_empty()) {
        parts.push(format!("step {} of {}, {} %", step + 1, rollout.steps.len(), rollout.weight));
    }
    let ready = ready(environment, &rollout.to);
    if !ready.is_empty() && matches!(rollout.phase.as_str(), "starting" | "shifting") {
        parts.push(ready);
    }
    parts.extend(waiting);
    parts.push(format!("{} so far", duration::show_ms(rollout.requested_ms, now_ms)));
    parts
}

/// `waits for the bake to pass (2m 10s left)`; none when it waits for nothing.
#[must_use]
pub fn waiting(rollout: &RolloutStatus, now_ms: u64) -> Option<String> {
    let words = waiting_words(rollout)?;
    Some(match rollout.waiting_until_ms {
        Some(until) => format!("{words} ({} left)", duration::show_ms(now_ms, until)),
        None => words,
    })
}

/// `waits for the bake to pass, until 05:57:30 UTC`: the same text for as long as it waits.
#[must_use]
pub fn waiting_until(rollout: &RolloutStatus) -> Option<String> {
    let words = waiting_words(rollout)?;
    Some(match rollout.waiting_until_ms {
        Some(until) => format!("{words}, until {} UTC", &ago::clock(until)[..8]),
        None => words,
    })
}

fn waiting_words(rollout: &RolloutStatus) -> Option<String> {
    if rollout.waiting.is_empty() || rollout.waiting == "nothing" {
        return None;
    }
    // When it is paused the engine's words say it in full.
    let is_paused = rollout.paused_by.is_some() && rollout.waiting.starts_with("paused");
    Some(if is_paused { rollout.waiting.clone() } else { format!("waits for {}", rollout.waiting) })
}

/// `api 1/2`: the copies of one release, where not all are ready.
fn ready(environment: &EnvironmentStatus, release: &str) -> String {
    environment
        .services
        .iter()
        .filter_map(|service| {
            let of_release: Vec<_> =
                service.instances.iter().filter(|instance| instance.release == release).collect();
            let ready = of_release.iter().filter(|instance| instance.state == "ready").count();
            (ready < of_release.len()).then(|| format!("{} {ready}/{}", service.name, of_release.len()))
        })
        .collect::<Vec<_>>()
        .join(", ")
}

#[must_use]
pub fn health_word(health: Health) -> (&'static str, Paint) {
    match health {
        Health::Serving => ("serving", Paint::Good),
        Health::Degraded => ("degraded", Paint::Warn),
        Health::Failing => ("failing", Paint::Bad),
        Health::Down => ("down", Paint::Dim),
        Health::Unknown => ("unknown", Paint::Warn),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use fairway_api::{InstanceStatus, RoutesStatus, ServiceStatus, StepInfo};

    use super::*;

    pub(crate) fn rollout() -> RolloutStatus {
        let step = |weight, approve| StepInfo { weight, hold_ms: 300_000, approve };
        RolloutStatus {
            number: 7,
            kind: "deploy".to_owned(),
            to: "r12".to_owned(),
            from: Some("r11".to_owned()),
            strategy: "canary".to_owned(),
            requested_by: "ann".to_owned(),
            requested_ms: 1_000,
            reason: None,
            phase: "shifting".to_owned(),
            phase_since_ms: 2_000,
            waiting: "the hold of this step to pass".to_owned(),
            waiting_until_ms: Some(191_000),
            paused_by: None,
            weight: 50,
            steps: vec![step(5, false), step(50, true), step(100, false)],
            step: Some(1),
            switched_ms: None,
            approvals: Vec::new(),
            approvals_needed: 0,
            cause: None,
            evidence: None,
        }
    }

    pub(crate) fn environment() -> EnvironmentStatus {
        let instance = |id: &str, release: &str, state: &str| InstanceStatus {
            id: id.to_owned(),
            release: release.to_owned(),
            state: state.to_owned(),
            since_ms: 500,
            why: None,
            address: Some("127.0.0.1:41001".to_owned()),
            pid: Some(4242),
            crashes: 0,
            weight: 0,
            not_enforced: Vec::new(),
        };
        EnvironmentStatus {
            project: "shop".to_owned(),
            environment: "production".to_owned(),
            health: Health::Serving,
            summary: "all copies ready".to_owned(),
            listen: Some("0.0.0.0:80".to_owned()),
            urls: Vec::new(),
            host: Some("shop.example".to_owned()),
            certificates: Vec::new(),
            shared: Vec::new(),
            stable: None,
            stable_since_ms: None,
            warm: None,
            rollout: None,
            services: vec![ServiceStatus {
                name: "api".to_owned(),
                kind: "process".to_owned(),
                route: Some("/api".to_owned()),
                wanted: 1,
                ready: 1,
                instances: vec![
                    instance("api.r11.1", "r11", "ready"),
                    instance("api.r12.1", "r12", "ready"),
                    instance("api.r12.2", "r12", "starting"),
                ],
                retry_ms: None,
                by_hand: None,
            }],
            routes: RoutesStatus { generation: 4, applied: 4, refused: None },
            maintenance: None,
            purge: None,
            queued: 0,
            traffic: Vec::new(),
            retained: Vec::new(),
            rollback_target: None,
            contract_due_ms: None,
            contracted_by: None,
            last: None,
            ended: Vec::new(),
            jobs: Vec::new(),
            purges: Vec::new(),
            certificate_news: Vec::new(),
            upgrades: Vec::new(),
        }
    }

    #[test]
    fn the_live_line_says_step_copies_waiting_and_time() {
        assert_eq!(
            line(&environment(), &rollout(), 61_000),
            "#7 r12 shifting · step 2 of 3, 50 % · api 1/2 · waits for the hold of this step to pass (2m 10s left) · 1m 00s so far"
        );
    }

    #[test]
    fn a_paused_rollout_says_by_whom_and_what_goes_on() {
        let mut rollout = rollout();
        rollout.paused_by = Some("ann".to_owned());
        rollout.waiting = "paused by ann; `fairway resume` goes on".to_owned();
        rollout.waiting_until_ms = None;
        assert_eq!(waiting(&rollout, 0).unwrap(), "paused by ann; `fairway resume` goes on");
        let above = above_evidence(&environment(), &rollout, 0).join(" · ");
        assert!(above.contains("paused by ann"), "{above}");
        rollout.waiting = "paused by ann: p95: no data; `fairway promote` goes on".to_owned();
        let above = above_evidence(&environment(), &rollout, 0).join(" · ");
        assert!(above.contains("paused: it could not be judged") && !above.contains("p95"), "{above}");
    }

    #[test]
    fn without_a_live_line_the_words_stay_the_same_while_it_waits() {
        assert_eq!(
            waiting_until(&rollout()).unwrap(),
            "waits for the hold of this step to pass, until 00:03:11 UTC"
        );
    }

    #[test]
    fn the_ladder_marks_where_it_stands_without_colour() {
        assert_eq!(steps(&rollout(), Colours::Off), "5 % → [50 %, then approve] → 100 %");
    }
}
