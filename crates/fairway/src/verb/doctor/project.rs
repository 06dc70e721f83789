//! The project: its file, its addresses and names, and the commands that it starts.

use std::collections::BTreeSet;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use fairway_api::{EnvironmentStatus, ProxyStatus, Status};
use fairway_config::{Environment, Project, ServiceRuns};

use super::{Finding, Level, ports};
use crate::context::{Context, ProjectFile};

/// A resolver that is not there takes tens of seconds to say so.
const DNS_TIMEOUT: Duration = Duration::from_secs(3);

#[must_use]
pub fn look(cx: &Context, status: Option<&Status>) -> Vec<Finding> {
    let file = match cx.project_file() {
        Ok(Some(file)) => file,
        Ok(None) => {
            return vec![
                Finding::new(Level::Warn, "fairway.toml", "there is none here or above").hint("fairway init"),
            ];
        }
        Err(problem) => return vec![Finding::new(Level::Fail, "fairway.toml", problem.to_string())],
    };
    let project = match file.load() {
        Ok(project) => project,
        Err(problem) => {
            let count = problem.report().len();
            let detail = format!("{} has {count} problems", file.shown());
            return vec![Finding::new(Level::Fail, "fairway.toml", detail).hint("fairway validate")];
        }
    };
    let detail = format!("{}, project {}", file.shown(), project.name().as_str());
    let mut findings = vec![Finding::new(Level::Ok, "fairway.toml", detail)];
    findings.extend(environments(cx, &project).into_iter().flat_map(|environment| {
        let mut found = vec![address(&project, environment, status)];
        found.extend(host(environment));
        found
    }));
    findings.extend(commands(&file, &environments(cx, &project)));
    findings
}

/// The one that was asked for, or all.
fn environments<'a>(cx: &Context, project: &'a Project) -> Vec<&'a Environment> {
    let wanted = cx.globals.env.as_deref();
    project.environments().filter(|one| wanted.is_none_or(|name| name == one.name.as_str())).collect()
}

fn address(project: &Project, environment: &Environment, status: Option<&Status>) -> Finding {
    let address = environment.listen.address.as_str();
    let there: Vec<&EnvironmentStatus> = status
        .filter(|status| matches!(status.server.proxy, ProxyStatus::Serving { .. }))
        .into_iter()
        .flat_map(|status| &status.environments)
        .filter(|one| one.listen.as_deref() == Some(address) && one.stable.is_some())
        .collect();
    let is_own = |one: &&&EnvironmentStatus| {
        one.project == project.name().as_str() && one.environment == environment.name.as_str()
    };
    let same_host = |one: &&EnvironmentStatus| {
        one.host.as_deref().map(str::to_ascii_lowercase) == environment.listen.host
    };
    // To end the proxy would take down what the other one serves.
    if there.iter().find(is_own).is_none()
        && let Some(other) = there.iter().copied().find(same_host)
    {
        let what = format!("{}: {address}", environment.name);
        let host = other.host.as_deref().unwrap_or("every host");
        let detail = format!("{}/{} takes requests for {host} there", other.project, other.environment);
        return Finding::new(Level::Warn, what, detail)
            .hint("where both have the same route, a deploy is refused: set a `host`, or another `listen`");
    }
    ports::look(environment.name.as_str(), address, !there.is_empty())
}

fn host(environment: &Environment) -> Option<Finding> {
    let host = environment.listen.host.clone()?;
    let what = format!("{}: {host}", environment.name);
    // The system's resolver cannot be told to give up; its thread is left to itself.
    let (sender, receiver) = mpsc::channel();
    let name = host.clone();
    std::thread::spawn(move || {
        let found: std::io::Result<BTreeSet<String>> = (name.as_str(), 80u16)
            .to_socket_addrs()
            .map(|addresses| addresses.map(|address| address.ip().to_string()).collect());
        let _ = sender.send(found);
    });
    Some(match receiver.recv_timeout(DNS_TIMEOUT) {
        Ok(Ok(addresses)) if !addresses.is_empty() => {
            Finding::new(Level::Ok, what, addresses.into_iter().collect::<Vec<_>>().join(", "))
        }
        Ok(Ok(_)) => Finding::new(Level::Warn, what, "the name has no address"),
        Ok(Err(error)) => Finding::new(Level::Warn, what, error.to_string())
            .hint("visitors find it only when its DNS record points here"),
        Err(_) => Finding::new(Level::Warn, what, "the resolver does not answer"),
    })
}

