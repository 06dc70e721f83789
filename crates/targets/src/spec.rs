//! What to run, with nothing left to look up: commands, values, directories, limits.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use fairway_engine::edge::Protocol;
use fairway_engine::service::{Argument, Limits, Liveness, Readiness, RestartPolicy, Stop, StopSignal};
use fairway_engine::time::duration_ms;
use serde::{Deserialize, Serialize};

/// One copy of a service.
///
/// The process gets exactly `env`, over a base of `PATH`, `HOME`, `LANG` and `TZ`, plus the port variable,
/// `NOTIFY_SOCKET` when readiness is told that way, and `FAIRWAY_INSTANCE`, a random mark by which what the
/// process leaves behind is recognised as its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSpec {
    pub argv: Vec<Argument>,
    pub env: Variables,
    pub workdir: PathBuf,
    pub port: PortRequest,
    /// What HTTP probes speak.
    pub protocol: Protocol,
    pub ready: Readiness,
    pub live: Option<Liveness>,
    pub stop: Stop,
    pub restart: RestartPolicy,
    pub limits: Limits,
    /// User name or numeric id; none = the user of the server.
    pub user: Option<String>,
    pub log: LogPolicy,
}

/// A command that runs once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    pub argv: Vec<String>,
    pub env: Variables,
    pub workdir: PathBuf,
    /// From start until the whole group is stopped and the job has failed.
    pub timeout: Duration,
    pub stop: Stop,
    pub limits: Limits,
    pub user: Option<String>,
    pub log: LogPolicy,
}

impl JobSpec {
    /// How a job is stopped when nothing else is said.
    #[must_use]
    pub fn default_stop() -> Stop {
        Stop { signal: StopSignal::Term, timeout: Duration::from_secs(10), drain: Duration::ZERO }
    }
}

/// Which port the instance gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortRequest {
    /// It listens on nothing.
    None,
    /// One out of the supervisor's range, told in `variable`. Another is given when a stranger took it.
    Assign { variable: String },
    /// This one and no other: a backing service whose URL was handed out.
    Fixed { port: u16, variable: Option<String> },
}

/// Environment variables with concrete values, secrets among them: printing shows the names only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Variables(pub BTreeMap<String, String>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Variables {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// How much of the output is kept on disk: at most `file_bytes_max * files_max` and one line an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPolicy {
    pub file_bytes_max: u64,
    /// The one being written included; at least 2, so that a rotation never leaves nothing to read.
    pub files_max: u32,
}

impl Default for LogPolicy {
    /// 5 × 10 MB: a day of a chatty service (about 500 bytes a second), and 2 GB for forty instances.
    fn default() -> Self {
        Self { file_bytes_max: 10 << 20, files_max: 5 }
    }
}

/// What the shim is told, over its standard input and nowhere else: it holds the values of secrets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// `shop/production api.r12.3`, for people.
    pub(crate) name: String,
    /// Random, 32 hex digits; in the environment of everything the instance starts.
    pub(crate) token: String,
    pub(crate) role: Role,
    pub(crate) argv: Vec<Argument>,
    pub(crate) env: Variables,
    pub(crate) workdir: PathBuf,
    pub(crate) port: Option<GivenPort>,
    /// Whether another port may be given when this one is taken.
    pub(crate) port_assigned: bool,
    pub(crate) stop: Stop,
    pub(crate) limits: Limits,
    pub(crate) user: Option<String>,
    pub(crate) log: LogPolicy,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GivenPort {
    pub(crate) port: u16,
    pub(crate) variable: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub(crate) enum Role {
    Instance {
        /// A launch that was written down before there was a choice.
        #[serde(default)]
        protocol: Protocol,
        ready: Readiness,
        live: Option<Liveness>,
        restart: RestartPolicy,
    },
    Job {
        #[serde(with = "duration_ms")]
        timeout: Duration,
    },
}

/// What is written beside the logs for people and for the next server: everything but values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LaunchRecord {
    pub(crate) name: String,
    pub(crate) argv: Vec<Argument>,
    pub(crate) env_names: Vec<String>,
    pub(crate) workdir: PathBuf,
    pub(crate) port: Option<GivenPort>,
    /// Whether another port may be given when this one is taken.
    pub(crate) port_assigned: bool,
    pub(crate) user: Option<String>,
}

impl Launch {
    pub(crate) fn record(&self) -> LaunchRecord {
        LaunchRecord {
            name: self.name.clone(),
            argv: self.argv.clone(),
            env_names: self.env.0.keys().cloned().collect(),
            workdir: self.workdir.clone(),
            port: self.port.clone(),
            port_assigned: self.port_assigned,
            user: self.user.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_a_spec_shows_no_value() {
        let env: Variables = [("DATABASE_URL", "postgres://u:hunter2@db")].into_iter().collect();
        assert_eq!(format!("{env:?}"), r#"{"DATABASE_URL"}"#);
    }
}
