//! Removes what stopped instances and finished jobs left behind. When that is done is the server's business.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fairway_engine::id::{EnvironmentKey, ServiceName};
use fairway_engine::time::Timestamp;
use thiserror::Error;

use crate::key::{InstanceKey, JobKey, Layout};
use crate::lock::{Holder, holder};
use crate::record;
use crate::wire::{EXIT_FILE, State};

#[derive(Debug, Error)]
#[error("{}: {error}", path.display())]
pub struct ReapError {
    pub path: PathBuf,
    pub error: io::Error,
}

/// What was removed, and how much disk that freed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    pub instances: Vec<InstanceKey>,
    pub jobs: Vec<JobKey>,
    pub bytes: u64,
}

/// Removes the directories of instances that have ended, logs included, save the newest `keep` of each service; and
/// of jobs save the newest `keep` of each environment. What runs, what is unverifiable and what has no record of its
/// end is never touched. An instance that is removed is forgotten: its key must not be started again.
///
/// # Errors
/// When a directory cannot be read or removed; what was removed before stays removed.
pub fn reap(state_dir: &Path, keep: usize) -> Result<Reaped, ReapError> {
    let layout = Layout::new(state_dir);
    let failed = |error| ReapError { path: state_dir.to_path_buf(), error };
    let mut reaped = Reaped::default();
    let mut services: BTreeMap<(EnvironmentKey, ServiceName), Vec<(Timestamp, InstanceKey)>> =
        BTreeMap::new();
    for key in layout.all_instances().map_err(failed)? {
        if let Some(at) = ended_at(&layout.instance(&key)) {
            let service = (key.environment.clone(), key.instance.service.clone());
            services.entry(service).or_default().push((at, key));
        }
    }
    for (_, ended) in services {
        for key in all_but_newest(ended, keep) {
            reaped.bytes += remove(&layout.instance(&key))?;
            reaped.instances.push(key);
        }
    }
    let mut environments: BTreeMap<EnvironmentKey, Vec<(Timestamp, JobKey)>> = BTreeMap::new();
    for key in layout.all_jobs().map_err(failed)? {
        if let Some(at) = ended_at(&layout.job(&key)) {
            environments.entry(key.environment.clone()).or_default().push((at, key));
        }
    }
    for (_, ended) in environments {
        for key in all_but_newest(ended, keep) {
            reaped.bytes += remove(&layout.job(&key))?;
            reaped.jobs.push(key);
        }
    }
    Ok(reaped)
}

/// None while it may still run.
fn ended_at(dir: &Path) -> Option<Timestamp> {
    let state: State = record::read(dir, EXIT_FILE).ok()??;
    (holder(dir).ok()? == Holder::Nobody).then_some(state.changed_at)
}

fn all_but_newest<K: Ord>(mut ended: Vec<(Timestamp, K)>, keep: usize) -> Vec<K> {
    ended.sort();
    ended.truncate(ended.len().saturating_sub(keep));
    ended.into_iter().map(|(_, key)| key).collect()
}

/// Renamed first: a removal that is interrupted must not leave a directory that looks like an unused one.
fn remove(dir: &Path) -> Result<u64, ReapError> {
    let failed = |error| ReapError { path: dir.to_path_buf(), error };
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let trash = dir.with_file_name(format!(".trash-{name}"));
    if trash.exists() {
        fs::remove_dir_all(&trash).map_err(failed)?;
    }
    let bytes = size(dir);
    fs::rename(dir, &trash).map_err(failed)?;
    fs::remove_dir_all(&trash).map_err(failed)?;
    Ok(bytes)
}

fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
