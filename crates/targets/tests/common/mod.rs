//! A state directory with a supervisor over it, and real processes below.
// Each test file uses a part of it, and a helper of tests may unwrap as they do.
#![allow(dead_code, clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fairway_engine::edge::Protocol;
use fairway_engine::id::{EnvironmentKey, EnvironmentName, JobNumber, ProjectName};
use fairway_engine::service::{Argument, Limits, Readiness, ReadyProbe, RestartPolicy, Stop, StopSignal};
use fairway_targets::event::{TargetEvent, TargetEventKind};
use fairway_targets::key::{InstanceKey, JobKey};
use fairway_targets::logs::{self, LogQuery};
use fairway_targets::spec::{InstanceSpec, JobSpec, LogPolicy, PortRequest, Variables};
use fairway_targets::supervisor::Supervisor;
use tokio::sync::mpsc::Receiver;

/// Beyond what any step of a test takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn shim_command() -> Vec<OsString> {
    vec![env!("CARGO_BIN_EXE_fairway-shim-test").into()]
}

pub fn environment() -> EnvironmentKey {
    EnvironmentKey {
        project: ProjectName::new("shop").unwrap(),
        environment: EnvironmentName::new("production").unwrap(),
    }
}

pub fn instance(name: &str) -> InstanceKey {
    InstanceKey { environment: environment(), instance: name.parse().unwrap() }
}

pub fn job(number: u32) -> JobKey {
    JobKey { environment: environment(), job: JobNumber(number) }
}

/// A shell script that is ready as soon as it lives.
pub fn shell(script: &str) -> InstanceSpec {
    InstanceSpec {
        argv: ["sh", "-c", script].map(|word| Argument::Literal(word.into())).to_vec(),
        env: Variables::default(),
        workdir: PathBuf::from("/"),
        port: PortRequest::None,
        protocol: Protocol::default(),
        ready: ready(ReadyProbe::Alive { for_at_least: Duration::ZERO }),
        live: None,
        stop: Stop { signal: StopSignal::Term, timeout: Duration::from_secs(5), drain: Duration::ZERO },
        restart: RestartPolicy {
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(50),
            burst: 3,
            burst_window: Duration::from_secs(60),
        },
        limits: Limits::default(),
        user: None,
        log: LogPolicy::default(),
    }
}

pub fn ready(probe: ReadyProbe) -> Readiness {
    Readiness {
        probe,
        within: Duration::from_secs(20),
        every: Duration::from_millis(50),
        timeout: Duration::from_secs(5),
        failures: 2,
    }
}

/// A Python server on the port it is given, after `prelude`; `/health` answers while the file `sick` is missing.
pub fn server(prelude: &str) -> InstanceSpec {
    let program = format!(
        r#"
import http.server, os, sys
{prelude}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if os.path.exists("sick") else 200)
        self.end_headers()
    def log_message(self, *rest): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#
    );
    InstanceSpec {
        argv: ["python3", "-c", &program].map(|word| Argument::Literal(word.into())).to_vec(),
        port: PortRequest::Assign { variable: "PORT".into() },
        ready: ready(ReadyProbe::Http { path: "/health".into() }),
        ..shell("")
    }
}

pub fn run_once(script: &str) -> JobSpec {
    JobSpec {
        argv: ["sh", "-c", script].map(String::from).to_vec(),
        env: Variables::default(),
        workdir: PathBuf::from("/"),
        timeout: Duration::from_secs(20),
        stop: JobSpec::default_stop(),
        limits: Limits::default(),
        user: None,
        log: LogPolicy::default(),
    }
}

pub struct World {
    pub state: PathBuf,
    pub work: PathBuf,
    _dir: tempfile::TempDir,
    pub supervisor: Supervisor,
    pub events: Receiver<TargetEvent>,
}

impl World {
    pub fn new() -> Self {
        Self::with_state("state")
    }

    pub fn with_state(below: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (state, work) = (dir.path().join(below), dir.path().join("work"));
        std::fs::create_dir_all(&work).unwrap();
        let (supervisor, events) = Supervisor::open(&state, shim_command()).unwrap();
        Self { state, work, _dir: dir, supervisor, events }
    }

