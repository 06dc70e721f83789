//! Programs of others, each with a directory of its own, ended by their handles.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fault::{Context, Done, Fault};
use crate::home::{free_address, get, send};
use crate::setup::peers;

/// On a machine that builds something else besides.
const START_WITHIN: Duration = Duration::from_secs(30);

/// A question to what is shown; longer is a hang.
const ASKED_WITHIN: Duration = Duration::from_secs(10);

/// The programs that the stories need.
#[derive(Debug)]
pub struct Programs {
    prometheus: PathBuf,
    promtool: PathBuf,
    alertmanager: PathBuf,
    amtool: PathBuf,
}

impl Programs {
    /// Those that somebody named, or that can be fetched. Otherwise the one that is missing.
    pub fn find() -> Result<Self, &'static str> {
        let fetched = peers::variables();
        let find = |variable: &'static str| {
            let named = std::env::var_os(variable).map(PathBuf::from);
            let found =
                fetched.iter().find(|(name, _)| *name == variable).map(|(_, program)| program.clone());
            named.or(found).filter(|program| program.is_file()).ok_or(variable)
        };
        Ok(Self {
            prometheus: find("FAIRWAY_PROMETHEUS")?,
            promtool: find("FAIRWAY_PROMTOOL")?,
            alertmanager: find("FAIRWAY_ALERTMANAGER")?,
            amtool: find("FAIRWAY_AMTOOL")?,
        })
    }

    pub fn promtool(&self) -> Command {
        Command::new(&self.promtool)
    }

    pub fn amtool(&self) -> Command {
        Command::new(&self.amtool)
    }

    /// `files` by name, `prometheus.yml` among them.
    pub fn prometheus(&self, directory: &Path, files: &[(&str, &str)]) -> Done<Program> {
        write(directory, files)?;
        let program = Program {
            program: self.prometheus.clone(),
            arguments: vec![
                "--config.file=prometheus.yml".to_owned(),
                "--storage.tsdb.path=data".to_owned(),
                "--web.enable-remote-write-receiver".to_owned(),
                "--log.level=warn".to_owned(),
            ],
            address: free_address()?,
            directory: directory.to_owned(),
            child: None,
        };
        program.started()
    }

    pub fn alertmanager(&self, directory: &Path, config: &str) -> Done<Program> {
        write(directory, &[("alertmanager.yml", config)])?;
        let program = Program {
            program: runnable(&self.alertmanager, directory)?,
            arguments: vec![
                "--config.file=alertmanager.yml".to_owned(),
                "--storage.path=data".to_owned(),
                "--cluster.listen-address=".to_owned(),
            ],
            address: free_address()?,
            directory: directory.to_owned(),
            child: None,
        };
        program.started()
    }
}

fn write(directory: &Path, files: &[(&str, &str)]) -> Done {
    std::fs::create_dir_all(directory).context(directory.display())?;
    for (name, text) in files {
        std::fs::write(directory.join(name), text).context(name)?;
    }
    Ok(())
}

/// Debian's build of Alertmanager reads its templates below `/usr/share`. Where the package is unpacked and not
/// installed they are beside the program, and a copy of it looks there: a path of the same length, relative to where it
/// runs.
fn runnable(program: &Path, directory: &Path) -> Done<PathBuf> {
    const INSTALLED: &str = "/usr/share/prometheus/alertmanager";
    const HERE: &str = "././././././././././././././././am";
    const { assert!(INSTALLED.len() == HERE.len()) };
    let unpacked = program.ancestors().nth(3).unwrap_or(Path::new("/"));
    let templates = unpacked.join(&INSTALLED[1..]);
    if Path::new(INSTALLED).is_dir() || !templates.is_dir() {
        return Ok(program.to_owned());
    }
    let mut code = std::fs::read(program).context(program.display())?;
    let mut at = 0;
    while at + INSTALLED.len() <= code.len() {
        // Comparing at every byte of 40 MB would take a debug build a second.
        match code[at..].iter().position(|byte| *byte == b'/') {
            Some(next) => at += next,
            None => break,
        }
        if code[at..].starts_with(INSTALLED.as_bytes()) {
            code[at..at + HERE.len()].copy_from_slice(HERE.as_bytes());
        }
        at += 1;
    }
    std::os::unix::fs::symlink(templates, directory.join("am")).context("Alertmanager's templates")?;
    let copy = directory.join("alertmanager");
    std::fs::write(&copy, code).context("a copy of Alertmanager")?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&copy, mode).context("a copy of Alertmanager")?;
    Ok(copy)
}

