//! `fairway server upgrade` with real processes: the way there, what refuses it, and the way back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod crash;
mod house;
mod proxies;
mod record;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use house::{Ended, FAIRWAY, House, PATIENCE, last_line};
use serde_json::Value;

#[test]
fn server_and_proxy_are_replaced_and_nobody_else_can_get_the_directory() {
    let house = House::new();
    let over = Arc::new(AtomicBool::new(false));
    let watching = std::thread::spawn({
        let (over, state) = (Arc::clone(&over), house.state());
        move || {
            let mut looks = 0;
            while !over.load(Ordering::SeqCst) {
                let lock = std::fs::File::open(state.join("server.lock")).unwrap();
                let free = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive);
                assert!(free.is_err(), "the directory was free for a moment");
                UnixStream::connect(state.join("fairway.sock")).expect("commands wait, they are not refused");
                looks += 1;
                // The queue of a socket that nobody accepts on just now is short.
                std::thread::sleep(Duration::from_millis(5));
            }
            looks
        }
    });
    let mut before = house.status().unwrap();
    for round in 0..3 {
        let done = house.upgrade(Path::new(FAIRWAY));
        assert_eq!(done.code, 0, "round {round}: {}\n{}", done.said, house.log());
        let now = done.said["result"]["server"].clone();
        assert_eq!(now["pid"], before["pid"], "it stays the same process");
        assert_ne!(now["upgraded"]["id"], before["upgraded"]["id"]);
        assert_eq!(done.said["result"]["proxy"]["from_pid"], before["proxy"]["pid"], "{}", done.said);
        before = house.await_proxy();
        assert_eq!(before["proxy"]["pid"], done.said["result"]["proxy"]["to_pid"]);
    }
    over.store(true, Ordering::SeqCst);
    assert!(watching.join().unwrap() > 10);
    // The proxies before were its children, and it is another program since.
    let until = Instant::now() + PATIENCE;
    while zombies_of(house.server.id()) > 0 {
        assert!(Instant::now() < until, "proxies of before are still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn zombies_of(parent: u32) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let is_one = |stat: &String| {
        let rest: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        rest.first() == Some(&"Z") && rest.get(1) == Some(&parent.to_string().as_str())
    };
    stats.filter(is_one).count()
}

#[test]
fn a_proxy_that_does_not_get_ready_changes_nothing() {
    let house = House::new();
    let before = house.status().unwrap();
    let dies = house.program("[ $1 = proxy ] && { echo 'no such library' >&2; exit 3; }");
    let ended = house.upgrade(&dies);
    ended.is(1, "upgrade/proxy").says("it ended before it was ready (exit code 3)");
    assert_eq!(ended.said["errors"][0]["last_lines"], serde_json::json!(["no such library"]));
    house.is_as_before(&before);
    // It takes the sockets and dies with them.
    let takes = r#"[ $1 = proxy ] && exec python3 -I -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[3] + "/upgrade.sock")
print(s.recv(1), flush=True)
sys.exit(4)' "$@""#;
    house.upgrade(&house.program(takes)).is(1, "upgrade/proxy").says("exit code 4");
    house.is_as_before(&before);
    assert_eq!(house.upgrade(Path::new(FAIRWAY)).code, 0, "and then one that works");
}

#[test]
fn a_program_that_cannot_take_over_is_refused() {
    let house = House::new();
    let before = house.status().unwrap();
    let path = house.dir.path().join("next");
    let upgrade = |text: &str, mode: u32| {
        house.file(&path, text, mode);
        house.upgrade(&path)
    };
    upgrade("#!/bin/sh\necho fairway 9", 0o644).is(1, "upgrade/not-executable").says("chmod +x");
    upgrade("text", 0o755).is(1, "upgrade/not-fairway").says("it is not a program");
    upgrade("#!/bin/sh\necho nginx", 0o755)
        .is(1, "upgrade/not-fairway")
        .says("does not say that it is Fairway");
    upgrade("#!/no/such/interpreter\n", 0o755).is(1, "upgrade/not-fairway").says("it cannot be run");
    // A version from before upgrades: it does not know what it is asked.
    let older = house.program("case \"$*\" in *--check*) echo 'unexpected argument' >&2; exit 2;; esac");
    house.upgrade(&older).is(1, "upgrade/check").says("unexpected argument");
    let says_no = r#"case "$*" in *--check*) echo '{"result":null,"exit":1,"errors":[{"code":"server/log",
"message":"the log cannot be opened","causes":["its schema is 3"],"exit":1}]}' | tr -d '\n'; exit 1;; esac"#;
    house.upgrade(&house.program(says_no)).is(1, "upgrade/refuses").says("its schema is 3");
    let mut elf = std::fs::read(FAIRWAY).unwrap()[..64].to_vec();
    elf[18..20].copy_from_slice(&[22, 0]);
    std::fs::write(&path, &elf).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    house.upgrade(&path).is(1, "upgrade/other-machine").says("it is for s390x");
    house.upgrade(&house.dir.path().join("none")).is(1, "upgrade/no-program");
    house.is_as_before(&before);
}

