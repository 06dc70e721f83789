use std::collections::BTreeMap;

use fairway_engine::id::ReleaseNumber;
use fairway_engine::monitoring::RuleFile as Written;
use fairway_engine::time::Timestamp;
use fairway_metrics::rules::AlertState;
use fairway_metrics::store::{Options, Store};

use super::*;
use crate::testing::{key, release};

/// At each moment of it, the group of the tests has a slot within the last second.
const RULES: &str = "
groups:
  - name: own
    interval: 1s
    rules:
      - record: total
        expr: sum by (service) (things)
      - alert: Many
        expr: total > 5
        for: 2s
        labels: {severity: critical}
      - alert: Others
        expr: things
";

fn settings(environments: &[(&str, Monitoring)]) -> Settings {
    let release = |monitoring: &Monitoring| {
        let mut spec = release("127.0.0.1:8080");
        spec.monitoring = monitoring.clone();
        let number = ReleaseNumber(1);
        Arc::new(Release { number, created_at: Timestamp(0), created_by: "ann".to_owned(), spec })
    };
    environments.iter().map(|(name, monitoring)| (key(name), release(monitoring))).collect()
}

fn with_rules(text: &str) -> Monitoring {
    Monitoring {
        rules: vec![Written { path: "own.yml".to_owned(), text: text.to_owned() }],
        ..Monitoring::default()
    }
}

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    engine: promql::Engine,
    book: Book,
    now_ms: i64,
}

