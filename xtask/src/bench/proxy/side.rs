//! One of the proxies: how it is configured, started, watched and ended.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::cores;
use super::world::Body;
use crate::bench::idle;
use crate::fault::{Context, Done, Fault};
use crate::home::free_address;
use crate::setup::peers::edge::{Edge, Program};

/// What is to be run.
#[derive(Debug, Clone)]
pub enum Kind {
    Fairway(PathBuf),
    /// Another build, which runs the same way.
    Other(PathBuf),
    /// What looks at nothing.
    Relay,
    Peer(Program),
}

impl Kind {
    pub fn name(&self) -> String {
        match self {
            Kind::Fairway(_) => "Fairway".to_owned(),
            Kind::Other(_) => "the other build".to_owned(),
            Kind::Relay => "a bare relay".to_owned(),
            Kind::Peer(program) => format!("{} {}", program.edge.name(), program.version),
        }
    }

    pub fn edge(&self) -> Option<Edge> {
        match self {
            Kind::Fairway(_) | Kind::Other(_) | Kind::Relay => None,
            Kind::Peer(program) => Some(program.edge),
        }
    }
}

/// A proxy that runs on its core.
#[derive(Debug)]
pub struct Side {
    pub address: SocketAddr,
    process: Child,
    _home: tempfile::TempDir,
}

/// In bytes, of all its processes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub resident: u64,
    /// Pages that several processes share are counted once.
    pub proportional: u64,
}

const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(3);

impl Side {
    /// Prepared for answers of this size, where it can be.
    pub fn start(kind: &Kind, origin: SocketAddr, access_log: bool, body: Body) -> Done<Side> {
        Side::start_with(kind, origin, access_log, body, |_| {})
    }

    /// As [`Side::start`]; Fairway is told `change` besides.
    pub fn start_with(
        kind: &Kind,
        origin: SocketAddr,
        access_log: bool,
        body: Body,
        change: impl FnOnce(&mut Value),
    ) -> Done<Side> {
        let mut change = Some(change);
        let home = tempfile::tempdir().context("a directory")?;
        let address = free_address()?;
        let at = Place { home: home.path(), address, origin, access_log, body };
        let mut command = match kind {
            Kind::Fairway(program) | Kind::Other(program) => at.fairway(program)?,
            Kind::Relay => at.relay()?,
            Kind::Peer(program) => match program.edge {
                Edge::Nginx => at.nginx(program.command())?,
                Edge::Haproxy => at.haproxy(program.command())?,
                Edge::Caddy => at.caddy(program.command())?,
            },
        };
        let said = home.path().join("said");
        let file = |what| File::create(home.path().join(what)).context("a file");
        command.current_dir(home.path()).stdin(Stdio::null()).stdout(file("out")?).stderr(file("said")?);
        // A child runs where its parent's thread runs; so does everything that it starts.
        let process = std::thread::scope(|scope| {
            let started = scope.spawn(|| {
                cores::pin(cores::Part::Proxy)?;
                command.spawn().context(kind.name())
            });
            started.join().unwrap_or_else(|_| Err(Fault::new("the start panicked")))
        })?;
        let mut side = Side { address, process, _home: home };
        let begun = Instant::now();
        let mut is_told = matches!(kind, Kind::Peer(_) | Kind::Relay);
        while TcpStream::connect(address).is_err() {
            let ended = side.process.try_wait().context(kind.name())?;
            if ended.is_some() || begun.elapsed() > START_MAX {
                let said = std::fs::read_to_string(&said).unwrap_or_default();
                return Err(Fault::new(format!("{} does not start: {}", kind.name(), said.trim())));
            }
            if !is_told && let Ok(control) = UnixStream::connect(side._home.path().join("proxy.sock")) {
                let mut snapshot = snapshot(address, origin);
                snapshot["access_log"] = access_log.into();
                if let Some(change) = change.take() {
                    change(&mut snapshot);
                }
                tell(&control, &snapshot)?;
                is_told = true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(side)
    }

    /// The process and those that it started, and so on.
    fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.process.id()];
        let mut seen = 0;
        while let Some(pid) = pids.get(seen) {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let children = children.unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            seen += 1;
        }
        pids
    }

    /// Reads the processor time that it took so far, in seconds.
    pub fn processor(&self) -> impl Fn() -> Done<f64> + Send + use<> {
        let pids = self.pids();
        move || {
            let ticks = pids.iter().map(|pid| idle::cpu_ticks(*pid)).sum::<Done<u64>>()?;
            Ok(ticks as f64 / idle::TICKS_PER_S)
        }
    }

    /// How many files and connections are open.
    pub fn descriptors(&self) -> Done<usize> {
        let open = self.pids().into_iter().map(|pid| {
            let list = std::fs::read_dir(format!("/proc/{pid}/fd")).context("open files")?;
            Ok(list.count())
        });
        open.sum()
    }

    pub fn memory(&self) -> Done<Memory> {
        let mut memory = Memory { resident: 0, proportional: 0 };
        for pid in self.pids() {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("memory")?;
            let of = |name: &str| -> Done<u64> {
                let line = text.lines().find_map(|line| line.strip_prefix(name)).context("memory")?;
                let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("memory")?;
                Ok(kib * 1024)
            };
            memory.resident += of("Rss:")?;
            memory.proportional += of("Pss:")?;
        }
        Ok(memory)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let pids = self.pids();
        let send = |pid: u32, signal| {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have ended by itself.
                let _ = kill_process(pid, signal);
            }
        };
        send(self.process.id(), Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < STOP_MAX {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for pid in pids {
            send(pid, Signal::KILL);
        }
        let _ = self.process.wait();
    }
}

/// What a configuration is written for.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    home: &'a Path,
    address: SocketAddr,
    origin: SocketAddr,
    access_log: bool,
    body: Body,
}

