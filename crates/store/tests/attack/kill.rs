//! `kill -9` in the middle of appends: what was acknowledged is there, and the chain holds.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use fairway_store::{Log, NewRecord};

const DIR: &str = "FAIRWAY_STORE_TEST_DIR";
const ROUNDS: u64 = 25;

fn record(seq: u64) -> NewRecord {
    NewRecord {
        at_ms: seq,
        environment: Some("shop/production".into()),
        actor: "ana".into(),
        kind: "Noted".into(),
        payload: vec![b'x'; (seq % 700) as usize],
    }
}

#[test]
#[ignore = "the child process of the test below; appends until it is killed"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut log = Log::open(&Path::new(&dir).join("fairway.db")).unwrap();
    let mut next = log.head().unwrap().seq + 1;
    let mut out = std::io::stdout().lock();
    loop {
        let batch: Vec<NewRecord> = (next..next + 1 + next % 5).map(record).collect();
        let seqs = log.append(next, &batch).unwrap();
        next = seqs.last().unwrap() + 1;
        writeln!(out, "acknowledged {}", next - 1).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_kill_nine() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        // Killed after another number of appends in each round, at whatever the child does just then.
        while seen <= round * 3 % 17 {
            let line = lines.next().expect("the child ended by itself").unwrap();
            if let Some((_, seq)) = line.split_once("acknowledged ") {
                acknowledged = seq.parse().unwrap();
                seen += 1;
            }
        }
        child.kill().unwrap();
        for line in lines {
            if let Some((_, seq)) = line.unwrap().split_once("acknowledged ") {
                // The last line may have been cut off by the kill.
                acknowledged = seq.parse().unwrap_or(0).max(acknowledged);
            }
        }
        child.wait().unwrap();
        let log = Log::open(&dir.path().join("fairway.db")).unwrap();
        let head = log.verify().unwrap().head;
        assert!(
            head.seq >= acknowledged,
            "record {acknowledged} was acknowledged, the log ends at {}",
            head.seq
        );
        for found in log.read_from(1) {
            let found = found.unwrap();
            assert_eq!(found.payload, record(found.seq).payload);
        }
    }
    assert!(acknowledged > ROUNDS);
}
