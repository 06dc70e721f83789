//! Clocks that jump, and callers that sleep.

use super::*;

#[test]
fn a_clock_that_goes_back_neither_repeats_nor_forgets() {
    let mut world = World::new(simple());
    world.fire("A/api");
    world.pass(30);
    world.expect(&["30 mail new firing [A] []"]);
    world.second -= 100_000;
    world.report();
    world.pass(600);
    world.expect(&[]);
    world.firing.insert("B/api".to_owned(), world.second);
    world.report();
    world.pass(300);
    world.expect(&["-99070 mail changed firing [B A] []"]);
    // What was over stays over.
    let starts = world.firing.remove("A/api").unwrap();
    let over = world.alert("A/api", starts, Some(world.now_ms()));
    world.dispatcher.receive(world.now_ms(), vec![over]);
    world.second -= 50_000;
    world.pass(400);
    assert_eq!(world.heard.len(), 1);
    assert!(world.heard[0].ends_with("mail changed firing [B] [A]"), "{:?}", world.heard);
}

#[test]
fn a_clock_that_leaps_ends_no_alert() {
    let mut world = World::new(simple());
    world.fire("A/api");
    world.pass(30);
    world.heard.clear();
    world.second += 100_000;
    // `due` before the rules had a chance to report.
    world.pump();
    world.expect(&["100030 mail repeat firing [A] []"]);
    world.pass(300);
    world.expect(&[]);
    // A leap shorter than the timeout is no leap: it may eat up the rest of it, and so the rules report before that.
    world.firing.clear();
    world.pass(600);
    assert_eq!(world.heard.len(), 1);
    world.expect_empty();
}

#[test]
fn a_caller_who_comes_when_it_is_asked_to_lets_time_out_what_is_not_reported() {
    // Looked at every hour, and nobody reports: the pulse makes the difference to a leap.
    let mut slow = simple();
    slow.routes[0].group_interval = Duration::from_secs(3600);
    let mut world = World::new(slow);
    world.fire("A/api");
    let start_ms = world.now_ms();
    let mut at_ms = start_ms;
    for _ in 0..1_000 {
        let Some(next_ms) = world.dispatcher.next_at() else { break };
        at_ms = at_ms.max(next_ms);
        for delivery in world.dispatcher.due(at_ms) {
            world.dispatcher.delivered(at_ms, delivery.id, Outcome::Sent);
        }
    }
    assert_eq!(world.dispatcher.next_at(), None);
    assert_eq!(at_ms - start_ms, 3_630 * SECOND);
}

#[test]
fn the_ends_of_time_are_survived() {
    for extreme in [TimestampMs::MIN, TimestampMs::MAX, 0] {
        let mut dispatcher = Dispatcher::new(simple());
        let alert = |ends_at_ms| Alert {
            labels: labels("A/api"),
            annotations: Labels::default(),
            starts_at_ms: extreme,
            ends_at_ms,
            generator_url: String::new(),
        };
        for now_ms in [0, TimestampMs::MAX, TimestampMs::MIN, 5, TimestampMs::MAX] {
            for ends_at_ms in [None, Some(extreme)] {
                dispatcher.receive(now_ms, vec![alert(ends_at_ms)]);
                for delivery in dispatcher.due(now_ms) {
                    dispatcher.delivered(now_ms, delivery.id, failed(true));
                }
                let state = dispatcher.state();
                dispatcher.restore(state, now_ms);
                dispatcher.configure(now_ms, simple());
                let _ = (dispatcher.next_at(), dispatcher.alerts(now_ms));
            }
        }
    }
}
