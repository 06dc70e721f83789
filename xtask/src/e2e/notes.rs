//! The smallest project that can be deployed: one Python file, two services, answers at once.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::fault::{Context, Done};

const PROGRAM: &str = r#"
import http.server, os, signal, sys

class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = os.environ.get("WORDS", "notes").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-pid", str(os.getpid()))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = http.server.ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])), Answer)
print("listening", flush=True)
server.serve_forever()
"#;

const FILE: &str = r#"version = 1
project = "notes"

[service.web]
command = ["python3", "notes.py"]
port = 3000
route = "/"
ready = { http = "/", within = "20s", every = "50ms" }

[service.api]
command = ["python3", "notes.py"]
port = 4000
route = "/api"
ready = { http = "/", within = "20s", every = "50ms" }
after = ["web"]

[env.dev]
listen = "LISTEN"
deploy.bake = "0s"
"#;

#[derive(Debug)]
pub struct Notes {
    directory: PathBuf,
    address: SocketAddr,
}

impl Notes {
    /// Writes the project as it should be.
    pub fn write(directory: PathBuf, address: SocketAddr) -> Done<Notes> {
        std::fs::create_dir_all(&directory).context("the project's directory")?;
        std::fs::write(directory.join("notes.py"), PROGRAM).context("notes.py")?;
        let notes = Notes { directory, address };
        notes.restore()?;
        Ok(notes)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts the file back as it was.
    pub fn restore(&self) -> Done {
        self.write_file(&FILE.replace("LISTEN", &self.address.to_string()))
    }

    /// The file with one piece of it replaced.
    pub fn change(&self, from: &str, to: &str) -> Done {
        let text = FILE.replace("LISTEN", &self.address.to_string());
        assert!(text.contains(from), "{from:?} is not in the file: the check would check nothing");
        self.write_file(&text.replacen(from, to, 1))
    }

    pub fn write_file(&self, text: &str) -> Done {
        std::fs::write(self.directory.join("fairway.toml"), text).context("fairway.toml")
    }

    /// A file below the project, executable or not.
    pub fn add(&self, name: &str, text: &str, mode: u32) -> Done {
        let path = self.directory.join(name);
        std::fs::write(&path, text).context(name)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).context(name)
    }
}
