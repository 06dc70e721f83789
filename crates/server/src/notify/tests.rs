//! Every channel against a server that checks what it is sent.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::outgoing::Roots;
use crate::outgoing::peer::{Peer, answer, ok};

mod alertmanager;
mod mail;
mod smtp;

const NOW_MS: TimestampMs = 1_795_230_000_000;

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

fn origin() -> Origin {
    Origin { name: "shop".to_owned(), url: "http://127.0.0.1:7000".to_owned() }
}

fn senders() -> Senders {
    Senders::new(Outgoing::new(Roots::default()), origin())
}

fn told(name: &str, status: Status) -> ToldAlert {
    let labels = Labels::new([
        ("alertname", name),
        ("environment", "production"),
        ("release", "v12"),
        ("service", "api"),
        ("severity", "critical"),
    ]);
    let annotations = Labels::new([
        ("changed", "release v12 by ada, 14 min before it began"),
        ("next", "fairway rollback -e production"),
        ("runbook_url", "https://runbooks.example/errors?a=1&b=2"),
        ("summary", "12.3 % of requests fail\n<!channel> & \u{7}more than 5 %"),
        ("value", "0.123"),
    ]);
    ToldAlert {
        fingerprint: Fingerprint::of(&labels),
        status,
        labels,
        annotations,
        starts_at_ms: NOW_MS - 12 * 60_000,
        ends_at_ms: (status == Status::Resolved).then_some(NOW_MS - 60_000),
        generator_url: "javascript:alert(1)".to_owned(),
    }
}

fn delivery(alerts: Vec<ToldAlert>) -> Delivery {
    let firing = alerts.iter().any(|alert| alert.status == Status::Firing);
    Delivery {
        id: DeliveryId(1),
        channel: "oncall".to_owned(),
        group_key: r#"{}/{}:{service="api"}"#.to_owned(),
        group_labels: Labels::new([("service", "api")]),
        common_labels: alerts[0].labels.filter(|name| alerts.len() == 1 || name != "alertname"),
        common_annotations: alerts[0].annotations.clone(),
        status: if firing { Status::Firing } else { Status::Resolved },
        reason: Reason::New,
        alerts,
        truncated: 0,
        attempt: 1,
    }
}

fn firing() -> Delivery {
    delivery(vec![told("HighErrorRate", Status::Firing)])
}

/// Every field of `shape` is there and has the type or, in quotes, the beginning that it asks for; no other field is.
#[track_caller]
fn check_shape(value: &Value, shape: &Value, at: &str) {
    match (shape, value) {
        (Value::Object(shape), Value::Object(value)) => {
            let names = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(value), names(shape), "fields of {at}");
            for (name, shape) in shape {
                check_shape(&value[name], shape, &format!("{at}.{name}"));
            }
        }
        (Value::Array(shape), Value::Array(value)) => {
            assert!(!value.is_empty() || shape.is_empty(), "{at} is empty");
            value.iter().for_each(|one| check_shape(one, &shape[0], at));
        }
        (Value::String(start), Value::String(text)) => {
            assert!(text.starts_with(start.as_str()), "{at}: {text:?} does not begin with {start:?}");
        }
        (Value::Null, _) => {}
        _ => assert_eq!(value, shape, "{at}"),
    }
}

