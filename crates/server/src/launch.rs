//! From a service of a release to what the supervisor starts: files in place, values filled in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fairway_engine::id::{EnvironmentKey, InstanceId, ServiceName, TreeDigest};
use fairway_engine::release::{JobSpec as ReleaseJob, Release};
use fairway_engine::service::{Argument, Limits, Runs, ServiceSpec, StaticServing, Stop, StopSignal};
use fairway_engine::{Job, JobKind};
use fairway_store::Trees;
use fairway_targets::spec::{InstanceSpec, JobSpec, LogPolicy, PortRequest, Variables};

use crate::backing::backing;
use crate::drivers::materialise;
use crate::file_server::{shelf, site};
use crate::ports::Ports;
use crate::proxy_process::own_program;
use crate::secrets::Vault;
use crate::values::{Values, own_variables, preview_listener, public_url};

/// A one-off command runs as long as its operator wants, but not for ever on a machine nobody looks at.
const ONE_OFF_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

pub struct Launcher<'a> {
    pub trees: &'a Trees,
    pub vault: &'a Arc<Vault>,
    pub ports: &'a Arc<Ports>,
    pub state_dir: &'a Path,
}

impl Launcher<'_> {
    /// What to start for one copy of a service.
    ///
    /// # Errors
    /// Why it cannot be started, for people.
    pub fn instance(
        &self,
        environment: &EnvironmentKey,
        release: &Release,
        instance: &InstanceId,
        spec: &ServiceSpec,
    ) -> Result<InstanceSpec, String> {
        let mut env = self.variables(environment, release, &spec.env)?;
        env.0.insert("FAIRWAY_SERVICE".to_owned(), instance.service.to_string());
        let (argv, workdir, port) = match &spec.runs {
            Runs::Process { command, artifact, workdir, port } => {
                let port = match port {
                    None => PortRequest::None,
                    Some(port) => PortRequest::Assign { variable: port.variable.clone() },
                };
                (command.clone(), materialise(self.trees, artifact)?.join(workdir), port)
            }
            Runs::Static { artifact, dir, spa, serving } => {
                let of = (environment, &instance.service);
                let (site, root) = self.site(of, artifact, dir, *spa, serving)?;
                let argv = vec![
                    literal(&own_program().to_string_lossy()),
                    literal("file-server"),
                    literal("--site"),
                    literal(&site.to_string_lossy()),
                    literal("--port"),
                    Argument::Port,
                ];
                (argv, root, PortRequest::Assign { variable: "PORT".to_owned() })
            }
            Runs::Backing { engine, .. } => {
                return backing(self.state_dir, self.ports, environment, &instance.service, *engine)
                    .map(|backing| backing.spec);
            }
        };
        Ok(InstanceSpec {
            argv,
            env,
            workdir,
            port,
            protocol: spec.edge.protocol,
            ready: spec.ready.clone(),
            live: spec.live.clone(),
            stop: match &spec.runs {
                // Our own server drains on this one, whatever the file says.
                Runs::Static { .. } => Stop { signal: StopSignal::Term, ..spec.stop.clone() },
                Runs::Process { .. } | Runs::Backing { .. } => spec.stop.clone(),
            },
            restart: spec.restart.clone(),
            limits: spec.limits.clone(),
            user: spec.user.clone(),
            log: spec.limits.log.map_or_else(LogPolicy::default, |log| LogPolicy {
                file_bytes_max: log.file_bytes_max,
                files_max: log.files_max,
            }),
        })
    }

    /// Writes down what a static site consists of, beside its other releases. The document, and the directory.
    fn site(
        &self,
        (environment, service): (&EnvironmentKey, &ServiceName),
        artifact: &TreeDigest,
        dir: &str,
        spa: bool,
        serving: &StaticServing,
    ) -> Result<(PathBuf, PathBuf), String> {
        let tree = materialise(self.trees, artifact)?;
        let manifest = self.trees.manifest(artifact).map_err(|error| error.to_string())?;
        let document = site::Document::of_manifest(&manifest, &tree, dir, spa, serving.clone())?;
        let place = self
            .state_dir
            .join("sites")
            .join(format!("{}.{}", environment.project, environment.environment))
            .join(service.as_str());
        // Two releases may serve different directories of one tree, or the same by other rules.
        let bytes = document.encode().map_err(|error| error.to_string())?;
        let name = &blake3::hash(&bytes).to_hex()[..32];
        let path = shelf::put(&place, name, &bytes)
            .map_err(|error| format!("cannot write {}: {error}", place.display()))?;
        Ok((path, document.root))
    }

    /// What to run for a job.
    ///
    /// # Errors
    /// Why it cannot be run, for people.
    pub fn job(&self, environment: &EnvironmentKey, release: &Release, job: &Job) -> Result<JobSpec, String> {
        let jobs = &release.spec.jobs;
        let missing = || format!("{} has no {}", release.number, job.kind.name());
        let parts = match &job.kind {
            JobKind::Expand => of_release(jobs.expand.as_ref().ok_or_else(missing)?),
            JobKind::Contract => of_release(jobs.contract.as_ref().ok_or_else(missing)?),
            JobKind::Smoke => of_release(jobs.smoke.as_ref().ok_or_else(missing)?),
            JobKind::Verify => of_release(jobs.verify.as_ref().ok_or_else(missing)?),
            JobKind::Seed => of_release(jobs.seed.as_ref().ok_or_else(missing)?),
            JobKind::OneOff { service, command } => {
                let spec = match service {
                    Some(name) => release.spec.services.get(name),
                    None => {
                        release.spec.services.values().find(|spec| matches!(spec.runs, Runs::Process { .. }))
                    }
                };
                let Some(spec) = spec else {
                    return Err("the release has no service that runs a process".into());
                };
                let Runs::Process { artifact, workdir, .. } = &spec.runs else {
                    return Err(
                        "only a service that runs a process has files and variables to run with".into()
                    );
                };
                (command.clone(), artifact, workdir, &spec.env, ONE_OFF_TIMEOUT, spec.user.clone())
            }
        };
        let preview = match job.kind {
            JobKind::Smoke | JobKind::Verify => true,
            JobKind::Expand | JobKind::Contract | JobKind::Seed | JobKind::OneOff { .. } => false,
        };
        self.of_parts(environment, release, parts, preview)
    }

    /// What to run for a gate whose check is a command: against the new version's preview, as smoke checks are.
    ///
    /// # Errors
    /// Why it cannot be run, for people.
    pub fn check(
        &self,
        environment: &EnvironmentKey,
        release: &Release,
        job: &ReleaseJob,
    ) -> Result<JobSpec, String> {
        self.of_parts(environment, release, of_release(job), true)
    }

    fn of_parts(
        &self,
        environment: &EnvironmentKey,
        release: &Release,
        (argv, artifact, workdir, declared, timeout, user): Parts<'_>,
        preview: bool,
    ) -> Result<JobSpec, String> {
        let mut env = self.variables(environment, release, declared)?;
        let base_url = if preview {
            let address = self
                .ports
                .address(&preview_listener(environment))
                .map_err(|error| format!("no port for the preview: {error}"))?;
            format!("http://{address}")
        } else {
            public_url(release)
        };
        env.0.entry("BASE_URL".to_owned()).or_insert(base_url);
        Ok(JobSpec {
            argv,
            env,
            workdir: materialise(self.trees, artifact)?.join(workdir),
            timeout,
            stop: JobSpec::default_stop(),
            limits: Limits::default(),
            user,
            log: LogPolicy::default(),
        })
    }

    fn variables(
        &self,
        environment: &EnvironmentKey,
        release: &Release,
        declared: &std::collections::BTreeMap<String, fairway_engine::service::EnvValue>,
    ) -> Result<Variables, String> {
        // Before the first address is given to what this release calls.
        if let Some(port) = release.spec.listen.address.rsplit(':').next().and_then(|port| port.parse().ok())
        {
            self.ports.leave(port);
        }
        let values = Values {
            state_dir: self.state_dir,
            ports: self.ports,
            secret: &|environment, name, version| self.vault.value(environment, name, version),
            backing_url: &|environment, service, runs| match runs {
                Runs::Backing { engine, .. } => {
                    backing(self.state_dir, self.ports, environment, service, *engine)
                        .map(|backing| backing.url)
                }
                Runs::Process { .. } | Runs::Static { .. } => Err("it is not a backing service".to_owned()),
            },
        };
        let mut env = values.resolve(environment, release, declared).map_err(|error| error.to_string())?;
        for (name, value) in own_variables(environment, release.number) {
            env.0.entry(name).or_insert(value);
        }
        Ok(env)
    }
}

type Parts<'a> = (
    Vec<String>,
    &'a fairway_engine::id::TreeDigest,
    &'a String,
    &'a std::collections::BTreeMap<String, fairway_engine::service::EnvValue>,
    Duration,
    Option<String>,
);

fn of_release(job: &ReleaseJob) -> Parts<'_> {
    (job.command.clone(), &job.artifact, &job.workdir, &job.env, job.timeout, job.user.clone())
}

fn literal(word: &str) -> Argument {
    Argument::Literal(word.to_owned())
}
