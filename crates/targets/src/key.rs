//! Which process, on this machine, and where its directory is.

use std::fmt;
use std::path::{Path, PathBuf};

use fairway_engine::id::{EnvironmentKey, EnvironmentName, InstanceId, JobNumber, ProjectName};
use serde::{Deserialize, Serialize};

/// One copy of a service of one environment. Never used twice: a second start is the first one again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceKey {
    pub environment: EnvironmentKey,
    pub instance: InstanceId,
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.environment, self.instance)
    }
}

/// One job of one environment. Its directory existing means that it has run, or runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobKey {
    pub environment: EnvironmentKey,
    pub job: JobNumber,
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.environment, self.job)
    }
}

/// The state directory: `instances/<project>.<environment>/<instance>` and `jobs/<project>.<environment>/<job>`.
/// Names contain no dot, so the two parts read back without doubt.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn instance(&self, key: &InstanceKey) -> PathBuf {
        self.instances(&key.environment).join(key.instance.to_string())
    }

    pub(crate) fn job(&self, key: &JobKey) -> PathBuf {
        self.jobs(&key.environment).join(key.job.to_string())
    }

    pub(crate) fn instances(&self, environment: &EnvironmentKey) -> PathBuf {
        self.root.join("instances").join(environment_dir(environment))
    }

    pub(crate) fn jobs(&self, environment: &EnvironmentKey) -> PathBuf {
        self.root.join("jobs").join(environment_dir(environment))
    }

    /// Every instance directory, in order. What has no readable name is not Fairway's and is left alone.
    pub(crate) fn all_instances(&self) -> std::io::Result<Vec<InstanceKey>> {
        let mut keys = Vec::new();
        for (environment, names) in environments(&self.root.join("instances"))? {
            keys.extend(names.iter().filter_map(|name| {
                Some(InstanceKey { environment: environment.clone(), instance: name.parse().ok()? })
            }));
        }
        keys.sort();
        Ok(keys)
    }

    pub(crate) fn all_jobs(&self) -> std::io::Result<Vec<JobKey>> {
        let mut keys = Vec::new();
        for (environment, names) in environments(&self.root.join("jobs"))? {
            keys.extend(names.iter().filter(|name| name.starts_with('j')).filter_map(|name| {
                Some(JobKey { environment: environment.clone(), job: name.parse().ok()? })
            }));
        }
        keys.sort();
        Ok(keys)
    }
}

fn environment_dir(key: &EnvironmentKey) -> String {
    format!("{}.{}", key.project, key.environment)
}

fn environments(dir: &Path) -> std::io::Result<Vec<(EnvironmentKey, Vec<String>)>> {
    let mut found = Vec::new();
    for name in names_in(dir)? {
        let Some((project, environment)) = name.split_once('.') else { continue };
        let (Ok(project), Ok(environment)) = (ProjectName::new(project), EnvironmentName::new(environment))
        else {
            continue;
        };
        found.push((EnvironmentKey { project, environment }, names_in(&dir.join(&name))?));
    }
    Ok(found)
}

fn names_in(dir: &Path) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_read_back_as_the_keys_that_named_them() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let environment = EnvironmentKey {
            project: ProjectName::new("shop").unwrap(),
            environment: EnvironmentName::new("production").unwrap(),
        };
        let instance =
            InstanceKey { environment: environment.clone(), instance: "api.r12.3".parse().unwrap() };
        let job = JobKey { environment, job: JobNumber(4) };
        std::fs::create_dir_all(layout.instance(&instance)).unwrap();
        std::fs::create_dir_all(layout.job(&job)).unwrap();
        for stranger in ["instances/lost+found/x", "instances/shop.production/.trash-1", "jobs/a.b/4"] {
            std::fs::create_dir_all(dir.path().join(stranger)).unwrap();
        }
        assert_eq!(layout.all_instances().unwrap(), [instance]);
        assert_eq!(layout.all_jobs().unwrap(), [job]);
    }
}
