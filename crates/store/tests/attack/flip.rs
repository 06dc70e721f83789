//! One changed byte anywhere in the state files is either told or without effect. Never a panic, never other records
//! than those that were appended.

use std::fs;
use std::path::Path;

use fairway_store::{DatabaseError, Log, LogReader, NewRecord, OpenError, Record};

const RECORDS: u64 = 120;

fn record(seq: u64) -> NewRecord {
    NewRecord {
        at_ms: seq,
        environment: seq.is_multiple_of(2).then(|| "shop/production".into()),
        actor: "ana".into(),
        kind: "Noted".into(),
        payload: vec![b'x'; (seq * 7 % 300) as usize],
    }
}

fn read(log: &LogReader) -> Result<Vec<Record>, DatabaseError> {
    log.verify()?;
    let all: Vec<Record> = log.read_from(1).collect::<Result<_, _>>()?;
    let mut history = log.read_environment("shop/production", None, 1000)?;
    history.reverse();
    assert_eq!(
        history,
        all.iter().filter(|record| record.environment.is_some()).cloned().collect::<Vec<_>>()
    );
    Ok(all)
}

/// Whether the change was told.
fn open_and_read(path: &Path, expected: &[Record]) -> bool {
    match Log::open(path) {
        Err(OpenError::Migration { source, .. }) => panic!("a damaged file was changed: {source}"),
        Err(
            OpenError::Newer { .. }
            | OpenError::Foreign { .. }
            | OpenError::LostTail { .. }
            | OpenError::Database(_),
        ) => true,
        Ok(log) => match log.reader().map(|reader| read(&reader)) {
            Ok(Ok(found)) => {
                assert_eq!(found, expected, "other records than were appended");
                false
            }
            Ok(Err(_)) | Err(_) => true,
        },
    }
}

/// The same places in every run: a multiplicative walk through the file.
fn places(length: usize, count: usize) -> impl Iterator<Item = (usize, u8)> {
    (0..count).map(move |n| ((n.wrapping_mul(2_654_435_761) >> 3) % length, 1 << (n % 8)))
}

fn flip(checkpointed: bool, file: &str, count: usize) -> (usize, usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fairway.db");
    let mut log = Log::open(&path).unwrap();
    for seq in (1..=RECORDS).step_by(10) {
        log.append(seq, &(seq..seq + 10).map(record).collect::<Vec<_>>()).unwrap();
    }
    let expected: Vec<Record> = log.read_from(1).collect::<Result<_, _>>().unwrap();
    let files = ["fairway.db", "fairway.db-wal", "fairway.db.head"];
    let copy = |names: &[&str]| -> Vec<(String, Vec<u8>)> {
        names.iter().map(|name| ((*name).to_owned(), fs::read(dir.path().join(name)).unwrap())).collect()
    };
    let whole = if checkpointed {
        drop(log);
        copy(&[files[0], files[2]])
    } else {
        let whole = copy(&files);
        drop(log);
        whole
    };
    let target = whole.iter().position(|(name, _)| name == file).unwrap();
    // The front of the file, where every byte has a meaning, and places all over it.
    let length = whole[target].1.len();
    let front = (0..length.min(110)).map(|at| (at, 0xff));
    let mut told = 0;
    let mut flipped = 0;
    for (at, bit) in front.chain(places(length, count)) {
        let scratch = tempfile::tempdir().unwrap();
        for (name, bytes) in &whole {
            let mut bytes = bytes.clone();
            if *name == *file {
                bytes[at] ^= bit;
            }
            fs::write(scratch.path().join(name), bytes).unwrap();
        }
        told += usize::from(open_and_read(&scratch.path().join("fairway.db"), &expected));
        flipped += 1;
    }
    (told, flipped)
}

#[test]
fn in_the_database() {
    let (told, flipped) = flip(true, "fairway.db", 250);
    // Free space within pages and a few header fields carry nothing.
    assert!(told * 3 > flipped, "{told} of {flipped} told");
}

#[test]
fn in_the_write_ahead_log() {
    let (told, flipped) = flip(false, "fairway.db-wal", 120);
    assert!(told * 3 > flipped, "{told} of {flipped} told");
}

#[test]
fn in_the_witness() {
    let (told, _) = flip(true, "fairway.db.head", 0);
    assert_eq!(told, 0, "a torn witness must claim nothing");
}
