//! What can go wrong on this side, as data; `report` sorts it into code, cause, hint and exit code.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use fairway_api::client::{ClientError, Endpoint};
use fairway_api::{ApiError, Related, RolloutInfo, SourceSpan};
use fairway_config::{Diagnostic, Severity, Source, Span};
use thiserror::Error;

use crate::evidence;
use crate::exit::Exit;

#[derive(Debug, Error)]
pub enum Problem {
    #[error("there is no {} in {} or above it", fairway_config::FILE_NAME, .from.display())]
    NoProject { from: PathBuf },
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is not UTF-8 text", .path.display())]
    NotText { path: PathBuf },
    #[error("fairway.toml is not valid")]
    Config { diagnostics: Vec<Diagnostic>, file: Box<Source> },
    #[error("which environment?")]
    EnvironmentNotNamed { known: Vec<String> },
    #[error("which project?")]
    ProjectNotNamed { known: Vec<String> },
    #[error("no Fairway server answers at {endpoint}")]
    NoServer { endpoint: Endpoint, source: io::Error },
    /// The server said no.
    #[error("{0}")]
    Refused(Box<ApiError>),
    /// Asked for something that changes nothing; asking again is safe.
    #[error("the server did not answer")]
    NoAnswer { source: ClientError },
    #[error("the server did not answer within {} s", ANSWER_MAX.as_secs())]
    TooSlow,
    /// Asked for a change, and the connection ended before the answer.
    #[error("it is not known whether the server did it")]
    OutcomeUnknown { environment: Option<String>, source: ClientError },
    #[error("the server is away for more than {waited_s} s")]
    ServerGone { environment: String, rollout: Option<u32>, waited_s: u64 },
    #[error("{message}")]
    Usage { code: &'static str, message: String, hint: Option<String> },
    #[error("{environment} asks for a confirmation, and there is no terminal to ask on")]
    NotConfirmed { environment: String },
    #[error("not confirmed; nothing was changed")]
    Declined,
    #[error("the build failed: {}", .command.join(" "))]
    Build { command: Vec<String>, dir: PathBuf, how: String },
    #[error("cannot run {:?}", .command.first().map_or("", String::as_str))]
    Spawn { command: Vec<String>, dir: PathBuf, source: io::Error },
    #[error("rollout #{} {}", .rollout.number, .rollout.outcome)]
    Rollout { environment: String, rollout: Box<RolloutInfo> },
    #[error("{what}")]
    Failed {
        code: &'static str,
        what: String,
        causes: Vec<String>,
        lines: Vec<String>,
        hint: Option<String>,
        exit: Exit,
    },
}

/// Code of a finding whose line holds a secret.
const PLAIN_SECRET: &str = "config/plain-secret";

/// Everything a verb can end with: an exit code, or a problem that is told.
pub type Outcome = Result<Exit, Problem>;

/// The slowest question is a plan of a large project, or the probes of `check` with their own time limits; a server
/// that takes longer is stuck.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A question, with a bound to the wait for its answer.
///
/// # Errors
/// When the server refuses, or does not answer.
pub async fn ask<T>(asked: impl Future<Output = Result<T, ClientError>>) -> Result<T, Problem> {
    match tokio::time::timeout(ANSWER_MAX, asked).await {
        Ok(answer) => answer.map_err(Problem::of_query),
        Err(_) => Err(Problem::TooSlow),
    }
}

impl Problem {
    pub fn usage(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Problem::Usage { code, message: message.into(), hint: Some(hint.into()) }
    }

    pub fn failed(code: &'static str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Problem::Failed {
            code,
            what: what.into(),
            causes: Vec::new(),
            lines: Vec::new(),
            hint: Some(hint.into()),
            exit: Exit::Failed,
        }
    }

    /// A call that changes nothing went wrong.
    pub fn of_query(error: ClientError) -> Self {
        match error {
            ClientError::NotRunning { endpoint, source } => Problem::NoServer { endpoint, source },
            ClientError::Api(error) => Problem::Refused(Box::new(error)),
            source @ (ClientError::Interrupted { .. } | ClientError::Protocol { .. }) => {
                Problem::NoAnswer { source }
            }
        }
    }

