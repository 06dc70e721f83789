//! Channels that fail, answers that are lost, and restarts at every point.

use super::*;

fn two_channels() -> Config {
    config(vec![route(&[], &["mail", "slack"], &["service"])])
}

#[test]
fn a_broken_channel_is_tried_ever_more_rarely_and_holds_up_nobody() {
    let mut world = World::new(two_channels());
    world.broken.insert("mail".to_owned(), failed(false));
    world.fire("A/api");
    world.pass(100);
    world.expect(&[
        "30 mail new firing [A] []",
        "30 slack new firing [A] []",
        "31 mail new firing [A] []",
        "33 mail new firing [A] []",
        "37 mail new firing [A] []",
        "45 mail new firing [A] []",
        "61 mail new firing [A] []",
        "93 mail new firing [A] []",
    ]);
    let health = world.dispatcher.channel_health();
    let Standing::Failing { since_ms, failures, worked_ms, why, refused, .. } = &health["mail"].standing
    else {
        panic!("{health:?}");
    };
    assert_eq!((*since_ms, *failures, *worked_ms), (1_000_030_000, 7, None));
    assert_eq!((why.as_str(), *refused), ("connection refused", false));
    assert!(!health["slack"].is_failing());
    // It comes back: what is true by then is told, once.
    world.fire("B/api");
    world.broken.clear();
    world.pass(230);
    world.expect(&["157 mail new firing [A B] []", "330 slack changed firing [A B] []"]);
    assert!(!world.dispatcher.channel_health()["mail"].is_failing());
}

#[test]
fn what_ended_while_the_channel_was_broken_is_not_told_at_all() {
    for perhaps_sent in [false, true] {
        let mut world = World::new(simple());
        world.broken.insert("mail".to_owned(), failed(perhaps_sent));
        world.fire("A/api");
        world.pass(31);
        world.end("A/api");
        world.heard.clear();
        world.broken.clear();
        world.pass(300);
        // Unless nobody knows whether it was told: then it is closed.
        let closed: &[&str] = if perhaps_sent { &["33 mail resolved resolved [] [A]"] } else { &[] };
        world.expect(closed);
        world.pass(300);
        world.expect_empty();
    }
}

#[test]
fn a_channel_that_refuses_is_visible_and_tried_again_with_a_new_configuration() {
    let mut world = World::new(simple());
    let refused = Outcome::Refused { why: "403: invalid token".to_owned() };
    world.broken.insert("mail".to_owned(), refused);
    world.fire("A/api");
    world.pass(700);
    world.expect(&["30 mail new firing [A] []", "330 mail new firing [A] []", "630 mail new firing [A] []"]);
    let health = world.dispatcher.channel_health();
    assert!(matches!(&health["mail"].standing, Standing::Failing { refused: true, .. }));
    world.broken.clear();
    world.dispatcher.configure(world.now_ms(), simple());
    world.pass(1);
    world.expect(&["701 mail new firing [A] []"]);
}

#[test]
fn a_channel_that_asks_for_a_pause_gets_it() {
    let mut world = World::new(simple());
    let pause = |seconds| Outcome::Failed {
        why: "429".to_owned(),
        perhaps_sent: false,
        retry_after: Some(Duration::from_secs(seconds)),
    };
    world.broken.insert("mail".to_owned(), pause(60));
    world.fire("A/api");
    world.pass(95);
    world.expect(&["30 mail new firing [A] []", "90 mail new firing [A] []"]);
    // But not for a year.
    world.broken.insert("mail".to_owned(), pause(31_536_000));
    world.pass(60);
    world.broken.clear();
    world.pass(310);
    world.expect(&["150 mail new firing [A] []", "450 mail new firing [A] []"]);
}

#[test]
fn an_answer_that_never_comes_is_a_failure_and_a_late_one_is_ignored() {
    let mut world = World::new(two_channels());
    world.fire("A/api");
    world.second += 30;
    let deliveries = world.due();
    assert_eq!(deliveries.len(), 2);
    for _ in 0..8 {
        world.second += 15;
        world.report();
    }
    world.second += 1;
    world.pump();
    assert_eq!(world.dispatcher.counters().deliveries_lost, 2);
    for delivery in deliveries {
        assert!(!world.dispatcher.delivered(world.now_ms(), delivery.id, Outcome::Sent));
    }
    assert_eq!(world.heard.len(), 4);
    assert!(!world.dispatcher.delivered(world.now_ms(), DeliveryId(999), Outcome::Sent));
}

