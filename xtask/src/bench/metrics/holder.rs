//! A process of our own that holds metrics, as Prometheus is one of its own: store, remote write, Prometheus' HTTP API.
//! It does what the server does with them, and nothing else that the server does.

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fairway_metrics::httpapi::{self, Context as Asked, Request, RuleGroup, Rules, Status, Target, Targets};
use fairway_metrics::labels::Labels;
use fairway_metrics::promql::Engine;
use fairway_metrics::remote::{ReceiveLimits, Receiver, Stored};
use fairway_metrics::rules::{Group, Local, RuleFile, Surroundings};
use fairway_metrics::store::{Options, Store};
use serde_json::{Value, json};

use super::http::Head;
use crate::fault::{Context, Done, Fault};

/// The server maintains its store once a minute. Samples come here some thousand times as fast, so that a minute is one
/// of theirs: how often it is done does not depend on how fast the machine is.
const MAINTAIN_EVERY_MS: i64 = 60_000;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The time of the newest sample that was written.
static NEWEST_MS: AtomicI64 = AtomicI64::new(0);

/// Says its port in a line, and ends when its input does: with whoever started it, however that ends.
pub fn hold(directory: &Path) -> Done {
    let store = Arc::new(Store::open(directory, Options::default()).context(directory.display())?.store);
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("a port on loopback")?;
    println!("{}", listener.local_addr().context("the port")?.port());
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let maintained = Arc::clone(&store);
    std::thread::spawn(move || {
        let mut last_ms = 0;
        loop {
            let newest_ms = NEWEST_MS.load(Ordering::Relaxed);
            if newest_ms - last_ms >= MAINTAIN_EVERY_MS {
                last_ms = newest_ms;
                if let Err(error) = maintained.maintain(now_ms()) {
                    eprintln!("maintain: {error}");
                }
            }
            std::thread::sleep(LOOK_EVERY);
        }
    });
    let receiver = Arc::new(Receiver::new(ReceiveLimits::default()));
    for stream in listener.incoming().flatten() {
        let holder = Holder { store: Arc::clone(&store), receiver: Arc::clone(&receiver) };
        // The end of a connection is no fault: whoever asked has gone.
        std::thread::spawn(move || drop(holder.serve(stream)));
    }
    Ok(())
}

/// What one connection is served with.
struct Holder {
    store: Arc<Store>,
    receiver: Arc<Receiver>,
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Holder {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut connection = BufReader::new(stream);
        loop {
            let head = Head::read(&mut connection)?;
            let body = head.body(&mut connection)?;
            let (status, answer) = self.answer(&head, &body);
            let mut reply =
                format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\n\r\n", answer.len()).into_bytes();
            reply.extend(answer);
            connection.get_mut().write_all(&reply)?;
        }
    }

    fn answer(&self, head: &Head, body: &[u8]) -> (u16, Vec<u8>) {
        let mut words = head.first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let own = match path {
            "/api/v1/write" => return self.write(head, body),
            "/bench/stats" => Ok(stats(&self.store)),
            "/bench/rules" => rules(&self.store, &String::from_utf8_lossy(body)),
            _ => {
                let request = Request { method, path, query, form: body, accept: head.field("accept") };
                return ask(&self.store, &request);
            }
        };
        match own {
            Ok(value) => (200, value.to_string().into_bytes()),
            Err(fault) => (500, fault.to_string().into_bytes()),
        }
    }

    /// Every request is on the disk before it is answered.
    fn write(&self, head: &Head, body: &[u8]) -> (u16, Vec<u8>) {
        let (kind, encoding) = (head.field("content-type"), head.field("content-encoding"));
        let own = |labels: &Labels| self.store.own_labels(labels);
        let received = match self.receiver.decode(kind, encoding, body, now_ms(), own) {
            Ok(received) => received,
            Err(refused) => return (refused.status(), refused.to_string().into_bytes()),
        };
        let samples = received
            .series
            .iter()
            .flat_map(|series| series.samples.iter().map(move |sample| (&series.labels, *sample)));
        let appended =
            self.store.append_labels(samples).and_then(|appended| self.store.sync().map(|()| appended));
        let stored = match appended {
            Ok(appended) if appended.rejected() == 0 => Stored::All,
            Ok(appended) => Stored::Some {
                written: usize::try_from(appended.accepted).unwrap_or(usize::MAX),
                why: format!("{appended:?}"),
            },
            Err(error) => Stored::None { why: error.to_string(), retry_after_seconds: None },
        };
        let newest_ms =
            received.series.iter().flat_map(|series| &series.samples).map(|sample| sample.at_ms).max();
        NEWEST_MS.fetch_max(newest_ms.unwrap_or(0), Ordering::Relaxed);
        let answer = received.answer(&stored);
        (answer.status, answer.body.into_bytes())
    }
}

fn stats(store: &Store) -> Value {
    let stats = store.stats();
    json!({
        "blocks": stats.blocks,
        "block_bytes": stats.block_bytes,
        "block_samples": stats.block_samples,
        "head_series": stats.head_series,
        "head_samples": stats.head_samples,
    })
}

/// How often rules are evaluated for one figure: the first reads what is not in the page cache yet.
const EVALUATIONS: usize = 5;

/// With everything that an evaluation is followed by: what it gave is stored and safe.
fn rules(store: &Store, text: &str) -> Done<Value> {
    let file = RuleFile::parse("rules.yml", text).context("the rules")?;
    let around = Arc::new(Surroundings::default());
    let specs = file.groups.into_iter();
    let mut groups: Vec<Group> =
        specs.map(|spec| Group::new("rules.yml", spec, Arc::clone(&around))).collect();
    let engine = Engine::default();
    let (mut seconds, mut samples, mut failures) = (Vec::new(), 0, Vec::new());
    for _ in 0..EVALUATIONS {
        let at_ms = now_ms();
        let began = Instant::now();
        samples = 0;
        for group in &mut groups {
            let evaluation = group.evaluate(&mut Local::new(store, &engine), at_ms);
            samples += evaluation.samples.len();
            failures.extend(evaluation.failures.into_iter().map(|failure| failure.error));
            store
                .append_labels(evaluation.samples.iter().map(|recorded| (&recorded.labels, recorded.sample)))
                .context("what the rules gave")?;
        }
        store.sync().context("what the rules gave")?;
        seconds.push(began.elapsed().as_secs_f64());
        // Two evaluations of one millisecond would give one series two values at a time.
        std::thread::sleep(Duration::from_millis(2));
    }
    if let Some(failure) = failures.first() {
        return Err(Fault::new(format!("{} rules failed: {failure}", failures.len())));
    }
    Ok(json!({ "seconds": seconds, "samples": samples }))
}

struct Nothing;

impl Rules for Nothing {
    fn groups(&self) -> Vec<RuleGroup> {
        Vec::new()
    }
}

impl Targets for Nothing {
    fn active(&self) -> Vec<Target> {
        Vec::new()
    }
}

fn ask(store: &Store, request: &Request<'_>) -> (u16, Vec<u8>) {
    let (engine, status, external_labels) = (Engine::default(), Status::default(), Labels::default());
    let context = Asked {
        source: store,
        engine: &engine,
        stop_after: &|_| None,
        rules: &Nothing,
        targets: &Nothing,
        status: &status,
        external_labels: &external_labels,
        now_ms: now_ms(),
        ready: true,
    };
    let response = httpapi::answer(&context, request);
    (response.status, response.body)
}
