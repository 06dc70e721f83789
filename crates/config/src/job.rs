//! The commands of a release.

use std::collections::BTreeMap;
use std::time::Duration;

use fairway_engine::id::ServiceName;

use crate::artifact::ArtifactKey;
use crate::code;
use crate::deploy::show_duration;
use crate::diagnostic::Diagnostic;
use crate::keys;
use crate::reader::{Reader, Words};
use crate::service::{Service, ServiceRuns};
use crate::span::Span;
use crate::spec::TableSpec;
use crate::value::path;
use crate::variable::{self, Roster, Variable};

/// A migration of a large table takes its time; one that hangs must not hold the rollout for ever.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Smoke and verification hold back a version that is ready, and the people who wait for it.
const SMOKE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// A command that runs once, before its artifact and the versions of its secrets are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub command: Vec<String>,
    pub artifact: ArtifactKey,
    /// Below what is captured; empty = its root.
    pub workdir: String,
    pub env: BTreeMap<String, Variable>,
    pub timeout: Duration,
    pub user: Option<String>,
    pub at: Span,
}

/// `[release]` of one environment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Jobs {
    pub expand: Option<Job>,
    pub contract: Option<Job>,
    pub contract_after: Duration,
    pub smoke: Option<Job>,
    pub verify: Option<Job>,
    pub seed: Option<Job>,
}

impl Jobs {
    pub fn iter(&self) -> impl Iterator<Item = &Job> {
        [&self.expand, &self.contract, &self.smoke, &self.verify, &self.seed].into_iter().flatten()
    }
}

/// What a job may run in, and what it may refer to.
pub(crate) struct Surroundings<'a> {
    pub(crate) services: &'a BTreeMap<ServiceName, Service>,
    pub(crate) vars: &'a BTreeMap<String, Variable>,
    pub(crate) roster: &'a Roster,
}

pub(crate) fn read(root: &Reader<'_>, around: &Surroundings<'_>) -> Jobs {
    let reader = root.table("release", &keys::RELEASE);
    let job = |key, spec, timeout| read_one(&reader, key, spec, timeout, around);
    let contract_after = match reader.optional_table("contract", &keys::CONTRACT) {
        Some(contract) => contract.fixed("after"),
        None => Reader::new(reader.cx, &keys::CONTRACT, None, reader.at, String::new()).default_of("after"),
    };
    Jobs {
        expand: job("expand", &keys::JOB, MIGRATION_TIMEOUT),
        contract: job("contract", &keys::CONTRACT, MIGRATION_TIMEOUT),
        contract_after,
        smoke: job("smoke", &keys::JOB, SMOKE_TIMEOUT),
        verify: job("verify", &keys::JOB, SMOKE_TIMEOUT),
        seed: job("seed", &keys::JOB, MIGRATION_TIMEOUT),
    }
}

/// A command that judges a release, as smoke does.
pub(crate) fn judge(reader: &Reader<'_>, key: &str, around: &Surroundings<'_>) -> Option<Job> {
    read_one(reader, key, &keys::JOB, SMOKE_TIMEOUT, around)
}

fn read_one(
    release: &Reader<'_>,
    key: &str,
    spec: &'static TableSpec,
    timeout: Duration,
    &Surroundings { services, vars, roster }: &Surroundings<'_>,
) -> Option<Job> {
    let at = release.cx.source.span(release.value_at(key));
    let whole = || ArtifactKey::new(".");
    let Some(reader) = release.optional_table(key, spec) else {
        let Words(command) = release.get(key)?;
        let env = vars.clone();
        return Some(Job {
            command,
            artifact: whole(),
            workdir: String::new(),
            env,
            timeout,
            user: None,
            at,
        });
    };
    let timeout = reader.get_or("timeout", || timeout, show_duration);
    let own_dir = reader.get::<String>("dir").and_then(|text| path::relative(&text).ok());
    let mut workdir = reader.get::<String>("workdir").and_then(|text| path::relative(&text).ok());
    workdir = workdir.filter(|workdir| workdir != ".");
    let mut artifact = own_dir.as_deref().map_or_else(whole, ArtifactKey::new);
    let mut base = vars;
    let mut user = reader.get("user");
    if let Some(name) = reader.get::<String>("service")
        && let Some(name) = roster.service(reader.cx, &name, reader.value_at("service"))
    {
        if own_dir.is_some() {
            reader.refuse_beside("service", &["dir"], "together with service");
        }
        // A service that is broken itself is told where it stands.
        if let Some(service) = services.get(&name) {
            match &service.runs {
                ServiceRuns::Process { capture, workdir: service_workdir, .. } => {
                    artifact = capture.key.clone();
                    workdir = workdir.or_else(|| Some(service_workdir.clone()));
                    base = &service.env;
                    user = user.or_else(|| service.user.clone());
                }
                ServiceRuns::Static { .. } | ServiceRuns::Backing { .. } => {
                    let message = format!("{name} has no command, so a job cannot run in what it runs in");
                    let hint = "name a service with a command, or a dir";
                    reader.cx.push_at(
                        Diagnostic::error(code::CONFLICT, message).hint(hint),
                        reader.value_at("service"),
                    );
                }
            }
        }
    }
    let env = variable::read(&reader, "env", base, roster);
    let Words(command) = reader.get("run")?;
    Some(Job { command, artifact, workdir: workdir.unwrap_or_default(), env, timeout, user, at })
}
