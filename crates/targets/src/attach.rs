//! What a directory tells of what ran, or runs, in it. Nothing here kills or starts anything that is not proven to
//! be the directory's own.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::lock::{Holder, holder};
use crate::process::{ProcessId, boot_id, marked};
use crate::record;
use crate::wire::{EXIT_FILE, End, Phase, STATE_FILE, State};

#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing has run there.
    Unused,
    /// It ended, and how is on record.
    Ended(Box<State>),
    /// Its shim lives: boot, pid, start time and lock agree.
    Alive(Box<State>),
    /// Its shim is gone, for certain, without a record of the end.
    Gone {
        state: Option<Box<State>>,
        why: String,
    },
    Unverifiable {
        why: String,
    },
}

/// A shim between two steps (locked and not yet recorded, recorded and not yet gone) is looked at again: such a
/// step is a sync of the disk, which takes a second where the disk is bad.
const LOOKS_MAX: u32 = 100;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

enum Look {
    Sure(Found),
    /// True only for a moment, unless something is wrong.
    Passing(String),
}

pub(crate) async fn inspect(dir: &Path) -> Found {
    let mut why = String::new();
    for look_number in 0..LOOKS_MAX {
        if look_number > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        match look(dir) {
            Ok(Look::Sure(found)) => return found,
            Ok(Look::Passing(reason)) => why = reason,
            Err(error) => return Found::Unverifiable { why: format!("{}: {error}", dir.display()) },
        }
    }
    Found::Unverifiable { why }
}

fn look(dir: &Path) -> io::Result<Look> {
    let held = holder(dir)?;
    // After the lock: a shim writes its end before it lets go.
    let ended: io::Result<Option<State>> = record::read(dir, EXIT_FILE);
    if let Ok(Some(state)) = ended {
        return Ok(Look::Sure(Found::Ended(Box::new(state))));
    }
    let state: io::Result<Option<State>> = record::read(dir, STATE_FILE);
    let found = match (held, state) {
        (Holder::Nobody, Ok(None)) if ended.is_ok() => Found::Unused,
        (Holder::Nobody, Ok(None)) => Found::Gone { state: None, why: "its exit record is damaged".into() },
        (Holder::Pid(pid), Ok(None)) => {
            return Ok(Look::Passing(format!("process {pid} holds its lock and has recorded nothing")));
        }
        (Holder::Nobody, Err(error)) => {
            Found::Gone { state: None, why: format!("its shim is gone and its record is damaged: {error}") }
        }
        (Holder::Pid(pid), Err(error)) => Found::Unverifiable {
            why: format!("process {pid} holds its lock and its record cannot be read: {error}"),
        },
        (_, Ok(Some(state))) if state.boot_id != boot_id()? => {
            Found::Gone { state: Some(Box::new(state)), why: "the machine was restarted".into() }
        }
        (Holder::Nobody, Ok(Some(state))) => match state.shim.open()? {
            None => Found::Gone { state: Some(Box::new(state)), why: "its shim was killed".into() },
            Some(_) => {
                let pid = state.shim.pid;
                return Ok(Look::Passing(format!(
                    "process {pid} is its shim by its record and holds no lock"
                )));
            }
        },
        (Holder::Pid(pid), Ok(Some(state))) => {
            let recorded = state.shim;
            let handle = if pid == recorded.pid { recorded.open()? } else { None };
            match handle {
                // The handle names this very process; it still holds the lock, so the pid was not given out again.
                Some(_handle) if holder(dir)? == held => Found::Alive(Box::new(state)),
                Some(_handle) => {
                    return Ok(Look::Passing(format!("process {pid} has just let go of its lock")));
                }
                None => Found::Unverifiable {
                    why: format!(
                        "process {pid} holds its lock, but its record names process {} started at tick {}",
                        recorded.pid, recorded.start_ticks
                    ),
                },
            }
        }
    };
    Ok(Look::Sure(found))
}

/// Looks at what a killed shim left behind, by cgroup and by mark, and ends it; then writes down that it is over.
///
/// # Errors
/// Why it is not certain that nothing is left.
pub(crate) async fn clear_up(dir: &Path, state: Option<Box<State>>, why: &str) -> Result<Box<State>, String> {
    let Some(mut state) = state else {
        return Err(format!("{why}; what it left behind cannot be told from other processes"));
    };
    if boot_id().is_ok_and(|boot| boot == state.boot_id) {
        end_stragglers(&state).await?;
    }
    state.sequence += 1;
    state.phase = Phase::Ended { end: End::Lost { why: why.to_owned() } };
    state.changed_at = crate::logs::stamp::now();
    // Should the disk refuse, the next look finds the same and says the same.
    let _ = record::write(dir, EXIT_FILE, &state);
    record::release_reserve(dir);
    Ok(state)
}

/// Kills until nothing of it is left. A process on its way out has no environment and may have left its cgroup while
/// its files are still open, so each one that was ever seen counts until the kernel says that it is gone.
async fn end_stragglers(state: &State) -> Result<(), String> {
    let cgroup = state.cgroup.as_deref().and_then(|dir| Cgroup::existing(dir, &state.token));
    let mut seen: Vec<ProcessId> = state.phase.process().into_iter().collect();
    let mut kept = None;
    for _ in 0..LOOKS_MAX {
        let in_cgroup = cgroup.as_ref().map(Cgroup::processes).unwrap_or_default();
        for process in in_cgroup.into_iter().chain(marked(&state.token).map_err(|error| error.to_string())?) {
            if !seen.contains(&process) {
                seen.push(process);
            }
        }
        if let Some(cgroup) = &cgroup {
            let _ = cgroup.kill();
        }
        let mut left = Vec::new();
        for process in seen {
            if process.open().map_err(|error| error.to_string())?.is_some() {
                let _ = process.signal(rustix::process::Signal::KILL);
                left.push(process);
            }
        }
        seen = left;
        kept = cgroup.as_ref().and_then(|cgroup| Some((cgroup.dir(), cgroup.remove().err()?)));
        if seen.is_empty() && kept.is_none() {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let mut left = seen.iter().map(|process| format!("process {}", process.pid)).collect::<Vec<_>>();
    left.extend(kept.map(|(dir, error)| format!("the cgroup {dir}: {error}")));
    Err(format!("its shim was killed, and what it left behind does not end ({})", left.join(", ")))
}
