//! The end of a process in the middle of an upgrade.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::house::{FAIRWAY, House, PATIENCE, Starter, last_line};

/// Nobody else gets the directory, and no command is refused, until it is dropped.
struct Watched {
    over: Arc<AtomicBool>,
    watching: Option<std::thread::JoinHandle<()>>,
}

impl Watched {
    fn over(house: &House) -> Self {
        let (over, state) = (Arc::new(AtomicBool::new(false)), house.state());
        let is_over = Arc::clone(&over);
        let watching = std::thread::spawn(move || {
            while !is_over.load(Ordering::SeqCst) {
                let lock = std::fs::File::open(state.join("server.lock")).unwrap();
                let free = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive);
                assert!(free.is_err(), "the directory was free for a moment");
                UnixStream::connect(state.join("fairway.sock")).expect("commands wait, they are not refused");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { over, watching: Some(watching) }
    }

    fn ends(mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.watching.take().unwrap().join().unwrap();
    }
}

/// Passes every check, and does this when it is to be the server.
fn as_server(house: &House, what: &str) -> std::path::PathBuf {
    house.program(&format!("case \"$*\" in *--handed*) {what};; esac"))
}

#[test]
fn a_server_that_crashes_at_its_start_becomes_the_one_before_again() {
    for crash in [
        "kill -SEGV $$",
        "exit 0",
        // The real program, which finds no memory and aborts.
        "ulimit -v 30000",
    ] {
        let house = House::new();
        let before = house.status().unwrap();
        let watched = Watched::over(&house);
        let ended = house.upgrade(&as_server(&house, crash));
        ended.is(1, "upgrade/server").says("it ended before it served");
        let now = house.status().unwrap();
        assert_ne!(now["pid"], before["pid"], "{crash}: the process is gone, its place is not");
        assert_eq!((&now["binary"], &now["version"]), (&before["binary"], &before["version"]));
        house.await_proxy();
        let done = house.upgrade(Path::new(FAIRWAY));
        assert_eq!(done.code, 0, "and then one that works: {}\n{}", done.said, house.log());
        watched.ends();
        guards_end(&house);
    }
}

/// Nobody watches over a server that serves.
fn guards_end(house: &House) {
    let until = Instant::now() + PATIENCE;
    while house.processes().iter().any(|(_, words)| words.contains("--guarding")) {
        assert!(Instant::now() < until, "{:?}", house.processes());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_systemd_starts_again_goes_before_the_guard() {
    let mut house = House::started_by(Starter::Systemd, &[]);
    let crashes = as_server(&house, "kill -SEGV $$");
    let upgrading = house.command(&["server", "upgrade", "--binary", crashes.to_str().unwrap()]);
    let upgrading = in_background(upgrading);
    house.start_again(Starter::Systemd);
    let now = house.await_proxy();
    assert_eq!(now["pid"], house.server.id(), "it has the directory, and the guard has not: {}", house.log());
    guards_end(&house);
    let output = upgrading.join().unwrap();
    let said = last_line(&output);
    assert_eq!(said["errors"][0]["code"], "outcome/unknown", "{said}");
    assert!(said.to_string().contains("another server process answers"), "{said}");
}

fn in_background(mut command: std::process::Command) -> std::thread::JoinHandle<std::process::Output> {
    std::thread::spawn(move || command.output().unwrap())
}

#[test]
fn a_server_that_is_killed_while_the_proxy_hands_over_leaves_one_proxy_that_serves() {
    let mut house = House::new();
    let before = house.status().unwrap();
    let mark = house.dir.path().join("proxy-began");
    let slow = house.program(&format!("[ $1 = proxy ] && {{ touch {}; sleep 0.3; }}", mark.display()));
    let upgrading = in_background(house.command(&["server", "upgrade", "--binary", slow.to_str().unwrap()]));
    let until = Instant::now() + PATIENCE;
    while !mark.exists() {
        assert!(Instant::now() < until, "{}", house.log());
        std::thread::sleep(Duration::from_millis(2));
    }
    house.server.kill().unwrap();
    house.start_again(Starter::Shell);
    // Nobody waits for the hand-over any more, and it comes to its end all the same.
    let until = Instant::now() + PATIENCE;
    loop {
        let now = house.await_proxy();
        let proxies: Vec<_> =
            house.processes().into_iter().filter(|(_, words)| words.contains(" proxy --state-dir")).collect();
        if now["proxy"]["pid"] != before["proxy"]["pid"] && proxies.len() == 1 {
            assert_eq!(Value::from(proxies[0].0.as_raw_nonzero().get()), now["proxy"]["pid"]);
            break;
        }
        assert!(Instant::now() < until, "{now} {proxies:?}\n{}", house.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(upgrading.join().unwrap().status.code(), Some(6), "what came of it is not known");
}