    /// A call that changes something went wrong: without an answer nobody knows what came of it.
    pub fn of_change(error: ClientError, environment: Option<&str>) -> Self {
        match error {
            ClientError::NotRunning { endpoint, source } => Problem::NoServer { endpoint, source },
            ClientError::Api(error) => Problem::Refused(Box::new(error)),
            source @ (ClientError::Interrupted { .. } | ClientError::Protocol { .. }) => {
                Problem::OutcomeUnknown { environment: environment.map(str::to_owned), source }
            }
        }
    }

    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Problem::NoProject { .. }
            | Problem::Config { .. }
            | Problem::NotText { .. }
            | Problem::EnvironmentNotNamed { .. }
            | Problem::ProjectNotNamed { .. }
            | Problem::Usage { .. } => Exit::Usage,
            Problem::Read { .. }
            | Problem::Write { .. }
            | Problem::NoServer { .. }
            | Problem::NoAnswer { .. }
            | Problem::TooSlow
            | Problem::Build { .. }
            | Problem::Spawn { .. } => Exit::Failed,
            Problem::Refused(error) => Exit::of_server(error.exit),
            Problem::OutcomeUnknown { .. } | Problem::ServerGone { .. } => Exit::Unknown,
            Problem::NotConfirmed { .. } | Problem::Declined => Exit::Denied,
            Problem::Rollout { rollout, .. } => Exit::of_outcome(&rollout.outcome),
            Problem::Failed { exit, .. } => *exit,
        }
    }

    /// As it is told; more than one for a file with several problems.
    #[must_use]
    pub fn report(&self) -> Vec<ApiError> {
        let error = |code: &str| ApiError::new(code, self.to_string()).exit(self.exit().code());
        let one = match self {
            Problem::NoProject { .. } => {
                error("project/none").hint("`fairway init` writes one; `-C DIR` says where the project is")
            }
            Problem::Read { source, .. } => error("io/read").cause(source.to_string()).hint(of_io(source)),
            Problem::Write { source, .. } => error("io/write").cause(source.to_string()).hint(of_io(source)),
            Problem::NotText { .. } => error("io/not-text").hint("is it the right file?"),
            Problem::Config { diagnostics, file } => {
                return of_diagnostics(diagnostics, file)
                    .into_iter()
                    .zip(diagnostics)
                    .filter(|(_, diagnostic)| diagnostic.severity == Severity::Error)
                    .map(|(told, _)| told)
                    .collect();
            }
            Problem::EnvironmentNotNamed { known } if known.is_empty() => {
                error("environment/not-named").hint("name it with -e ENV")
            }
            Problem::EnvironmentNotNamed { known } => {
                error("environment/not-named").hint(format!("name it with -e: {}", known.join(", ")))
            }
            Problem::ProjectNotNamed { known } if known.is_empty() => error("project/not-named")
                .hint("run this in the project's directory, or name the project with --project"),
            Problem::ProjectNotNamed { known } => error("project/not-named").hint(format!(
                "run this in the project's directory, or name it with --project: {}",
                known.join(", ")
            )),
            Problem::NoServer { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                error("server/not-running")
                    .cause(source.to_string())
                    .hint("its socket is for another user: run this as the user that the server runs as")
            }
            Problem::NoServer { source, .. } => error("server/not-running").cause(source.to_string()).hint(
                "`fairway up` starts one for development, `fairway server run` starts one here; --server or --state \
                 says where another one is",
            ),
            Problem::Refused(refused) => (**refused).clone(),
            Problem::NoAnswer { source } => causes(error("server/no-answer"), source)
                .hint("nothing was changed by this; try it again, `fairway doctor` looks for the reason"),
            Problem::TooSlow => error("server/too-slow").hint(
                "nothing was changed by this; the apps and the proxy run without the server; `fairway doctor` looks for the reason",
            ),
            Problem::OutcomeUnknown { environment, source } => {
                let status = match environment {
                    Some(environment) => format!("fairway status -e {environment}"),
                    None => "fairway status".to_owned(),
                };
                causes(error("outcome/unknown"), source).hint(format!("`{status}` shows what is so"))
            }
            Problem::ServerGone { environment, rollout, .. } => {
                let what = match rollout {
                    Some(rollout) => format!("rollout #{rollout} is on the record and goes on"),
                    None => "what it was asked for is on the record and goes on".to_owned(),
                };
                error("server/gone")
                    .cause("the apps and the proxy run without it")
                    .hint(format!("{what} when the server is back; then `fairway watch -e {environment}`"))
            }
            Problem::Usage { code, hint, .. } => {
                let error = error(code);
                if let Some(hint) = hint { error.hint(hint) } else { error }
            }
            Problem::NotConfirmed { environment } => error("confirm/needed")
                .hint(format!("add --yes when you mean {environment}; nothing was changed")),
            Problem::Declined => error("confirm/declined"),
            Problem::Build { dir, how, .. } => error("build/failed")
                .cause(format!("{how}, in {}", dir.display()))
                .hint("its output is above; nothing was deployed"),
            Problem::Spawn { dir, source, .. } => {
                let error = error("build/not-started").cause(format!("{source}, in {}", dir.display()));
                if source.kind() == io::ErrorKind::NotFound {
                    error.hint("is it installed, and in PATH? `fairway doctor` checks every command")
                } else {
                    error
                }
            }
            Problem::Rollout { environment, rollout } => {
                of_rollout(error("rollout/ended"), environment, rollout)
            }
            Problem::Failed { code, causes, lines, hint, .. } => {
                let mut error = error(code).lines(lines.clone());
                error.causes.clone_from(causes);
                error.hint.clone_from(hint);
                error
            }
        };
        vec![one]
    }
}

