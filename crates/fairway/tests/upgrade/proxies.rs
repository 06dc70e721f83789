//! One proxy process after the other, and the death of either at every word between them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::house::{FAIRWAY, PATIENCE};

/// Speaks as a predecessor does, with a socket of its own, until the word after which it dies, closes, or goes on.
/// `argv`: state directory, port, the last line that it says, what it does then.
const PREDECESSOR: &str = r#"
import array, json, os, socket, sys, time
state, port, last, then = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
web = socket.socket()
web.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
web.bind(("127.0.0.1", port))
web.listen(64)
door = socket.socket(socket.AF_UNIX)
door.bind(state + "/upgrade.sock")
door.listen(1)
print("ready", flush=True)
talk, _ = door.accept()
header = {"pid": os.getpid(), "generation": 1, "sockets": 1, "trial": True}
talk.sendall((json.dumps(header) + "\n").encode())
talk.sendmsg([b"s"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [web.fileno()]))])
lines = talk.makefile("r")
def end():
    if then == "dies":
        os._exit(0)
    if then == "closes":
        lines.close(); talk.shutdown(2); talk.close()
    if then == "refuses":
        talk.sendall(b"BACK\n")
    time.sleep(60)
for wanted, answer in [("READY 1 TRIAL", "GO"), ("SETTLED", "YOURS")]:
    said = lines.readline().strip()
    assert said == wanted, said
    if last == wanted:
        end()
    talk.sendall((answer + "\n").encode())
    if last == answer:
        end()
"#;

/// Processes of a test, which end with it.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn directory(address: SocketAddr) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = serde_json::json!({
        "generation": 1,
        "listeners": [{ "name": "web", "addr": address, "purpose": "public" }],
        "services": {}, "routes": [],
    });
    std::fs::write(dir.path().join("snapshot.json"), snapshot.to_string()).unwrap();
    dir
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn proxy(dir: &Path) -> Ending {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = Command::new(FAIRWAY);
    command.args(["proxy", "--state-dir"]).arg(dir).stdin(Stdio::null());
    Ending(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
}

/// No route leads anywhere: 404 is an answer of the proxy.
fn is_answered(address: SocketAddr, within: Duration) -> bool {
    let answer = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(within))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head == *b"HTTP/1.1 404")
    };
    answer().unwrap_or(false)
}

fn eventually(what: &str, dir: &Path, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(
            Instant::now() < until,
            "{what}\n{}",
            std::fs::read_to_string(dir.join("log")).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn predecessor(dir: &Path, address: SocketAddr, last: &str, then: &str) -> Ending {
    let mut command = Command::new("python3");
    command.args(["-I", "-c", PREDECESSOR]).arg(dir).args([&address.port().to_string(), last, then]);
    let mut child = Ending(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    let mut ready = [0; 6];
    child.0.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    child
}

#[test]
fn a_predecessor_that_dies_at_any_word_leaves_its_sockets_to_the_successor() {
    for last in ["READY 1 TRIAL", "GO", "SETTLED", "YOURS"] {
        let address = free();
        let dir = directory(address);
        let mut before = predecessor(dir.path(), address, last, "dies");
        // It is in the kernel's queue from before the death of the one to the accept of the other.
        let mut early = TcpStream::connect(address).unwrap();
        let next = proxy(dir.path());
        before.0.wait().unwrap();
        early.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        early.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = [0; 12];
        early.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 404", "after {last}");
        eventually("it can be told something", dir.path(), || {
            std::os::unix::net::UnixStream::connect(dir.path().join("proxy.sock")).is_ok()
        });
        drop(next);
    }
}

#[test]
fn a_successor_does_not_serve_beside_a_predecessor_that_lives() {
    for (last, then) in
        [("READY 1 TRIAL", "refuses"), ("READY 1 TRIAL", "closes"), ("GO", "closes"), ("SETTLED", "refuses")]
    {
        let address = free();
        let dir = directory(address);
        let _before = predecessor(dir.path(), address, last, then);
        let mut next = proxy(dir.path());
        eventually("it ends", dir.path(), || next.0.try_wait().unwrap().is_some());
        assert_eq!(next.0.wait().unwrap().code(), Some(1));
        assert!(!dir.path().join("proxy.sock").exists(), "{last} {then}: nobody was sent to it");
        assert!(!is_answered(address, Duration::from_millis(20)), "it let go of the sockets");
    }
}

/// The instants are random, and the words are few: over some rounds the kill comes at each of them.
#[test]
fn whoever_is_killed_in_the_middle_connections_are_answered() {
    let address = free();
    let dir = directory(address);
    let mut current = proxy(dir.path());
    eventually("it serves", dir.path(), || is_answered(address, PATIENCE));
    eventually("and can be followed", dir.path(), || dir.path().join("upgrade.sock").exists());
    // Once without a kill, for its length.
    let begun = Instant::now();
    let next = proxy(dir.path());
    eventually("the one before ends", dir.path(), || current.0.try_wait().unwrap().is_some());
    let took = begun.elapsed();
    current = next;
    for round in 0..24 {
        let next = proxy(dir.path());
        std::thread::sleep(took.mul_f64(f64::from(round % 12) / 12.0));
        let (mut killed, mut survivor) = if round % 2 == 0 { (current, next) } else { (next, current) };
        killed.0.kill().unwrap();
        killed.0.wait().unwrap();
        let mut ended = false;
        eventually("somebody answers, or nobody is left", dir.path(), || {
            ended = survivor.0.try_wait().unwrap().is_some();
            ended || is_answered(address, Duration::from_secs(1))
        });
        // The one that had let go is gone as well: then it is as it is when any proxy is killed.
        current = if ended { proxy(dir.path()) } else { survivor };
        eventually("somebody answers", dir.path(), || is_answered(address, Duration::from_secs(1)));
        assert!(current.0.try_wait().unwrap().is_none(), "round {round}");
    }
}
