use fairway_api::CountsStatus;

use super::*;
use crate::ladder::tests::rollout;

fn frame(columns: usize) -> Frame<'static> {
    Frame { environment: "production", now_ms: 61_000, columns, colours: Colours::Off }
}

fn gate_of(name: &str, verdict: &str) -> GateStatus {
    GateStatus {
        name: name.to_owned(),
        kind: GateKind::Gate,
        about: About::Source,
        verdict: verdict.to_owned(),
        reason: None,
        service: None,
        value: None,
        unit: Unit::Plain,
        bound: None,
        threshold: None,
        stable: None,
        samples: 0,
        needed: 0,
        next_look_ms: None,
        detectable_ratio: None,
        counts: None,
        text: String::new(),
    }
}

/// What called a release off.
pub(crate) fn finding(about: About, service: &str) -> GateStatus {
    GateStatus {
        kind: GateKind::Count,
        about,
        service: Some(service.to_owned()),
        ..gate_of("errors", "failing")
    }
}

fn arm(release: &str, requests: u64, errors: u64) -> ArmStatus {
    ArmStatus {
        service: "api".to_owned(),
        release: release.to_owned(),
        requests,
        errors,
        p50: Some(0.0012),
        p95: Some(0.0234),
        p99: Some(1.5),
    }
}

/// r12 on half of the traffic beside r11: one of each verdict.
pub(crate) fn judged() -> RolloutStatus {
    let counts = CountsStatus {
        new_requests: 812,
        new_bad: 3,
        stable_requests: 855,
        stable_bad: 2,
        share: 0.487,
        slow_above_ms: None,
    };
    let errors = GateStatus {
        kind: GateKind::Count,
        about: About::Errors,
        service: Some("api".to_owned()),
        value: Some(0.41),
        unit: Unit::Evidence,
        bound: Some("evidence".to_owned()),
        threshold: Some(200.0),
        samples: 812,
        needed: 20,
        detectable_ratio: Some(3.2),
        counts: Some(counts.clone()),
        ..gate_of("errors of api", "passing")
    };
    let slow = GateStatus {
        kind: GateKind::Count,
        about: About::Slowness,
        reason: Some("12 of 20 requests".to_owned()),
        service: Some("api".to_owned()),
        unit: Unit::Evidence,
        samples: 12,
        needed: 20,
        counts: Some(CountsStatus {
            new_requests: 12,
            new_bad: 0,
            stable_bad: 8,
            slow_above_ms: Some(250),
            ..counts
        }),
        ..gate_of("slow answers of api", "waiting")
    };
    let p95 = GateStatus {
        service: Some("api".to_owned()),
        value: Some(1.34),
        unit: Unit::Seconds,
        bound: Some("max_vs_stable".to_owned()),
        threshold: Some(1.3),
        stable: Some(0.9),
        samples: 812,
        needed: 200,
        ..gate_of("p95", "failing")
    };
    let queue = GateStatus {
        reason: Some("no data: connection refused".to_owned()),
        bound: Some("max".to_owned()),
        threshold: Some(100.0),
        next_look_ms: Some(64_000),
        ..gate_of("max(queue_depth)", "no data")
    };
    let trigger = GateStatus {
        kind: GateKind::Trigger,
        reason: Some("without data it passes, as the release says".to_owned()),
        ..gate_of("critical alert", "skipped")
    };
    RolloutStatus {
        evidence: Some(EvidenceStatus {
            share: Some(0.487),
            mirror: 20,
            experiment: Some("gifts".to_owned()),
            looked_ms: Some(59_000),
            until_ms: Some(191_000),
            gates: vec![errors, slow, p95, queue, trigger],
            arms: vec![arm("r12", 812, 3), arm("r11", 855, 0)],
        }),
        ..rollout()
    }
}

