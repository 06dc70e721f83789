use std::fs;

use super::*;
use crate::database::Damage;

fn record(number: usize) -> NewRecord {
    NewRecord {
        at_ms: 1_000 + number as u64,
        environment: (!number.is_multiple_of(3))
            .then(|| format!("shop/{}", ["dev", "production"][number % 2])),
        actor: "ana".into(),
        kind: "Noted".into(),
        payload: format!("{{\"n\":{number}}}").into_bytes(),
    }
}

fn records(range: std::ops::Range<usize>) -> Vec<NewRecord> {
    range.map(record).collect()
}

fn log_of(count: usize) -> (tempfile::TempDir, PathBuf, Log) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fairway.db");
    let mut log = Log::open(&path).unwrap();
    log.append(1, &records(1..count + 1)).unwrap();
    (dir, path, log)
}

/// Changes the file behind SQLite's back, triggers and all.
fn tamper(path: &Path, sql: &str) {
    let conn = Connection::open(path).unwrap();
    let triggers: Vec<String> = conn
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for trigger in triggers {
        conn.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
    }
    conn.execute_batch(sql).unwrap();
}

#[test]
fn what_was_appended_is_read_back_in_order_after_reopening() {
    let (_dir, path, mut log) = log_of(600);
    assert_eq!(log.append(601, &records(601..604)).unwrap(), [601, 602, 603]);
    let head = log.head().unwrap();
    drop(log);
    let log = Log::open(&path).unwrap();
    assert_eq!(log.head().unwrap(), head);
    let read: Vec<Record> = log.read_from(1).collect::<Result<_, _>>().unwrap();
    assert_eq!(read.len(), 603);
    for (index, found) in read.iter().enumerate() {
        let expected = record(index + 1);
        assert_eq!(found.seq, index as u64 + 1);
        assert_eq!((&found.payload, &found.environment), (&expected.payload, &expected.environment));
    }
    assert_eq!(
        log.read_from(600).map(|record| record.unwrap().seq).collect::<Vec<_>>(),
        [600, 601, 602, 603]
    );
    assert!(log.read_from(604).next().is_none() && log.read_from(u64::MAX).next().is_none());
    assert_eq!(log.verify().unwrap(), Verified { count: 603, head });
}

#[test]
fn a_decision_on_stale_state_is_not_recorded() {
    let (_dir, path, mut log) = log_of(3);
    let error = log.append(3, &records(3..4)).unwrap_err();
    assert!(matches!(error, AppendError::Conflict { expected_next_seq: 3, next_seq: 4 }), "{error}");
    let mut other = Log::open(&path).unwrap();
    other.append(4, &records(4..5)).unwrap();
    assert!(matches!(log.append(4, &records(4..5)), Err(AppendError::Conflict { next_seq: 5, .. })));
    assert_eq!(log.verify().unwrap().count, 4);
}

#[test]
fn one_bad_record_in_a_batch_keeps_out_the_whole_batch() {
    let (_dir, _path, mut log) = log_of(1);
    let mut batch = records(2..5);
    batch[2].actor.clear();
    assert!(matches!(log.append(2, &batch), Err(AppendError::Invalid { index: 2, .. })));
    let huge = vec![record(1); BATCH_RECORDS_MAX + 1];
    assert!(matches!(log.append(2, &huge), Err(AppendError::BatchTooLarge { .. })));
    assert_eq!(log.append(2, &[]).unwrap(), [] as [u64; 0]);
    assert_eq!(log.head().unwrap().seq, 1);
}

#[test]
fn history_of_one_environment_comes_newest_first_in_pages() {
    let (_dir, _path, log) = log_of(40);
    let all: Vec<u64> = (1..=40u64).rev().filter(|n| !n.is_multiple_of(3) && !n.is_multiple_of(2)).collect();
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = log.read_environment("shop/production", before, 4).unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.seq);
        seen.extend(page.iter().map(|record| record.seq));
    }
    assert_eq!(seen, all);
    assert!(log.read_environment("shop/none", None, 10).unwrap().is_empty());
}

#[test]
fn a_reader_on_another_thread_sees_what_is_appended() {
    let (_dir, _path, mut log) = log_of(1);
    let reader = log.reader().unwrap();
    log.append(2, &records(2..3)).unwrap();
    let seen = std::thread::spawn(move || reader.read_from(1).count()).join().unwrap();
    assert_eq!(seen, 2);
}

#[test]
fn sql_cannot_change_what_is_recorded() {
    let (_dir, path, log) = log_of(5);
    let conn = Connection::open(&path).unwrap();
    for sql in [
        "UPDATE events SET actor = 'eve' WHERE seq = 2",
        "DELETE FROM events WHERE seq = 5",
        "INSERT INTO events VALUES (9, 0, NULL, 'eve', 'k', x'', zeroblob(32))",
        "INSERT OR REPLACE INTO events VALUES (5, 0, NULL, 'eve', 'k', x'', zeroblob(32))",
        "DELETE FROM head",
    ] {
        assert!(conn.execute_batch(sql).is_err(), "{sql}");
    }
    assert_eq!(log.verify().unwrap().count, 5);
}