#[test]
fn slack_gets_what_it_can_show() {
    run(async {
        let peer = Peer::start(|_| ok("ok")).await;
        let channel = Channel::Slack { url: Secret::new(peer.url("/services/T0/K3N")) };
        assert_eq!(senders().send(&channel, &firing(), NOW_MS).await, Outcome::Sent);
        let over = delivery(vec![told("HighErrorRate", Status::Resolved)]);
        assert_eq!(senders().send(&channel, &over, NOW_MS).await, Outcome::Sent);
        let asked = peer.asked();
        assert_eq!(asked[0].line, "POST /services/T0/K3N HTTP/1.1");
        let message = asked[0].json();
        let title = "[CRITICAL] HighErrorRate: production / api / v12";
        let shape = json!({
            "attachments": [{
                "blocks": null,
                "color": "#e01e5a",
                "fallback": title,
            }],
            "text": title,
        });
        check_shape(&message, &shape, "message");
        let blocks = message["attachments"][0]["blocks"].as_array().unwrap();
        let section = blocks[0]["text"]["text"].as_str().unwrap();
        assert_eq!(
            section,
            "*CRITICAL HighErrorRate: production / api / v12*\n\
             12.3 % of requests fail\n&lt;!channel&gt; &amp; more than 5 %\n\
             *since*: 2026-11-21 02:48 UTC, 12 min ago\n\
             *value*: 0.123\n\
             *changed*: release v12 by ada, 14 min before it began\n\
             *next*: `fairway rollback -e production`\n\
             <https://runbooks.example/errors?a=1&amp;b=2|runbook>"
        );
        assert_eq!(blocks[1]["type"], "context");
        let over = asked[1].json();
        assert_eq!(over["attachments"][0]["color"], "#2eb67d");
        assert_eq!(over["text"], "[RESOLVED] HighErrorRate: production / api / v12");
        assert!(!over.to_string().contains("rollback"), "there is nothing left to do");
    });
}

#[test]
fn a_message_about_a_thousand_alerts_stays_within_the_bounds_of_slack() {
    run(async {
        let peer = Peer::start(|_| ok("ok")).await;
        let channel = Channel::Slack { url: Secret::new(peer.url("/")) };
        let alerts = (0..1_000).map(|index| {
            let mut alert = told(&format!("A{index}"), Status::Firing);
            alert.annotations = Labels::new([("summary", "<".repeat(4_000)), ("value", "&".repeat(4_000))]);
            alert
        });
        let many = Delivery { truncated: 9_000, ..delivery(alerts.collect()) };
        assert_eq!(senders().send(&channel, &many, NOW_MS).await, Outcome::Sent);
        let message = peer.asked()[0].json();
        assert_eq!(message["text"], "[CRITICAL × 1000+] A0, A1, A10 and 997 more: production / api / v12");
        let blocks = message["attachments"][0]["blocks"].as_array().unwrap();
        assert_eq!(blocks.len(), 11);
        for block in &blocks[..10] {
            assert!(block["text"]["text"].as_str().unwrap().chars().count() <= 3_000);
        }
        assert!(blocks[10].to_string().contains("and 9990 more"));
        assert!(peer.asked()[0].body.len() < 100_000);
    });
}

