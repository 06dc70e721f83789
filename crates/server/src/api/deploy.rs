//! `POST …/deploy`: the file and its captured artifacts become a release.

pub mod monitoring;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use fairway_api::{Accepted, ApiError, DeployRequest, Related, RuleText, SourceSpan};
use fairway_config::{Diagnostic, Inputs, Project, Severity, Span};
use fairway_engine::id::{EnvironmentKey, TreeDigest};
use fairway_engine::monitoring::RuleFile;
use fairway_engine::release::{ReleaseSpec, Source};
use fairway_engine::{Command, Input};

use super::command::{accepted, parse_release};
use super::plan;
use super::{Answer, App, Caller, Failure, blocking, key};
use crate::routes::sharing;

/// Code of a finding whose line holds a secret.
const PLAIN_SECRET: &str = "config/plain-secret";

/// The proxy lets an address go some time after the last environment on it was taken down, and the proxy of a
/// `fairway up` some time after its end: a deploy right after that is no mistake. Who holds it for longer than this
/// keeps it.
const LET_GO_WITHIN: Duration = Duration::from_secs(2);
const LET_GO_ASK: Duration = Duration::from_millis(50);

pub async fn deploy(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((project, environment)): Path<(String, String)>,
    Json(request): Json<DeployRequest>,
) -> Answer<Accepted> {
    let environment = key(&project, &environment)?;
    let spec = release_spec(&app, &environment, &request).await?;
    check_routes(&app, &environment, &spec)?;
    check_listen(&app, &spec).await?;
    check_trees(&app, &spec).await?;
    let warnings = app.pump.shared.read(|state| plan::warnings(state, &environment, &spec));
    let if_release = request.if_release.as_deref().map(parse_release).transpose()?;
    let command =
        Command::Deploy { spec: Box::new(spec), reason: request.reason, if_release, wait: request.wait };
    let recorded = app.pump.command(Input::Command { environment: environment.clone(), by, command }).await?;
    Ok(Json(Accepted { warnings, ..accepted(&app, &environment, &recorded) }))
}

/// The content of the release that a request asks for.
///
/// # Errors
/// What is wrong with the file, with spans.
pub async fn release_spec(
    app: &App,
    environment: &EnvironmentKey,
    request: &DeployRequest,
) -> Result<ReleaseSpec, Failure> {
    let project = Project::parse(&request.config_path, &request.config)
        .map_err(|found| Failure(to_api(&found, &[], &request.config)))?;
    let fail = |found: Vec<Diagnostic>| Failure(to_api(&found, project.warnings(), &request.config));
    if project.name() != &environment.project {
        let message =
            format!("the file is of project {}, the request of {}", project.name(), environment.project);
        return Err(Failure(ApiError::new("deploy/other-project", message).exit(2)));
    }
    let strategy = request.strategy.as_deref().map(str::parse).transpose().map_err(
        |error: fairway_config::UnknownStrategy| {
            Failure(ApiError::new("deploy/unknown-strategy", error.to_string()).exit(2))
        },
    )?;
    let wanted = project.artifacts(environment.environment.as_str()).map_err(fail)?;
    let mut artifacts = BTreeMap::new();
    for one in wanted {
        let Some(digest) = request.artifacts.get(one.key.as_str()) else {
            let message = format!("the artifact {} was not uploaded", one.key);
            return Err(Failure(ApiError::new("deploy/no-artifact", message)));
        };
        artifacts.insert(one.key, TreeDigest(digest.as_str().into()));
    }
    let file = |one: &RuleText| RuleFile { path: one.path.clone(), text: one.text.clone() };
    let rules: Vec<RuleFile> = request.rules.iter().map(file).collect();
    project.check_rules(environment.environment.as_str(), &rules).map_err(fail)?;
    let versions = {
        let vault = std::sync::Arc::clone(&app.vault);
        let environment = environment.clone();
        blocking(move || vault.versions(&environment)).await?
    };
    let source = &request.source;
    let mut spec = project
        .resolve(
            environment.environment.as_str(),
            &Inputs {
                artifacts,
                secrets: &|name| versions.get(name).copied(),
                source: Source {
                    commit: source.commit.clone(),
                    branch: source.branch.clone(),
                    title: source.title.clone(),
                    dirty: source.dirty,
                    authors: source.authors.clone(),
                },
                strategy,
            },
        )
        .map_err(fail)?;
    spec.monitoring.rules = rules;
    if request.development {
        spec.deploy.bake = Duration::ZERO;
        spec.deploy.keep_warm = Duration::ZERO;
        spec.deploy.approvers = 0;
    }
    // A megabyte of rules takes its time.
    let environment = environment.clone();
    blocking(move || monitoring::check(&project, &environment, &spec).map(|()| spec)).await
}

