//! A project that starts as fast as a script can, so that what is measured is Fairway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fault::{Context, Done, Fault};
use crate::home::{free_address, get};

/// Sockets and nothing else: importing Python's own HTTP server takes longer than everything that Fairway does.
const PROGRAM: &str = r#"
import os, socket, _thread

ANSWER = ("HTTP/1.1 200 OK\r\nx-shop-version: %s\r\ncontent-length: 2\r\n\r\nok" % os.environ["VERSION"]).encode()

def answer(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    text = b""
    try:
        while piece := connection.recv(65536):
            text += piece
            while b"\r\n\r\n" in text:
                head, text = text.split(b"\r\n\r\n", 1)
                connection.sendall(ANSWER)
                if b"connection: close" in head.lower():
                    return connection.close()
    except OSError:
        pass
    connection.close()

listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=128)
while True:
    _thread.start_new_thread(answer, (listener.accept()[0],))
"#;

const COMMAND: &[&str] = &["python3", "-I", "-S", "probe.py"];

const FILE: &str = r#"version = 1
project = "probe"

[service.web]
command = ["python3", "-I", "-S", "probe.py"]
port = 3000
route = "/"
env = { VERSION = "SHOWN" }
ready = { http = "/", within = "20s", every = "10ms" }

[env.dev]
listen = "LISTEN"
deploy.bake = "0s"
"#;

const START_MAX: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Probe {
    directory: PathBuf,
    address: SocketAddr,
}

impl Probe {
    pub fn write(directory: PathBuf) -> Done<Probe> {
        std::fs::create_dir_all(&directory).context("the project's directory")?;
        std::fs::write(directory.join("probe.py"), PROGRAM).context("probe.py")?;
        Ok(Probe { directory, address: free_address()? })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file of the version that says `version`.
    pub fn check_out(&self, version: &str) -> Done {
        let text = FILE.replace("LISTEN", &self.address.to_string()).replace("SHOWN", version);
        std::fs::write(self.directory.join("fairway.toml"), text).context("fairway.toml")
    }

    /// How long the program itself takes from its start to its first answer, without Fairway.
    pub fn own_start(&self) -> Done<Duration> {
        let address = free_address()?;
        let started = Instant::now();
        let mut child = Command::new(COMMAND[0])
            .args(&COMMAND[1..])
            .current_dir(&self.directory)
            .env("PORT", address.port().to_string())
            .env("VERSION", "0")
            .stdin(Stdio::null())
            .spawn()
            .context("python3")?;
        let mut answered = None;
        while answered.is_none() && started.elapsed() < START_MAX {
            match get(address, "/") {
                Ok(_) => answered = Some(started.elapsed()),
                Err(_) => std::thread::sleep(Duration::from_micros(500)),
            }
        }
        child.kill().context("the probe")?;
        child.wait().context("the probe")?;
        answered.ok_or_else(|| Fault::new("the probe does not start"))
    }
}
