//! A Fairway of its own: a directory with the state, a project in it, a server, and every process that they start.

mod http;
mod shop;
mod strays;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::fault::{Context, Done, Fault};
use crate::shell;

pub use http::{get, send};
pub use shop::Shop;
pub use strays::wait_if_interrupted;

/// From its start until it answers; a machine under load is slow, a server that hangs is slower.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How the command lines are shown while they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// The command line and all that it prints, as on a terminal.
    OnStdout,
    OnStderr,
    Nothing,
}

#[derive(Debug)]
pub struct Home {
    /// Absent once the directory is to stay, for somebody to look at.
    directory: Option<tempfile::TempDir>,
    path: PathBuf,
    fairway: PathBuf,
    server: Option<Child>,
    /// Where the server answers besides its socket.
    listen: Option<SocketAddr>,
    /// Whether samples are taken there.
    take_samples: bool,
    show: Show,
}

/// A command line that ran to its end.
#[derive(Debug)]
pub struct Ran {
    pub line: String,
    /// 128 and above: ended by a signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Home {
    pub fn new(fairway: &Path, show: Show) -> Done<Home> {
        strays::end_on_interrupt();
        let directory =
            tempfile::Builder::new().prefix("fairway-").tempdir().context("no temporary directory")?;
        // Services may run as users of their own; they must be able to walk to their files.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), mode).context("the temporary directory")?;
        let path = directory.path().canonicalize().context("the temporary directory")?;
        strays::watch_over(&path);
        Ok(Home {
            directory: Some(directory),
            path,
            fairway: fairway.to_owned(),
            server: None,
            listen: None,
            take_samples: false,
            show,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn state_dir(&self) -> PathBuf {
        self.path.join("state")
    }

    /// `fairway ARGUMENTS` in `directory`, as a user of this home would type it.
    pub fn command(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.fairway);
        command.args(arguments).current_dir(directory).env("FAIRWAY_STATE", self.state_dir());
        // What the person who runs us has set is not part of the run.
        for variable in ["FAIRWAY_ENV", "FAIRWAY_PROJECT", "FAIRWAY_SERVER", "FAIRWAY_TOKEN"] {
            command.env_remove(variable);
        }
        command
    }

    pub fn say(&self, text: &str) {
        match self.show {
            Show::OnStdout => println!("{text}"),
            Show::OnStderr => eprintln!("{text}"),
            Show::Nothing => {}
        }
    }

    /// Servers that start from now on answer here too.
    pub fn listen(&mut self, address: SocketAddr) {
        self.listen = Some(address);
    }

    /// Servers that start from now on take samples there, too.
    pub fn take_samples(&mut self) {
        self.take_samples = true;
    }

    /// Starts the server and waits until it answers.
    pub fn start_server(&mut self) -> Done {
        let listen = self.listen.map(|address| address.to_string());
        let mut arguments = vec!["server", "run"];
        arguments.extend(listen.as_deref().into_iter().flat_map(|address| ["--listen", address]));
        arguments.extend(self.take_samples.then_some("--take-samples"));
        let mut command = self.command(&self.path, &arguments);
        self.say(&format!("$ {} &", shown(&arguments)));
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path.join("server.log"))
            .context("the server's log")?;
        let errors = log.try_clone().context("the server's log")?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .context("cannot start the server")?;
        let deadline = Instant::now() + START_TIMEOUT;
        while UnixStream::connect(self.state_dir().join("fairway.sock")).is_err() {
            if let Some(status) = child.try_wait().context("the server")? {
                return Err(Fault::new(format!(
                    "the server ended at once ({status}):\n{}",
                    self.server_log()
                )));
            }
            if Instant::now() > deadline {
                self.server = Some(child);
                return Err(Fault::new(format!("the server does not answer:\n{}", self.server_log())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.server = Some(child);
        Ok(())
    }

    pub fn server_log(&self) -> String {
        std::fs::read_to_string(self.path.join("server.log")).unwrap_or_default()
    }

    pub fn server_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill_server(&mut self) -> Done {
        let mut child = self.server.take().context("there is no server to kill")?;
        self.say(&format!("$ kill -9 {}", child.id()));
        child.kill().context("kill")?;
        child.wait().context("kill")?;
        Ok(())
    }

    /// As a service manager would: SIGTERM, then wait.
    pub fn stop_server(&mut self) -> Done {
        let Some(mut child) = self.server.take() else { return Ok(()) };
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("stop the server")?;
        let deadline = Instant::now() + START_TIMEOUT;
        while child.try_wait().context("the server")?.is_none() {
            if Instant::now() > deadline {
                return Err(Fault::new("the server does not stop"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Runs a command line of the user to its end, whatever its exit code.
    pub fn run(&self, directory: &Path, arguments: &[&str]) -> Done<Ran> {
        let mut command = self.command(directory, arguments);
        let line = shown(arguments);
        self.say(&format!("$ {line}"));
        let (stdout, stderr) = (Mutex::new(String::new()), Mutex::new(String::new()));
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(&line)?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            let keep = |pipe: Option<Box<dyn std::io::Read + Send>>, into: &Mutex<String>| {
                let Some(pipe) = pipe else { return };
                shell::each_line(pipe, &mut |text| {
                    self.say(&format!("  {}", text.trim_end()));
                    into.lock().expect("nothing panics while it holds the text").push_str(text);
                });
            };
            let (stdout, stderr) = (&stdout, &stderr);
            scope.spawn(move || keep(out.map(|pipe| Box::new(pipe) as _), stdout));
            scope.spawn(move || keep(err.map(|pipe| Box::new(pipe) as _), stderr));
        });
        let status = child.wait().context(&line)?;
        let took = started.elapsed();
        let code = status
            .code()
            .unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0));
        let text = |text: Mutex<String>| text.into_inner().expect("nothing panics while it holds the text");
        Ok(Ran { line, code, stdout: text(stdout), stderr: text(stderr), took })
    }

    /// The same, and it must end with exit code 0.
    pub fn must(&self, directory: &Path, arguments: &[&str]) -> Done<Ran> {
        self.run(directory, arguments)?.expect(0)
    }

    /// The result of a query with `--json`, unseen.
    pub fn ask(&self, directory: &Path, arguments: &[&str]) -> Done<Value> {
        let output = self
            .command(directory, arguments)
            .arg("--json")
            .stdin(Stdio::null())
            .output()
            .context("cannot run fairway")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_default();
        let answer: Value =
            serde_json::from_str(last).context(format!("fairway {} --json", arguments.join(" ")))?;
        if !output.status.success() {
            return Err(Fault::new(format!("fairway {}: {last}", arguments.join(" "))));
        }
        Ok(answer["result"].clone())
    }

    /// Every process of this home.
    pub fn processes(&self) -> Vec<u32> {
        strays::of(&self.path)
    }

    /// Waits until no process of this home is left, as it should be after `down` and the end of the server.
    pub fn is_empty_soon(&self) -> Done {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Fault::new(format!("processes were left behind: {left:?}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Leaves the directory where it is, for somebody to look at, and says where.
    pub fn keep(&mut self) {
        wait_if_interrupted();
        if let Some(directory) = self.directory.take() {
            eprintln!("kept for a look: {}", directory.keep().display());
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        strays::end(&self.path);
        if let Some(mut child) = self.server.take() {
            drop(child.wait());
        }
    }
}

impl Ran {
    /// Fails when the exit code is another one.
    pub fn expect(self, code: i32) -> Done<Ran> {
        if self.code == code {
            return Ok(self);
        }
        let said = format!("{}{}", self.stdout, self.stderr);
        Err(Fault::new(format!(
            "{} ended with {} instead of {code}:\n{}",
            self.line,
            self.code,
            said.trim_end()
        )))
    }
}

/// As a user would type it: the binary may have another name here.
fn shown(arguments: &[&str]) -> String {
    shell::shown(Command::new("fairway").args(arguments))
}

/// Milliseconds since the Unix epoch, the clock of events.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A port on loopback that nobody used a moment ago.
pub fn free_address() -> Done<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port on loopback")?;
    listener.local_addr().context("no port on loopback")
}
