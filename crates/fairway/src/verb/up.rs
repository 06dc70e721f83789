//! `fairway up`

use std::path::Path;

use fairway_api::client::{Client, Target};
use fairway_api::{Command, DeployRequest, LogQuery};
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
use crate::verb::{down, logs};

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
    let up = Up { cx, client: &client, target: &target, file: &file };
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
}

impl Up<'_> {
    async fn run(&self, args: &Args, project: Project) -> Outcome {
        let mut changes = if args.no_watch {
            None
        } else {
            Some(Changes::watch(&self.file.root, &project, &self.target.environment)?)
        };
        let mut last = None;
        // The first one may fail as well: the next change may be what makes it good.
        self.deploy(project, &mut last).await;
        let lines = self.logs();
        tokio::pin!(lines);
        loop {
            let change = async {
                match &mut changes {
                    Some(changes) => changes.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = &mut lines => return ended,
                path = change => {
                    let Some(mut path) = path else { return Ok(Exit::Done) };
                    loop {
                        self.reload(&path, &mut changes, &mut last, lines.as_mut()).await?;
                        match changes.as_mut().and_then(Changes::settle) {
                            Some(another) => path = another,
                            None => break,
                        }
                    }
                }
            }
        }
    }

    /// Deploys what is there now, while the logs go on.
    async fn reload(
        &self,
        path: &Path,
        changes: &mut Option<Changes>,
        last: &mut Option<DeployRequest>,
        lines: std::pin::Pin<&mut impl Future<Output = Outcome>>,
    ) -> Result<(), Problem> {
        let below = path.strip_prefix(&self.file.root).unwrap_or(path);
        self.cx.out.progress(format!("changed: {}", below.display()));
        let work = async {
            match self.file.load() {
                Ok(project) => {
                    if let Some(changes) = changes {
                        changes.follow(&project, &self.target.environment);
                    }
                    self.deploy(project, last).await;
                }
                Err(problem) => self.tell(&problem),
            }
        };
        tokio::select! {
            () = work => Ok(()),
            ended = lines => ended.map(|_| ()),
        }
    }

    /// One deploy from beginning to end; an error is told and is not the end of `up`.
    async fn deploy(&self, project: Project, last: &mut Option<DeployRequest>) {
        match self.try_deploy(&project, last).await {
            Ok(true) => self.url(&project),
            Ok(false) => self.cx.out.progress("nothing that runs has changed"),
            Err(problem) => self.tell(&problem),
        }
    }

    /// Whether there was something to deploy.
    async fn try_deploy(&self, project: &Project, last: &mut Option<DeployRequest>) -> Result<bool, Problem> {
        let environment = find_environment(project, &self.target.environment)?;
        let prepared = capture::prepare(self.cx, self.client, self.file, project, environment).await?;
        let request = DeployRequest { development: true, ..prepared };
        let is_same =
            |before: &DeployRequest| before.config == request.config && before.artifacts == request.artifacts;
        if last.as_ref().is_some_and(is_same) {
            return Ok(false);
        }
        let accepted = self
            .client
            .deploy(self.target, &request)
            .await
            .map_err(|error| Problem::of_change(error, Some(&self.target.environment)))?;
        *last = Some(request);
        follow::until_ended(self.cx, self.client, self.target, &accepted).await?;
        Ok(true)
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
            self.cx.out.progress("going on with what served before; waiting for the next change");
        }
    }

    async fn logs(&self) -> Outcome {
        let query = LogQuery { follow: true, limit: Some(20), ..LogQuery::default() };
        let mut printer = logs::Printer::new(self.cx);
        logs::read(self.cx, self.client, self.target, query, &mut printer).await?;
        // Logs that end are no reason to end; Ctrl-C is.
        std::future::pending().await
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
