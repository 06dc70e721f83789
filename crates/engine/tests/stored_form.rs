//! The stored form is for ever: logs written today are replayed by every later version. A difference here is a field
//! that was renamed or has another meaning, which old logs do not survive; a field that is added with a default needs
//! a new line below, and the old lines must still be read.

#![allow(clippy::unwrap_used, reason = "every line is the test")]

use fairway_engine::{Event, Fact, State};

/// One of each fact, as it is stored: the name of the file's line is the fact's own.
const STORED: &str = include_str!("stored_form.jsonl");

fn events() -> Vec<Event> {
    STORED.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Everything that a line says is said again; what is said besides was added since, with a default.
fn says_again(line: &serde_json::Value, now: &serde_json::Value, at: &str) {
    use serde_json::Value;
    match (line, now) {
        (Value::Object(line), Value::Object(now)) => {
            for (key, value) in line {
                let now = now.get(key).unwrap_or_else(|| panic!("{at}.{key} is not stored any more"));
                says_again(value, now, &format!("{at}.{key}"));
            }
        }
        (Value::Array(line), Value::Array(now)) if line.len() == now.len() => {
            for (index, (line, now)) in line.iter().zip(now).enumerate() {
                says_again(line, now, &format!("{at}[{index}]"));
            }
        }
        (line, now) => assert_eq!(line, now, "{at} changed"),
    }
}

#[test]
fn what_is_stored_reads_back_as_it_was() {
    for (line, event) in STORED.lines().zip(events()) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        says_again(&line, &serde_json::to_value(&event).unwrap(), event.fact.name());
    }
}

/// The lines above are from older versions; this one's own form must survive as it is, to the byte.
#[test]
fn what_is_written_now_reads_back_as_it_is() {
    for event in events() {
        let written = serde_json::to_string(&event).unwrap();
        let again: Event = serde_json::from_str(&written).unwrap();
        assert_eq!(again, event);
        assert_eq!(serde_json::to_string(&again).unwrap(), written);
    }
}

#[test]
fn the_stored_name_is_the_name_that_is_listed() {
    for (line, event) in STORED.lines().zip(events()) {
        let name = event.fact.name();
        let is_named = [format!("\"fact\":\"{name}\""), format!("\"fact\":{{\"{name}\":")];
        assert!(is_named.iter().any(|stored| line.contains(stored)), "{line}");
    }
}

const FACTS: usize = 59;

/// No `_`: a new fact does not compile until it has a number here, and fails until it has a line in the file.
fn number(fact: &Fact) -> usize {
    match fact {
        Fact::EnvironmentCreated => 0,
        Fact::ReleaseCreated { .. } => 1,
        Fact::ReleaseDropped { .. } => 2,
        Fact::RolloutPlanned { .. } => 3,
        Fact::Approved => 4,
        Fact::PhaseEntered { .. } => 5,
        Fact::Switched => 6,
        Fact::Paused => 7,
        Fact::Resumed { .. } => 8,
        Fact::RolloutEnded { .. } => 9,
        Fact::Cooled { .. } => 10,
        Fact::DeployQueued { .. } => 11,
        Fact::DeployDequeued => 12,
        Fact::InstancePlanned { .. } => 13,
        Fact::InstanceStarted { .. } => 14,
        Fact::InstanceReady { .. } => 15,
        Fact::InstanceSuspect { .. } => 16,
        Fact::InstanceDown { .. } => 17,
        Fact::InstanceDraining { .. } => 18,
        Fact::InstanceStopping { .. } => 19,
        Fact::InstanceEnded { .. } => 20,
        Fact::ReplacementDelayed { .. } => 21,
        Fact::RoutesSet { .. } => 22,
        Fact::RoutesApplied { .. } => 23,
        Fact::RoutesRefused { .. } => 24,
        Fact::JobPlanned { .. } => 25,
        Fact::JobEnded { .. } => 26,
        Fact::ContractScheduled { .. } => 27,
        Fact::ContractCancelled { .. } => 28,
        Fact::SchemaContracted { .. } => 29,
        Fact::Scaled { .. } => 30,
        Fact::RestartRequested { .. } => 31,
        Fact::RestartAbandoned { .. } => 32,
        Fact::MaintenanceOn { .. } => 33,
        Fact::MaintenanceOff => 34,
        Fact::TakenDown => 35,
        Fact::Observed { .. } => 36,
        Fact::Measured { .. } => 37,
        Fact::BaselineFrozen { .. } => 38,
        Fact::GateChanged { .. } => 39,
        Fact::StepHeld { .. } => 40,
        Fact::GateWaived { .. } => 41,
        Fact::PausedOnEvidence { .. } => 42,
        Fact::ExperimentReported { .. } => 43,
        Fact::AlertChanged { .. } => 44,
        Fact::ScaleFreed { .. } => 45,
        Fact::ScaleAdvised { .. } => 46,
        Fact::AutoScaled { .. } => 47,
        Fact::PurgeDue { .. } => 48,
        Fact::Purged { .. } => 49,
        Fact::UpgradeBegun { .. } => 50,
        Fact::ProxyHandedOver { .. } => 51,
        Fact::UpgradeEnded { .. } => 52,
        Fact::PurgeAsked { .. } => 53,
        Fact::CachePurged { .. } => 54,
        Fact::CertificateObtained { .. } => 55,
        Fact::CertificateFailed { .. } => 56,
        Fact::CertificateRetried { .. } => 57,
        Fact::CertificateLetGo { .. } => 58,
    }
}

#[test]
fn there_is_one_of_each() {
    let mut seen = [false; FACTS];
    for event in events() {
        seen[number(&event.fact)] = true;
    }
    let missing: Vec<usize> = (0..FACTS).filter(|index| !seen[*index]).collect();
    assert!(missing.is_empty(), "no stored line for the facts {missing:?}");
}

/// Whatever a damaged or foreign log holds, reading it is an answer and never a panic: every line cut short at every
/// byte, with every field taken away, and with every value replaced by one of another type.
#[test]
fn reading_damaged_lines_never_panics() {
    let mut read = 0;
    let mut accepts = |text: &str| {
        if let Ok(event) = serde_json::from_str::<Event>(text) {
            read += 1;
            // Nothing exists yet: only the first fact of all can have happened.
            let _ = State::default().apply(&event);
        }
    };
    for line in STORED.lines() {
        for (end, _) in line.char_indices() {
            accepts(&line[..end]);
        }
        let whole: serde_json::Value = serde_json::from_str(line).unwrap();
        let mut damaged = Vec::new();
        damage(&whole, &mut |value| damaged.push(value.to_string()));
        for text in &damaged {
            accepts(text);
        }
    }
    assert!(read > 0, "no damage was ever harmless: the damage does not reach the optional fields");
}

fn damage(value: &serde_json::Value, give: &mut dyn FnMut(serde_json::Value)) {
    use serde_json::{Value, json};
    for other in [Value::Null, json!(-1), json!(u64::MAX), json!("x"), json!([]), json!({})] {
        give(other);
    }
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                let mut without = fields.clone();
                without.remove(key);
                give(Value::Object(without));
                damage(inner, &mut |replaced| {
                    let mut with = fields.clone();
                    with.insert(key.clone(), replaced);
                    give(Value::Object(with));
                });
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                damage(inner, &mut |replaced| {
                    let mut with = items.clone();
                    with[index] = replaced;
                    give(Value::Array(with));
                });
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