fn commands(file: &ProjectFile, environments: &[&Environment]) -> Vec<Finding> {
    let mut wanted: BTreeSet<(String, PathBuf, bool)> = BTreeSet::new();
    for environment in environments {
        for service in environment.services.values() {
            let built = service.runs.capture().is_some_and(|capture| capture.build.is_some());
            if let Some(build) = service.runs.capture().and_then(|capture| capture.build.as_ref())
                && let Some(program) = build.command.first()
            {
                wanted.insert((program.clone(), PathBuf::from(&build.dir), false));
            }
            if let ServiceRuns::Process { command, capture, workdir, .. } = &service.runs
                && let Some(program) = command.first().and_then(literal)
            {
                wanted.insert((program, Path::new(capture.key.as_str()).join(workdir), built));
            }
        }
        for job in environment.jobs.iter() {
            if let Some(program) = job.command.first() {
                wanted.insert((program.clone(), Path::new(job.artifact.as_str()).join(&job.workdir), false));
            }
        }
    }
    wanted.iter().map(|(program, dir, built)| command(&file.root, program, dir, *built)).collect()
}

/// The first word of a command, unless it is a reference.
fn literal(word: &impl serde::Serialize) -> Option<String> {
    let word = serde_json::to_value(word).ok()?;
    word.get("literal").or(Some(&word))?.as_str().map(str::to_owned)
}

/// `dir` is where it starts; `built` is whether a build makes what is there.
fn command(root: &Path, program: &str, dir: &Path, built: bool) -> Finding {
    let what = format!("command {program}");
    if !program.contains('/') {
        return match in_path(program) {
            Some(found) => Finding::new(Level::Ok, what, found.display().to_string()),
            None => Finding::new(Level::Fail, what, "is not in PATH").hint(format!("install {program}")),
        };
    }
    let path = root.join(dir).join(program);
    match (path.exists(), is_executable(&path)) {
        (true, true) => Finding::new(Level::Ok, what, "executable"),
        (true, false) => Finding::new(Level::Fail, what, "is not executable")
            .hint(format!("chmod +x {}", path.strip_prefix(root).unwrap_or(&path).display())),
        (false, _) if built => Finding::new(Level::Ok, what, "comes from the build"),
        (false, _) => Finding::new(Level::Fail, what, format!("is not there: {}", path.display())),
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use fairway_api::{ReleaseInfo, ServerInfo};

    use super::*;

    #[test]
    fn commands_are_looked_for_where_they_would_start() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir(root.join("bin")).unwrap();
        std::fs::write(root.join("bin/x"), "#!/bin/sh\n").unwrap();
        let level = |program: &str, built| command(root, program, Path::new("."), built).level;
        assert_eq!(level("bin/x", false), Level::Fail, "not executable");
        std::fs::set_permissions(root.join("bin/x"), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(level("bin/x", false), Level::Ok);
        assert_eq!(level("bin/y", false), Level::Fail);
        assert_eq!(level("bin/y", true), Level::Ok, "the build makes it");
        assert_eq!(level("sh", false), Level::Ok);
        assert_eq!(level("no-such-program-anywhere", false), Level::Fail);
    }

    #[test]
    fn an_address_of_another_environment_here_is_not_to_be_ended() {
        let text = "version = 1\nproject = \"pinger\"\n[service.web]\ncommand = [\"x\"]\nport = 80\n\
                    route = \"/\"\n[env.staging]\nlisten = \"0.0.0.0:80\"\n";
        let project = Project::parse("fairway.toml", text).unwrap();
        let environment = project.environment("staging").unwrap();
        let stable = ReleaseInfo {
            name: "r1".to_owned(),
            created_ms: 0,
            created_by: "ann".to_owned(),
            title: None,
            commit: None,
            dirty: false,
        };
        let there = EnvironmentStatus { stable: Some(stable), ..crate::ladder::tests::environment() };
        let status = |host: Option<&str>| Status {
            server: ServerInfo {
                version: String::new(),
                pid: 1,
                started_ms: 0,
                now_ms: 0,
                state_dir: String::new(),
                seq: 0,
                proxy: ProxyStatus::Serving { pid: 2, generation: 1, version: String::new() },
                binary: String::new(),
                upgraded: None,
                older_shims: 0,
            },
            environments: vec![EnvironmentStatus { host: host.map(str::to_owned), ..there.clone() }],
        };
        assert_eq!(there.listen.as_deref(), Some("0.0.0.0:80"));
        let found = address(&project, environment, Some(&status(None)));
        assert_eq!(found.level, Level::Warn);
        let name = format!("{}/{}", there.project, there.environment);
        assert!(found.detail.starts_with(&name), "{}", found.detail);
        let found = address(&project, environment, Some(&status(Some("shop.example"))));
        assert_eq!(found.level, Level::Ok, "{}", found.detail);
    }

    #[test]
    fn the_program_of_a_service_is_found_in_its_command() {
        let text = "version = 1\nproject = \"p\"\n[service.api]\ncommand = [\"bin/api\", { ref = \"port\" }]\nport = 80\n[env.dev]\n";
        let project = Project::parse("fairway.toml", text).unwrap();
        let file = ProjectFile { root: "/nowhere".into(), path: "/nowhere/fairway.toml".into() };
        let environments: Vec<&Environment> = project.environments().collect();
        let found = commands(&file, &environments);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].what, "command bin/api");
    }
}
