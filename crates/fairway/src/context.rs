//! What the arguments mean here: the project found upward, its file, the environment, the server.

mod project_file;

use std::cell::OnceCell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairway_api::ApiError;
use fairway_api::client::{Client, Endpoint, Target};
use fairway_config::{Environment, Project};

use crate::args::Globals;
use crate::endpoint;
use crate::output::Output;
use crate::problem::{Problem, ask};

pub use project_file::ProjectFile;

/// A suggestion is a courtesy: it must not hold up the error that it is for.
const SUGGEST_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct Context {
    pub globals: Globals,
    pub out: Output,
    /// The environment that the command turned out to be for, for the hints.
    meant: OnceCell<String>,
}

impl Context {
    #[must_use]
    pub fn new(globals: Globals) -> Self {
        let out = Output::new(globals.json);
        Self { globals, out, meant: OnceCell::new() }
    }

    /// Runs what needs the network; the runtime is made here and only here, when a verb needs it.
    ///
    /// # Errors
    /// What `work` answers with, or that there can be no runtime.
    pub fn block_on<T>(&self, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
                Problem::failed(
                    "io/runtime",
                    error.to_string(),
                    "are there file descriptors left? `ulimit -n`",
                )
            })?;
        let done = runtime.block_on(work);
        // A thread that still reads standard input would be waited for.
        runtime.shutdown_background();
        done
    }

    /// # Errors
    /// When a directory or file that was named is not there.
    pub fn project_file(&self) -> Result<Option<ProjectFile>, Problem> {
        ProjectFile::find(self.globals.project_dir.as_deref(), self.globals.file.as_deref())
    }

    /// # Errors
    /// When there is none.
    pub fn need_project_file(&self) -> Result<ProjectFile, Problem> {
        self.project_file()?.ok_or_else(|| Problem::NoProject { from: self.start_dir() })
    }

    /// Where the project is looked for.
    #[must_use]
    pub fn start_dir(&self) -> PathBuf {
        let here = || std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        match &self.globals.project_dir {
            Some(dir) => here().join(dir),
            None => here(),
        }
    }

    /// # Errors
    /// When what was said is not an address.
    pub fn endpoint(&self) -> Result<Endpoint, Problem> {
        let Globals { server, state, .. } = &self.globals;
        // Only where nothing was said is the project looked for.
        let project = if server.is_none() && state.is_none() { self.project_file()? } else { None };
        endpoint::resolve(
            server.as_deref(),
            state.as_deref(),
            project.as_ref().map(|file| file.root.as_path()),
        )
    }

    /// # Errors
    /// As [`Context::endpoint`].
    pub fn client(&self) -> Result<Client, Problem> {
        Ok(Client::new(self.endpoint()?))
    }

    /// The environment of a project whose file is known; `dev` when it is the only one.
    ///
    /// # Errors
    /// When it is not named and must be, or when there is none of that name.
    pub fn environment<'a>(&self, project: &'a Project) -> Result<&'a Environment, Problem> {
        let known =
            || project.environments().map(|environment| environment.name.as_str().to_owned()).collect();
        let name = self.named_or_dev(known())?;
        find_environment(project, &name)
    }

    fn named_or_dev(&self, known: Vec<String>) -> Result<String, Problem> {
        let name = match &self.globals.env {
            Some(name) => name.clone(),
            None if known == ["dev"] => "dev".to_owned(),
            None => return Err(Problem::EnvironmentNotNamed { known }),
        };
        self.means(&name);
        Ok(name)
    }

    /// The hints of what follows are about this environment.
    pub fn means(&self, environment: &str) {
        // The first one stays: a command is for one environment.
        let _ = self.meant.set(environment.to_owned());
    }

    /// The environment that a command is for. Works without a fairway.toml that is valid: what runs must be
    /// reachable while the file is broken.
    ///
    /// # Errors
    /// When project or environment is not named and cannot be told.
    pub async fn target(&self, client: &Client) -> Result<Target, Problem> {
        let file = match &self.globals.project {
            Some(_) => None,
            None => self.project_file()?,
        };
        let named = match (&self.globals.project, &file) {
            (Some(name), _) => Some(name.clone()),
            (None, Some(file)) => Some(file.project_name()?),
            (None, None) => None,
        };
        if let (Some(project), Some(environment)) = (&named, &self.globals.env) {
            return Ok(Target { project: project.clone(), environment: environment.clone() });
        }
        if let (Some(project), Some(file)) = (&named, &file)
            && let Ok(parsed) = file.load()
        {
            let known =
                parsed.environments().map(|environment| environment.name.as_str().to_owned()).collect();
            let environment = self.named_or_dev(known)?;
            return Ok(Target { project: project.clone(), environment });
        }
        // Nothing here tells; the server knows what it runs.
        let status = ask(client.status()).await?;
        let mut projects: Vec<String> = status.environments.iter().map(|e| e.project.clone()).collect();
        projects.sort();
        projects.dedup();
        let project = match (named, projects.as_slice()) {
            (Some(named), _) => named,
            (None, [one]) => one.clone(),
            (None, _) => return Err(Problem::ProjectNotNamed { known: projects }),
        };
        let known = status
            .environments
            .iter()
            .filter(|environment| environment.project == project)
            .map(|environment| environment.environment.clone())
            .collect();
        let environment = self.named_or_dev(known)?;
        Ok(Target { project, environment })
    }

    /// Whether a change of this environment asks for its name: as its file says; where that cannot be told, yes
    /// for everything but `dev`.
    #[must_use]
    pub fn asks_for_confirmation(&self, environment: &str) -> bool {
        let said = self
            .project_file()
            .ok()
            .flatten()
            .and_then(|file| file.load().ok())
            .and_then(|project| project.environment(environment).ok().map(|found| found.protect.confirm));
        said.unwrap_or(environment != "dev")
    }

    /// The server's hints say `-e ENV`; here its name is known, and the line can be copied.
    pub fn name_environment(&self, errors: &mut [ApiError]) {
        let Some(name) = self.meant.get().or(self.globals.env.as_ref()) else { return };
        for hint in errors.iter_mut().filter_map(|error| error.hint.as_mut()) {
            *hint = hint.replace("-e ENV", &format!("-e {name}"));
        }
    }

    /// Where the server does not know the environment: the nearest one that it does.
    pub fn suggest(&self, errors: &mut [ApiError]) {
        let Some(error) = errors.iter_mut().find(|error| error.code == "environment/unknown") else { return };
        let (Some(wanted), Ok(client)) = (&self.globals.env, self.client()) else { return };
        let known = self.block_on(async {
            let status = tokio::time::timeout(SUGGEST_TIMEOUT, client.status()).await;
            Ok(status.ok().and_then(Result::ok).map(|status| status.environments).unwrap_or_default())
        });
        let project = match &self.globals.project {
            Some(named) => Some(named.clone()),
            None => self.project_file().ok().flatten().and_then(|file| file.project_name().ok()),
        };
        let mut known: Vec<String> = known
            .unwrap_or_default()
            .into_iter()
            .filter(|other| project.as_ref().is_none_or(|project| *project == other.project))
            .map(|other| other.environment)
            .collect();
        known.sort();
        known.dedup();
        if let Some(near) = nearest(wanted, &known) {
            error.hint = Some(format!("did you mean {near:?}?"));
        } else if !known.is_empty() {
            error.hint = Some(format!("the environments are {}", known.join(", ")));
        }
    }
}

