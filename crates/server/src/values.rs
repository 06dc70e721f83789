//! Values that are known only where a release runs: references and secrets become strings.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use fairway_engine::id::{EnvironmentKey, ReleaseNumber, ServiceName};
use fairway_engine::release::Release;
use fairway_engine::service::{EnvValue, Reference, Runs};
use fairway_targets::spec::Variables;
use thiserror::Error;

use crate::ports::Ports;

#[derive(Debug, Error)]
pub enum ValueError {
    #[error("secret {name} (version {version}) cannot be read: {why}")]
    Secret { name: String, version: u32, why: String },
    #[error("{variable} refers to {service}, which the release does not have")]
    NoSuchService { variable: String, service: ServiceName },
    #[error("{variable} refers to the URL of {service}: {why}")]
    Backing { variable: String, service: ServiceName, why: String },
    #[error("the data directory {} cannot be made: {source}", path.display())]
    DataDir { path: PathBuf, source: std::io::Error },
    #[error("no port for {service}: {source}")]
    Port { service: ServiceName, source: std::io::Error },
}

/// Looks up what references point to.
pub struct Values<'a> {
    pub state_dir: &'a Path,
    pub ports: &'a Ports,
    pub secret: &'a dyn Fn(&EnvironmentKey, &str, u32) -> Result<String, String>,
    pub backing_url: &'a dyn Fn(&EnvironmentKey, &ServiceName, &Runs) -> Result<String, String>,
}

impl std::fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Values").field("state_dir", &self.state_dir).finish_non_exhaustive()
    }
}

/// Directory of an environment that outlives releases.
#[must_use]
pub fn data_dir(state_dir: &Path, environment: &EnvironmentKey) -> PathBuf {
    state_dir.join("data").join(environment.project.as_str()).join(environment.environment.as_str())
}

/// Name of the listener through which the services of `release` reach `service`. One a release, so that a visitor of
/// the new front end meets the new API: a version is tried, and seen by testers, as a whole.
#[must_use]
pub fn internal_listener(
    environment: &EnvironmentKey,
    service: &ServiceName,
    release: ReleaseNumber,
) -> String {
    format!("{environment}/{service}@{release}")
}

/// How the name of a preview listener ends.
pub const PREVIEW: &str = "#preview";

#[must_use]
pub fn preview_listener(environment: &EnvironmentKey) -> String {
    format!("{environment}{PREVIEW}")
}

impl Values<'_> {
    /// # Errors
    /// When something that is referred to is not there.
    pub fn resolve(
        &self,
        environment: &EnvironmentKey,
        release: &Release,
        env: &BTreeMap<String, EnvValue>,
    ) -> Result<Variables, ValueError> {
        env.iter()
            .map(|(name, value)| Ok((name.clone(), self.one(environment, release, name, value)?)))
            .collect::<Result<Vec<_>, _>>()
            .map(|pairs| pairs.into_iter().collect())
    }

    fn one(
        &self,
        environment: &EnvironmentKey,
        release: &Release,
        variable: &str,
        value: &EnvValue,
    ) -> Result<String, ValueError> {
        match value {
            EnvValue::Literal(text) => Ok(text.clone()),
            EnvValue::Secret { name, version } => (self.secret)(environment, name, *version)
                .map_err(|why| ValueError::Secret { name: name.clone(), version: *version, why }),
            EnvValue::Ref(Reference::BackingUrl { service }) => {
                let spec = release.spec.services.get(service).ok_or_else(|| ValueError::NoSuchService {
                    variable: variable.to_owned(),
                    service: service.clone(),
                })?;
                (self.backing_url)(environment, service, &spec.runs).map_err(|why| ValueError::Backing {
                    variable: variable.to_owned(),
                    service: service.clone(),
                    why,
                })
            }
            EnvValue::Ref(Reference::ServiceUrl { service }) => {
                self.internal_url(environment, service, release.number)
            }
            EnvValue::Ref(Reference::DataDir) => {
                let path = data_dir(self.state_dir, environment);
                match std::fs::create_dir_all(&path) {
                    Ok(()) => Ok(path.display().to_string()),
                    Err(source) => Err(ValueError::DataDir { path, source }),
                }
            }
            EnvValue::Ref(Reference::PublicUrl) => Ok(public_url(release)),
            EnvValue::Ref(Reference::Release) => Ok(release.number.to_string()),
        }
    }

    fn internal_url(
        &self,
        environment: &EnvironmentKey,
        service: &ServiceName,
        release: ReleaseNumber,
    ) -> Result<String, ValueError> {
        self.ports
            .address(&internal_listener(environment, service, release))
            .map(|address| format!("http://{address}"))
            .map_err(|source| ValueError::Port { service: service.clone(), source })
    }
}

