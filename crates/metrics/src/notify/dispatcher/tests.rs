//! Scenarios: what is reported, and what each channel hears at which second.

use std::time::Duration;

use super::*;
use crate::notify::{Match, MatchOp, Reason, Route, Standing, Status};

mod faults;
mod routes;
mod time;

const SECOND: TimestampMs = 1_000;

pub(super) fn route(matches: &[(&str, &str)], channels: &[&str], group_by: &[&str]) -> Route {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Route {
        matches: matches.iter().map(|(l, v)| Match::new(l, MatchOp::Equal, v).unwrap()).collect(),
        channels: owned(channels),
        group_by: owned(group_by),
        group_wait: Duration::from_secs(30),
        group_interval: Duration::from_secs(300),
        repeat: Duration::from_secs(3600),
    }
}

pub(super) fn config(routes: Vec<Route>) -> Config {
    Config { routes, ..Config::default() }
}

/// One route for everything, grouped by service.
pub(super) fn simple() -> Config {
    config(vec![route(&[], &["mail"], &["service"])])
}

/// `name/service` or `name/service/severity`.
pub(super) fn labels(text: &str) -> Labels {
    Labels::new(["alertname", "service", "severity"].into_iter().zip(text.split('/')))
}

pub(super) fn failed(perhaps_sent: bool) -> Outcome {
    Outcome::Failed { why: "connection refused".to_owned(), perhaps_sent, retry_after: None }
}

/// A dispatcher whose rules are evaluated every 15 seconds, and whose channels answer at once.
pub(super) struct World {
    pub(super) dispatcher: Dispatcher,
    pub(super) second: TimestampMs,
    /// What fires, since when.
    pub(super) firing: BTreeMap<String, TimestampMs>,
    /// What the channels that are listed here answer; the others take everything.
    pub(super) broken: BTreeMap<String, Outcome>,
    pub(super) heard: Vec<String>,
}

impl World {
    pub(super) fn new(config: Config) -> Self {
        let dispatcher = Dispatcher::new(config);
        let (firing, broken) = (BTreeMap::new(), BTreeMap::new());
        Self { dispatcher, second: 1_000_000, firing, broken, heard: Vec::new() }
    }

    pub(super) fn now_ms(&self) -> TimestampMs {
        self.second * SECOND
    }

    fn alert(&self, name: &str, starts: TimestampMs, ends_at_ms: Option<TimestampMs>) -> Alert {
        let annotations = Labels::new([("summary", "it is broken")]);
        let generator_url = "http://localhost/graph".to_owned();
        Alert { labels: labels(name), annotations, starts_at_ms: starts * SECOND, ends_at_ms, generator_url }
    }

    pub(super) fn fire(&mut self, name: &str) {
        self.firing.insert(name.to_owned(), self.second);
        self.report();
    }

    pub(super) fn end(&mut self, name: &str) {
        let starts = self.firing.remove(name).unwrap();
        let alert = self.alert(name, starts, Some(self.now_ms()));
        self.dispatcher.receive(self.now_ms(), vec![alert]);
        self.pump();
    }

    pub(super) fn report(&mut self) {
        let alerts = self.firing.iter().map(|(name, starts)| self.alert(name, *starts, None)).collect();
        self.dispatcher.receive(self.now_ms(), alerts);
        self.pump();
    }

    pub(super) fn due(&mut self) -> Vec<Delivery> {
        let deliveries = self.dispatcher.due(self.now_ms());
        for delivery in &deliveries {
            let list = |status: Status| {
                let names = delivery.alerts.iter().filter(|alert| alert.status == status);
                let names = names.map(|alert| alert.labels.get("alertname").unwrap_or_default());
                names.collect::<Vec<_>>().join(" ")
            };
            let reason = match delivery.reason {
                Reason::New => "new",
                Reason::Changed => "changed",
                Reason::Resolved => "resolved",
                Reason::Repeat => "repeat",
            };
            let line = format!(
                "{} {} {reason} {} [{}] [{}]",
                self.second - 1_000_000,
                delivery.channel,
                delivery.status.word(),
                list(Status::Firing),
                list(Status::Resolved)
            );
            self.heard.push(line);
        }
        deliveries
    }