#[test]
fn tampering_is_found_and_the_record_is_named() {
    for (sql, seq) in [
        ("UPDATE events SET actor = 'eve' WHERE seq = 7", Some(7)),
        ("UPDATE events SET payload = x'00' WHERE seq = 20", Some(20)),
        ("UPDATE events SET at_ms = -1 WHERE seq = 4", None),
        ("UPDATE events SET hash = zeroblob(32) WHERE seq = 19", Some(19)),
        ("DELETE FROM events WHERE seq = 9", Some(9)),
        ("DELETE FROM events WHERE seq = 1", Some(1)),
        ("DELETE FROM events", Some(1)),
        ("SELECT 1", None),
    ] {
        let (_dir, path, log) = log_of(20);
        drop(log);
        tamper(&path, sql);
        let log = LogReader::open(&path).unwrap();
        match log.verify() {
            Err(DatabaseError::Damaged(damage)) => {
                assert!(seq.is_none() || damage.seq == seq, "{sql}: {damage}");
                assert!(damage.to_string().contains("hint: "), "{damage}");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn a_replay_stops_at_the_damage() {
    let (_dir, path, log) = log_of(20);
    drop(log);
    tamper(&path, "UPDATE events SET actor = 'eve' WHERE seq = 7");
    let log = Log::open(&path).unwrap();
    let read: Vec<_> = log.read_from(1).collect();
    assert_eq!(read.len(), 7);
    assert!(matches!(&read[6], Err(DatabaseError::Damaged(Damage { seq: Some(7), .. }))));
    assert!(matches!(log.record(8), Ok(Some(_))), "record 8 still fits the hash stored with record 7");
}

#[test]
fn a_shorter_log_than_acknowledged_is_refused() {
    let (dir, path, log) = log_of(5);
    drop(log);
    let older = dir.path().join("older");
    fs::copy(&path, &older).unwrap();
    let mut log = Log::open(&path).unwrap();
    log.append(6, &records(6..9)).unwrap();
    drop(log);
    fs::copy(&older, &path).unwrap();
    let error = Log::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::LostTail { found: 5, acknowledged: 8, .. }), "{error}");
    fs::remove_file(path.with_file_name("fairway.db.head")).unwrap();
    assert_eq!(Log::open(&path).unwrap().head().unwrap().seq, 5);
}

#[test]
fn a_lost_write_ahead_log_is_noticed() {
    let (dir, path, log) = log_of(5);
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    // As a crash leaves it, then "cleaned up": the database and the witness without the -wal.
    for name in ["fairway.db", "fairway.db.head"] {
        fs::copy(dir.path().join(name), copy.join(name)).unwrap();
    }
    drop(log);
    let error = Log::open(&copy.join("fairway.db")).unwrap_err();
    assert!(
        matches!(error, OpenError::LostTail { .. } | OpenError::Database(DatabaseError::Damaged(_))),
        "{error}"
    );
    assert!(Log::open(&path).is_ok());
}

#[test]
fn a_file_that_vanished_is_not_silently_made_anew() {
    for truncate in [true, false] {
        let (_dir, path, log) = log_of(5);
        drop(log);
        if truncate {
            fs::write(&path, b"").unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let error = Log::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::Database(DatabaseError::Damaged(_))), "{error}");
        assert!(fs::metadata(&path).map_or(0, |metadata| metadata.len()) == 0);
    }
}

#[test]
fn garbage_and_truncation_are_damage_with_a_hint() {
    let (_dir, path, log) = log_of(300);
    drop(log);
    let whole = fs::read(&path).unwrap();
    let mut garbage = whole.clone();
    garbage[..100].fill(0x5a);
    let cases: [&[u8]; 5] =
        [&garbage, &whole[..50], &whole[..4096], &whole[..whole.len() / 2], b"not a database at all"];
    for bytes in cases {
        fs::write(&path, bytes).unwrap();
        let outcome = Log::open(&path)
            .map_err(|error| error.to_string())
            .and_then(|log| log.verify().map_err(|error| error.to_string()));
        let error = outcome.expect_err("a damaged file was accepted");
        assert!(error.contains("damaged") && error.contains("hint"), "{} bytes: {error}", bytes.len());
        assert_eq!(fs::read(&path).unwrap(), bytes, "a damaged file was changed");
    }
}

#[test]
fn history_does_not_read_the_whole_log() {
    let (_dir, path, _log) = log_of(5);
    let conn = Connection::open(path).unwrap();
    let plan: Vec<String> = conn
        .prepare(
            "EXPLAIN QUERY PLAN SELECT e.seq, p.hash FROM events e LEFT JOIN events p ON p.seq = e.seq - 1
             WHERE e.environment = ?1 AND e.seq < ?2 ORDER BY e.seq DESC LIMIT ?3",
        )
        .unwrap()
        .query_map(params!["shop/dev", 9, 3], |row| row.get("detail"))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let plan = plan.join("; ");
    assert!(
        plan.contains("events_by_environment") && !plan.contains("SCAN") && !plan.contains("B-TREE"),
        "{plan}"
    );
}

#[test]
fn after_a_failed_fsync_nothing_is_appended_until_the_log_is_read_again() {
    let (_dir, path, mut log) = log_of(2);
    let failed = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None);
    let error = append_error(&path, 0, failed);
    let AppendError::NotDurable { detail, .. } = &error else { panic!("{error}") };
    log.unconfirmed = Some(detail.clone());
    assert!(matches!(log.append(3, &records(3..4)), Err(AppendError::NotDurable { .. })));
    assert_eq!(log.verify().unwrap().count, 2);
    drop(log);
    assert_eq!(Log::open(&path).unwrap().append(3, &records(3..4)).unwrap(), [3]);
}

#[test]
fn many_that_open_a_new_log_at_once_find_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fairway.db");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(Log::open(&path).unwrap().head().unwrap(), Head::EMPTY));
        }
    });
    assert_eq!(Log::open(&path).unwrap().append(1, &records(1..2)).unwrap(), [1]);
}
