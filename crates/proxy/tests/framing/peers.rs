//! Proxies of others in front of the same service.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::support::{HANG, free_addr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Haproxy,
}

/// One that runs.
#[derive(Debug)]
pub struct Peer {
    /// With its version.
    pub name: String,
    pub addr: SocketAddr,
    process: Child,
    _dir: tempfile::TempDir,
}

impl Kind {
    /// What is started: named by the environment, or installed.
    fn program(self) -> Option<PathBuf> {
        let (variable, installed) = match self {
            Self::Nginx => ("FAIRWAY_NGINX", "/usr/sbin/nginx"),
            Self::Haproxy => ("FAIRWAY_HAPROXY", "/usr/sbin/haproxy"),
        };
        let named = std::env::var_os(variable).map(PathBuf::from);
        let program = named.or_else(|| Some(PathBuf::from(installed)).filter(|path| path.is_file()));
        if program.is_none() {
            println!("skipped: {variable} names no program to compare with");
        }
        program
    }

    /// As their documentation says for a proxy that speaks HTTP/1.1 with the service; what waits gives up soon.
    fn configuration(self, dir: &Path, addr: SocketAddr, origin: SocketAddr) -> String {
        match self {
            Self::Nginx => {
                let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
                format!(
                    "{user} daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/log;
                    events {{ worker_connections 512; }}
                    http {{
                      access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;
                      uwsgi_temp_path u; scgi_temp_path s;
                      client_header_timeout 1s; client_body_timeout 1s; keepalive_timeout 1s; lingering_timeout 1s;
                      upstream origin {{ server {origin} max_fails=0; keepalive 8; }}
                      server {{ listen {addr}; location / {{
                        proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\";
                        proxy_set_header Host $host;
                      }} }}
                    }}",
                    dir = dir.display()
                )
            }
            Self::Haproxy => format!(
                "global
  maxconn 512
  no strict-limits
defaults
  mode http
  timeout connect 5s
  timeout client 1s
  timeout server 5s
  timeout http-request 1s
  timeout http-keep-alive 1s
listen all
  bind {addr}
  server origin {origin}
"
            ),
        }
    }

    pub fn start(self, origin: SocketAddr) -> Option<Peer> {
        let program = self.program()?;
        let said = Command::new(&program).arg("-v").output().unwrap();
        let said = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
        let number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
        let version = said.split([' ', '/', '-', '\n']).find(number).unwrap_or("?").to_owned();
        let dir = tempfile::tempdir().unwrap();
        let addr = free_addr();
        let config = dir.path().join("configuration");
        std::fs::write(&config, self.configuration(dir.path(), addr, origin)).unwrap();
        let mut command = Command::new(&program);
        let name = match self {
            Self::Nginx => {
                command.arg("-p").arg(dir.path()).arg("-c").arg(&config).args(["-e", "stderr"]);
                format!("nginx {version}")
            }
            Self::Haproxy => {
                command.arg("-db").arg("-f").arg(&config);
                format!("HAProxy {version}")
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(addr).is_err() {
            assert!(process.try_wait().unwrap().is_none() && begun.elapsed() < HANG, "{name} does not start");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Some(Peer { name, addr, process, _dir: dir })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The master ends its workers on SIGTERM; a killed one would leave them behind.
        let id = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}