    /// Sends until nothing is due any more.
    pub(super) fn pump(&mut self) {
        for _ in 0..100_000 {
            let deliveries = self.due();
            if deliveries.is_empty() {
                return;
            }
            for delivery in deliveries {
                let outcome = self.broken.get(&delivery.channel).cloned().unwrap_or(Outcome::Sent);
                assert!(self.dispatcher.delivered(self.now_ms(), delivery.id, outcome));
            }
        }
        panic!("something is due for ever: {:?}", self.heard.last());
    }

    /// Lets time pass, second by second, with a report every 15 of them.
    pub(super) fn pass(&mut self, seconds: TimestampMs) {
        for _ in 0..seconds {
            self.second += 1;
            if self.second % 15 == 0 {
                self.report();
            }
            if self.dispatcher.next_at().is_some_and(|at_ms| at_ms <= self.now_ms()) {
                self.pump();
            }
        }
    }

    /// Dies and comes back with what was written down.
    pub(super) fn restart(&mut self) {
        let written = serde_json::to_string(&self.dispatcher.state()).unwrap();
        let config = self.dispatcher.config.clone();
        self.dispatcher = Dispatcher::new(config);
        self.dispatcher.restore(serde_json::from_str(&written).unwrap(), self.now_ms());
    }

    #[track_caller]
    pub(super) fn expect(&mut self, heard: &[&str]) {
        assert_eq!(std::mem::take(&mut self.heard), heard);
    }

    /// Nothing is kept of what is over.
    #[track_caller]
    pub(super) fn expect_empty(&self) {
        let dispatcher = &self.dispatcher;
        assert!(dispatcher.alerts.is_empty(), "{:?}", dispatcher.alerts);
        assert!(dispatcher.groups.is_empty(), "{:?}", dispatcher.groups);
        assert!(dispatcher.in_flight.is_empty(), "{:?}", dispatcher.in_flight);
        assert_eq!(dispatcher.next_at(), None);
    }
}

#[test]
fn a_group_waits_grows_shrinks_and_ends() {
    let mut world = World::new(simple());
    world.fire("A/api");
    world.pass(20);
    world.fire("B/api");
    world.pass(10);
    world.expect(&["30 mail new firing [A B] []"]);
    world.fire("C/api");
    world.end("A/api");
    world.pass(300);
    world.expect(&["330 mail changed firing [B C] [A]"]);
    world.pass(300);
    world.expect(&[]);
    world.end("B/api");
    world.end("C/api");
    world.pass(300);
    world.expect(&["930 mail resolved resolved [] [B C]"]);
    world.expect_empty();
    world.pass(10_000);
    world.expect(&[]);
}

#[test]
fn what_does_not_change_is_repeated_and_nothing_else() {
    let mut world = World::new(simple());
    world.fire("A/api");
    world.pass(8_000);
    world.expect(&[
        "30 mail new firing [A] []",
        "3630 mail repeat firing [A] []",
        "7230 mail repeat firing [A] []",
    ]);
}

#[test]
fn an_alert_that_ends_before_it_is_told_is_never_told() {
    let mut world = World::new(simple());
    world.fire("A/api");
    world.pass(10);
    world.end("A/api");
    world.pass(1_000);
    world.expect(&[]);
    world.expect_empty();
    // Another one in the group is told without it.
    world.fire("B/api");
    world.pass(40);
    world.fire("C/api");
    world.pass(5);
    world.end("C/api");
    world.pass(600);
    world.expect(&["1040 mail new firing [B] []"]);
}

#[test]
fn flapping_between_two_looks_is_one_message() {
    let mut world = World::new(simple());
    world.fire("A/api");
    world.pass(30);
    world.expect(&["30 mail new firing [A] []"]);
    for _ in 0..10 {
        world.end("A/api");
        world.pass(10);
        world.fire("A/api");
        world.pass(10);
    }
    world.pass(400);
    world.expect(&[]);
    assert_eq!(world.dispatcher.alerts(world.now_ms()).len(), 1);
}

