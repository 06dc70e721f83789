//! Two processes on one state directory.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use fairway_store::{LockError, ServerLock};

const DIR: &str = "FAIRWAY_STORE_TEST_DIR";

#[test]
#[ignore = "the child process of the test below; holds the lock until it is killed"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let _lock = ServerLock::acquire(Path::new(&dir), "127.0.0.1:7800", 1_763_703_190_000).unwrap();
    println!("locked");
    std::io::stdin().lines().for_each(drop);
}

#[test]
fn the_second_is_refused_and_a_killed_one_leaves_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "two_servers::child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines.by_ref().any(|line| line.unwrap().ends_with("locked")),
            "the child did not get the lock"
        );
        let error = ServerLock::acquire(dir.path(), "", 0).unwrap_err();
        let LockError::Held { holder: Some(holder), .. } = &error else { panic!("{error}") };
        assert_eq!(holder.pid, child.id());
        assert!(error.to_string().contains("127.0.0.1:7800"), "{error}");
        child.kill().unwrap();
        child.wait().unwrap();
        drop(ServerLock::acquire(dir.path(), "", 0).expect("a stale lock"));
    }
}
