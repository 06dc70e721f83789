//! `fairway up`

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairway_api::client::{Client, Target};
use fairway_api::{ApiError, Command, DeployRequest, LogQuery};
use fairway_config::Project;
use serde_json::json;

use crate::capture;
use crate::changes::Changes;
use crate::context::{Context, ProjectFile, find_environment};
use crate::exit::Exit;
use crate::follow;
use crate::output::Paint;
use crate::private_server::PrivateServer;
use crate::problem::{Outcome, Problem};
use crate::settle;
use crate::verb::{down, logs, plan};

/// Until the first deploy is there to have logs.
const LOGS_AGAIN: Duration = Duration::from_millis(200);

/// Run everything for development, in the foreground, and reload on change
///
/// Starts a server of its own with its state in .fairway/, deploys the environment dev without bake and approvals,
/// shows the logs, and deploys again when the source changes. An error of a change is shown and the version before
/// goes on serving. Ctrl-C takes everything down.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fairway up\n  fairway up -e staging --no-watch")]
pub struct Args {
    /// Do not deploy again on change
    #[arg(long)]
    no_watch: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let file = cx.need_project_file()?;
    let project = file.load()?;
    let name = cx.globals.env.clone().unwrap_or_else(|| "dev".to_owned());
    // A name that does not exist is told before anything is started.
    find_environment(&project, &name)?;
    cx.means(&name);
    let target = Target { project: project.name().as_str().to_owned(), environment: name };
    let mut server = PrivateServer::start(&file.root)?;
    if server.was_found() {
        cx.out.progress("a server of an earlier `fairway up` still runs here; going on with it");
    }
    let client = server.client();
    let (builds, warned) = (Cell::new(false), RefCell::default());
    let up = Up { cx, client: &client, target: &target, file: &file, builds, warned };
    let done = cx.block_on(async {
        let done = tokio::select! {
            done = up.run(args, project) => done,
            () = stopped() => Ok(Exit::Done),
        };
        cx.out.progress("stopping; Ctrl-C again to stop waiting");
        let down = tokio::select! {
            down = up.down() => down,
            () = stopped() => Ok(()),
        };
        if let Err(problem) = down {
            cx.out.errors(problem.exit(), &problem.report());
        }
        let pid = client.status().await.ok().map(|status| status.server.pid);
        Ok((done, pid))
    });
    let (done, pid) = match done {
        Ok((done, pid)) => (done, pid),
        Err(problem) => (Err(problem), None),
    };
    server.stop(pid);
    let exit = done?;
    cx.out.result(exit, &json!(null));
    Ok(exit)
}

async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
        _ = hangup.recv() => {}
    }
}

struct Up<'a> {
    cx: &'a Context,
    client: &'a Client,
    target: &'a Target,
    file: &'a ProjectFile,
    /// Whether the last look at the project ran a build.
    builds: Cell<bool>,
    /// What the last deploy warned of: it is not said again at every save.
    warned: RefCell<Vec<String>>,
}

/// A deploy that only has to be sent.
struct Prepared {
    project: Project,
    request: DeployRequest,
}

async fn next(changes: &mut Option<Changes>) -> PathBuf {
    let changed = match changes {
        Some(changes) => changes.next().await,
        None => None,
    };
    match changed {
        Some(path) => path,
        // Nothing is watched: there is no next change.
        None => std::future::pending().await,
    }
}

