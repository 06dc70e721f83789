//! `fairway.toml` → a validated `Project` in which every value knows its place; a `Project` → the content of a release.
//!
//! `keys` is the one table of what the file may say. The first pass (`check`) holds every value against it, one at a
//! time; `overlay` merges the environments; the second pass (`environment` and the nouns below it) reads each merged
//! file and finds what concerns several values at once. The JSON schema and the reference come from the same table.

mod alerts;
mod artifact;
mod autoscale;
mod check;
mod code;
mod cycle;
mod deploy;
mod diagnostic;
mod edge;
mod edit;
mod entrance;
mod environment;
mod evidence;
mod files;
mod init;
mod job;
mod keys;
mod metrics;
mod monitoring;
mod overlay;
mod probe;
mod project;
mod reader;
mod reference;
mod render;
mod resolve;
mod rules;
mod schema;
mod service;
mod slo;
mod span;
mod spec;
mod suggest;
mod tree;
mod uptime;
mod value;
mod variable;

pub use alerts::{Alerts, Channel};
pub use artifact::{ArtifactKey, ArtifactRequest, Build};
pub use code::CODES;
pub use deploy::{Deploy, StrategyKind, UnknownStrategy};
pub use diagnostic::{DIAGNOSTICS_MAX, Diagnostic, Severity};
pub use edit::{EditRefused, set, unset};
pub use environment::{Environment, Protect};
pub use evidence::{Evidence, Gate, GateCheck};
pub use files::Stage;
pub use init::{DetectError, Detection, Importer, Mapped, UnknownImporter, Unmapped, detect, detect_from};
pub use job::{Job, Jobs};
pub use metrics::{Metrics, RulePattern};
pub use monitoring::Monitoring;
pub use project::{FILE_NAME, Project};
pub use reader::{Origin, Setting};
pub use reference::reference_markdown;
pub use render::{Colour, render};
pub use resolve::Inputs;
pub use rules::{RULE_FILE_BYTES_MAX, RULE_FILES_MAX, RULES_BYTES_MAX};
pub use schema::json_schema;
pub use service::{Backup, Capture, Drill, LogSettings, Service, ServiceRuns};
pub use span::{ByteRange, Source, Span};
pub use tree::FILE_BYTES_MAX;
pub use variable::{Variable, VariableValue};
