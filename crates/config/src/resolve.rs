//! An environment with its captured artifacts and the versions of its secrets: what a release is made of.

use std::collections::BTreeMap;

use fairway_engine::edge::{CertificateSource, Entrance, TlsEntrance};
use fairway_engine::evidence::{Check, Evidence, Gate as GateSpec};
use fairway_engine::id::TreeDigest;
use fairway_engine::purge::PurgeHook;
use fairway_engine::release::{DeploySettings, JobSpec, ReleaseJobs, ReleaseSpec, Source};
use fairway_engine::service::{EnvValue, Limits, LogLimits, Runs, ServiceSpec};

use crate::artifact::ArtifactKey;
use crate::code;
use crate::deploy::{Purge, StrategyKind};
use crate::diagnostic::{Diagnostic, Findings};
use crate::environment::Environment;
use crate::evidence::{Gate, GateCheck};
use crate::job::Job;
use crate::project::Project;
use crate::service::{Service, ServiceRuns};
use crate::span::Span;
use crate::variable::Variable;

/// What the file alone does not know.
pub struct Inputs<'a> {
    /// One for each of `Project::artifacts`.
    pub artifacts: BTreeMap<ArtifactKey, TreeDigest>,
    /// The newest version of a secret in the environment; never its value.
    pub secrets: &'a dyn Fn(&str) -> Option<u32>,
    pub source: Source,
    /// `deploy --strategy`
    pub strategy: Option<StrategyKind>,
}

impl std::fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs")
            .field("artifacts", &self.artifacts)
            .field("source", &self.source)
            .field("strategy", &self.strategy)
            .finish_non_exhaustive()
    }
}

impl Project {
    /// The content of a release of an environment. `monitoring.rules` is empty: their text is in files of their own
    /// (`rule_files`, `check_rules`).
    ///
    /// # Errors
    /// An environment that does not exist, secrets without a value, artifacts that were not captured.
    pub fn resolve(&self, environment: &str, inputs: &Inputs<'_>) -> Result<ReleaseSpec, Vec<Diagnostic>> {
        let environment = self.environment(environment)?;
        let mut resolver = Resolver { environment, inputs, findings: Findings::default() };
        let services = environment
            .services
            .iter()
            .map(|(name, service)| (name.clone(), resolver.service(service)))
            .collect();
        let jobs = &environment.jobs;
        let mut job = |job: &Option<Job>| job.as_ref().map(|job| resolver.job(job));
        let jobs = ReleaseJobs {
            expand: job(&jobs.expand),
            contract: job(&jobs.contract),
            contract_after: jobs.contract_after,
            smoke: job(&jobs.smoke),
            verify: job(&jobs.verify),
            seed: job(&jobs.seed),
        };
        let deploy = &environment.deploy;
        let evidence = Evidence {
            sequential: environment.evidence.sequential(inputs.strategy.unwrap_or(deploy.strategy)),
            gates: environment.evidence.gates.iter().map(|gate| resolver.gate(gate)).collect(),
            triggers: environment.evidence.triggers.clone(),
        };
        let purge = deploy.purge.as_ref().and_then(|purge| resolver.purge(purge));
        let monitoring =
            environment.monitoring.resolve(environment.name.as_str(), inputs.secrets, &mut resolver.findings);
        let entrance = resolver.entrance();
        if resolver.findings.has_errors() {
            return Err(resolver.findings.finish());
        }
        Ok(ReleaseSpec {
            source: inputs.source.clone(),
            services,
            jobs,
            deploy: DeploySettings {
                strategy: deploy.strategy(inputs.strategy),
                bake: deploy.bake,
                keep_warm: deploy.keep_warm,
                retain: deploy.retain,
                approvers: environment.protect.approvers,
                phase_deadline: deploy.deadline,
                evidence,
                purge,
            },
            listen: environment.listen.clone(),
            monitoring,
            entrance,
        })
    }
}

struct Resolver<'a> {
    environment: &'a Environment,
    inputs: &'a Inputs<'a>,
    findings: Findings,
}