impl World {
    fn new(environments: &[(&str, Monitoring)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap().store;
        let now_ms = 1_800_000_000_000;
        let mut book = Book::default();
        book.configure(&settings(environments), now_ms);
        Self { _dir: dir, store, engine: promql::Engine::default(), book, now_ms }
    }

    fn things(&self, environment: &str, value: f64) {
        let labels = Labels::new([("__name__", "things"), ("environment", environment), ("service", "api")]);
        self.store.append_labels([(&labels, Sample { at_ms: self.now_ms, value })]).unwrap();
    }

    fn later(&mut self, ms: i64) -> Round {
        self.now_ms += ms;
        let round = self.book.evaluate(&self.store, &self.engine, self.now_ms);
        self.store.append_labels(round.samples.iter().map(|(labels, sample)| (labels, *sample))).unwrap();
        round
    }

    fn alerts(&self, environment: &str) -> Vec<(String, bool)> {
        let (key, monitoring) = (key(environment), Monitoring::default());
        let alerts = self.book.alerts(&key, &monitoring).filter(|alert| alert.is_active());
        alerts.map(|alert| (alert.name().to_owned(), alert.is_firing())).collect()
    }
}

fn named(name: &str, is_firing: bool) -> (String, bool) {
    (name.to_owned(), is_firing)
}

#[test]
fn an_environments_rules_speak_for_it_alone() {
    let mut world = World::new(&[("dev", with_rules(RULES)), ("production", Monitoring::default())]);
    world.things("shop/dev", 9.0);
    world.things("shop/production", 99.0);
    let round = world.later(1000);
    assert_eq!(world.alerts("dev"), [named("Many", false), named("Others", true)]);
    assert!(world.alerts("production").is_empty(), "a rule of dev must not page for production");
    let total = round.samples.iter().find(|(labels, _)| labels.name() == "total").unwrap();
    assert_eq!(total.0.get("environment"), Some("shop/dev"), "what lacks the label gets it");
    let others = round.samples.iter().filter(|(labels, _)| labels.get("alertname") == Some("Others"));
    assert!(
        others.clone().count() > 0
            && others.clone().all(|(labels, _)| labels.get("environment") == Some("shop/dev"))
    );
}

#[test]
fn a_restart_restarts_no_timer_and_an_error_resolves_nothing() {
    let monitoring = [("dev", with_rules(RULES))];
    let mut world = World::new(&monitoring);
    world.things("shop/dev", 9.0);
    world.later(1000);
    assert!(world.book.is_sure(&key("dev")));
    let kept = serde_json::to_string(&world.book.kept()).unwrap();
    world.book = Book::restored(serde_json::from_str(&kept).unwrap());
    world.book.configure(&settings(&monitoring), world.now_ms);
    assert!(world.book.is_sure(&key("dev")), "what was remembered is known");
    world.later(2000);
    assert_eq!(world.alerts("dev")[0], named("Many", true), "`for` counts from where it began");
    // Everything it asks fails from now on.
    world.engine.limits.samples_max = 0;
    world.later(1000);
    assert_eq!(world.alerts("dev"), [named("Many", true), named("Others", true)]);
    let problems = world.book.problems(&key("dev"));
    assert!(
        problems.iter().any(|why| why.starts_with("Many of shop/dev: own.yml cannot be evaluated")),
        "{problems:?}"
    );
    world.engine = promql::Engine::default();
    world.later(400_000);
    assert!(world.alerts("dev").is_empty(), "the figures are old by now");
}

#[test]
fn what_was_never_evaluated_is_not_known() {
    let mut world = World::new(&[("dev", with_rules(RULES))]);
    assert!(!world.book.is_sure(&key("dev")));
    world.engine.limits.samples_max = 0;
    world.things("shop/dev", 1.0);
    world.later(1000);
    assert!(!world.book.is_sure(&key("dev")));
}

#[test]
fn rules_that_go_end_their_alerts_and_those_that_stay_go_on() {
    let mut world = World::new(&[("dev", with_rules(RULES))]);
    world.things("shop/dev", 9.0);
    world.later(1000);
    let fewer = RULES.replace("alert: Others", "alert: Renamed");
    let round = world.book.configure(&settings(&[("dev", with_rules(&fewer))]), world.now_ms);
    assert!(round.changed);
    assert_eq!(world.alerts("dev"), [named("Many", false)]);
    world.later(2000);
    assert_eq!(world.alerts("dev")[0], named("Many", true));
    let round = world.book.configure(&settings(&[("dev", Monitoring::default())]), world.now_ms);
    let is_stale = |sample: &Sample| fairway_metrics::sample::is_stale(sample.value);
    assert!(
        round.changed
            && round.samples.iter().all(|(_, sample)| is_stale(sample))
            && !round.samples.is_empty()
    );
    assert!(world.alerts("dev").is_empty());
}

#[test]
fn built_in_rules_are_evaluated_once_and_kept_from_those_who_do_not_want_them() {
    let without =
        Monitoring { without: vec!["HighCpu".to_owned(), "DiskFull".to_owned()], ..Monitoring::default() };
    let other = Monitoring { without: vec!["DiskFull".to_owned()], ..Monitoring::default() };
    let world = World::new(&[("dev", without), ("production", other)]);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for rule in world.book.shown().iter().flat_map(|group| &group.rules) {
        *counts.entry(rule.name.clone()).or_default() += 1;
    }
    assert_eq!(
        (counts.get("HighCpu"), counts.get("DiskFull"), counts.get("HighErrorRate")),
        (Some(&1), None, Some(&1))
    );
}

#[test]
fn an_unwanted_built_in_alert_is_told_to_the_others_alone() {
    let mut world = World::new(&[("dev", Monitoring::default()), ("production", Monitoring::default())]);
    let of = |name: &str| Labels::new([("__name__", name), ("mountpoint", "/")]);
    for second in 0..10 {
        let at_ms = world.now_ms + second * 15_000;
        let (size, left) = (of("node_filesystem_size_bytes"), of("node_filesystem_avail_bytes"));
        let samples = [(&size, Sample { at_ms, value: 100.0 }), (&left, Sample { at_ms, value: 1.0 })];
        world.store.append_labels(samples).unwrap();
    }
    world.later(31_000);
    world.later(90_000);
    let without = Monitoring { without: vec!["DiskFull".to_owned()], ..Monitoring::default() };
    let (dev, production) = (key("dev"), key("production"));
    let all = Monitoring::default();
    let is_full =
        |alert: &&Alert| alert.name() == "DiskFull" && matches!(alert.state, AlertState::Firing { .. });
    assert_eq!(world.book.alerts(&production, &all).filter(is_full).count(), 1);
    assert_eq!(world.book.alerts(&dev, &without).filter(is_full).count(), 0);
}

#[test]
fn a_file_that_cannot_be_read_is_told_and_leaves_the_others() {
    let mut monitoring = with_rules("groups: [{name: a, rules: [{alert: x}]}]");
    monitoring.rules.push(Written { path: "good.yml".to_owned(), text: RULES.to_owned() });
    let world = World::new(&[("dev", monitoring)]);
    let problems = world.book.problems(&key("dev"));
    assert!(problems[0].starts_with("shop/dev: own.yml:1:"), "{problems:?}");
    assert!(world.book.shown().iter().any(|group| group.file == "shop/dev: good.yml"));
}

#[test]
fn nobody_is_watched_here_whose_rules_are_evaluated_elsewhere() {
    let source = MetricsSource::Prometheus { url: "http://x".to_owned() };
    let mut world = World::new(&[("dev", Monitoring { source, ..with_rules(RULES) })]);
    assert_eq!((world.book.next_at_ms(), world.book.shown().len()), (None, 0));
    assert!(world.later(60_000).samples.is_empty());
}