/// Services that other services of the release call through `{ ref = "NAME.url" }`.
#[must_use]
pub fn called_services(release: &Release) -> Vec<ServiceName> {
    let of_services = release.spec.services.values().flat_map(|spec| spec.env.values());
    let jobs = &release.spec.jobs;
    let of_jobs = [&jobs.expand, &jobs.contract, &jobs.smoke, &jobs.verify, &jobs.seed]
        .into_iter()
        .flatten()
        .flat_map(|job| job.env.values());
    let mut called: Vec<ServiceName> = of_services
        .chain(of_jobs)
        .filter_map(|value| match value {
            EnvValue::Ref(Reference::ServiceUrl { service }) => Some(service.clone()),
            EnvValue::Ref(
                Reference::BackingUrl { .. } | Reference::DataDir | Reference::PublicUrl | Reference::Release,
            )
            | EnvValue::Literal(_)
            | EnvValue::Secret { .. } => None,
        })
        .collect();
    called.sort();
    called.dedup();
    called
}

/// What a visitor would type.
#[must_use]
pub fn public_url(release: &Release) -> String {
    let listen = &release.spec.listen;
    let port = listen.address.parse::<SocketAddr>().map(|address| address.port()).unwrap_or(80);
    let host = match (&listen.host, listen.address.parse::<SocketAddr>()) {
        (Some(host), _) => host.clone(),
        (None, Ok(address)) if address.ip().is_unspecified() => "localhost".to_owned(),
        (None, Ok(address)) => address.ip().to_string(),
        (None, Err(_)) => "localhost".to_owned(),
    };
    if port == 80 { format!("http://{host}") } else { format!("http://{host}:{port}") }
}

/// Variables that every process of a release finds, unless the project sets them itself.
#[must_use]
pub fn own_variables(environment: &EnvironmentKey, release: ReleaseNumber) -> [(String, String); 4] {
    [
        // As root, Python would write its caches into the release's files, which are then no longer those that were
        // captured, and are built again for the next start.
        ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
        ("FAIRWAY_PROJECT".to_owned(), environment.project.to_string()),
        ("FAIRWAY_ENVIRONMENT".to_owned(), environment.environment.to_string()),
        ("FAIRWAY_RELEASE".to_owned(), release.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use fairway_engine::time::Timestamp;

    use super::*;
    use crate::testing::{key, name, release};

    fn resolve(dir: &Path, value: EnvValue) -> Result<String, String> {
        let ports = Ports::open(dir.join("ports.json"));
        let values = Values {
            state_dir: dir,
            ports: &ports,
            secret: &|environment, name, version| match name {
                "stripe" => Ok(format!("{environment} {version}")),
                _ => Err("it is not set".to_owned()),
            },
            backing_url: &|_, _, _| Err("it is not a backing service".to_owned()),
        };
        let of = Release {
            number: ReleaseNumber(7),
            created_at: Timestamp(0),
            created_by: "ann".to_owned(),
            spec: release("0.0.0.0:8080"),
        };
        let resolved = values.resolve(&key("dev"), &of, &BTreeMap::from([("NAME".to_owned(), value)]));
        resolved.map(|mut env| env.0.remove("NAME").unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_kind_of_value_becomes_text_or_says_why_not() {
        let dir = tempfile::tempdir().unwrap();
        let resolve = |value| resolve(dir.path(), value);
        assert_eq!(resolve(EnvValue::Literal("$HOME".into())).unwrap(), "$HOME");
        let secret = |name: &str| EnvValue::Secret { name: name.into(), version: 3 };
        assert_eq!(resolve(secret("stripe")).unwrap(), "shop/dev 3");
        assert_eq!(
            resolve(secret("other")).unwrap_err(),
            "secret other (version 3) cannot be read: it is not set"
        );
        assert_eq!(resolve(EnvValue::Ref(Reference::Release)).unwrap(), "r7");
        assert_eq!(resolve(EnvValue::Ref(Reference::PublicUrl)).unwrap(), "http://localhost:8080");
        let backing = |service: &str| EnvValue::Ref(Reference::BackingUrl { service: name(service) });
        assert_eq!(resolve(backing("db")).unwrap_err(), "NAME refers to db, which the release does not have");
        assert_eq!(
            resolve(backing("api")).unwrap_err(),
            "NAME refers to the URL of api: it is not a backing service"
        );
        let data = resolve(EnvValue::Ref(Reference::DataDir)).unwrap();
        assert!(Path::new(&data).is_dir(), "{data}");
        let url = || resolve(EnvValue::Ref(Reference::ServiceUrl { service: name("api") })).unwrap();
        assert_eq!(url(), url(), "a restart of the server must not move it");
    }
}
