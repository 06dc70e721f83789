//! The wire: types that cross the API, and the HTTP client that the command line uses. Nothing here decides.
//!
//! The API is HTTP/1.1 on a unix socket (the caller is who the kernel says) and on loopback with a bearer token.
//! Streams (`events`, `logs`, `exec`) are newline-delimited JSON.

mod alerts;
pub mod client;
mod command;
mod deploy;
mod error;
mod event;
mod evidence;
mod exec;
mod export;
mod gc;
mod job;
mod log;
mod purge;
mod secret;
mod slo;
mod status;
mod upgrade;

pub use alerts::{
    AlertInfo, AlertList, AlertState, ChannelInfo, ChannelState, ChannelTest, Matcher, MatcherOp,
    SilenceInfo, SilenceRequest, SilenceState,
};
pub use command::{Accepted, Command};
pub use deploy::{DeployRequest, Plan, PlanStep, Risk, RuleText, SourceInfo};
pub use error::{ApiError, Related, SourceSpan};
pub use event::Event;
pub use evidence::{About, ArmStatus, CountsStatus, EvidenceStatus, GateKind, GateStatus, Unit};
pub use exec::{ExecFrame, ExecRequest};
pub use export::{Exported, ExportedFile, ExportedSecret};
pub use gc::{GcItem, GcReport};
pub use job::{JobInfo, JobOutcome, JobRequest};
pub use log::{LogLine, LogQuery};
pub use purge::{PurgeReport, PurgeRequest};
pub use secret::{SecretInfo, SecretValue};
pub use slo::{SloBurn, SloInfo, SloStanding};
pub use status::{
    ByHand, CertificateNews, CertificateState, CertificateStatus, CheckResult, EndedInfo, Ending,
    EnvironmentStatus, Health, InstanceStatus, ProxyStatus, PurgeInfo, PurgeState, PurgeStatus, ReleaseInfo,
    RolloutInfo, RolloutStatus, RoutesStatus, ServerInfo, ServiceStatus, Status, StepInfo, TrafficStatus,
    UpgradeInfo, UrlStatus, WarmInfo,
};
pub use upgrade::{ProxyHandover, UpgradeReport, UpgradeRequest, Upgraded};
