//! Events on their way into the log and back.

use fairway_engine::{Event, IllegalTransition, State};
use fairway_store::log::Record;
use fairway_store::{LogReader, NewRecord, Snapshots};

use crate::error::StartError;

/// Number of the snapshot's encoding. A snapshot of another number is not read: replay is the truth.
pub const STATE_FORMAT: u32 = 1;

/// What follows an event in the log: who, when and where are columns, the fact is the payload.
pub fn to_record(event: &Event) -> Result<NewRecord, serde_json::Error> {
    Ok(NewRecord {
        at_ms: event.at.0,
        environment: Some(event.environment.to_string()),
        actor: event.actor.clone(),
        kind: event.fact.name().to_owned(),
        payload: serde_json::to_vec(event)?,
    })
}

/// # Errors
/// When the payload is not an event that this version knows.
pub fn from_record(record: &Record) -> Result<Event, serde_json::Error> {
    serde_json::from_slice(&record.payload)
}

/// State as of the last record, and that record's number.
///
/// # Errors
/// When the log cannot be read, or holds something that cannot have happened.
pub fn replay(log: &LogReader, snapshots: &Snapshots) -> Result<(State, u64), StartError> {
    let latest = snapshots.latest(STATE_FORMAT, log)?;
    let (mut state, mut seq) = match latest.snapshot {
        Some(snapshot) => match serde_json::from_slice(&snapshot.state) {
            Ok(state) => (state, snapshot.head.seq),
            // Written by a version that knew less or more: the log knows everything.
            Err(_) => (State::default(), 0),
        },
        None => (State::default(), 0),
    };
    for record in log.read_from(seq + 1) {
        let record = record?;
        let event =
            from_record(&record).map_err(|source| StartError::UnknownEvent { seq: record.seq, source })?;
        state
            .apply(&event)
            .map_err(|source: IllegalTransition| StartError::IllegalEvent { seq: record.seq, source })?;
        seq = record.seq;
    }
    Ok((state, seq))
}
