//! The two sides of the comparison: processes that take samples and answer questions.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fairway_metrics::remote::{Message, encode};
use serde_json::Value;

use super::http::{Client, escaped};
use super::load::Load;
use crate::bench::idle;
use crate::fault::{Context, Done, Fault};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Fairway,
    Prometheus,
}

#[derive(Debug)]
pub struct Side {
    kind: Kind,
    process: Child,
    client: Client,
    home: tempfile::TempDir,
}

/// Ours ends with its input; Prometheus has to be told.
impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Fed {
    pub samples: u64,
    /// That the sender waited for answers.
    pub took: Duration,
}

impl Fed {
    pub fn per_second(self) -> f64 {
        self.samples as f64 / self.took.as_secs_f64()
    }
}

/// What lies in blocks, their indexes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Blocks {
    pub count: u64,
    pub bytes: u64,
    pub samples: u64,
}

impl Blocks {
    pub fn bytes_per_sample(self) -> f64 {
        self.bytes as f64 / self.samples as f64
    }
}

/// Of a process, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub resident: u64,
    /// Without files that are mapped: those the kernel can drop.
    pub anonymous: u64,
}

/// As many as Prometheus puts into one request.
const SAMPLES_A_REQUEST: usize = 2_000;

/// How long a program may take to start, and to bring its blocks into order.
const START_MAX: Duration = Duration::from_secs(60);
const SETTLE_MAX: Duration = Duration::from_secs(120);

/// Blocks that stayed as they are for so long will stay.
const SETTLED: Duration = Duration::from_secs(4);

const CONFIG: &str = "global: { scrape_interval: 1d, evaluation_interval: 5s }\nrule_files: [ rules.yml ]\n";