#[test]
fn each_group_and_each_channel_is_told_on_its_own() {
    let mut world = World::new(config(vec![route(&[], &["mail", "slack"], &["service"])]));
    world.fire("A/api");
    world.fire("A/web");
    world.pass(30);
    world.expect(&[
        "30 mail new firing [A] []",
        "30 slack new firing [A] []",
        "30 mail new firing [A] []",
        "30 slack new firing [A] []",
    ]);
}

#[test]
fn an_alert_that_is_not_reported_any_more_ends_by_itself() {
    let mut world = World::new(simple());
    world.fire("A/api");
    world.pass(30);
    world.firing.clear();
    world.pass(330);
    // 300 seconds after the last report, which was 5 seconds ago at second 20.
    world.expect(&["30 mail new firing [A] []", "330 mail resolved resolved [] [A]"]);
    world.expect_empty();
}

#[test]
fn one_that_began_long_ago_does_not_wait_again() {
    let mut world = World::new(simple());
    world.firing.insert("A/api".to_owned(), world.second - 500);
    world.report();
    world.expect(&["0 mail new firing [A] []"]);
}

#[test]
fn the_message_names_what_all_its_alerts_share() {
    let mut world = World::new(simple());
    world.fire("A/api/critical");
    world.fire("B/api/critical");
    world.second += 30;
    let delivery = world.due().remove(0);
    assert_eq!(delivery.group_key, r#"{}/{}:{service="api"}"#);
    assert_eq!(delivery.group_labels, Labels::new([("service", "api")]));
    assert_eq!(delivery.common_labels, Labels::new([("service", "api"), ("severity", "critical")]));
    assert_eq!(delivery.common_annotations.get("summary"), Some("it is broken"));
    assert_eq!((delivery.attempt, delivery.truncated, delivery.firing().count()), (1, 0, 2));
}

#[test]
fn ten_thousand_alerts_are_one_message_that_says_so() {
    let mut world = World::new(simple());
    world.firing = (0..10_000).map(|index| (format!("A{index}/api"), world.second)).collect();
    world.report();
    world.second += 30;
    let delivery = world.due().remove(0);
    assert_eq!((delivery.alerts.len(), delivery.truncated), (1_000, 9_000));
    assert!(world.dispatcher.delivered(world.now_ms(), delivery.id, Outcome::Sent));
    world.heard.clear();
    // A message that was cut told of all of them.
    world.pass(301);
    world.expect(&[]);
    world.restart();
    world.firing.clear();
    world.pass(601);
    assert_eq!(world.heard.len(), 1);
    world.expect_empty();
}

#[test]
fn ten_thousand_groups_are_told_once_each_a_few_at_a_time() {
    let mut world = World::new(simple());
    world.firing = (0..10_000).map(|index| (format!("A/s{index}"), world.second)).collect();
    let alerts = world.firing.iter().map(|(name, starts)| world.alert(name, *starts, None)).collect();
    world.dispatcher.receive(world.now_ms(), alerts);
    world.second += 30;
    let deliveries = world.due();
    assert_eq!(deliveries.len(), IN_FLIGHT_MAX);
    assert_eq!(world.due().len(), 0);
    // Bound by their answers, and not by time.
    assert!(world.dispatcher.next_at().unwrap() > world.now_ms());
    let mut told: BTreeSet<String> = BTreeSet::new();
    // As many as a test has time for; each answer makes room for one.
    let mut waiting = deliveries;
    for _ in 0..20 {
        for delivery in waiting {
            assert!(told.insert(delivery.group_key), "told twice");
            world.dispatcher.delivered(world.now_ms(), delivery.id, Outcome::Sent);
        }
        assert!(world.dispatcher.next_at().unwrap() <= world.now_ms());
        waiting = world.due();
        assert_eq!(waiting.len(), IN_FLIGHT_MAX);
    }
}