/// One that runs, or ran and can run again at the same address with the same data.
#[derive(Debug)]
pub struct Program {
    program: PathBuf,
    arguments: Vec<String>,
    address: SocketAddr,
    directory: PathBuf,
    child: Option<Child>,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

impl Program {
    fn started(mut self) -> Done<Self> {
        self.start()?;
        Ok(self)
    }

    pub fn start(&mut self) -> Done {
        let name = self.program.display().to_string();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))
            .context("a log")?;
        let child = Command::new(&self.program)
            .current_dir(&self.directory)
            .args(&self.arguments)
            .arg(format!("--web.listen-address={}", self.address))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context(&name)?;
        let child = self.child.insert(child);
        let began = Instant::now();
        while !get(self.address, "/-/ready").is_ok_and(|answer| answer.status == 200) {
            let ended = child.try_wait().context(&name)?;
            if ended.is_some() || began.elapsed() > START_WITHIN {
                let said = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                return Err(Fault::new(format!("{name} does not start: {said}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// `kill -9`, by its own handle; that it is gone already is no matter.
    pub fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// What Prometheus' API answers, whoever serves it.
#[derive(Debug, Clone)]
pub struct Told {
    pub status: u16,
    pub kind: String,
    pub body: Value,
}

/// A question to Prometheus' API, as a form or in the address.
pub fn ask(address: SocketAddr, method: &str, path: &str, parameters: &[(&str, &str)]) -> Done<Told> {
    let form: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    let form = form.join("&");
    let answer = match method {
        "POST" => {
            let kind = [("content-type", "application/x-www-form-urlencoded")];
            send(address, method, path, &kind, form.as_bytes())?
        }
        _ if form.is_empty() => send(address, method, path, &[], b"")?,
        _ => send(address, method, &format!("{path}?{form}"), &[], b"")?,
    };
    Ok(Told {
        status: answer.status,
        kind: answer.header("content-type").unwrap_or_default().to_owned(),
        body: serde_json::from_str(&answer.body).unwrap_or(Value::String(answer.body)),
    })
}

fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Something outside of Fairway that shows metrics: three switches, and figures that move.
#[derive(Debug, Clone)]
pub struct Shown {
    pub address: SocketAddr,
    trouble: Arc<AtomicBool>,
    alarm: Arc<AtomicBool>,
    own: Arc<AtomicBool>,
}

impl Shown {
    pub fn start() -> Done<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("what is scraped")?;
        let address = listener.local_addr().context("what is scraped")?;
        let shown = Self { address, trouble: Arc::default(), alarm: Arc::default(), own: Arc::default() };
        let (of, rounds) = (shown.clone(), AtomicU64::new(0));
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let text = of.text(rounds.fetch_add(1, Ordering::Relaxed));
                // Whoever asks and goes away asks again.
                drop(answer(stream, &text));
            }
        });
        Ok(shown)
    }

    pub fn trouble(&self, on: bool) {
        self.trouble.store(on, Ordering::Release);
    }

    pub fn alarm(&self, on: bool) {
        self.alarm.store(on, Ordering::Release);
    }

    pub fn own(&self, on: bool) {
        self.own.store(on, Ordering::Release);
    }

    fn text(&self, round: u64) -> String {
        let mut text = format!(
            "# TYPE outside_trouble gauge\noutside_trouble {}\n# TYPE outside_alarm gauge\noutside_alarm {}\n\
             # TYPE outside_own gauge\noutside_own {}\n",
            u8::from(self.trouble.load(Ordering::Acquire)),
            u8::from(self.alarm.load(Ordering::Acquire)),
            u8::from(self.own.load(Ordering::Acquire)),
        );
        text.push_str("# HELP outside_jobs_total Jobs that were done.\n# TYPE outside_jobs_total counter\n");
        for (queue, step) in [("mail", 3), ("größe \\\"é\\\"", 7), ("", 11)] {
            text.push_str(&format!("outside_jobs_total{{queue=\"{queue}\"}} {}\n", round * step));
        }
        text.push_str("# TYPE outside_job_seconds histogram\n");
        for (bound, share) in [("0.1", 2), ("0.5", 5), ("2.5", 9), ("+Inf", 10)] {
            text.push_str(&format!("outside_job_seconds_bucket{{le=\"{bound}\"}} {}\n", round * share));
        }
        let (sum, count) = (round as f64 * 3.7, round * 10);
        text.push_str(&format!("outside_job_seconds_sum {sum}\noutside_job_seconds_count {count}\n"));
        // There every other time only: its series ends and begins again.
        if round % 6 < 3 {
            text.push_str("# TYPE outside_flicker gauge\noutside_flicker NaN\noutside_limit +Inf\n");
        }
        text
    }
}

/// One request a connection.
fn answer(stream: TcpStream, text: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(ASKED_WITHIN))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let stream = reader.get_mut();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    )
}
