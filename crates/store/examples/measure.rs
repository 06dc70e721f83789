//! Prints how fast the store is on the disk of a directory: `cargo run -p fairway-store --example measure -- DIR`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fairway_store::{Exclude, Log, NewRecord, Trees};

const RECORDS: u64 = 100_000;
const SINGLE_APPENDS: u64 = 500;
const FILES: usize = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let below = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let dir = tempfile::tempdir_in(below)?;
    log(dir.path())?;
    tree(dir.path())
}

fn record(seq: u64) -> NewRecord {
    NewRecord {
        at_ms: seq,
        environment: Some("shop/production".into()),
        actor: "ana".into(),
        kind: "InstanceReady".into(),
        payload: vec![b'x'; 250],
    }
}

fn log(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut log = Log::open(&dir.join("fairway.db"))?;
    let mut next = 1;
    let mut latencies: Vec<Duration> = Vec::new();
    for _ in 0..SINGLE_APPENDS {
        let started = Instant::now();
        log.append(next, &[record(next)])?;
        latencies.push(started.elapsed());
        next += 1;
    }
    latencies.sort_unstable();
    let at = |share: usize| latencies[latencies.len() * share / 100];
    println!(
        "append of 1 record: p50 {:?}, p99 {:?}, max {:?}",
        at(50),
        at(99),
        at(99).max(latencies[latencies.len() - 1])
    );
    for batch in [10, 100, 1000] {
        let started = Instant::now();
        let count = (batch * 50).min(RECORDS - next);
        let end = next + count;
        while next < end {
            log.append(next, &(next..next + batch).map(record).collect::<Vec<_>>())?;
            next += batch;
        }
        println!(
            "append of {batch} records: {:.0} records/s",
            count as f64 / started.elapsed().as_secs_f64()
        );
    }
    let started = Instant::now();
    let mut read = 0u64;
    for record in log.read_from(1) {
        record?;
        read += 1;
    }
    println!("read and check: {:.0} records/s", read as f64 / started.elapsed().as_secs_f64());
    let started = Instant::now();
    log.verify()?;
    println!("verify {read} records: {:?}", started.elapsed());
    Ok(())
}

fn tree(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let project = dir.join("project");
    for number in 0..FILES {
        let folder = project.join((number % 100).to_string());
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(number.to_string()), number.to_string().repeat(1000))?;
    }
    // Old enough for the cache to trust: the change time cannot be set.
    std::thread::sleep(Duration::from_millis(2_100));
    let trees = Trees::open(&dir.join("state"))?;
    for what in ["first", "second"] {
        let started = Instant::now();
        let captured = trees.capture(&project, &Exclude::default())?;
        println!("{what} capture of {FILES} files, {} MB: {:?}", captured.bytes >> 20, started.elapsed());
        let started = Instant::now();
        let built = trees.materialise(&captured.digest)?;
        println!("materialise ({:?}): {:?}", built.how, started.elapsed());
    }
    Ok(())
}
