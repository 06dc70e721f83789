//! Held against a real Alertmanager: it takes what we forward, and given the same alerts at the same time it tells a
//! webhook the same things as our dispatcher. `FAIRWAY_ALERTMANAGER` names the program.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use fairway_metrics::notify::{
    Alert, Config, Dispatcher, Forwarder, InhibitRule, Match, MatchOp, NewSilence, Route,
};

use super::*;

/// Half a look: later than this is another one.
const SLACK_MS: i64 = 900;

const CONFIG: &str = r#"
route:
  receiver: hook
  routes:
  - receiver: hook
    matchers: ['severity=~".+"']
    group_by: [service]
    group_wait: 1s
    group_interval: 2s
    repeat_interval: 5s
receivers:
- name: hook
  webhook_configs:
  - url: HOOK
inhibit_rules:
- source_matchers: ['severity="critical"']
  target_matchers: ['severity="warning"']
  equal: [service]
"#;

struct Alertmanager {
    process: Child,
    url: String,
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        // Ours, by its handle; that it is gone already is no matter.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Alertmanager {
    async fn start(program: &Path, directory: &Path, hook: &str, client: &Outgoing) -> Self {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let config = directory.join("alertmanager.yml");
        std::fs::write(&config, CONFIG.replace("HOOK", hook)).unwrap();
        let process = Command::new(runnable(program, directory))
            .current_dir(directory)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.join("log")).unwrap())
            .spawn()
            .unwrap();
        let one = Self { process, url: format!("http://127.0.0.1:{port}") };
        for _ in 0..200 {
            if client.get(&format!("{}/-/ready", one.url)).await.is_ok_and(|answer| answer.is_success()) {
                return one;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not start: {}", std::fs::read_to_string(directory.join("log")).unwrap());
    }
}

/// Debian's build reads its templates below `/usr/share`. Where the package is unpacked and not installed they are
/// beside the program, and a copy of it looks there: a path of the same length, relative to where it runs.
fn runnable(program: &Path, directory: &Path) -> PathBuf {
    const INSTALLED: &str = "/usr/share/prometheus/alertmanager";
    const HERE: &str = "././././././././././././././././am";
    let unpacked = program.ancestors().nth(3).unwrap_or(Path::new("/"));
    let templates = unpacked.join(&INSTALLED[1..]);
    if Path::new(INSTALLED).is_dir() || !templates.is_dir() {
        return program.to_owned();
    }
    let mut code = std::fs::read(program).unwrap();
    let places: Vec<usize> =
        (0..code.len()).filter(|at| code[*at..].starts_with(INSTALLED.as_bytes())).collect();
    for at in places {
        code[at..at + HERE.len()].copy_from_slice(HERE.as_bytes());
    }
    std::os::unix::fs::symlink(templates, directory.join("am")).unwrap();
    let copy = directory.join("alertmanager");
    std::fs::write(&copy, code).unwrap();
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    copy
}

fn matches(text: &[(&str, MatchOp, &str)]) -> Vec<Match> {
    text.iter().map(|(label, op, value)| Match::new(label, *op, value).unwrap()).collect()
}

fn ours() -> Config {
    let route = Route {
        matches: matches(&[("severity", MatchOp::Regex, ".+")]),
        channels: vec!["hook".to_owned()],
        group_by: vec!["service".to_owned()],
        group_wait: Duration::from_secs(1),
        group_interval: Duration::from_secs(2),
        repeat: Duration::from_secs(5),
    };
    let inhibit = vec![InhibitRule {
        source: matches(&[("severity", MatchOp::Equal, "critical")]),
        target: matches(&[("severity", MatchOp::Equal, "warning")]),
        equal: vec!["service".to_owned()],
    }];
    Config { routes: vec![route], inhibit, ..Config::default() }
}

/// When (milliseconds), what (`name/service/severity`), and whether it fires or ends.
const STORY: [(i64, &str, bool); 11] = [
    (0, "Down/api/critical", true),
    (0, "Slow/api/warning", true),
    (0, "Full/web/warning", true),
    (0, "Moved/db/critical", true),
    (1_500, "Errors/api/critical", true),
    (4_000, "Down/api/critical", false),
    // The last critical one ends, and what it inhibited is told.
    (6_000, "Errors/api/critical", false),
    (8_000, "Full/web/warning", false),
    (9_500, "Full/web/warning", true),
    (10_000, "Slow/api/warning", false),
    (10_000, "Moved/db/critical", false),
];