/// What to do where a file cannot be read or written.
fn of_io(source: &io::Error) -> &'static str {
    let is = |kinds: &[io::ErrorKind]| kinds.contains(&source.kind());
    if is(&[io::ErrorKind::PermissionDenied]) {
        "run it as a user who may, or change whose it is"
    } else if is(&[io::ErrorKind::ReadOnlyFilesystem]) {
        "what is mounted there cannot be written: use another directory"
    } else if is(&[io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded]) {
        "make some room; `fairway gc` removes what no release needs"
    } else if is(&[io::ErrorKind::NotFound]) {
        "is the path right?"
    } else {
        "`fairway doctor` looks at directory and disk"
    }
}

fn of_rollout(mut error: ApiError, environment: &str, rollout: &RolloutInfo) -> ApiError {
    error.code = format!("rollout/{}", rollout.outcome.replace(' ', "-"));
    error.message = match (rollout.outcome.as_str(), &rollout.from) {
        ("rolled back", Some(from)) => {
            format!("rollout #{} of {} was rolled back: {from} serves", rollout.number, rollout.to)
        }
        ("failed", Some(from)) => {
            format!("rollout #{} of {} failed: {from} still serves", rollout.number, rollout.to)
        }
        ("failed", None) => format!("rollout #{} of {} failed", rollout.number, rollout.to),
        (outcome, _) => format!("rollout #{} of {} was {outcome}", rollout.number, rollout.to),
    };
    error.causes.extend(rollout.cause.clone());
    error.last_lines.clone_from(&rollout.last_lines);
    let to = &rollout.to;
    if let Some(finding) = &rollout.finding {
        let look = evidence::look_next(finding, environment, to);
        let number = rollout.number;
        return error.hint(format!(
            "`{look}` shows more; `fairway history {number} -e {environment}` keeps the numbers"
        ));
    }
    error.hint(match Exit::of_outcome(&rollout.outcome) {
        Exit::Superseded => format!("fairway history -e {environment}"),
        Exit::Done
        | Exit::Failed
        | Exit::Usage
        | Exit::Findings
        | Exit::Denied
        | Exit::RolledBack
        | Exit::Unknown
        | Exit::Interrupted
        | Exit::OfCommand(_) => format!(
            "`fairway logs -e {environment} --release {to}` shows more; `fairway retry -e {environment}` tries it again"
        ),
    })
}

fn causes(mut error: ApiError, source: &dyn std::error::Error) -> ApiError {
    let mut next = Some(source);
    while let Some(cause) = next {
        let text = cause.to_string();
        // A transparent wrapper repeats what it wraps.
        if error.causes.last() != Some(&text) {
            error.causes.push(text);
        }
        next = cause.source();
    }
    error
}

/// Problems of the file in the form in which all errors are told. A line that holds a secret is not shown, whatever
/// else is wrong with it: what a terminal shows, the log of a build keeps.
#[must_use]
pub fn of_diagnostics(diagnostics: &[Diagnostic], source: &Source) -> Vec<ApiError> {
    let secret = diagnostics.iter().filter(|one| one.code == PLAIN_SECRET);
    let quiet: BTreeSet<u32> = secret.filter_map(|one| Some(one.span.as_ref()?.line)).collect();
    let place = |span: &Span| {
        let place = of_span(span, source);
        if quiet.contains(&span.line) { SourceSpan { text: String::new(), ..place } } else { place }
    };
    let of_diagnostic = |diagnostic: &Diagnostic| {
        let mut error = ApiError::new(diagnostic.code, diagnostic.message.clone()).exit(Exit::Usage.code());
        error.span = diagnostic.span.as_ref().map(place);
        let related = diagnostic.related.iter();
        error.related =
            related.map(|(span, message)| Related { message: message.clone(), span: place(span) }).collect();
        error.hint.clone_from(&diagnostic.hint);
        error
    };
    diagnostics.iter().map(of_diagnostic).collect()
}