/// The proxy would refuse the table in the middle of the rollout.
fn check_routes(app: &App, key: &EnvironmentKey, spec: &ReleaseSpec) -> Result<(), Failure> {
    let taken = app.pump.shared.read(|state| sharing::taken_route(key, spec, state.environments.values()));
    let Some(taken) = taken else { return Ok(()) };
    let hint = "set a `host` of its own, or another `listen`, for the environment";
    Err(Failure(ApiError::new("listen/shared", taken.to_string()).hint(hint)))
}

/// An address that somebody else holds is found out before anything starts.
async fn check_listen(app: &App, spec: &ReleaseSpec) -> Result<(), Failure> {
    let wanted = &spec.listen.address;
    let is_ours = app.pump.shared.read(|state| {
        let tables = state.environments.values().map(|env| &env.routes.table);
        tables
            .filter(|table| !table.services.is_empty())
            .filter_map(|table| table.listen.as_ref())
            .any(|listen| listen.address == *wanted)
    });
    let needed = spec.services.values().any(|service| service.route.is_some());
    if is_ours || !needed {
        return Ok(());
    }
    let Err(error) = bind_within(wanted, LET_GO_WITHIN).await else { return Ok(()) };
    let port = wanted.rsplit(':').next().unwrap_or_default();
    let hint = if error.kind() == std::io::ErrorKind::AddrInUse {
        format!("`ss -ltnp sport = :{port}` shows who has it; or set another `listen` for the environment")
    } else if error.kind() == std::io::ErrorKind::PermissionDenied {
        "ports below 1024 need root or CAP_NET_BIND_SERVICE; or set another `listen` for the environment"
            .to_owned()
    } else {
        "set another `listen` for the environment".to_owned()
    };
    let message = format!("the environment cannot listen on {wanted}: {error}");
    Err(Failure(ApiError::new("listen/taken", message).hint(hint)))
}

