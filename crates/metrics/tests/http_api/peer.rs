//! A real Prometheus on loopback, in a directory of its own.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use fairway_metrics::labels::Labels;
use tempfile::TempDir;

/// Where both sides say that the rules are from.
pub(crate) const RULES_FILE: &str = "rules.yml";

/// Nothing of this is ever evaluated or scraped while a test runs: all is a day apart.
pub(crate) const CONFIG: &str = r#"
global: { scrape_interval: 1d, scrape_timeout: 10s, evaluation_interval: 1d }
rule_files: [ rules.yml ]
scrape_configs:
  - job_name: far
    static_configs: [ { targets: [ "192.0.2.1:80" ] } ]
"#;

const RULES: &str = r#"
groups:
  - name: first
    rules:
      - alert: Down
        expr: up == 0
        for: 90s
        keep_firing_for: 1m
        labels: { severity: critical }
        annotations: { summary: "{{ $value }} <b>" }
      - record: job:up:sum
        expr: sum by (job) (up)
  - name: second
    interval: 12h
    rules:
      - record: x:y
        expr: vector(1)
        labels: { team: web }
"#;

/// A start takes a second; a machine under load takes longer.
const START_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Prometheus {
    child: Child,
    port: u16,
    _directory: TempDir,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Prometheus {
    /// `None`, and a word about it, when there is no program to run.
    pub(crate) fn start(test: &str, config: &str) -> Option<Self> {
        let Some(program) = std::env::var_os("FAIRWAY_PROMETHEUS") else {
            eprintln!("skipped: {test} needs FAIRWAY_PROMETHEUS to name a Prometheus 3");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        std::fs::write(directory.path().join(RULES_FILE), RULES).unwrap();
        let port = free_port();
        let child = Command::new(program)
            .current_dir(directory.path())
            .args([
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                "--web.enable-remote-write-receiver",
            ])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self { child, port, _directory: directory };
        prometheus
            .until(|this| this.try_send("GET", "/-/ready", &[], b"").is_some_and(|it| it.status == 200));
        Some(prometheus)
    }

    fn until(&self, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < START_MAX, "Prometheus takes too long");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.try_send(method, target, headers, body).expect("Prometheus answers")
    }

    fn try_send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Reply> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(START_MAX)).ok()?;
        let mut head =
            format!("{method} {target} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).ok()?;
        let end = reply.windows(4).position(|window| window == b"\r\n\r\n")?;
        let headers = String::from_utf8_lossy(&reply[..end]).into_owned();
        let status = headers.split(' ').nth(1)?.parse().ok()?;
        Some(Reply { status, headers, body: reply[end + 4..].to_vec() })
    }

    /// Waits until the targets of the configuration are known: seconds after the start.
    pub(crate) fn discovers_targets(&self) {
        self.until(|this| {
            this.send("GET", "/api/v1/targets", &[], b"").text().contains("192.0.2.1:80/metrics")
        });
    }

    /// Waits until so many targets were scraped.
    pub(crate) fn scrapes(&self, targets: usize) -> bool {
        self.until(|this| {
            this.vector("count(up)").first().is_some_and(|(_, count)| *count == targets as f64)
        });
        true
    }

    /// The answer to an instant query.
    pub(crate) fn vector(&self, query: &str) -> Vec<(Labels, f64)> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let reply = self.send("GET", &format!("/api/v1/query?query={escaped}"), &[], b"");
        let answer: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        let of = |element: &serde_json::Value| {
            let labels: Labels = serde_json::from_value(element["metric"].clone()).unwrap();
            (labels, element["value"][1].as_str().unwrap().parse().unwrap())
        };
        answer["data"]["result"].as_array().unwrap().iter().map(of).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Shows each body, with its content type, under a path of its own; the configuration scrapes them all.
pub(crate) fn serve(bodies: Vec<(String, String)>) -> (u16, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut config = String::from("scrape_configs:\n");
    config.push_str(
        "  - job_name: cases\n    scrape_interval: 2s\n    scrape_timeout: 1s\n    static_configs:\n",
    );
    for number in 0..bodies.len() {
        config.push_str(&format!(
            "      - {{ targets: [ \"127.0.0.1:{port}\" ], labels: {{ case: \"{number}\", \
             __metrics_path__: \"/{number}\" }} }}\n"
        ));
    }
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..count]).into_owned();
            let number = request.split(['/', ' ']).nth(2).and_then(|number| number.parse::<usize>().ok());
            let Some((content_type, body)) = number.and_then(|number| bodies.get(number)) else { continue };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close\r\n");
            let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    (port, config)
}