#[test]
fn the_block_tells_shares_gates_and_both_versions() {
    let expected = "\x20 traffic  50 % set, 49 % came · counted 2.0s ago
  mirror   r12 gets a copy of 20 % of the requests
  A/B test gifts
  service  version     requests  errors     p50    p95   p99
  api      new r12     812       3 (0.4 %)  1.2ms  23ms  1.50s
           stable r11  855       0          1.2ms  23ms  1.50s
  failing  p95 of api · 1.34s, at most 1.3× stable's 900ms · requests 812/200
  no data  max(queue_depth) · connection refused · at most 100 · looks in 3.0s
  waiting  slow answers of api · 12 of 20 requests ·
           new 0 of 12 over 250 ms, stable 8 of 855 · could see: nothing yet
  passing  errors of api · new 3 of 812, stable 2 of 855 ·
           evidence 0.41, turned back at 200 · requests 812/20 ·
           could see: 3.2× stable's
  quiet    critical alert";
    assert_eq!(block(&judged(), &frame(79)).join("\n"), expected);
}

#[test]
fn sixty_columns_are_enough() {
    let lines = block(&judged(), &frame(59));
    for line in &lines {
        assert!(width(line) <= 59, "{} columns: {line}", width(line));
    }
    let text = lines.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("could see: 3.2× stable's") && text.contains("looks in 3.0s"), "{text}");
    assert!(text.contains("version requests errors p95 p99"), "the median goes first: {text}");
}

#[test]
fn colours_add_nothing_that_the_words_do_not_say() {
    let plain = block(&judged(), &frame(79));
    let coloured = block(&judged(), &Frame { colours: Colours::Ansi, ..frame(79) });
    let stripped: Vec<String> = coloured
        .iter()
        .map(|line| {
            let mut text = String::new();
            let mut in_escape = false;
            for c in line.chars() {
                match (in_escape, c) {
                    (false, '\x1b') => in_escape = true,
                    (false, c) => text.push(c),
                    (true, 'm') => in_escape = false,
                    (true, _) => {}
                }
            }
            text
        })
        .collect();
    assert_eq!(stripped, plain);
    assert_ne!(coloured, plain);
}

#[test]
fn a_rollout_paused_on_evidence_says_what_is_missing_and_the_three_ways_on() {
    let mut rollout = RolloutStatus { evidence: None, ..judged() };
    rollout.paused_by = Some("fairway".to_owned());
    rollout.waiting =
        "paused by fairway: errors of api: 3 of 20 requests; `fairway promote` goes on, `fairway resume` \
                       looks again, `fairway abort` turns back"
            .to_owned();
    let expected = "\x20 paused   errors of api: 3 of 20 requests
           fairway promote -e production  go on without it
           fairway resume -e production   look again, for another hold
           fairway abort -e production    turn back to r11";
    assert_eq!(block(&rollout, &frame(79)).join("\n"), expected);
    rollout.waiting = "paused by ann; `fairway resume` goes on".to_owned();
    rollout.paused_by = Some("ann".to_owned());
    assert_eq!(unjudged(&rollout), None, "a person's pause is no want of evidence");
}

#[test]
fn a_log_gets_one_line_with_what_does_not_pass() {
    let mut rollout = judged();
    assert_eq!(
        line(&rollout).unwrap(),
        "evidence: 50 % set, 49 % came · api r12: 3 errors of 812 · api r11: 0 errors of 855 · 1 of 4 pass · waiting (12 of \
         20 requests): slow answers of api · failing: p95 · no data: connection refused: max(queue_depth) · \
         could see: 3.2× stable's"
    );
    let before = stand(&rollout);
    rollout.evidence.as_mut().unwrap().arms[0].requests += 1;
    assert_eq!(stand(&rollout), before, "a count alone is no news");
    rollout.evidence.as_mut().unwrap().gates[1].verdict = "passing".to_owned();
    assert_ne!(stand(&rollout), before);
    rollout.evidence = None;
    assert_eq!((line(&rollout), stand(&rollout)), (None, None));
}