impl Resolver<'_> {
    fn entrance(&mut self) -> Entrance {
        let mut entrance = self.environment.entrance.clone();
        let Some(external) = &self.environment.external_account else { return entrance };
        if let Some(TlsEntrance { certificate: CertificateSource::Acme { account, .. }, .. }) =
            &mut entrance.tls
        {
            match external.resolve(self.environment.name.as_str(), self.inputs.secrets) {
                Ok(resolved) => *account = Some(resolved),
                Err(diagnostic) => self.findings.push(*diagnostic),
            }
        }
        entrance
    }

    fn purge(&mut self, purge: &Purge) -> Option<PurgeHook> {
        let mut resolve = |variable: &Variable| {
            let resolved = variable.resolve(self.environment.name.as_str(), self.inputs.secrets);
            resolved.map_err(|diagnostic| self.findings.push(*diagnostic)).ok()
        };
        let url = resolve(&purge.url);
        let headers = purge.headers.iter().filter_map(|(name, value)| Some((name.clone(), resolve(value)?)));
        let headers = headers.collect();
        let Purge { url: _, method, headers: _, body, attempts, timeout } = purge.clone();
        Some(PurgeHook { url: url?, method, headers, body, attempts, timeout })
    }

    fn service(&mut self, service: &Service) -> ServiceSpec {
        let runs = match &service.runs {
            ServiceRuns::Process { command, capture, workdir, port } => Runs::Process {
                command: command.clone(),
                artifact: self.artifact(&capture.key, &capture.at),
                workdir: workdir.clone(),
                port: port.clone(),
            },
            ServiceRuns::Static { capture, dir, spa, serving } => Runs::Static {
                artifact: self.artifact(&capture.key, &capture.at),
                dir: dir.clone(),
                spa: *spa,
                serving: serving.clone(),
            },
            ServiceRuns::Backing { engine, port } => Runs::Backing { engine: *engine, port: *port },
        };
        ServiceSpec {
            runs,
            replicas: service.replicas,
            after: service.after.clone(),
            route: service.route.clone(),
            env: self.env(&service.env),
            ready: service.ready.clone(),
            live: service.live.clone(),
            stop: service.stop.clone(),
            restart: service.restart.clone(),
            limits: Limits {
                log: Some(LogLimits {
                    file_bytes_max: service.log.max_size_bytes,
                    files_max: service.log.files,
                }),
                ..service.limits.clone()
            },
            user: service.user.clone(),
            metrics: service.metrics.clone(),
            autoscale: service.autoscale.clone(),
            edge: service.edge.clone(),
        }
    }

    fn job(&mut self, job: &Job) -> JobSpec {
        JobSpec {
            command: job.command.clone(),
            artifact: self.artifact(&job.artifact, &job.at),
            workdir: job.workdir.clone(),
            env: self.env(&job.env),
            timeout: job.timeout,
            user: job.user.clone(),
        }
    }

    fn gate(&mut self, gate: &Gate) -> GateSpec {
        let check = match &gate.check {
            GateCheck::ErrorRate => Check::ErrorRate,
            GateCheck::Latency { percentile } => Check::Latency { percentile: *percentile },
            GateCheck::Query { promql } => Check::Query { promql: promql.clone() },
            GateCheck::Command { job } => Check::Command { job: Box::new(self.job(job)) },
            GateCheck::Webhook { url } => Check::Webhook { url: url.clone() },
        };
        GateSpec {
            name: gate.name.clone(),
            check,
            bounds: gate.bounds.clone(),
            lasts: gate.lasts,
            min_requests: gate.min_requests,
            no_data: gate.no_data,
        }
    }

    fn env(&mut self, variables: &BTreeMap<String, Variable>) -> BTreeMap<String, EnvValue> {
        let mut env = BTreeMap::new();
        for (name, variable) in variables {
            match variable.resolve(self.environment.name.as_str(), self.inputs.secrets) {
                Ok(value) => {
                    env.insert(name.clone(), value);
                }
                Err(diagnostic) => self.findings.push(*diagnostic),
            }
        }
        env
    }

    /// The digest; when it is missing a finding, and a stand-in that never leaves `resolve`.
    fn artifact(&mut self, key: &ArtifactKey, at: &Span) -> TreeDigest {
        if let Some(digest) = self.inputs.artifacts.get(key) {
            return digest.clone();
        }
        self.findings.push(
            Diagnostic::error(code::MISSING_ARTIFACT, format!("{key} was not captured for this release"))
                .at(at.clone())
                .hint("it must be there after the build; does it exist?"),
        );
        TreeDigest("".into())
    }
}