    /// What a `kill -9` of the server and a new start come to: nothing is said goodbye to.
    pub async fn reopen(&mut self) {
        let (supervisor, events) = Supervisor::open(&self.state, shim_command()).unwrap();
        (self.supervisor, self.events) = (supervisor, events);
        self.supervisor.reattach().await.unwrap();
    }

    pub async fn start(&self, name: &str, spec: InstanceSpec) {
        self.supervisor
            .start(instance(name), InstanceSpec { workdir: self.work.clone(), ..spec })
            .await
            .unwrap();
    }

    pub async fn next(&mut self) -> TargetEventKind {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event.expect("no event came").expect("the supervisor is gone").kind
    }

    /// Skips everything before it.
    pub async fn until(&mut self, wanted: impl Fn(&TargetEventKind) -> bool) -> TargetEventKind {
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let left = deadline - Instant::now();
            let Ok(Some(event)) = tokio::time::timeout(left, self.events.recv()).await else { break };
            if wanted(&event.kind) {
                return event.kind;
            }
            seen.push(event.kind);
        }
        panic!("it did not come; these did: {seen:#?}");
    }

    /// Of one instance alone.
    pub async fn until_of(
        &mut self,
        name: &str,
        wanted: impl Fn(&TargetEventKind) -> bool,
    ) -> TargetEventKind {
        let name = name.parse().unwrap();
        loop {
            let event =
                tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("no event came").unwrap();
            if event.instance == name && wanted(&event.kind) {
                return event.kind;
            }
        }
    }

    pub async fn started(&mut self) -> (u32, Option<u16>) {
        match self.until(|kind| matches!(kind, TargetEventKind::Started { .. })).await {
            TargetEventKind::Started { pid, port } => (pid, port),
            other => panic!("{other:?}"),
        }
    }

    pub async fn ready(&mut self) {
        self.until(|kind| *kind == TargetEventKind::Ready).await;
    }

    pub async fn end(&mut self) -> TargetEventKind {
        self.until(TargetEventKind::is_end).await
    }

    pub async fn stop(&mut self, name: &str) -> TargetEventKind {
        self.supervisor.stop(&instance(name), None).await.unwrap();
        self.end().await
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        self.state.join("instances/shop.production").join(name)
    }

    pub fn recorded(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.dir(name).join("state.json")).unwrap()).unwrap()
    }

    pub fn shim_pid(&self, name: &str) -> i32 {
        i32::try_from(self.recorded(name)["shim"]["pid"].as_i64().unwrap()).unwrap()
    }

    pub fn log(&self, name: &str) -> Vec<String> {
        let query = LogQuery::of_instance(&instance(name), logs::LINES_MAX);
        logs::read(&self.state, &query).unwrap().iter().map(|entry| entry.line.text()).collect()
    }

    pub fn work_file(&self, name: &str) -> String {
        std::fs::read_to_string(self.work.join(name)).unwrap_or_default()
    }
}

impl Drop for World {
    /// Ends what a test left, through the control sockets in these directories.
    fn drop(&mut self) {
        for environments in ["instances", "jobs"] {
            let Ok(dirs) = std::fs::read_dir(self.state.join(environments).join("shop.production")) else {
                continue;
            };
            for dir in dirs.flatten().map(|entry| entry.path()).filter(|dir| !dir.join("exit.json").exists())
            {
                end_by_hand(&dir);
            }
        }
    }
}

fn end_by_hand(dir: &Path) {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let Ok(directory) = std::fs::File::open(dir) else { return };
    let socket = format!("/proc/self/fd/{}/ctl.sock", directory.as_raw_fd());
    let Ok(mut socket) = std::os::unix::net::UnixStream::connect(socket) else { return };
    let _ = socket.write_all(b"{\"do\":\"kill\"}\n");
    for _ in 0..500 {
        if dir.join("exit.json").exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn kill(pid: i32, signal: i32) {
    unsafe { libc::kill(pid, signal) };
}

/// Whether it runs; a zombie does not.
pub fn lives(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => {
            !stat[stat.rfind(')').unwrap()..].split(' ').nth(1).is_some_and(|state| "ZX".contains(state))
        }
        Err(_) => false,
    }
}

pub async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "it never came to be: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Every file below, with its content.
pub fn files_below(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if let Ok(content) = std::fs::read(&path) {
            found.push((path, content));
        }
    }
    found
}
