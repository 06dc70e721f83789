//! What can go wrong in the server, and how it is told.

use std::path::PathBuf;

use fairway_api::ApiError;
use fairway_engine::{IllegalTransition, Refusal};
use fairway_store::{BlobError, DatabaseError, LockError, OpenError, SnapshotError};
use thiserror::Error;

use crate::pump::Broken;

/// Why a server does not start, or does not go on.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("the state directory {} cannot be made", path.display())]
    StateDir { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("the log cannot be opened")]
    Open(#[from] OpenError),
    #[error("the log cannot be read")]
    Read(#[from] DatabaseError),
    #[error("snapshots cannot be read")]
    Snapshot(#[from] SnapshotError),
    #[error("the artifact store cannot be opened")]
    Blobs(#[from] BlobError),
    #[error("secrets cannot be opened: {0}")]
    Secrets(String),
    #[error("record {seq} is not an event that this version knows")]
    UnknownEvent { seq: u64, source: serde_json::Error },
    #[error("record {seq} cannot have happened")]
    IllegalEvent { seq: u64, source: IllegalTransition },
    #[error("cannot listen on {address}")]
    Listen { address: String, source: std::io::Error },
    #[error("the process supervisor does not start: {0}")]
    Supervisor(String),
    #[error("the store of samples {} cannot be opened: {why}", path.display())]
    Metrics { path: PathBuf, why: String },
    #[error("certificates cannot be kept in {}: {why}", path.display())]
    Certificates { path: PathBuf, why: String },
    #[error("what the program before handed over cannot be taken: {0}")]
    Handed(String),
    #[error("the runtime does not start")]
    Runtime { source: std::io::Error },
    #[error("the record cannot be carried on")]
    Broken(#[from] Broken),
    #[error("{0} ended unexpectedly: this is a defect of Fairway")]
    Died(&'static str),
}

impl StartError {
    /// For people: code, causes, hint.
    #[must_use]
    pub fn to_api(&self) -> ApiError {
        let (code, hint) = match self {
            StartError::StateDir { .. } => {
                ("server/state-dir", Some("choose another with --state, or make it writable for this user"))
            }
            StartError::Lock(LockError::Held { .. }) => (
                "server/already-running",
                Some("fairway status shows what it runs; --state chooses another directory"),
            ),
            StartError::Lock(_) => (
                "server/lock",
                Some("run it as the user that the state directory is of, or choose another with --state"),
            ),
            StartError::Open(_) | StartError::Read(_) | StartError::Snapshot(_) => ("server/log", None),
            StartError::Blobs(_) => ("server/blobs", None),
            StartError::Metrics { .. } => (
                "server/metrics",
                Some("move the directory away to begin with no samples; the record is elsewhere"),
            ),
            StartError::Certificates { .. } => (
                "server/certificates",
                Some("the directory holds private keys: it must belong to this user, and to nobody else"),
            ),
            StartError::Secrets(_) => ("server/secrets", None),
            StartError::UnknownEvent { .. } => (
                "server/unknown-event",
                Some("the log was written by a newer Fairway: start that version or a later one"),
            ),
            StartError::IllegalEvent { .. } => (
                "server/illegal-event",
                Some(
                    "the log is damaged or this is a defect of Fairway; nothing was changed; keep a copy of the state directory",
                ),
            ),
            StartError::Listen { .. } => {
                ("server/listen", Some("another process has the address, or the directory is not writable"))
            }
            StartError::Supervisor(_) => ("server/supervisor", None),
            StartError::Handed(_) => ("server/handed", Some("fairway server run")),
            StartError::Runtime { .. } => ("server/runtime", None),
            StartError::Broken(_) => (
                "server/log",
                Some(
                    "start the server again: it reads back what is really there, and what runs keeps running",
                ),
            ),
            StartError::Died(_) => (
                "server/died",
                Some("start the server again: it carries on from the log, and what runs keeps running"),
            ),
        };
        let text = self.to_string();
        let mut lines = text.lines();
        let mut error = ApiError::new(code, lines.next().unwrap_or_default());
        let mut told_hint = None;
        for line in lines {
            match line.strip_prefix("hint: ") {
                Some(hint) => told_hint = Some(hint.to_owned()),
                None => error.causes.push(line.to_owned()),
            }
        }
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            for line in cause.to_string().lines() {
                match line.strip_prefix("hint: ") {
                    Some(hint) => told_hint = Some(hint.to_owned()),
                    None => error.causes.push(line.to_owned()),
                }
            }
            source = cause.source();
        }
        error.hint = told_hint.or_else(|| hint.map(str::to_owned));
        error
    }
}

/// Why an input was not carried out.
#[derive(Debug, Error)]
pub enum Refused {
    #[error(transparent)]
    Engine(#[from] Refusal),
    /// It could not be put on the record, so it did not happen.
    #[error("it could not be put on the record: {0}")]
    NotRecorded(String),
    #[error("the server is stopping")]
    Stopping,
}

impl Refused {
    #[must_use]
    pub fn to_api(&self) -> ApiError {
        match self {
            Refused::Engine(refusal) => {
                let mut error = ApiError::new(refusal.code(), refusal.to_string()).exit(exit_of(refusal));
                error.hint = refusal.hint();
                error
            }
            Refused::NotRecorded(cause) => {
                let (cause, hint) = match cause.split_once("\nhint: ") {
                    Some((cause, hint)) => (cause.to_owned(), Some(hint.to_owned())),
                    None => (cause.clone(), None),
                };
                let mut error =
                    ApiError::new("log/not-recorded", "nothing was done: it could not be put on the record")
                        .cause(cause);
                error.hint = hint;
                error
            }
            Refused::Stopping => ApiError::new("server/stopping", "the server is stopping")
                .hint("the next one carries on from the log"),
        }
    }
}

fn exit_of(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::UnknownEnvironment { .. }
        | Refusal::UnknownService { .. }
        | Refusal::UnknownRelease { .. }
        | Refusal::InvalidRelease { .. }
        | Refusal::TooManyReplicas { .. }
        | Refusal::NoSuchJob { .. }
        | Refusal::NotScalable { .. } => 2,
        Refusal::OwnApproval { .. } | Refusal::ApprovedAlready { .. } | Refusal::SeedInProduction => 4,
        Refusal::StalePlan { .. }
        | Refusal::QueueFull { .. }
        | Refusal::JobRunning { .. }
        | Refusal::RolloutUnderWay { .. } => 7,
        Refusal::NothingDeployed { .. }
        | Refusal::NoRollout { .. }
        | Refusal::NothingToPromote { .. }
        | Refusal::Aborting { .. }
        | Refusal::AlreadyPaused { .. }
        | Refusal::NotPaused { .. }
        | Refusal::NoEarlierRelease { .. }
        | Refusal::NeverServed { .. }
        | Refusal::AlreadyServing { .. }
        | Refusal::SchemaContracted { .. }
        | Refusal::NothingToRetry { .. }
        | Refusal::NoApprovalNeeded { .. }
        | Refusal::NotScaledByHand { .. }
        | Refusal::MaintenanceAlready { .. }
        | Refusal::Illegal(_)
        | Refusal::Unsettled { .. } => 1,
    }
}
