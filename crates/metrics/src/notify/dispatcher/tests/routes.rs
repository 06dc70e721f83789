//! Who hears what: routes, inhibition, silences, and a new configuration.

use super::*;
use crate::notify::{InhibitRule, Limits, NewSilence};

fn silence(world: &mut World, label: &str, value: &str, seconds: TimestampMs) -> SilenceId {
    let starts_at_ms = world.now_ms();
    let what = NewSilence {
        matches: vec![Match::new(label, MatchOp::Equal, value).unwrap()],
        starts_at_ms,
        ends_at_ms: starts_at_ms + seconds * SECOND,
        by: "ada".to_owned(),
        comment: "moving house".to_owned(),
    };
    world.dispatcher.silence(starts_at_ms, what).unwrap()
}

fn by_severity() -> Config {
    config(vec![
        route(&[("severity", "critical")], &["pager"], &["service"]),
        route(&[("severity", "warning")], &["slack"], &["service"]),
    ])
}

#[test]
fn the_first_route_that_accepts_takes_it() {
    let mut world = World::new(by_severity());
    world.fire("A/api/critical");
    world.fire("B/api/warning");
    world.fire("C/api/info");
    world.pass(30);
    world.expect(&["30 pager new firing [A] []", "30 slack new firing [B] []"]);
    assert_eq!(world.dispatcher.counters().alerts_unrouted, 1);
    let now_ms = world.now_ms();
    let channels: Vec<usize> = world.dispatcher.alerts(now_ms).iter().map(|one| one.channels.len()).collect();
    assert_eq!(channels.iter().sum::<usize>(), 2);
    world.end("C/api/info");
    world.end("B/api/warning");
    world.end("A/api/critical");
    world.pass(300);
    world.expect(&["330 pager resolved resolved [] [A]", "330 slack resolved resolved [] [B]"]);
    // Nobody held the third; it goes when room is needed.
    world.dispatcher.forget_ended(world.now_ms());
    world.expect_empty();
}

#[test]
fn an_echo_is_inhibited_also_by_an_alert_that_nobody_is_told_of() {
    let matches = |severity| vec![Match::new("severity", MatchOp::Equal, severity).unwrap()];
    let inhibit = vec![InhibitRule {
        source: matches("info"),
        target: matches("warning"),
        equal: vec!["service".to_owned()],
    }];
    let mut world = World::new(Config { inhibit, ..by_severity() });
    world.fire("Down/api/info");
    world.fire("Slow/api/warning");
    world.fire("Slow/web/warning");
    world.pass(30);
    world.expect(&["30 slack new firing [Slow] []"]);
    let now_ms = world.now_ms();
    let muted = world.dispatcher.alerts(now_ms).iter().filter(|one| one.inhibited_by.is_some()).count();
    assert_eq!(muted, 1);
    // The source ends, and the echo is news after all.
    world.end("Down/api/info");
    world.pass(300);
    world.expect(&["330 slack new firing [Slow] []"]);
}

#[test]
fn what_is_silenced_is_told_when_the_silence_ends() {
    let mut world = World::new(simple());
    let id = silence(&mut world, "service", "api", 1_000);
    world.fire("A/api");
    world.pass(600);
    world.expect(&[]);
    let now_ms = world.now_ms();
    assert_eq!(world.dispatcher.alerts(now_ms)[0].silenced_by, Some(id));
    world.pass(700);
    world.expect(&["1230 mail new firing [A] []"]);
    // A silence over what was told: no repetition, but the end is told.
    let id = silence(&mut world, "service", "api", 100_000);
    world.pass(8_000);
    world.expect(&[]);
    world.end("A/api");
    world.pass(300);
    world.expect(&["9330 mail resolved resolved [] [A]"]);
    world.dispatcher.expire_silence(world.now_ms(), id).unwrap();
    world.expect_empty();
}

#[test]
fn silences_survive_a_restart() {
    let mut world = World::new(simple());
    silence(&mut world, "alertname", "A", 1_000);
    world.restart();
    world.fire("A/api");
    world.pass(600);
    world.expect(&[]);
    assert_eq!(world.dispatcher.silences().count(), 1);
}

#[test]
fn a_new_configuration_keeps_the_memory() {
    let mut world = World::new(by_severity());
    world.fire("A/api/critical");
    world.pass(30);
    world.expect(&["30 pager new firing [A] []"]);
    // Another route above it, another channel beside it.
    let mut changed = by_severity();
    changed.routes[0].channels.push("mail".to_owned());
    changed.routes.insert(0, route(&[("service", "web")], &["web"], &[]));
    world.dispatcher.configure(world.now_ms(), changed);
    world.pass(600);
    world.expect(&["330 mail new firing [A] []"]);
    world.end("A/api/critical");
    world.pass(300);
    world.expect(&["930 mail resolved resolved [] [A]", "930 pager resolved resolved [] [A]"]);
    world.expect_empty();
}

#[test]
fn an_alert_that_moves_is_closed_where_it_was_opened() {
    let mut world = World::new(simple());
    world.fire("A/api/critical");
    world.fire("B/api/warning");
    world.pass(30);
    world.expect(&["30 mail new firing [A B] []"]);
    let mut changed = simple();
    changed.routes.insert(0, route(&[("severity", "critical")], &["pager", "mail"], &["service"]));
    world.dispatcher.configure(world.now_ms(), changed);
    world.pass(300);
    // It has waited long enough already.
    world.expect(&["35 mail new firing [A] []", "35 pager new firing [A] []"]);
    world.end("A/api/critical");
    world.pass(300);
    world.expect(&[
        "335 mail resolved resolved [] [A]",
        "335 pager resolved resolved [] [A]",
        "630 mail changed firing [B] [A]",
    ]);
    world.end("B/api/warning");
    world.pass(300);
    world.expect(&["930 mail resolved resolved [] [B]"]);
    world.expect_empty();
}

#[test]
fn a_channel_that_is_gone_holds_nothing() {
    let mut world = World::new(simple());
    world.fire("A/api");
    world.pass(30);
    world.dispatcher.configure(world.now_ms(), config(vec![route(&[], &["slack"], &["service"])]));
    world.pass(300);
    world.expect(&["30 mail new firing [A] []", "330 slack new firing [A] []"]);
    world.end("A/api");
    world.pass(300);
    world.expect(&["630 slack resolved resolved [] [A]"]);
    world.expect_empty();
    assert_eq!(world.dispatcher.channel_health().keys().copied().collect::<Vec<_>>(), ["slack"]);
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    let limits = Limits { alerts: 5, groups: 3, silences: 1 };
    let mut world = World::new(Config { limits, ..simple() });
    for index in 0..8 {
        world.fire(&format!("A{index}/s{index}"));
    }
    let counters = world.dispatcher.counters();
    assert!(counters.alerts_dropped >= 3, "{counters:?}");
    assert_eq!(counters.groups_merged, 2);
    world.pass(30);
    world.expect(&[
        "30 mail new firing [A0] []",
        "30 mail new firing [A1] []",
        "30 mail new firing [A2] []",
        "30 mail new firing [A3 A4] []",
    ]);
    // What ends makes room.
    for index in 0..8 {
        world.end(&format!("A{index}/s{index}"));
    }
    world.pass(400);
    world.expect_empty();
    let huge = Labels::new([("alertname", "x".repeat(100_000))]);
    let huge = Alert { labels: huge, ..world.alert("A/api", world.second, None) };
    world.dispatcher.receive(world.now_ms(), vec![huge]);
    assert_eq!(world.dispatcher.counters().alerts_refused, 1);
}