#[test]
fn a_state_that_is_newer_than_the_program_is_not_touched() {
    let house = House::new();
    let before = house.status().unwrap();
    // What it is told to read is a state from the future.
    let future = house.dir.path().join("future");
    std::fs::create_dir(&future).unwrap();
    for file in ["fairway.db", "fairway.db-wal", "fairway.db-shm"] {
        let _ = std::fs::copy(house.state().join(file), future.join(file));
    }
    let moved = Command::new("python3")
        .args(["-I", "-c", "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nc.execute('PRAGMA user_version = 99')\nc.commit()"])
        .arg(future.join("fairway.db"))
        .status()
        .unwrap();
    assert!(moved.success());
    let reads_it = format!(
        "case \"$*\" in *--check*) exec {FAIRWAY} server run --state {} --check --json;; esac",
        future.display()
    );
    house.upgrade(&house.program(&reads_it)).is(1, "upgrade/refuses").says("newer Fairway");
    house.is_as_before(&before);
}

#[test]
fn a_server_that_does_not_start_becomes_the_one_before_again() {
    let house = House::new();
    let before = house.status().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let fails = house.program(&format!("case \"$*\" in *--handed*) set -- \"$@\" --listen {address};; esac"));
    let ended = house.upgrade(&fails);
    ended.is(1, "upgrade/server").says("cannot listen on");
    let now = house.status().unwrap();
    assert_eq!(now["pid"], before["pid"]);
    assert!(now["upgraded"]["failed"].as_str().unwrap().contains("cannot listen on"), "{now}");
    assert_eq!(now["binary"], before["binary"]);
    assert_eq!(house.upgrade(Path::new(FAIRWAY)).code, 0, "and then one that works");
    assert_eq!(house.status().unwrap()["upgraded"]["failed"], Value::Null);
}

#[test]
fn the_address_of_the_figures_goes_over_too() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let house = House::with(&["--listen", &address.to_string()]);
    for _ in 0..2 {
        assert_eq!(house.upgrade(Path::new(FAIRWAY)).code, 0);
        std::net::TcpStream::connect(address).expect("it is never closed");
    }
}

#[test]
fn the_words_with_which_the_server_was_started_go_over() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let house = House::with(&["--listen", &address.to_string(), "--take-samples"]);
    let words = || {
        let words = std::fs::read(format!("/proc/{}/cmdline", house.server.id())).unwrap();
        let words = String::from_utf8(words).unwrap();
        let words = words.split('\0').skip(1).filter(|word| !word.starts_with("--handed"));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = words();
    assert!(before.contains(&"--take-samples".to_owned()));
    for _ in 0..2 {
        assert_eq!(house.upgrade(Path::new(FAIRWAY)).code, 0);
        assert_eq!(words(), before);
        assert_eq!(house.status().unwrap()["state_dir"], house.state().to_str().unwrap());
        assert_eq!(write_samples(address), 400, "taken, and found to be none: 404 where they are not taken");
    }
    let refuses = House::with(&["--listen", &free().to_string()]);
    assert_eq!(refuses.upgrade(Path::new(FAIRWAY)).code, 0);
    let words = std::fs::read(format!("/proc/{}/cmdline", refuses.server.id())).unwrap();
    assert!(!String::from_utf8_lossy(&words).contains("--take-samples"), "nor does it get what it had not");
}

fn free() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn write_samples(address: std::net::SocketAddr) -> u16 {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head = "POST /api/v1/write HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nconnection: close\r\n\r\nxyz";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_server_that_is_stopped_at_once_after_an_upgrade_leaves_no_proxy() {
    for _ in 0..3 {
        let house = House::new();
        assert_eq!(house.upgrade(Path::new(FAIRWAY)).code, 0);
        // Its end looks for what is left.
        drop(house);
    }
}

#[test]
fn without_a_server_there_is_nothing_to_upgrade() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(FAIRWAY)
        .args(["server", "upgrade", "--json"])
        .env("FAIRWAY_STATE", dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let ended = Ended { code: output.status.code().unwrap(), said: last_line(&output) };
    ended.is(1, "server/not-running");
}