fn of_span(span: &Span, source: &Source) -> SourceSpan {
    let meant = source.text().get(span.bytes.start..span.bytes.end).unwrap_or_default();
    let length = meant.lines().next().map_or(1, |line| line.chars().count()).max(1);
    SourceSpan {
        file: span.file.to_string(),
        line: span.line,
        column: span.column,
        text: source.line(span.line).to_owned(),
        length: u32::try_from(length).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(outcome: &str) -> Problem {
        let rollout = RolloutInfo {
            number: 7,
            kind: "deploy".to_owned(),
            to: "r12".to_owned(),
            from: Some("r11".to_owned()),
            strategy: "rolling".to_owned(),
            requested_by: "ann".to_owned(),
            requested_ms: 0,
            switched_ms: None,
            ended_ms: 1,
            outcome: outcome.to_owned(),
            cause: Some("api.r12.3 failed: exit code 1".to_owned()),
            finding: None,
            last_lines: vec!["boom".to_owned()],
            reason: None,
            title: None,
        };
        Problem::Rollout { environment: "production".to_owned(), rollout: Box::new(rollout) }
    }

    #[test]
    fn a_server_of_another_user_is_not_to_be_started_again() {
        let of = |kind: io::ErrorKind| {
            let endpoint = Endpoint::Unix("/run/fairway.sock".into());
            let problem = Problem::NoServer { endpoint, source: kind.into() };
            problem.report()[0].hint.clone().unwrap()
        };
        assert!(of(io::ErrorKind::PermissionDenied).contains("as the user that the server runs as"));
        assert!(of(io::ErrorKind::NotFound).contains("fairway server run"));
    }

    #[test]
    fn a_file_that_cannot_be_written_or_read_comes_with_a_hint() {
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::StorageFull, io::ErrorKind::Other] {
            let write = Problem::Write { path: "fairway.toml".into(), source: kind.into() };
            let read = Problem::Read { path: "fairway.toml".into(), source: kind.into() };
            assert!(write.report()[0].hint.is_some() && read.report()[0].hint.is_some(), "{kind:?}");
        }
    }

    #[test]
    fn a_rollout_that_failed_says_what_serves_and_why_it_failed() {
        let problem = rollout("failed");
        let report = &problem.report()[0];
        assert_eq!(report.code, "rollout/failed");
        assert_eq!(report.message, "rollout #7 of r12 failed: r11 still serves");
        assert_eq!(report.causes, ["api.r12.3 failed: exit code 1"]);
        assert_eq!(report.last_lines, ["boom"]);
        assert_eq!(problem.exit(), Exit::Failed);
        assert_eq!(rollout("rolled back").exit(), Exit::RolledBack);
        assert_eq!(
            rollout("rolled back").report()[0].exit,
            5,
            "the JSON says the code that the process exits with"
        );
    }

    #[test]
    fn a_rollout_that_was_called_off_says_the_numbers_and_where_to_look() {
        let Problem::Rollout { environment, rollout: mut info } = rollout("rolled back") else { panic!() };
        let cause = "errors of api: 12 errors in 40 requests of the new version, 2 in 900 of stable, at a share of \
                     5 %: evidence 312 (turned back at 200)";
        info.cause = Some(cause.to_owned());
        info.finding = Some(evidence::tests::finding(fairway_api::About::Errors, "api"));
        let problem = Problem::Rollout { environment, rollout: info };
        let report = &problem.report()[0];
        assert_eq!((report.exit, problem.exit().code()), (5, 5));
        assert_eq!(report.causes, [cause]);
        assert_eq!(
            report.hint.as_deref().unwrap(),
            "`fairway logs api -e production --release r12 --grep '(?i)error|panic|exception'` shows more; \
             `fairway history 7 -e production` keeps the numbers"
        );
    }

    #[test]
    fn a_line_with_a_secret_is_not_shown() {
        let source = Source::new("fairway.toml", "[vars]\nKEY = \"hunter2\"\n");
        let secret = Diagnostic::warning(PLAIN_SECRET, "a secret").at(source.span(13..22));
        let wrong = Diagnostic::error("config/bad-name", "a name").at(source.span(7..10));
        let told = of_diagnostics(std::slice::from_ref(&wrong), &source);
        assert!(told[0].span.as_ref().unwrap().text.contains("hunter2"), "nobody said that it is one");
        let told = of_diagnostics(&[wrong, secret], &source);
        assert!(told.iter().all(|one| one.span.as_ref().unwrap().text.is_empty()), "{told:?}");
    }

    #[test]
    fn a_change_without_an_answer_is_unknown_and_a_query_is_not() {
        let cut = || ClientError::Protocol { what: "cut".to_owned() };
        assert_eq!(Problem::of_change(cut(), Some("production")).exit(), Exit::Unknown);
        assert_eq!(Problem::of_query(cut()).exit(), Exit::Failed);
    }
}
