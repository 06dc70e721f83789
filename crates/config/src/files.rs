//! What the file says against what is on the disk: directories that do not exist, programs that cannot be started.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use fairway_engine::service::Argument;

use crate::artifact::ArtifactKey;
use crate::code;
use crate::diagnostic::{Diagnostic, Findings};
use crate::environment::Environment;
use crate::project::Project;
use crate::rules;
use crate::service::ServiceRuns;
use crate::span::Span;

/// When the disk is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// What a build makes is not there yet and is not looked for.
    BeforeBuild,
    /// Everything must be there.
    AfterBuild,
}

impl Project {
    /// What is missing under the project's `root` for a release of an environment. `search_path` is the PATH that
    /// commands without a slash are looked for in; none = they are not looked for.
    ///
    /// # Errors
    /// When there is no such environment.
    pub fn check_files(
        &self,
        environment: &str,
        root: &Path,
        search_path: Option<&OsStr>,
        stage: Stage,
    ) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        let environment = self.environment(environment)?;
        let mut disk = Disk { environment, root, search_path, stage, findings: Findings::default() };
        disk.services();
        disk.jobs();
        rules::read(environment, root, &mut disk.findings);
        Ok(disk.findings.finish())
    }
}

struct Disk<'a> {
    environment: &'a Environment,
    root: &'a Path,
    search_path: Option<&'a OsStr>,
    stage: Stage,
    findings: Findings,
}

impl Disk<'_> {
    fn services(&mut self) {
        for service in self.environment.services.values() {
            if let Some(build) = service.runs.capture().and_then(|capture| capture.build.as_ref()) {
                let dir = self.root.join(&build.dir);
                if self.directory(&dir, &build.dir, &service.at) {
                    self.program(&build.command[0], &dir, &build.at);
                }
            }
            match &service.runs {
                ServiceRuns::Process { command, capture, workdir, .. } => {
                    let program = command.first();
                    if let Some(Argument::Literal(program)) = program {
                        self.start(&capture.key, workdir, program, (&capture.at, &service.runs_at));
                    }
                }
                ServiceRuns::Static { capture, dir, .. } => {
                    if self.is_there_yet(&capture.key) {
                        let path = self.root.join(capture.key.as_str()).join(dir);
                        let shown = crate::value::path::join(
                            capture.key.as_str(),
                            if dir.is_empty() { "." } else { dir },
                        );
                        self.directory(&path, &shown, &service.runs_at);
                    }
                }
                ServiceRuns::Backing { .. } => {}
            }
        }
    }

    fn jobs(&mut self) {
        for job in self.environment.jobs() {
            self.start(&job.artifact, &job.workdir, &job.command[0], (&job.at, &job.at));
        }
    }

    /// False for what a build that has not run will make.
    fn is_there_yet(&self, key: &ArtifactKey) -> bool {
        let captures = self.environment.services.values().filter_map(|service| service.runs.capture());
        self.stage == Stage::AfterBuild
            || !captures.into_iter().any(|other| other.key == *key && other.build.is_some())
    }

    fn start(
        &mut self,
        key: &ArtifactKey,
        workdir: &str,
        program: &str,
        (captured_at, started_at): (&Span, &Span),
    ) {
        if !self.is_there_yet(key) {
            return;
        }
        let captured = self.root.join(key.as_str());
        // A file is captured under its own name.
        let base =
            if captured.is_file() { captured.parent().unwrap_or(self.root).to_owned() } else { captured };
        if self.directory(&base, key.as_str(), captured_at) {
            let base = base.join(workdir);
            let shown =
                crate::value::path::join(key.as_str(), if workdir.is_empty() { "." } else { workdir });
            if self.directory(&base, &shown, started_at) {
                self.program(program, &base, started_at);
            }
        }
    }

    fn directory(&mut self, path: &Path, shown: &str, at: &Span) -> bool {
        let problem = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return true,
            Ok(_) => format!("{shown} is not a directory"),
            Err(error) => format!("the directory {shown} cannot be read: {}", reason(&error)),
        };
        let hint = "paths are relative to the directory of the file";
        self.findings.push(Diagnostic::error(code::NO_DIRECTORY, problem).at(at.clone()).hint(hint));
        false
    }

    fn program(&mut self, program: &str, base: &Path, at: &Span) {
        let problem = if program.contains('/') {
            executable(&base.join(program)).err()
        } else {
            let Some(search_path) = self.search_path else { return };
            let found: Vec<Result<(), String>> = std::env::split_paths(search_path)
                .filter(|directory| directory.is_absolute())
                .map(|directory| executable(&directory.join(program)))
                .collect();
            if found.iter().any(Result::is_ok) {
                None
            } else {
                Some("it is in no directory of PATH".to_owned())
            }
        };
        let Some(problem) = problem else { return };
        let beside: PathBuf = base.join(program);
        let hint = if !program.contains('/') && beside.is_file() {
            format!("a program of the project is written with its path: \"./{program}\"")
        } else if problem.contains("executable") {
            format!("chmod +x {program}")
        } else {
            "a program without '/' is looked for in PATH, one with '/' in what is captured".to_owned()
        };
        let message = format!("{program} cannot be started: {problem}");
        self.findings.push(Diagnostic::error(code::NO_COMMAND, message).at(at.clone()).hint(hint));
    }
}

fn reason(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::NotFound {
        "it does not exist".to_owned()
    } else {
        error.to_string()
    }
}

fn executable(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| reason(&error))?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if metadata.permissions().mode() & 0o111 == 0 {
            return Err("it is not executable".to_owned());
        }
    }
    Ok(())
}
