//! A server, its proxy and its shims as real processes, with a project of one small program: deployed, killed,
//! started again, while a visitor keeps asking. Every role is played by this very test program, as the one binary does.

#![allow(clippy::unwrap_used, reason = "what fails here is the test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fairway_api::client::{Client, Endpoint, Target};
use fairway_api::{DeployRequest, EnvironmentStatus, Health, SourceInfo};
use fairway_server::{SOCKET_NAME, ServerOptions, upload};

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

const PROGRAM: &str = r#"
import http.server, os, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = ("%s %d" % (open("version").read().strip(), os.getpid())).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
signal.signal(signal.SIGTERM, lambda *args: os._exit(0))
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["server", dir] => {
            match fairway_server::run(&ServerOptions {
                state_dir: PathBuf::from(dir),
                listen: None,
                take_samples: false,
                handed: None,
                guarding: None,
            }) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    // Its standard error may be a device that is always full.
                    drop(writeln!(std::io::stderr(), "{error}"));
                    ExitCode::FAILURE
                }
            }
        }
        ["proxy", "--state-dir", dir, sockets @ ..] => {
            let sockets = sockets.chunks(2).map(|socket| socket[1].parse().unwrap()).collect();
            fairway_server::run_proxy(Path::new(dir), sockets)
        }
        ["shim", "--dir", dir] => fairway_server::run_shim(Path::new(dir)),
        _ if words.contains(&"--list") => ExitCode::SUCCESS,
        _ => {
            a_killed_server_is_carried_on_by_the_next();
            println!("test a_killed_server_is_carried_on_by_the_next ... ok");
            a_killed_proxy_refuses_nobody();
            println!("test a_killed_proxy_refuses_nobody ... ok");
            ExitCode::SUCCESS
        }
    }
}

/// Ended however the test ends: the server as a child, the rest by what the state directory says.
struct House {
    dir: tempfile::TempDir,
    server: Option<Child>,
    address: SocketAddr,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::fs::create_dir(dir.path().join("project")).unwrap();
        std::fs::write(dir.path().join("project/serve.py"), PROGRAM).unwrap();
        Self { dir, server: None, address }
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn client(&self) -> Client {
        Client::new(Endpoint::Unix(self.state_dir().join(SOCKET_NAME)))
    }

    fn config(&self) -> String {
        format!(
            r#"version = 1
project = "tiny"

[service.web]
command = ["python3", "serve.py"]
port = 8000
route = "/"
ready = {{ http = "/", within = "20s", every = "50ms" }}

[env.dev]
listen = "{}"
"#,
            self.address
        )
    }

    fn spawn(&self) -> Child {
        // Nothing can be written there: a control plane does not end of that.
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        Command::new(std::env::current_exe().unwrap())
            .arg("server")
            .arg(self.state_dir())
            .stdin(Stdio::null())
            .stdout(full.try_clone().unwrap())
            .stderr(full)
            .spawn()
            .unwrap()
    }

    async fn start(&mut self) {
        self.server = Some(self.spawn());
        let client = self.client();
        until("the server answers", async || client.status().await.ok()).await;
    }

    fn refuses_to_start(&self) {
        let mut server = self.spawn();
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = server.try_wait().unwrap() {
                assert!(!status.success(), "{status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        server.kill().unwrap();
        server.wait().unwrap();
        panic!("it started");
    }

    fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    async fn deploy(&self, version: &str) {
        let project = self.dir.path().join("project");
        std::fs::write(project.join("version"), version).unwrap();
        let digest = upload::push(&self.client(), &project, &project).await.unwrap();
        let request = DeployRequest {
            config: self.config(),
            config_path: "fairway.toml".to_owned(),
            artifacts: [(".".to_owned(), digest)].into(),
            rules: Vec::new(),
            source: SourceInfo::default(),
            strategy: None,
            reason: None,
            if_release: None,
            wait: false,
            development: true,
        };
        self.client().deploy(&target(), &request).await.unwrap();
    }

    async fn serving(&self, release: &str) -> EnvironmentStatus {
        let client = self.client();
        until(&format!("{release} serves"), async || {
            let status = client.environment(&target()).await.ok()?;
            let stable = status.stable.as_ref().is_some_and(|stable| stable.name == release);
            (stable && status.health == Health::Serving).then_some(status)
        })
        .await
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
        // A shim takes what it runs with it, and needs its directory to write down that it did.
        let end = Instant::now() + PATIENCE / 3;
        while !self.tell_processes(rustix::process::Signal::TERM) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.tell_processes(rustix::process::Signal::KILL);
    }
}

impl House {
    /// To the processes that servers of this directory started, and to nobody else: each has it in its command line.
    /// True when there are none.
    fn tell_processes(&self, signal: rustix::process::Signal) -> bool {
        let dir = self.dir.path().as_os_str().as_encoded_bytes();
        let is_mine = |pid: u32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            pid != std::process::id() && words.windows(dir.len()).any(|part| part == dir)
        };
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let mine: Vec<u32> = processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| is_mine(*pid))
            .collect();
        for pid in mine.iter().filter_map(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, signal);
        }
        mine.is_empty()
    }
}