impl Side {
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Fairway => "Fairway",
            Kind::Prometheus => "Prometheus",
        }
    }

    pub fn fairway() -> Done<Side> {
        let home = tempfile::tempdir().context("a directory")?;
        let program = std::env::current_exe().context("this program")?;
        let mut command = Command::new(program);
        command.arg("bench").arg("--hold").arg(home.path().join("data"));
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("our own side")?;
        let mut line = String::new();
        let output = process.stdout.take().context("our own side")?;
        let port = match BufReader::new(output).read_line(&mut line) {
            Ok(_) => line.trim().parse().ok(),
            Err(_) => None,
        };
        let mut side = Side { kind: Kind::Fairway, process, client: Client::new(0), home };
        side.client = Client::new(port.context("our own side did not start")?);
        Ok(side)
    }

    pub fn prometheus(program: &Path) -> Done<Side> {
        let home = tempfile::tempdir().context("a directory")?;
        std::fs::write(home.path().join("prometheus.yml"), CONFIG).context("prometheus.yml")?;
        // Nothing holds the port from here to Prometheus' own bind; were it taken, the start would fail and say so.
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("a port on loopback")?;
        let port = listener.local_addr().context("the port")?.port();
        drop(listener);
        let process = Command::new(program)
            .current_dir(home.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            // Samples are some hours old; the retention is ours.
            .args(["--web.enable-remote-write-receiver", "--web.enable-lifecycle"])
            .args(["--storage.tsdb.retention.time=31d", "--log.level=error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context(program.display())?;
        let mut side = Side { kind: Kind::Prometheus, process, client: Client::new(port), home };
        let began = Instant::now();
        loop {
            if side.client.send("GET", "/-/ready", &[], b"").is_ok_and(|(status, _)| status == 200) {
                return Ok(side);
            }
            if began.elapsed() > START_MAX || side.process.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err(Fault::new("Prometheus does not start"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn get(&mut self, method: &str, target: &str, body: &[u8]) -> Done<Vec<u8>> {
        let (status, answer) = self.client.send(method, target, &[], body)?;
        if status == 200 {
            return Ok(answer);
        }
        Err(Fault::new(format!("{target}: {status}: {}", String::from_utf8_lossy(&answer))))
    }

    /// Rounds of the load by remote write, one request after the other.
    pub fn feed(&mut self, load: &mut Load, rounds: usize) -> Done<Fed> {
        let mut fed = Fed { samples: 0, took: Duration::ZERO };
        for _ in 0..rounds {
            for part in load.round().chunks(SAMPLES_A_REQUEST) {
                let message = encode(part, Message::V1);
                let began = Instant::now();
                let (status, answer) =
                    self.client.send("POST", "/api/v1/write", &message.headers, &message.body)?;
                fed.took += began.elapsed();
                if status / 100 != 2 {
                    let answer = String::from_utf8_lossy(&answer);
                    return Err(Fault::new(format!("{}: samples: {status}: {answer}", self.name())));
                }
                fed.samples += part.len() as u64;
            }
        }
        Ok(fed)
    }

    /// The whole answer, and how long it took to come.
    pub fn range(&mut self, query: &str, (from_ms, to_ms): (i64, i64)) -> Done<(Vec<u8>, Duration)> {
        let seconds = |ms: i64| ms as f64 / 1_000.0;
        let target = format!(
            "/api/v1/query_range?query={}&start={}&end={}&step=60",
            escaped(query),
            seconds(from_ms),
            seconds(to_ms)
        );
        let began = Instant::now();
        let answer = self.get("GET", &target, b"")?;
        Ok((answer, began.elapsed()))
    }

    /// When nothing is merged any more.
    pub fn settled_blocks(&mut self) -> Done<Blocks> {
        let began = Instant::now();
        let (mut known, mut since) = (self.blocks()?, Instant::now());
        while since.elapsed() < SETTLED {
            if began.elapsed() > SETTLE_MAX {
                return Err(Fault::new(format!("{}: the blocks do not come to rest", self.name())));
            }
            std::thread::sleep(Duration::from_millis(250));
            let blocks = self.blocks()?;
            if blocks != known {
                (known, since) = (blocks, Instant::now());
            }
        }
        Ok(known)
    }

    fn blocks(&mut self) -> Done<Blocks> {
        match self.kind {
            Kind::Fairway => {
                let stats: Value =
                    serde_json::from_slice(&self.get("GET", "/bench/stats", b"")?).context("blocks")?;
                let of = |name: &str| stats[name].as_u64().context(name);
                Ok(Blocks { count: of("blocks")?, bytes: of("block_bytes")?, samples: of("block_samples")? })
            }
            Kind::Prometheus => Ok(prometheus_blocks(&self.home.path().join("data"))),
        }
    }

    pub fn memory(&self) -> Done<Memory> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).context("memory")?;
        let of = |name: &str| -> Done<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context(name)?;
            let kib: u64 = line.trim().trim_end_matches(" kB").parse().context(name)?;
            Ok(kib * 1024)
        };
        Ok(Memory { resident: of("VmRSS:")?, anonymous: of("RssAnon:")? })
    }

    /// Seconds of processor time since the process began.
    pub fn processor(&self) -> Done<f64> {
        Ok(idle::cpu_ticks(self.process.id())? as f64 / idle::TICKS_PER_S)
    }

    /// How long the rules of this file took, each time in seconds, and how many samples they gave.
    pub fn rules(&mut self, text: &str) -> Done<(Vec<f64>, u64)> {
        match self.kind {
            Kind::Fairway => {
                let answer = self.get("POST", "/bench/rules", text.as_bytes())?;
                let answer: Value = serde_json::from_slice(&answer).context("rules")?;
                let seconds = answer["seconds"].as_array().context("rules")?;
                Ok((
                    seconds.iter().filter_map(Value::as_f64).collect(),
                    answer["samples"].as_u64().context("rules")?,
                ))
            }
            Kind::Prometheus => {
                std::fs::write(self.home.path().join("rules.yml"), text).context("rules.yml")?;
                self.get("POST", "/-/reload", b"")?;
                self.own_evaluations()
            }
        }
    }

    /// Prometheus evaluates by itself and says how long it took.
    fn own_evaluations(&mut self) -> Done<(Vec<f64>, u64)> {
        let began = Instant::now();
        let (mut seconds, mut last, mut samples) = (Vec::new(), 0.0, 0);
        while seconds.len() < 4 {
            if began.elapsed() > SETTLE_MAX {
                return Err(Fault::new("Prometheus does not evaluate its rules"));
            }
            std::thread::sleep(Duration::from_millis(250));
            let page = self.get("GET", "/metrics", b"")?;
            let page = String::from_utf8_lossy(&page);
            let of = |name: &str| -> Option<f64> {
                let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('{'))?;
                line.rsplit(' ').next()?.parse().ok()
            };
            let at = of("prometheus_rule_group_last_evaluation_timestamp_seconds");
            if let Some(at) = at.filter(|at| *at > 0.0 && *at != last) {
                last = at;
                seconds.extend(of("prometheus_rule_group_last_duration_seconds"));
                samples = of("prometheus_rule_group_last_evaluation_samples").unwrap_or(0.0) as u64;
            }
        }
        if samples == 0 {
            return Err(Fault::new("the rules gave Prometheus nothing"));
        }
        Ok((seconds, samples))
    }
}

/// Directories with a `meta.json`; one that is being written or removed has another name.
fn prometheus_blocks(data: &Path) -> Blocks {
    let mut blocks = Blocks::default();
    let directories = std::fs::read_dir(data).into_iter().flatten().flatten().map(|entry| entry.path());
    for directory in directories.filter(|directory| directory.extension().is_none()) {
        let Ok(meta) = std::fs::read(directory.join("meta.json")) else { continue };
        let meta: Value = serde_json::from_slice(&meta).unwrap_or_default();
        blocks.count += 1;
        blocks.samples += meta["stats"]["numSamples"].as_u64().unwrap_or(0);
        blocks.bytes += bytes_in(directory);
    }
    blocks
}

fn bytes_in(directory: PathBuf) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_in(entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
