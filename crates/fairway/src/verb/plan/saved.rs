//! A plan on its way from `plan --out` to `deploy --plan`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use fairway_api::client::Target;
use fairway_api::{DeployRequest, Plan};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// The form of the file; a plan of another form is refused, not guessed at.
const VERSION: u32 = 1;
/// A fairway.toml has at most 1 MiB, and so has the list of its artifacts.
const PLAN_BYTES_MAX: u64 = 8 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    version: u32,
    project: String,
    environment: String,
    pub plan: Plan,
    request: DeployRequest,
}

impl Saved {
    #[must_use]
    pub fn new(target: Target, plan: Plan, request: DeployRequest) -> Self {
        Self { version: VERSION, project: target.project, environment: target.environment, plan, request }
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Problem> {
        let failed = |source: std::io::Error| Problem::Write { path: path.to_owned(), source };
        let json = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        let mut file = File::create(path).map_err(failed)?;
        file.write_all(&json).and_then(|()| file.write_all(b"\n")).map_err(failed)
    }

    /// # Errors
    /// When it cannot be read, or is not a plan of this version.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let failed = |source| Problem::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        File::open(path).map_err(failed)?.take(PLAN_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        let wrong = |why: String| {
            Problem::usage(
                "plan/file",
                format!("{} is not a plan: {why}", path.display()),
                "fairway plan --out FILE writes one",
            )
        };
        let saved: Self = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if saved.version != VERSION {
            return Err(wrong(format!(
                "it is of version {}, and this program writes {VERSION}",
                saved.version
            )));
        }
        Ok(saved)
    }

    /// What to deploy, and where. It is refused when another release serves than the plan was made against.
    ///
    /// # Errors
    /// When another environment was named.
    pub fn into_request(self, named: Option<&str>) -> Result<(Target, DeployRequest), Problem> {
        if let Some(named) = named.filter(|named| *named != self.environment) {
            return Err(Problem::usage(
                "plan/environment",
                format!("the plan is for {}, not for {named}", self.environment),
                format!("fairway plan -e {named} makes another"),
            ));
        }
        let request = DeployRequest { if_release: self.plan.against.clone(), ..self.request };
        Ok((Target { project: self.project, environment: self.environment }, request))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fairway_api::SourceInfo;

    use super::*;

    fn saved() -> Saved {
        let plan = Plan {
            against: Some("r11".to_owned()),
            strategy: "rolling".to_owned(),
            steps: Vec::new(),
            is_empty: true,
            warnings: Vec::new(),
        };
        let request = DeployRequest {
            config: "version = 1".to_owned(),
            config_path: "fairway.toml".to_owned(),
            artifacts: BTreeMap::from([(".".to_owned(), "abc".to_owned())]),
            rules: Vec::new(),
            source: SourceInfo::default(),
            strategy: None,
            reason: None,
            if_release: None,
            wait: false,
            development: false,
        };
        let target = Target { project: "shop".to_owned(), environment: "production".to_owned() };
        Saved::new(target, plan, request)
    }

    #[test]
    fn a_plan_comes_back_as_it_was_and_is_bound_to_its_release() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.json");
        saved().write(&path).unwrap();
        let (target, request) = Saved::read(&path).unwrap().into_request(Some("production")).unwrap();
        assert_eq!((target.project.as_str(), target.environment.as_str()), ("shop", "production"));
        assert_eq!(request.if_release.as_deref(), Some("r11"));
        assert_eq!(request.artifacts["."], "abc");
    }

    #[test]
    fn a_plan_for_another_environment_or_of_another_form_is_refused() {
        assert_eq!(saved().into_request(Some("staging")).unwrap_err().exit().code(), 2);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.json");
        for garbage in ["", "{}", "[1]", "{\"version\":1}"] {
            std::fs::write(&path, garbage).unwrap();
            assert_eq!(Saved::read(&path).unwrap_err().exit().code(), 2, "{garbage}");
        }
        Saved { version: 2, ..saved() }.write(&path).unwrap();
        assert!(Saved::read(&path).unwrap_err().to_string().contains("version 2"));
    }
}