#[test]
fn a_restart_in_any_second_tells_nothing_twice_and_loses_nothing() {
    for restart_at in [0, 1, 15, 29, 30, 31, 200, 329, 330, 331, 500, 629, 630, 631] {
        let mut world = World::new(two_channels());
        let pass_to = |world: &mut World, until: TimestampMs| {
            while world.second < 1_000_000 + until {
                if world.second == 1_000_000 + restart_at {
                    world.restart();
                }
                world.pass(1);
            }
        };
        world.fire("A/api");
        pass_to(&mut world, 100);
        world.fire("B/api");
        pass_to(&mut world, 400);
        world.end("A/api");
        world.end("B/api");
        pass_to(&mut world, 1_000);
        world.expect(&[
            "30 mail new firing [A] []",
            "30 slack new firing [A] []",
            "330 mail changed firing [A B] []",
            "330 slack changed firing [A B] []",
            "630 mail resolved resolved [] [A B]",
            "630 slack resolved resolved [] [A B]",
        ]);
        world.expect_empty();
    }
}

#[test]
fn a_crash_between_sending_and_its_answer_sends_again() {
    let mut world = World::new(simple());
    world.fire("A/api");
    world.second += 30;
    let before = world.due().remove(0);
    // Written down, sent, and dead before the answer.
    world.restart();
    assert!(!world.dispatcher.delivered(world.now_ms(), before.id, Outcome::Sent));
    world.second += 1;
    let again = world.due().remove(0);
    assert_eq!(again.group_key, before.group_key, "what a channel merges by");
    world.dispatcher.delivered(world.now_ms(), again.id, Outcome::Sent);
    world.heard.clear();
    // The same, and the alert ends before it could be sent again: the incident that may be open is closed.
    let mut world = World::new(simple());
    world.fire("A/api");
    world.second += 30;
    world.due();
    world.restart();
    world.heard.clear();
    world.firing.clear();
    let over = world.alert("A/api", 1_000_000, Some(world.now_ms()));
    world.dispatcher.receive(world.now_ms(), vec![over]);
    world.pump();
    world.expect(&["30 mail resolved resolved [] [A]"]);
    world.expect_empty();
}

#[test]
fn a_restart_keeps_what_waits_after_a_failure() {
    let mut world = World::new(simple());
    world.broken.insert("mail".to_owned(), failed(false));
    world.fire("A/api");
    world.pass(70);
    world.heard.clear();
    world.restart();
    assert!(world.dispatcher.channel_health()["mail"].is_failing());
    world.broken.clear();
    world.pass(100);
    world.expect(&["93 mail new firing [A] []"]);
}

#[test]
fn no_alert_ends_because_nothing_ran() {
    let mut world = World::new(simple());
    world.fire("A/api");
    world.pass(30);
    world.heard.clear();
    let firing = std::mem::take(&mut world.firing);
    let written = world.dispatcher.state();
    world.second += 100_000;
    world.dispatcher = Dispatcher::new(simple());
    world.dispatcher.restore(written, world.now_ms());
    world.pump();
    // The rules have not been evaluated yet, and it is due for repetition, not for its end.
    world.expect(&["100030 mail repeat firing [A] []"]);
    world.firing = firing;
    world.pass(1_000);
    world.expect(&[]);
}

#[test]
fn a_memory_of_garbage_is_bounded() {
    let mut world = World::new(simple());
    world.fire("A/api");
    world.pass(30);
    let mut written = serde_json::to_value(world.dispatcher.state()).unwrap();
    written["at_ms"] = i64::MAX.into();
    for group in written["groups"].as_object_mut().unwrap().values_mut() {
        group["next_look_ms"] = i64::MAX.into();
        group["interval_ms"] = i64::MIN.into();
        group["told"]["mail"]["sent_at_ms"] = i64::MAX.into();
        group["told"]["gone"] = group["told"]["mail"].clone();
        group["alerts"].as_array_mut().unwrap().push(7.into());
    }
    for end in [i64::MIN, i64::MAX] {
        written["alerts"][0]["end"] = serde_json::json!({"kind": "timeout", "at_ms": end});
        world.dispatcher = Dispatcher::new(simple());
        world.dispatcher.restore(serde_json::from_value(written.clone()).unwrap(), world.now_ms());
        assert!(world.dispatcher.next_at().unwrap() <= world.now_ms() + 300 * SECOND);
        world.pass(1_000);
    }
    assert!(serde_json::from_str::<State>("{}").is_err());
}
