//! `kill -9` in the middle of work: what was acknowledged is there and whole.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use fairway_store::{Blobs, Digest, Exclude, Log, NewRecord, Trees};

const DIR: &str = "FAIRWAY_STORE_TEST_DIR";
const ROUNDS: u64 = 17;

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

#[test]
#[ignore = "the child process of the test below; captures and builds until it is killed"]
fn tree_child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let project = Path::new(&dir).join("project");
    let trees = Trees::open(&Path::new(&dir).join("state")).unwrap();
    let mut out = std::io::stdout().lock();
    for number in std::process::id().. {
        for file in 0..20 {
            std::fs::write(project.join(file.to_string()), format!("{number} {file}").repeat(500)).unwrap();
        }
        let captured = trees.capture(&project, &Exclude::default()).unwrap();
        writeln!(out, "captured {}", captured.digest).unwrap();
        out.flush().unwrap();
        trees.materialise(&captured.digest).unwrap();
        writeln!(out, "built {}", captured.digest).unwrap();
        out.flush().unwrap();
    }
}

fn blobs_below(dir: &Path) -> Vec<Digest> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(blobs_below(&path));
        } else if let Ok(digest) = path.file_name().unwrap().to_string_lossy().parse() {
            found.push(digest);
        }
    }
    found
}

#[test]
fn what_was_captured_survives_kill_nine_and_builds() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("project")).unwrap();
    let mut captured = std::collections::BTreeSet::new();
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::tree_child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen <= round % 5 {
            let line = lines.next().expect("the child ended by itself").unwrap();
            if let Some((_, digest)) = line.split_once("captured ") {
                captured.insert(digest.parse::<Digest>().unwrap());
            }
            seen += usize::from(line.contains("captured ") || line.contains("built "));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let blobs = Blobs::open(&dir.path().join("state/blobs")).unwrap();
    for digest in blobs_below(blobs.root()) {
        assert!(blobs.read(digest, 1 << 20).is_ok(), "blob {digest} has its name but not its bytes");
    }
    let trees = Trees::open(&dir.path().join("state")).unwrap();
    assert!(captured.len() >= 12);
    for digest in captured {
        let built = trees.materialise(&digest.into()).unwrap();
        for (path, kind) in trees.manifest(&digest.into()).unwrap().entries() {
            let fairway_store::Kind::File { digest, .. } = kind else { panic!("{path} is not a file") };
            assert_eq!(Digest::of(&std::fs::read(built.path.join(path.as_str())).unwrap()), *digest);
        }
    }
    // The trees are read-only, and without root the temporary directory could not be removed.
    let status = Command::new("chmod").args(["-R", "u+w"]).arg(dir.path()).status();
    assert!(status.unwrap().success());
}