const STORY_ENDS_MS: i64 = 14_500;

fn alert(text: &str, starts_at_ms: TimestampMs, ends_at_ms: Option<TimestampMs>) -> Alert {
    let labels = Labels::new(["alertname", "service", "severity"].into_iter().zip(text.split('/')));
    let annotations = Labels::new([("summary", "told \"twice\" & <once>")]);
    let generator_url = "http://127.0.0.1/graph".to_owned();
    Alert { labels, annotations, starts_at_ms, ends_at_ms, generator_url }
}

/// A message without what cannot be the same: names of hosts and exact times.
fn essence(message: &Value) -> Value {
    let alerts: BTreeSet<String> = message["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|alert| {
            let fields = ["status", "labels", "annotations", "fingerprint", "generatorURL"];
            let fields: BTreeMap<&str, &Value> =
                fields.into_iter().map(|name| (name, &alert[name])).collect();
            let ended = alert["endsAt"] != "0001-01-01T00:00:00Z";
            format!("{} ended: {ended}", serde_json::to_string(&fields).unwrap())
        })
        .collect();
    let fields = ["version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels"];
    let common = ["commonLabels", "commonAnnotations"];
    let mut essence: serde_json::Map<String, Value> =
        fields.into_iter().chain(common).map(|name| (name.to_owned(), message[name].clone())).collect();
    essence.insert("alerts".to_owned(), json!(alerts));
    essence.into()
}

/// By group, in order: when, and what.
type Heard = BTreeMap<String, Vec<(i64, Value)>>;

#[derive(Clone, Default)]
struct Ear(std::sync::Arc<std::sync::Mutex<Heard>>);

impl Ear {
    async fn listen(&self, begun: Instant) -> Peer {
        let heard = std::sync::Arc::clone(&self.0);
        Peer::start(move |asked| {
            let at_ms = i64::try_from(begun.elapsed().as_millis()).unwrap();
            let message = asked.json();
            let group = message["groupKey"].as_str().unwrap().to_owned();
            heard.lock().unwrap().entry(group).or_default().push((at_ms, essence(&message)));
            ok("")
        })
        .await
    }
}

fn wall_ms() -> TimestampMs {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(wall.as_millis()).unwrap()
}

async fn silence_both(client: &Outgoing, alertmanager: &Alertmanager, dispatcher: &mut Dispatcher) {
    let now_ms = wall_ms();
    let ends_at_ms = now_ms + 3_600_000;
    let body = json!({
        "matchers": [{"name": "service", "value": "db", "isRegex": false, "isEqual": true}],
        "startsAt": stamp::rfc3339(now_ms),
        "endsAt": stamp::rfc3339(ends_at_ms),
        "createdBy": "ada",
        "comment": "moving",
    });
    let url = format!("{}/api/v2/silences", alertmanager.url);
    let answer = client.post(&url, "application/json", body.to_string()).await.unwrap();
    assert!(answer.is_success(), "{}", answer.excerpt());
    let matches = matches(&[("service", MatchOp::Equal, "db")]);
    let (by, comment) = ("ada".to_owned(), "moving".to_owned());
    let what = NewSilence { matches, starts_at_ms: now_ms, ends_at_ms, by, comment };
    dispatcher.silence(now_ms, what).unwrap();
}