fn target() -> Target {
    Target { project: "tiny".to_owned(), environment: "dev".to_owned() }
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: tiny\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        Some(_) | None => Err(std::io::Error::other(answer)),
    }
}

/// Asks without a pause until told to stop; the answer is how often it was answered, and what went wrong.
fn visitor(address: SocketAddr, stop: Arc<AtomicBool>, asked: Arc<AtomicU64>) -> Vec<String> {
    let mut failures = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = get(address) {
            failures.push(error.to_string());
        }
        asked.fetch_add(1, Ordering::Relaxed);
    }
    failures
}

fn a_killed_server_is_carried_on_by_the_next() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut house = House::new();
        house.start().await;
        house.deploy("one").await;
        let first = house.serving("r1").await;
        let pid = first.services[0].instances[0].pid.expect("it runs");
        assert_eq!(get(house.address).unwrap(), format!("one {pid}"));
        for private in [SOCKET_NAME, "fairway.db", "server.lock"] {
            let mode = std::fs::metadata(house.state_dir().join(private)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{private} has mode {mode:o}");
        }

        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicU64::new(0));
        let visits = {
            let (address, stop, asked) = (house.address, Arc::clone(&stop), Arc::clone(&asked));
            std::thread::spawn(move || visitor(address, stop, asked))
        };

        // A second server on the same directory is refused and changes nothing.
        house.refuses_to_start();
        house.client().status().await.expect("the first one still answers");

        house.kill();
        let before = asked.load(Ordering::Relaxed);
        until("visitors are served without a server", async || {
            (asked.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
        house.start().await;
        let again = house.serving("r1").await;
        assert_eq!(again.services[0].instances[0].pid, Some(pid), "found again, not started again");

        // Killed at the moment at which the deploy is on the record, and in the middle of what follows.
        house.deploy("two").await;
        house.kill();
        house.start().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        house.kill();
        house.start().await;
        let second = house.serving("r2").await;
        let live: Vec<_> =
            second.services[0].instances.iter().filter(|instance| instance.release == "r2").collect();
        assert_eq!(live.len(), 1, "{live:?}");
        assert!(get(house.address).unwrap().starts_with("two "));

        stop.store(true, Ordering::Relaxed);
        let failures = visits.join().unwrap();
        assert!(failures.is_empty(), "of {} requests: {failures:?}", asked.load(Ordering::Relaxed));

        // A log that lost what it had acknowledged is not carried on, and what runs goes on.
        house.kill();
        std::fs::remove_file(house.state_dir().join("fairway.db-wal")).unwrap();
        house.refuses_to_start();
        assert!(get(house.address).unwrap().starts_with("two "));
    });
}

/// What it was answering is lost with it; who connects meanwhile waits for the next one.
fn a_killed_proxy_refuses_nobody() {
    const VISITORS: usize = 4;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut house = House::new();
        house.start().await;
        house.deploy("one").await;
        house.serving("r1").await;

        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let visits: Vec<_> = (0..VISITORS)
            .map(|_| {
                let (address, stop, asked) = (house.address, Arc::clone(&stop), Arc::clone(&asked));
                std::thread::spawn(move || visitor(address, stop, asked))
            })
            .collect();
        let socket = house.state_dir().join("proxy/proxy.sock");
        let proxy = async || fairway_proxy::control::Client::connect(&socket).await.ok();
        let mut lives = Vec::new();
        for _ in 0..5 {
            let before = asked.load(Ordering::Relaxed);
            until("visitors are served", async || {
                (asked.load(Ordering::Relaxed) > before + 100).then_some(())
            })
            .await;
            let pid = until("the proxy answers", &proxy).await.hello().pid;
            assert!(!lives.contains(&pid), "it was started again");
            lives.push(pid);
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            until("it is gone", async || proxy().await.is_none().then_some(())).await;
        }
        until("it is there again", &proxy).await;
        assert!(get(house.address).unwrap().starts_with("one "));
        stop.store(true, Ordering::Relaxed);
        let failures: Vec<String> = visits.into_iter().flat_map(|visits| visits.join().unwrap()).collect();
        let refused = failures.iter().filter(|failure| failure.contains("refused")).count();
        assert_eq!(refused, 0, "of {} requests", asked.load(Ordering::Relaxed));
        assert!(
            failures.len() <= VISITORS * lives.len(),
            "{} failed: more than were under way",
            failures.len()
        );
    });
}
