use std::time::Duration;

use fairway_engine::id::ReleaseNumber;
use fairway_engine::monitoring::{AlertMatch, AlertMatchOp, AlertRoute, Channel};
use fairway_engine::time::Timestamp;
use fairway_metrics::notify::Status;

use super::*;
use crate::testing::{key, release};

fn monitoring() -> Monitoring {
    let route = AlertRoute {
        matches: Vec::new(),
        channels: vec!["ops".to_owned()],
        group_by: vec!["alertname".to_owned()],
        group_wait: Duration::from_secs(1),
        group_interval: Duration::from_secs(1),
        repeat: Duration::from_secs(3600),
    };
    let url = EnvValue::Literal("http://127.0.0.1:1/".to_owned());
    Monitoring {
        channels: [("ops".to_owned(), Channel::Webhook { url })].into(),
        routes: vec![route],
        ..Monitoring::default()
    }
}

fn of(monitoring: Monitoring) -> Arc<Release> {
    let mut spec = release("127.0.0.1:8080");
    spec.monitoring = monitoring;
    Arc::new(Release {
        number: ReleaseNumber(1),
        created_at: Timestamp(0),
        created_by: "ann".to_owned(),
        spec,
    })
}

fn desk(path: PathBuf, monitoring: Monitoring) -> Arc<Desk> {
    Arc::new(Desk::open(key("dev"), path, of(monitoring), 0))
}

fn firing(name: &str) -> Alert {
    Alert {
        labels: Labels::new([("alertname", name)]),
        annotations: Labels::default(),
        starts_at_ms: 0,
        ends_at_ms: None,
        generator_url: String::new(),
    }
}

fn deliveries(messages: Vec<Message>) -> Vec<Delivery> {
    let delivery = |message| match message {
        Message::Delivery(delivery) => *delivery,
        Message::Batch { .. } => panic!("it is not for an Alertmanager"),
    };
    messages.into_iter().map(delivery).collect()
}

#[tokio::test]
async fn what_was_told_is_not_told_again_after_a_restart_and_its_end_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dev.json");
    let desk = self::desk(path.clone(), monitoring());
    desk.report(vec![firing("A")], 0);
    let told = deliveries(desk.due(2000));
    assert_eq!(told.len(), 1);
    desk.save().await.unwrap();
    desk.sent(Sent::Delivery(told[0].id, Outcome::Sent), 2100);
    desk.save().await.unwrap();

    let desk = Arc::new(Desk::open(key("dev"), path, of(monitoring()), 5000));
    desk.report(vec![firing("A")], 5000);
    for second in 5..60 {
        assert!(desk.due(second * 1000).is_empty(), "told again");
    }
    desk.report(Vec::new(), 60_000);
    let told = deliveries(desk.due(62_000));
    assert_eq!((told.len(), told[0].status), (1, Status::Resolved));
}

#[tokio::test]
async fn a_disk_that_is_full_is_told_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gone").join("dev.json");
    std::fs::write(dir.path().join("gone"), b"").unwrap();
    let desk = self::desk(path.clone(), monitoring());
    desk.report(vec![firing("A")], 0);
    desk.save().await.unwrap_err();
    assert_eq!(desk.due(2000).len(), 1, "the alert may be the one about the disk");
    std::fs::remove_file(dir.path().join("gone")).unwrap();
    desk.save().await.unwrap();
    assert!(path.exists());
}

#[test]
fn with_an_alertmanager_no_channel_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let alertmanager = Some("http://127.0.0.1:9093".to_owned());
    let desk = self::desk(dir.path().join("dev.json"), Monitoring { alertmanager, ..monitoring() });
    desk.report(vec![firing("A")], 0);
    let sent = desk.due(0);
    assert!(
        matches!(&sent[..], [Message::Batch { url, batch }] if url.ends_with("9093") && batch.alerts.len() == 1)
    );
    assert!(desk.due(60_000).is_empty());
    assert_eq!(desk.lock().dispatcher.alerts(0).len(), 1, "it is listed all the same");
}

#[test]
fn routes_that_cannot_be_read_leave_those_before() {
    let dir = tempfile::tempdir().unwrap();
    let desk = self::desk(dir.path().join("dev.json"), monitoring());
    let mut bad = monitoring();
    bad.routes[0].matches =
        vec![AlertMatch { label: "a".to_owned(), op: AlertMatchOp::Regex, value: "(".to_owned() }];
    desk.configure(&of(bad), 0);
    assert!(desk.lock().problem.as_ref().is_some_and(|why| why.starts_with("routes stay as they were")));
    desk.report(vec![firing("A")], 0);
    assert_eq!(desk.due(2000).len(), 1);
}

#[tokio::test]
async fn a_memory_that_is_damaged_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dev.json");
    std::fs::write(&path, b"{\"at_ms\":").unwrap();
    let desk = self::desk(path, monitoring());
    desk.report(vec![firing("A")], 0);
    assert_eq!(desk.due(2000).len(), 1);
    desk.save().await.unwrap();
}