#[test]
fn the_same_story_is_told_in_the_same_way() {
    let Some(program) = std::env::var_os("FAIRWAY_ALERTMANAGER") else {
        // Past the capture of the test harness: a test that did not run has to be seen.
        let note = "SKIPPED: nothing was held against Alertmanager (FAIRWAY_ALERTMANAGER is not set)\n";
        std::io::stderr().write_all(note.as_bytes()).unwrap();
        return;
    };
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let senders = senders();
        let client = Outgoing::new(Roots::default());
        let mut dispatcher = Dispatcher::new(ours());
        let mut forwarder = Forwarder::default();
        let begun = Instant::now();
        let (their_ear, our_ear) = (Ear::default(), Ear::default());
        let (theirs, mine) = (their_ear.listen(begun).await, our_ear.listen(begun).await);
        let hook = theirs.url("/");
        let alertmanager = Alertmanager::start(Path::new(&program), directory.path(), &hook, &client).await;
        silence_both(&client, &alertmanager, &mut dispatcher).await;
        let channel = Channel::Webhook { url: Secret::new(mine.url("/")) };
        let start_ms = wall_ms();
        let mut story = STORY.iter().peekable();
        let mut starts: BTreeMap<&str, TimestampMs> = BTreeMap::new();
        while wall_ms() - start_ms < STORY_ENDS_MS {
            let now_ms = wall_ms();
            while let Some((_, text, fires)) = story.next_if(|(at_ms, _, _)| start_ms + at_ms <= now_ms) {
                let reported = if *fires {
                    starts.insert(text, now_ms);
                    alert(text, now_ms, None)
                } else {
                    alert(text, starts[text], Some(now_ms))
                };
                dispatcher.receive(now_ms, vec![reported.clone()]);
                forwarder.receive(now_ms, vec![reported]);
            }
            while let Some(batch) = forwarder.due(now_ms) {
                let outcome = senders.forward(&alertmanager.url, &batch).await;
                assert_eq!(outcome, Outcome::Sent);
                forwarder.delivered(now_ms, batch.id, outcome);
            }
            for delivery in dispatcher.due(now_ms) {
                let outcome = senders.send(&channel, &delivery, now_ms).await;
                assert!(dispatcher.delivered(now_ms, delivery.id, outcome));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (theirs, ours) = (their_ear.0.lock().unwrap().clone(), our_ear.0.lock().unwrap().clone());
        let show = |heard: &Heard| serde_json::to_string_pretty(heard).unwrap();
        let what = |heard: &Heard| -> BTreeMap<String, Vec<Value>> {
            let values = |list: &Vec<(i64, Value)>| list.iter().map(|(_, value)| value.clone()).collect();
            heard.iter().map(|(group, list)| (group.clone(), values(list))).collect()
        };
        assert_eq!(what(&theirs), what(&ours), "theirs: {}\nours: {}", show(&theirs), show(&ours));
        assert_eq!(ours.len(), 2, "two groups are told, the silenced one is not: {}", show(&ours));
        let count: usize = ours.values().map(Vec::len).sum();
        assert_eq!(count, 9, "{}", show(&ours));
        for (group, theirs) in &theirs {
            for ((their_ms, _), (our_ms, _)) in theirs.iter().zip(&ours[group]) {
                let apart_ms = (their_ms - our_ms).abs();
                assert!(apart_ms < SLACK_MS, "{group}: {their_ms} ms and {our_ms} ms");
            }
        }
    });
}

#[test]
fn a_path_before_the_api_is_kept_and_what_is_refused_is_said() {
    run(async {
        let peer = Peer::start(|asked| match asked.line.as_str() {
            "POST /am/api/v2/alerts HTTP/1.1" => ok(""),
            _ => answer(400, r#""invalid label set""#),
        })
        .await;
        let mut forwarder = Forwarder::default();
        forwarder.receive(NOW_MS, vec![alert("A/api/critical", NOW_MS, None)]);
        let batch = forwarder.due(NOW_MS).unwrap();
        assert_eq!(senders().forward(&peer.url("/am/"), &batch).await, Outcome::Sent);
        let posted = peer.asked()[0].json();
        let shape = json!([{
            "annotations": {"summary": "told"},
            "endsAt": "2026-11-21T03:04:00.000Z",
            "generatorURL": "http://127.0.0.1/graph",
            "labels": {"alertname": "A", "service": "api", "severity": "critical"},
            "startsAt": "2026-11-21T03:00:00.000Z",
        }]);
        check_shape(&posted, &shape, "alerts");
        let refused = senders().forward(&peer.url(""), &batch).await;
        assert_eq!(refused, Outcome::Refused { why: r#"400: "invalid label set""#.to_owned() });
    });
}