/// Each as its documentation says for a proxy with one worker and connections that stay open to the service, and with
/// buffers that hold a whole answer: for small ones those are the defaults, and larger ones would make it slower. What
/// is not set here is at its default.
impl Place<'_> {
    fn write(&self, name: &str, text: &str) -> Done<PathBuf> {
        let path = self.home.join(name);
        std::fs::write(&path, text).context(path.display())?;
        Ok(path)
    }

    fn fairway(&self, program: &Path) -> Done<Command> {
        let mut command = Command::new(program);
        command.arg("proxy").arg("--state-dir").arg(self.home);
        Ok(command)
    }

    fn relay(&self) -> Done<Command> {
        let mut command = Command::new(std::env::current_exe().context("this program")?);
        command.args(["bench", "--relay", &self.address.to_string(), &self.origin.to_string()]);
        Ok(command)
    }

    fn nginx(&self, mut command: Command) -> Done<Command> {
        let Place { address, origin, .. } = self;
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let log = if self.access_log { "access.log" } else { "off" };
        let buffers = match self.body {
            Body::Small => "",
            Body::Large => "proxy_buffer_size 16k; proxy_buffers 8 32k; proxy_busy_buffers_size 96k;",
        };
        let config = format!(
            "{user} daemon off; worker_processes 1; pid nginx.pid; worker_rlimit_nofile 20000;
            events {{ worker_connections 20000; multi_accept on; }}
            http {{
              access_log {log}; error_log stderr;
              client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
              keepalive_requests 1000000000; keepalive_timeout 300s; tcp_nodelay on;
              upstream origin {{ server {origin}; keepalive 512; keepalive_requests 1000000000; }}
              server {{
                listen {address} backlog=4096;
                location / {{
                  proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\";
                  proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                  {buffers} proxy_max_temp_file_size 0;
                }}
              }}
            }}"
        );
        let path = self.write("nginx.conf", &config)?;
        command.arg("-p").arg(self.home).arg("-c").arg(path).args(["-e", "stderr"]);
        Ok(command)
    }

    fn haproxy(&self, mut command: Command) -> Done<Command> {
        let Place { address, origin, .. } = self;
        let log = if self.access_log { "log stdout format raw local0\n  option httplog" } else { "" };
        let buffers = match self.body {
            Body::Small => "",
            Body::Large => "tune.bufsize 98304",
        };
        let config = format!(
            "global
  nbthread 1
  {buffers}
  maxconn 10500
  # Two descriptors a connection may be more than there are; idle clients need one.
  no strict-limits
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 60s
  timeout http-keep-alive 300s
  option http-keep-alive
  http-reuse always
frontend public
  bind {address}
  {log}
  option forwardfor
  default_backend origin
backend origin
  server origin {origin}
"
        );
        let path = self.write("haproxy.cfg", &config)?;
        command.arg("-db").arg("-f").arg(path);
        Ok(command)
    }

    fn caddy(&self, mut command: Command) -> Done<Command> {
        let Place { address, origin, .. } = self;
        let log = if self.access_log { "log" } else { "" };
        // With an address it would answer only who asks for that by name.
        let (host, port) = (address.ip(), address.port());
        let config = format!(
            "{{
  admin off
  auto_https off
  persist_config off
}}
http://:{port} {{
  bind {host}
  {log}
  reverse_proxy {origin} {{
    transport http {{
      keepalive_idle_conns 512
      keepalive_idle_conns_per_host 512
    }}
  }}
}}
"
        );
        let path = self.write("Caddyfile", &config)?;
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(path);
        command.env("XDG_DATA_HOME", self.home).env("XDG_CONFIG_HOME", self.home).env("HOME", self.home);
        Ok(command)
    }
}

/// One route, one service with one instance that is checked: what a small project has.
fn snapshot(address: SocketAddr, origin: SocketAddr) -> Value {
    json!({
        "generation": 1,
        "listeners": [{ "name": "public", "addr": address }],
        "services": { "bench/production/web": {
            "versions": { "r1": { "weight": 100, "instances": [{ "id": "web-1", "addr": origin }] } },
            "health": { "path": "/s" },
        } },
        "routes": [{ "listener": "public", "path": "/", "service": "bench/production/web" }],
    })
}

/// What the server says to its proxy.
fn tell(control: &UnixStream, snapshot: &Value) -> Done {
    control.set_read_timeout(Some(START_MAX)).context("the control socket")?;
    let mut line = json!({ "seq": 1, "ask": { "apply": { "snapshot": snapshot } } }).to_string();
    line.push('\n');
    let mut to = control;
    to.write_all(line.as_bytes()).context("the control socket")?;
    for line in BufReader::new(control).lines() {
        let line = line.context("the control socket")?;
        let said: Value = serde_json::from_str(&line).context("the control socket")?;
        if said["seq"] == 1 {
            let is_applied = said["say"]["applied"].is_object();
            return if is_applied { Ok(()) } else { Err(Fault::new(format!("the proxy answered {line}"))) };
        }
    }
    Err(Fault::new("the control socket was closed"))
}