/// Tries to listen until it works or the time is over.
async fn bind_within(address: &str, within: Duration) -> std::io::Result<()> {
    let until = tokio::time::Instant::now() + within;
    loop {
        match std::net::TcpListener::bind(address) {
            Ok(_) => return Ok(()),
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && tokio::time::Instant::now() < until =>
            {
                tokio::time::sleep(LET_GO_ASK).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A release whose bytes are not all there must not begin.
async fn check_trees(app: &App, spec: &ReleaseSpec) -> Result<(), Failure> {
    let trees = app.trees.clone();
    let digests = crate::artifacts::of_spec(spec);
    blocking(move || {
        for digest in digests {
            let manifest = trees.manifest(&digest).map_err(|error| {
                ApiError::new("deploy/no-artifact", "an artifact is not there").cause(error.to_string())
            })?;
            let blobs: Vec<_> = manifest.blobs().collect();
            let missing = trees.blobs().missing(&blobs).len();
            if missing > 0 {
                let message = format!("{missing} files of an artifact are not there");
                return Err(ApiError::new("deploy/no-artifact", message)
                    .hint("deploy again: what is missing is uploaded"));
            }
        }
        Ok(())
    })
    .await
}

/// Findings as one error: the first with its place, the others as related places. `warnings` are not told; they say
/// which lines of `text` are not to be shown.
#[must_use]
pub fn to_api(found: &[Diagnostic], warnings: &[Diagnostic], text: &str) -> ApiError {
    let errors: Vec<&Diagnostic> = found.iter().filter(|one| one.severity == Severity::Error).collect();
    let Some(first) = errors.first() else {
        return ApiError::new("config/invalid", "the configuration is not valid").exit(2);
    };
    // The error goes to terminals and into logs; a line with a secret must not, whatever else is wrong with it.
    let secret = found.iter().chain(warnings).filter(|one| one.code == PLAIN_SECRET);
    let quiet: BTreeSet<u32> = secret.filter_map(|one| Some(one.span.as_ref()?.line)).collect();
    let place = |span: &Span| {
        let place = source_span(span, text);
        if quiet.contains(&span.line) { SourceSpan { text: String::new(), ..place } } else { place }
    };
    let mut error = ApiError::new(first.code, first.message.clone()).exit(2);
    error.span = first.span.as_ref().map(place);
    error.hint.clone_from(&first.hint);
    let own = first.related.iter().map(|(span, what)| (span, what.clone()));
    let others = errors.iter().skip(1).filter_map(|one| Some((one.span.as_ref()?, one.message.clone())));
    error.related = own.chain(others).map(|(span, message)| Related { message, span: place(span) }).collect();
    error
}

fn source_span(span: &Span, text: &str) -> SourceSpan {
    let line = text.lines().nth(span.line.saturating_sub(1) as usize).unwrap_or_default();
    let meant = text.get(span.bytes.start..span.bytes.end).unwrap_or_default();
    let length = meant.lines().next().unwrap_or_default().chars().count().max(1);
    SourceSpan {
        file: span.file.to_string(),
        line: span.line,
        column: span.column,
        text: line.to_owned(),
        length: u32::try_from(length).unwrap_or(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_being_let_go_is_waited_for() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap().to_string();
        let error = bind_within(&address, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        // Polled in this order: the first try finds it taken.
        let (bound, ()) =
            tokio::join!(biased; bind_within(&address, Duration::from_secs(60)), async { drop(holder) });
        bound.unwrap();
    }

    #[test]
    fn a_line_with_a_secret_is_not_copied_into_an_error() {
        let text = "version = 1\nproject = \"shop\"\n[service.api]\ncommand = [\"./serve\"]\nport = 80\nroute = \"/\"\n\
                    [metrics]\nprometheus = \"http://ann:hunter2@prometheus.example\"\n";
        let found = Project::parse("fairway.toml", text).unwrap_err();
        assert!(found.iter().any(|one| one.code == PLAIN_SECRET), "{found:?}");
        let told = to_api(&found, &[], text);
        let told = serde_json::to_string(&told).unwrap();
        assert!(!told.contains("hunter2"), "{told}");
        assert!(told.contains("\"line\":8"), "{told}");
    }

    #[test]
    fn a_line_with_a_secret_is_not_copied_for_something_else_that_is_wrong_there() {
        let text = "version = 1\nproject = \"shop\"\n[vars]\nA = { x = 1 }\n";
        let source = fairway_config::Source::new("fairway.toml", text);
        let wrong = Diagnostic::error("config/conflict", "wrong").at(source.span(41..42));
        let secret = Diagnostic::warning(PLAIN_SECRET, "a secret").at(source.span(45..46));
        assert_eq!(to_api(std::slice::from_ref(&wrong), &[], text).span.unwrap().text, "A = { x = 1 }");
        let span = to_api(&[wrong], &[secret], text).span.unwrap();
        assert_eq!((span.text.as_str(), span.line), ("", 4));
    }
}
