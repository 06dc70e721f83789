//! What can be said of an instance now.

use std::time::Duration;

use fairway_engine::time::Timestamp;

use super::keeper::current;
use super::{ControlError, Known, Supervisor, lock};
use crate::event::{Limit, TargetEventKind};
use crate::exit::Exit;
use crate::key::InstanceKey;
use crate::wire::{Command, Enforcement, Health, Message, Phase, State};

#[derive(Clone, Debug, PartialEq)]
pub struct InstanceStatus {
    pub key: InstanceKey,
    pub phase: InstancePhase,
    pub port: Option<u16>,
    /// Starts after the first one.
    pub restarts: u32,
    /// Every limit that was asked for, and what holds it.
    pub limits: Vec<(Limit, Enforcement)>,
    /// Lines that could not be written.
    pub log_lines_dropped: u64,
    /// When the phase began.
    pub changed_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum InstancePhase {
    Starting,
    /// It runs and is not ready yet; `why` is the last probe's answer.
    Waiting {
        pid: u32,
        why: Option<String>,
    },
    Ready {
        pid: u32,
    },
    Suspect {
        pid: u32,
        why: String,
    },
    BackingOff {
        exit: Exit,
        why: Option<String>,
        restart_in: Duration,
    },
    Stopping {
        pid: u32,
    },
    /// Nothing of it runs; the event that said so.
    Ended(TargetEventKind),
    Unverifiable {
        why: String,
    },
}

impl Supervisor {
    /// Asks the shim; what is known already is the answer when it has ended or is silent.
    ///
    /// # Errors
    /// When there is no such instance.
    pub async fn status(&self, key: &InstanceKey) -> Result<InstanceStatus, ControlError> {
        let entry = self.entry(key)?;
        let running = match &*lock(&entry.known) {
            Known::State(state) => !state.phase.has_ended(),
            Known::Nothing => true,
            Known::Unverifiable(_) => false,
        };
        if running && let Ok(Message::State(state)) = self.ask(key, &Command::Status).await {
            return Ok(of_state(key, &state));
        }
        let known = lock(&entry.known);
        Ok(match &*known {
            Known::State(state) => of_state(key, state),
            Known::Nothing => nothing_known(key, InstancePhase::Starting),
            Known::Unverifiable(why) => nothing_known(key, InstancePhase::Unverifiable { why: why.clone() }),
        })
    }

    /// Every instance that was started and not yet removed, in order.
    pub async fn list(&self) -> Vec<InstanceStatus> {
        let keys: Vec<InstanceKey> = lock(&self.inner.instances).keys().cloned().collect();
        let mut all = Vec::with_capacity(keys.len());
        for key in keys {
            all.extend(self.status(&key).await);
        }
        all
    }
}

fn nothing_known(key: &InstanceKey, phase: InstancePhase) -> InstanceStatus {
    InstanceStatus {
        key: key.clone(),
        phase,
        port: None,
        restarts: 0,
        limits: Vec::new(),
        log_lines_dropped: 0,
        changed_at: Timestamp::default(),
    }
}

fn of_state(key: &InstanceKey, state: &State) -> InstanceStatus {
    let phase = match &state.phase {
        Phase::Starting => InstancePhase::Starting,
        Phase::Running { process, health } => {
            let pid = process.pid.unsigned_abs();
            match health {
                Health::Waiting { why } => InstancePhase::Waiting { pid, why: why.clone() },
                Health::Ready => InstancePhase::Ready { pid },
                Health::Suspect { why } => InstancePhase::Suspect { pid, why: why.clone() },
            }
        }
        Phase::BackingOff { exit, why, restart_in, .. } => {
            InstancePhase::BackingOff { exit: exit.clone(), why: why.clone(), restart_in: *restart_in }
        }
        Phase::Stopping { process } => InstancePhase::Stopping { pid: process.pid.unsigned_abs() },
        Phase::Ended { .. } => match current(&state.phase) {
            Some(end) => InstancePhase::Ended(end),
            None => InstancePhase::Starting,
        },
    };
    InstanceStatus {
        key: key.clone(),
        phase,
        port: state.port,
        restarts: state.restarts,
        limits: state.limits.iter().map(|report| (report.limit, report.by.clone())).collect(),
        log_lines_dropped: state.log_lines_dropped,
        changed_at: state.changed_at,
    }
}
