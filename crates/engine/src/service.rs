//! What a release says of one service, fully resolved: nothing in here is looked up again later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::edge::Edge;
use crate::evidence::Autoscale;
use crate::id::{ServiceName, TreeDigest};
use crate::time::duration_ms;

/// One service of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    pub runs: Runs,
    /// Copies wanted unless an operator scaled the service.
    pub replicas: u32,
    /// Services of the same release that must be ready before this one starts. Acyclic (checked on entry).
    pub after: BTreeSet<ServiceName>,
    /// Where public requests come in; none for workers and backing services.
    pub route: Option<RouteSpec>,
    pub env: BTreeMap<String, EnvValue>,
    pub ready: Readiness,
    pub live: Option<Liveness>,
    pub stop: Stop,
    pub restart: RestartPolicy,
    pub limits: Limits,
    /// User name or numeric id to run as; none = the server's own.
    pub user: Option<String>,
    /// Path under which each copy serves its own metrics.
    #[serde(default)]
    pub metrics: Option<String>,
    /// None: `replicas`, until an operator scales.
    #[serde(default)]
    pub autoscale: Option<Autoscale>,
    #[serde(default)]
    pub edge: Edge,
}

impl ServiceSpec {
    /// A backing service keeps its data and its single copy across releases.
    #[must_use]
    pub fn is_backing(&self) -> bool {
        match self.runs {
            Runs::Backing { .. } => true,
            Runs::Process { .. } | Runs::Static { .. } => false,
        }
    }
}

/// What starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Runs {
    /// A command in a file tree.
    Process {
        command: Vec<Argument>,
        artifact: TreeDigest,
        /// Directory below the tree in which the command starts; empty = its root.
        workdir: String,
        port: Option<Port>,
    },
    /// Files out of a tree, served by a small file server of Fairway's own under the same supervision.
    Static {
        artifact: TreeDigest,
        dir: String,
        spa: bool,
        #[serde(default = "StaticServing::of_old_records")]
        serving: StaticServing,
    },
    /// A server that Fairway knows how to provision and that holds data.
    Backing { engine: BackingEngine, port: u16 },
}

/// How long browsers may keep static files, and what is served beside the release's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticServing {
    /// Files whose name holds a hash of their content.
    #[serde(with = "duration_ms")]
    pub hashed: Duration,
    /// Pages, and the scripts, styles and data without a hash that belong to them. Zero = ask again each time.
    #[serde(with = "duration_ms")]
    pub pages: Duration,
    /// All other files.
    #[serde(with = "duration_ms")]
    pub other: Duration,
    /// A hashed name that this release lacks is answered from the releases before and beside it.
    pub old_assets: bool,
}

impl Default for StaticServing {
    fn default() -> Self {
        Self {
            hashed: Duration::from_secs(365 * 24 * 3600),
            pages: Duration::ZERO,
            other: Duration::from_secs(3600),
            old_assets: true,
        }
    }
}

impl StaticServing {
    /// What held for releases that were recorded before there was a choice.
    fn of_old_records() -> Self {
        Self { other: Duration::ZERO, ..Self::default() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackingEngine {
    Postgres,
    Redis,
}

/// A word of a command. Fairway never expands `$`: what varies is a typed reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Argument {
    Literal(String),
    /// The port that this instance was given.
    Port,
}

/// On one machine every instance gets a port of its own, so that two releases can run side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The port in fairway.toml: what the service listens on where it is alone (containers, Kubernetes).
    pub declared: u16,
    /// The variable through which the process learns the port it was given.
    pub variable: String,
}

/// Where a variable's value comes from. Releases hold references and versions, never secret values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvValue {
    Literal(String),
    Secret { name: String, version: u32 },
    Ref(Reference),
}

/// A typed reference that is known only where the release runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// Connection URL of a backing service, `{ ref = "postgres.url" }`.
    BackingUrl { service: ServiceName },
    /// Loopback address through the proxy of another service of the same release, `{ ref = "api.url" }`.
    ServiceUrl { service: ServiceName },
    /// A directory that outlives releases, one an environment, `{ ref = "data.dir" }`.
    DataDir,
    /// The public URL of the environment, `{ ref = "public.url" }`.
    PublicUrl,
    /// The release's name, `r12`, `{ ref = "release" }`.
    Release,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Host that must match, without port; none = any host on the environment's listener.
    pub host: Option<String>,
    /// Path prefix on a segment boundary, `/` or `/api`.
    pub path: String,
    pub strip_prefix: bool,
    /// Name of the cookie that keeps a visitor on one version; none = not sticky.
    pub sticky_cookie: Option<String>,
}

/// How an instance proves that it can take work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    pub probe: ReadyProbe,
    /// From start to ready, else the instance has failed.
    #[serde(with = "duration_ms")]
    pub within: Duration,
    #[serde(with = "duration_ms")]
    pub every: Duration,
    #[serde(with = "duration_ms")]
    pub timeout: Duration,
    /// Consecutive failures after which a ready instance counts as suspect.
    pub failures: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyProbe {
    /// GET on the instance's port; 2xx and 3xx are ready.
    Http { path: String },
    /// The port accepts a connection.
    Tcp,
    /// The command exits with 0, in the instance's environment.
    Exec { command: Vec<String> },
    /// `READY=1` on `$NOTIFY_SOCKET` (the sd_notify protocol).
    Notify,
    /// A line of output contains this text.
    LogLine { contains: String },
    /// Alive for this long.
    Alive {
        #[serde(with = "duration_ms")]
        for_at_least: Duration,
    },
}

/// How a running instance proves that it is not stuck. Failing it restarts the instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    pub probe: LiveProbe,
    #[serde(with = "duration_ms")]
    pub every: Duration,
    #[serde(with = "duration_ms")]
    pub timeout: Duration,
    pub failures: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LiveProbe {
    Http { path: String },
    Tcp,
    Exec { command: Vec<String> },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    pub signal: StopSignal,
    /// From the signal until the whole group is killed.
    #[serde(with = "duration_ms")]
    pub timeout: Duration,
    /// How long in-flight requests may hold the stop back before it goes ahead all the same.
    #[serde(with = "duration_ms")]
    pub drain: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopSignal {
    Term,
    Int,
    Quit,
    Hup,
    Usr1,
    Usr2,
}

/// What the shim does when the process ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    #[serde(with = "duration_ms")]
    pub backoff_min: Duration,
    #[serde(with = "duration_ms")]
    pub backoff_max: Duration,
    /// More exits than this within `burst_window` and the shim gives up.
    pub burst: u32,
    #[serde(with = "duration_ms")]
    pub burst_window: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a core.
    pub cpu_millis: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub open_files: Option<u64>,
    pub processes: Option<u64>,
    /// How much of the output is kept; none = the supervisor's own bound.
    #[serde(default)]
    pub log: Option<LogLimits>,
}

/// At most `file_bytes_max` × `files_max` of output stay on disk for one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    pub file_bytes_max: u64,
    pub files_max: u32,
}