/// # Errors
/// When there is none of that name, with the nearest one.
pub fn find_environment<'a>(project: &'a Project, name: &str) -> Result<&'a Environment, Problem> {
    project
        .environment(name)
        .map_err(|diagnostics| Problem::Config { diagnostics, file: Box::new(project.source().clone()) })
}

/// The nearest of `known`, when at most a third of the letters differ.
fn nearest<'a>(given: &str, known: &'a [String]) -> Option<&'a str> {
    let allowed = (given.chars().count() / 3).max(1);
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), name.as_str()))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// A path as people call it: relative to where they are, when it is below.
#[must_use]
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    match below {
        Some(below) if below.as_os_str().is_empty() => ".".to_owned(),
        Some(below) => below.display().to_string(),
        None => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(env: Option<&str>) -> Context {
        Context::new(Globals { env: env.map(str::to_owned), ..Globals::default() })
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn production_is_never_implied() {
        let nothing = context(None);
        assert_eq!(nothing.named_or_dev(names(&["dev"])).unwrap(), "dev");
        for known in [names(&["production"]), names(&["dev", "production"]), names(&["staging"]), names(&[])]
        {
            let problem = nothing.named_or_dev(known).unwrap_err();
            assert!(matches!(problem, Problem::EnvironmentNotNamed { .. }));
            assert_eq!(problem.exit().code(), 2);
        }
        assert_eq!(context(Some("production")).named_or_dev(names(&["dev"])).unwrap(), "production");
    }

    #[test]
    fn a_slip_in_the_name_of_an_environment_is_recognised() {
        let known = names(&["dev", "production", "staging"]);
        assert_eq!(nearest("prodution", &known), Some("production"));
        assert_eq!(nearest("qa", &known), None);
    }
}
