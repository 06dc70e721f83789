//! An alert from a rule of the project to a channel: told once, also over a `kill -9`; silenced; asked for as Grafana
//! asks.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::checks::Count;
use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Shop, Show, free_address};

/// From the switch to the message: a scrape, `for`, a group's wait, and what a machine under load adds.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

/// Three times the group's interval and more: what is told twice is told by then.
const QUIET_FOR: Duration = Duration::from_secs(4);

/// From the answer of a channel to the line on disk.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// An answer to a question; longer is a hang.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

const RULES: &str = "groups:
  - name: switch
    interval: 1s
    rules:
      - alert: Switched
        expr: switch > 0
        for: 1s
        labels: {severity: warning}
        annotations: {summary: 'the switch is {{ $value }}'}
";

pub fn run(fairway: &Path) -> Count {
    let mut count = Count::default();
    count.check("an alert is told once, also over kill -9, and ends once", || {
        let mut home = Home::new(fairway, Show::Nothing)?;
        let findings = story(&mut home).unwrap_or_else(|fault| vec![fault.to_string()]);
        if !findings.is_empty() {
            home.keep();
        }
        Ok(findings)
    });
    count
}

/// What is scraped (`/metrics`) and what is told (everything else), in one.
struct Receiver {
    address: SocketAddr,
    switch: Arc<AtomicBool>,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    fn start() -> Done<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("the receiver")?;
        let address = listener.local_addr().context("the receiver")?;
        let (switch, told) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let receiver = Self { address, switch: Arc::clone(&switch), told: Arc::clone(&told) };
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (switch, told) = (Arc::clone(&switch), Arc::clone(&told));
                std::thread::spawn(move || drop(answer(stream, &switch, &told)));
            }
        });
        Ok(receiver)
    }

    fn turn(&self, on: bool) {
        self.switch.store(on, Ordering::Release);
    }

    fn told(&self) -> Vec<Value> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Messages of this status about the switch. Fairway's own rules tell of other things meanwhile, as of the
    /// deployment that is done.
    fn of_switch(&self, status: &str) -> Vec<Value> {
        let is_wanted =
            |one: &Value| one["status"] == status && one["alerts"][0]["labels"]["alertname"] == "Switched";
        self.told().into_iter().filter(is_wanted).collect()
    }

    fn count(&self, status: &str) -> usize {
        self.of_switch(status).len()
    }

    /// The first of them.
    fn wait(&self, status: &str) -> Done<Value> {
        let started = Instant::now();
        loop {
            if let Some(first) = self.of_switch(status).into_iter().next() {
                return Ok(first);
            }
            if started.elapsed() > TOLD_WITHIN {
                return Err(Fault::new(format!("no message says {status}: {:?}", self.told())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One request a connection.
fn answer(stream: TcpStream, switch: &AtomicBool, told: &Mutex<Vec<Value>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let text = if first.starts_with("GET /metrics ") {
        format!("# TYPE switch gauge\nswitch {}\n", u8::from(switch.load(Ordering::Acquire)))
    } else {
        let message = serde_json::from_slice(&body).unwrap_or(Value::Null);
        told.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        String::new()
    };
    let stream = reader.get_mut();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    )
}

fn settings(receiver: SocketAddr) -> String {
    format!(
        "
[env.demo.metrics]
rules = [\"switch.yml\"]
scrape = {{ switch = {{ url = \"http://{receiver}/metrics\", every = \"1s\" }} }}

[env.demo.alerts]
channels = {{ hook = {{ webhook = \"http://{receiver}/hook\" }} }}
routes = [{{ channels = [\"hook\"], group_wait = \"1s\", group_interval = \"1s\" }}]
"
    )
}

fn story(home: &mut Home) -> Done<Vec<String>> {
    let receiver = Receiver::start()?;
    let figures = free_address()?;
    home.listen(figures);
    let mut shop = Shop::new(home.path().join("shop"), free_address()?, "0s");
    shop.settings(&settings(receiver.address));
    shop.check_out("v2")?;
    let directory = shop.directory().to_owned();
    std::fs::write(directory.join("switch.yml"), RULES).context("the rule file")?;
    home.start_server()?;
    home.must(&directory, &["deploy", "-e", "demo"])?;
    let mut findings = Vec::new();
    let mut check = |holds: bool, what: &str| {
        if !holds {
            findings.push(what.to_owned());
        }
    };

    shop.version()?;
    // A server that starts looks at every target at once.
    restart(home)?;
    receiver.turn(true);
    let told = receiver.wait("firing")?;
    let alert = &told["alerts"][0];
    check(alert["labels"]["environment"] == "shop/demo", "the alert does not say its environment");
    check(
        alert["annotations"]["summary"] == "the switch is 1",
        "the template of the summary is not filled in",
    );
    check(
        alert["annotations"]["changed"].as_str().is_some_and(|text| text.contains("rollout")),
        "it does not say what changed shortly before",
    );

    // A message whose answer was not written down yet would rightly be sent again.
    std::thread::sleep(WRITTEN_WITHIN);
    restart(home)?;
    std::thread::sleep(QUIET_FOR);
    check(receiver.count("firing") == 1, "what was told was told again after kill -9");

    let listed = home.ask(&directory, &["alert", "list", "-e", "demo"])?;
    let mut alerts = listed["alerts"].as_array().into_iter().flatten();
    check(alerts.any(|alert| alert["name"] == "Switched"), "fairway alert list does not show it");
    let asked = query(figures)?;
    check(asked["status"] == "success", "the listener refuses a query as Grafana asks it");
    let points = asked["data"]["result"][0]["values"].as_array().map_or(0, Vec::len);
    check(points > 0, "there are no figures of http_requests_total");

    receiver.turn(false);
    receiver.wait("resolved")?;
    home.must(&directory, &["alert", "test", "hook", "-e", "demo"])?;
    let is_test = |one: &Value| one["alerts"][0]["labels"]["alertname"] == "FairwayTest";
    check(
        receiver.told().iter().filter(|one| is_test(one)).count() == 1,
        "the marked test did not arrive once",
    );

    let silence =
        ["alert", "silence", "alertname=Switched", "--for", "1h", "--comment", "a test", "-e", "demo"];
    home.must(&directory, &silence)?;
    receiver.turn(true);
    let started = Instant::now();
    let silenced = loop {
        let listed = home.ask(&directory, &["alert", "list", "-e", "demo"])?;
        // Other alerts may fire as well, and between a rule and its silence lies a moment.
        let alerts = listed["alerts"].as_array().cloned().unwrap_or_default();
        let own = alerts.iter().find(|alert| alert["name"] == "Switched");
        if let Some(silence) = own.filter(|own| own["state"] == "firing" && !own["silenced_by"].is_null()) {
            break silence["silenced_by"].clone();
        }
        if started.elapsed() > TOLD_WITHIN {
            return Err(Fault::new(format!("it does not fire a second time, silenced: {listed}")));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    check(silenced == "s1", "the list does not say that it is silenced");
    std::thread::sleep(QUIET_FOR);
    check(receiver.count("firing") == 1, "a silenced alert was told");
    check(receiver.count("resolved") == 1, "the end was not told exactly once");
    Ok(findings)
}

fn restart(home: &mut Home) -> Done {
    home.kill_server()?;
    home.start_server()
}

/// As Grafana's Prometheus data source asks by default: a form, over the last minutes.
fn query(address: SocketAddr) -> Done<Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_secs();
    let form = format!("query=sum%28http_requests_total%29&start={}&end={now}&step=15", now - 300);
    let mut stream = TcpStream::connect(address).context("the listener")?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).context("the listener")?;
    write!(
        stream,
        "POST /api/v1/query_range HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
        form.len()
    )
    .context("the listener")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("the listener")?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    serde_json::from_str(body).context(text)
}