#[test]
fn what_does_not_apply_takes_one_line_and_services_without_requests_take_none() {
    let mut rollout = judged();
    let evidence = rollout.evidence.as_mut().unwrap();
    for one in &mut evidence.gates[..2] {
        one.verdict = "skipped".to_owned();
        one.reason = Some("nothing serves beside it".to_owned());
    }
    for release in ["r12", "r11"] {
        evidence.arms.push(ArmStatus { service: "web".to_owned(), ..arm(release, 0, 0) });
    }
    let text = block(&rollout, &frame(79)).join("\n");
    assert!(
        text.contains("\n  skipped  errors of api, slow answers of api · nothing serves beside it\n"),
        "{text}"
    );
    assert!(!text.contains("web"), "{text}");
}

#[test]
fn a_trigger_that_is_about_to_fire_is_told_in_full() {
    let mut rollout = judged();
    let gates = &mut rollout.evidence.as_mut().unwrap().gates;
    gates[4].verdict = "waiting".to_owned();
    gates[4].reason = Some("crossed, not yet for 60 s".to_owned());
    let text = block(&rollout, &frame(79)).join("\n");
    assert!(text.contains("  waiting  critical alert · crossed, not yet for 60 s"), "{text}");
}

#[test]
fn silence_and_failed_connections_are_shown_as_what_they_are() {
    let counts = |new_requests, new_bad, stable_requests| {
        let (stable_bad, share, slow_above_ms) = (0, 0.05, None);
        Some(CountsStatus { new_requests, new_bad, stable_requests, stable_bad, share, slow_above_ms })
    };
    let silence = GateStatus {
        name: "silence of api".to_owned(),
        value: Some(3.2),
        unit: Unit::Seconds,
        bound: Some("max".to_owned()),
        threshold: Some(3.0),
        counts: counts(21, 21, 590),
        ..finding(About::Silence, "api")
    };
    assert_eq!(
        gate(&silence, 0).join(" · "),
        "silence of api · 21 wait, stable answered 590 · 3.20s, at most 3.00s"
    );
    let connections = GateStatus {
        name: "failed connections of api".to_owned(),
        value: Some(9000.0),
        unit: Unit::Evidence,
        bound: Some("evidence".to_owned()),
        threshold: Some(1000.0),
        counts: counts(0, 7, 590),
        ..finding(About::Connections, "api")
    };
    assert_eq!(
        gate(&connections, 0).join(" · "),
        "failed connections of api · new 7 of 0, stable 0 of 590 · evidence 9000, turned back at 1000"
    );
}

#[test]
fn what_was_found_leads_to_the_logs_that_show_it() {
    let look = |about, service: Option<&str>| {
        let one = GateStatus { service: service.map(str::to_owned), ..finding(about, "api") };
        look_next(&one, "production", "r12")
    };
    let logs = "fairway logs api -e production --release r12";
    assert_eq!(look(About::Errors, Some("api")), format!("{logs} --grep '(?i)error|panic|exception'"));
    assert_eq!(look(About::Slowness, Some("api")), format!("{logs} --grep '(?i)slow|timeout|timed out'"));
    assert_eq!(look(About::Silence, Some("api")), logs);
    assert_eq!(look(About::Connections, Some("api")), logs);
    assert_eq!(look(About::Source, None), "fairway logs -e production --release r12");
    assert_eq!(look(About::Alert, None), "fairway alert list -e production");
}

#[test]
fn figures_from_a_source_that_says_anything_do_no_harm() {
    let mut rollout = judged();
    let evidence = rollout.evidence.as_mut().unwrap();
    for value in [f64::NAN, f64::INFINITY, -1e300, 0.0] {
        for one in &mut evidence.gates {
            one.value = Some(value);
            one.threshold = Some(value);
            one.detectable_ratio = Some(value);
            one.name = format!("\x1b[2J{}", "x".repeat(500));
        }
        evidence.share = Some(value);
        let shown = RolloutStatus { evidence: Some(evidence.clone()), ..judged() };
        for columns in [0, 1, 60, usize::MAX] {
            assert!(!block(&shown, &frame(columns)).join("\n").contains('\x1b'));
        }
        assert!(line(&shown).is_some());
    }
}