impl Up<'_> {
    async fn run(&self, args: &Args, project: Project) -> Outcome {
        let mut changes = if args.no_watch {
            None
        } else {
            Some(Changes::watch(&self.file.root, &project, &self.target.environment)?)
        };
        tokio::select! {
            ended = self.logs() => ended,
            () = self.rounds(&mut changes) => Ok(Exit::Done),
        }
    }

    /// One deploy after the other, each when something has changed.
    async fn rounds(&self, changes: &mut Option<Changes>) {
        let mut last = None;
        loop {
            let prepared = self.prepare(&mut last).await;
            if let Some(changes) = changes.as_mut().filter(|_| self.builds.get())
                && let Some(path) = changes.settle(|path| self.written_by_builds(path)).await
            {
                self.changed(&path);
                continue;
            }
            let path = match prepared {
                Ok(Some(prepared)) => {
                    if let Some(changes) = changes.as_mut() {
                        changes.follow(&prepared.project, &self.target.environment);
                    }
                    // A fix need not wait for the end of what it fixes: the next deploy takes its place.
                    tokio::select! {
                        rolled = self.roll(&prepared, &mut last) => {
                            match rolled {
                                Ok(()) => self.url(&prepared.project),
                                Err(problem) => self.tell(&problem),
                            }
                            None
                        }
                        path = next(changes) => Some(path),
                    }
                }
                Ok(None) => {
                    self.cx.out.progress("nothing that runs has changed");
                    None
                }
                Err(problem) => {
                    self.tell(&problem);
                    None
                }
            };
            let path = match path {
                Some(path) => path,
                None => next(changes).await,
            };
            self.changed(&path);
        }
    }

    fn written_by_builds(&self, path: &Path) {
        let below = path.strip_prefix(&self.file.root).unwrap_or(path);
        let warning = ApiError::new(
            "up/written-by-builds",
            format!("{} changes with every build; it is not watched any more", below.display()),
        );
        self.cx.out.warning(&warning.hint("name it in .gitignore or .fairwayignore"));
    }

    fn changed(&self, path: &Path) {
        let below = path.strip_prefix(&self.file.root).unwrap_or(path);
        self.cx.out.progress(format!("changed: {}", below.display()));
    }

    /// What is there now, built and captured; none when it is what was deployed last.
    async fn prepare(&self, last: &mut Option<DeployRequest>) -> Result<Option<Prepared>, Problem> {
        let project = self.file.load()?;
        let environment = find_environment(&project, &self.target.environment)?;
        let requests = project.artifacts(&self.target.environment).unwrap_or_default();
        self.builds.set(requests.iter().any(|request| !request.builds.is_empty()));
        let request = capture::prepare(self.cx, self.client, self.file, &project, environment).await?;
        let request = DeployRequest { development: true, ..request };
        let is_same = |before: &DeployRequest| {
            before.config == request.config
                && before.artifacts == request.artifacts
                && before.rules == request.rules
        };
        if last.as_ref().is_some_and(is_same) {
            return Ok(None);
        }
        Ok(Some(Prepared { project, request }))
    }

    async fn roll(&self, prepared: &Prepared, last: &mut Option<DeployRequest>) -> Result<(), Problem> {
        let accepted = self
            .client
            .deploy(self.target, &prepared.request)
            .await
            .map_err(|error| Problem::of_change(error, Some(&self.target.environment)))?;
        if *self.warned.borrow() != accepted.warnings {
            plan::warn(self.cx, &accepted.warnings);
            self.warned.replace(accepted.warnings.clone());
        }
        *last = Some(prepared.request.clone());
        follow::until_ended(self.cx, self.client, self.target, &accepted).await.map(|_| ())
    }

    fn url(&self, project: &Project) {
        let Ok(environment) = find_environment(project, &self.target.environment) else { return };
        let routed = environment.services.values().any(|service| service.route.is_some());
        let colours = self.cx.out.progress_colours();
        let ready = colours.paint(Paint::Good, "ready");
        if routed {
            let url = colours.paint(Paint::Bold, &environment.url);
            self.cx.out.progress(format!("{ready}: {url}"));
            self.cx.out.event("ready", &json!({ "url": environment.url }));
        } else {
            self.cx.out.progress(format!("{ready}; no service has a route"));
            self.cx.out.event("ready", &json!({ "url": null }));
        }
    }

    fn tell(&self, problem: &Problem) {
        let mut errors = problem.report();
        self.cx.name_environment(&mut errors);
        if self.cx.out.is_json() {
            self.cx.out.event("error", &errors);
        } else {
            self.cx.out.errors(problem.exit(), &errors);
            self.cx.out.progress("the next change is tried at once; what served before goes on");
        }
    }

    async fn logs(&self) -> Outcome {
        let query = LogQuery { follow: true, limit: Some(20), ..LogQuery::default() };
        let mut printer = logs::Printer::new(self.cx);
        loop {
            match logs::read(self.cx, self.client, self.target, query.clone(), &mut printer).await {
                // Logs that end are no reason to end; Ctrl-C is.
                Ok(_) => return std::future::pending().await,
                // Before the first deploy there is nothing to have logs of.
                Err(Problem::Refused(_)) => tokio::time::sleep(LOGS_AGAIN).await,
                Err(problem) => return Err(problem),
            }
        }
    }

    async fn down(&self) -> Result<(), Problem> {
        let accepted = match self.client.command(self.target, &Command::Down).await {
            Ok(accepted) => accepted,
            // Nothing was ever deployed: nothing is to be taken down.
            Err(fairway_api::client::ClientError::Api(_)) => return Ok(()),
            Err(error) => return Err(Problem::of_change(error, Some(&self.target.environment))),
        };
        let text = settle::wait(self.cx, self.client, self.target, &accepted, down::look).await?;
        self.cx.out.progress(text);
        Ok(())
    }
}