#[test]
fn pagerduty_is_triggered_and_resolved_by_one_key() {
    run(async {
        let peer = Peer::start(|_| answer(202, r#"{"status":"success"}"#)).await;
        let url = Some(peer.url("/v2/enqueue"));
        let channel = Channel::PagerDuty { key: Secret::new("R0UT1NG"), url };
        let trigger = firing();
        let again = Delivery { id: DeliveryId(99), attempt: 2, ..firing() };
        let over = delivery(vec![told("HighErrorRate", Status::Resolved)]);
        for one in [&trigger, &again, &over] {
            assert_eq!(senders().send(&channel, one, NOW_MS).await, Outcome::Sent);
        }
        let asked: Vec<Value> = peer.asked().iter().map(|one| one.json()).collect();
        let shape = json!({
            "client": "Fairway on shop",
            "client_url": "http://127.0.0.1:7000",
            "dedup_key": "",
            "event_action": "trigger",
            "links": [{"href": "https://runbooks.example/", "text": "runbook"}],
            "payload": {
                "class": "HighErrorRate",
                "component": "api",
                "custom_details": {
                    "firing": 1, "group": {"service": "api"}, "labels": null, "resolved": 0,
                    "text": "CRITICAL HighErrorRate", "truncated": 0,
                },
                "group": "production",
                "severity": "critical",
                "source": "production / api / v12",
                "summary": "[CRITICAL] HighErrorRate: production / api / v12",
                "timestamp": "2026-11-21T02:48:00.000Z",
            },
            "routing_key": "R0UT1NG",
        });
        check_shape(&asked[0], &shape, "event");
        let end = json!({"dedup_key": "", "event_action": "resolve", "routing_key": "R0UT1NG"});
        check_shape(&asked[2], &end, "event");
        let keys: Vec<&str> = asked.iter().map(|one| one["dedup_key"].as_str().unwrap()).collect();
        assert!(keys[0].len() == 64 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        // Another Fairway with the same routing key is another incident.
        let other =
            Senders::new(Outgoing::new(Roots::default()), Origin { name: "blog".to_owned(), ..origin() });
        other.send(&channel, &trigger, NOW_MS).await;
        assert_ne!(peer.asked()[3].json()["dedup_key"], asked[0]["dedup_key"]);
    });
}

#[test]
fn a_webhook_gets_the_fourth_version_of_alertmanagers_json() {
    run(async {
        let peer = Peer::start(|_| ok("")).await;
        let channel = Channel::Webhook { url: Secret::new(peer.url("/hook")) };
        let both = delivery(vec![told("A", Status::Firing), told("B", Status::Resolved)]);
        assert_eq!(senders().send(&channel, &both, NOW_MS).await, Outcome::Sent);
        let message = peer.asked()[0].json();
        let shape = json!({
            "alerts": [{
                "annotations": null, "endsAt": "", "fingerprint": "", "generatorURL": "javascript:alert(1)",
                "labels": null, "startsAt": "2026-11-21T02:48:00.000Z", "status": "",
            }],
            "commonAnnotations": null,
            "commonLabels": null,
            "externalURL": "http://127.0.0.1:7000",
            "groupKey": r#"{}/{}:{service="api"}"#,
            "groupLabels": {"service": "api"},
            "receiver": "oncall",
            "status": "firing",
            "truncatedAlerts": 0,
            "version": "4",
        });
        check_shape(&message, &shape, "message");
        assert_eq!(message["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");
        assert_eq!(message["alerts"][1]["endsAt"], "2026-11-21T02:59:00.000Z");
        assert_eq!(message["alerts"][1]["status"], "resolved");
    });
}

#[test]
fn what_a_channel_answers_decides_what_is_done() {
    run(async {
        let cases: [(&str, Vec<u8>, &str); 7] = [
            ("200", ok("ok"), "Sent"),
            ("400", answer(400, "invalid_payload"), "Refused: 400: invalid_payload"),
            ("404", answer(404, "no_service for T0K3N"), "Refused: 404: no_service for …"),
            ("301", answer(301, ""), "Refused: 301 (redirects are not followed)"),
            (
                "429",
                b"HTTP/1.1 429 X\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n".to_vec(),
                "Failed: 429 false 30",
            ),
            ("502", answer(502, "<html>"), "Failed: 502: <html> true 0"),
            ("cut off", Vec::new(), "Failed: HOST: the connection broke"),
        ];
        for (name, reply, expected) in cases {
            let peer = Peer::start(move |_| reply.clone()).await;
            let channel = Channel::PagerDuty { key: Secret::new("T0K3N"), url: Some(peer.url("/")) };
            let said = match senders().send(&channel, &firing(), NOW_MS).await {
                Outcome::Sent => "Sent".to_owned(),
                Outcome::Refused { why } => format!("Refused: {why}"),
                Outcome::Failed { why, perhaps_sent, retry_after } => {
                    let why = why.replace(&format!("127.0.0.1:{}", peer.port), "HOST");
                    format!("Failed: {why} {perhaps_sent} {}", retry_after.unwrap_or_default().as_secs())
                }
            };
            assert!(said.starts_with(expected), "{name}: {said:?}");
        }
        let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let channel = Channel::Webhook { url: Secret::new(format!("http://{nobody}/T0K3N")) };
        let Outcome::Failed { why, perhaps_sent: false, .. } =
            senders().send(&channel, &firing(), NOW_MS).await
        else {
            panic!("nobody took it");
        };
        assert!(!why.contains("T0K3N") && why.contains("refused"), "{why}");
        let channel = Channel::Webhook { url: Secret::new("no address/T0K3N") };
        assert!(
            !format!("{:?} {channel:?}", senders().send(&channel, &firing(), NOW_MS).await).contains("T0K3N")
        );
    });
}

#[test]
fn a_test_says_that_it_is_one_and_what_the_channel_answered() {
    run(async {
        let peer = Peer::start(|_| ok("ok")).await;
        let slack = Channel::Slack { url: Secret::new(peer.url("/")) };
        let taken = TestAnswer::Taken { answer: "200: ok".to_owned() };
        assert_eq!(senders().test(&slack, "team", NOW_MS).await, taken);
        let message = peer.asked()[0].json();
        assert_eq!(message["text"], "[TEST, nothing is wrong] [INFO] FairwayTest");
        // An incident that is opened is closed again, and one test does not touch another.
        let pager = Channel::PagerDuty { key: Secret::new("R0UT1NG"), url: Some(peer.url("/")) };
        assert_eq!(senders().test(&pager, "oncall", NOW_MS).await, taken);
        senders().test(&pager, "oncall", NOW_MS + 1).await;
        let events: Vec<Value> = peer.asked().iter().skip(1).map(|one| one.json()).collect();
        let actions: Vec<&str> = events.iter().map(|one| one["event_action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["trigger", "resolve", "trigger", "resolve"]);
        assert_eq!(events[0]["dedup_key"], events[1]["dedup_key"]);
        assert_ne!(events[0]["dedup_key"], events[2]["dedup_key"]);
        assert_eq!(events[0]["payload"]["severity"], "info");
        assert!(events[0]["payload"]["summary"].as_str().unwrap().starts_with("[TEST"));
        let refusing = Peer::start(|_| answer(403, "invalid_token")).await;
        let slack = Channel::Slack { url: Secret::new(refusing.url("/")) };
        let refused = TestAnswer::Refused { why: "403: invalid_token".to_owned() };
        assert_eq!(senders().test(&slack, "team", NOW_MS).await, refused);
    });
}

#[test]
fn dispatcher_and_channel_together_tell_once_and_try_again() {
    use fairway_metrics::notify::{Alert, Config, Dispatcher, Route};
    run(async {
        let calls = std::sync::Arc::new(AtomicUsize::new(0));
        let counted = std::sync::Arc::clone(&calls);
        let peer = Peer::start(move |_| {
            let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            if first { answer(500, "later") } else { ok("ok") }
        })
        .await;
        let channel = Channel::Webhook { url: Secret::new(peer.url("/")) };
        let route =
            Route { channels: vec!["hook".to_owned()], group_wait: Duration::ZERO, ..Route::default() };
        let mut dispatcher = Dispatcher::new(Config { routes: vec![route], ..Config::default() });
        let alert = told("A", Status::Firing);
        let alert = Alert {
            labels: alert.labels,
            annotations: alert.annotations,
            starts_at_ms: NOW_MS,
            ends_at_ms: None,
            generator_url: String::new(),
        };
        dispatcher.receive(NOW_MS, vec![alert]);
        let mut now_ms = NOW_MS;
        for _ in 0..5 {
            for delivery in dispatcher.due(now_ms) {
                let outcome = senders().send(&channel, &delivery, now_ms).await;
                assert!(dispatcher.delivered(now_ms, delivery.id, outcome));
            }
            now_ms += 1_000;
        }
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        assert!(!dispatcher.channel_health()["hook"].is_failing());
    });
}
