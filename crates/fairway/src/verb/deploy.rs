//! `fairway deploy`

use std::path::PathBuf;

use fairway_api::client::{Client, Target};
use fairway_api::{Accepted, DeployRequest};
use serde_json::json;

use crate::capture;
use crate::confirm;
use crate::context::Context;
use crate::exit::Exit;
use crate::follow;
use crate::problem::{Outcome, Problem, ask};
use crate::verb::plan::{self, Saved};

/// Build, migrate, roll: bring what is here into an environment
///
/// Shows each phase until the rollout has ended. It undoes itself when the new version is not good. Ctrl-C detaches:
/// the server goes on, `fairway watch` comes back to it. A deploy during a rollout takes its place; with `--wait` it
/// queues behind it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway deploy -e staging\n  fairway deploy -e production --strategy canary --reason \"faster checkout\"\n  fairway deploy -e production --plan plan.json --yes"
)]
pub struct Args {
    /// Deploy exactly this plan; nothing is built
    #[arg(long, value_name = "FILE", conflicts_with_all = ["strategy", "if_release", "tag"])]
    plan: Option<PathBuf>,
    /// In place of the configured strategy
    #[arg(long, value_name = "STRATEGY", value_parser = ["rolling", "blue-green", "canary"])]
    strategy: Option<String>,
    /// A name for the release, shown in status and history, such as v1.4.0
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Queue behind a rollout that is under way, instead of taking its place
    #[arg(long)]
    wait: bool,
    /// Do not wait for the end
    #[arg(long)]
    detach: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Refuse when another release than this one serves, such as r12
    #[arg(long, value_name = "RELEASE")]
    if_release: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask for the environment's name
    #[arg(long)]
    yes: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let saved = args.plan.as_deref().map(Saved::read).transpose()?;
    match saved {
        Some(saved) => deploy_plan(args, cx, saved),
        None => deploy_here(args, cx),
    }
}

fn deploy_plan(args: &Args, cx: &Context, saved: Saved) -> Outcome {
    if args.dry_run {
        plan::show(cx, &saved.plan, "the environment");
        cx.out.result(Exit::Done, &json!(saved.plan));
        return Ok(Exit::Done);
    }
    let (target, request) = saved.into_request(cx.globals.env.as_deref())?;
    cx.means(&target.environment);
    confirm(cx, &target, args.yes)?;
    let request = DeployRequest { wait: args.wait, reason: args.reason.clone(), ..request };
    cx.block_on(async {
        let client = cx.client()?;
        start(args, cx, &client, &target, &request).await
    })
}

fn deploy_here(args: &Args, cx: &Context) -> Outcome {
    let file = cx.need_project_file()?;
    let project = file.load()?;
    let environment = cx.environment(&project)?;
    let target = Target {
        project: project.name().as_str().to_owned(),
        environment: environment.name.as_str().to_owned(),
    };
    if !args.dry_run {
        confirm(cx, &target, args.yes)?;
    }
    cx.block_on(async {
        let client = cx.client()?;
        // Before a build of some minutes it is worth knowing that there is a server at all.
        ask(client.status()).await?;
        let mut request = capture::prepare(cx, &client, &file, &project, environment).await?;
        request.strategy.clone_from(&args.strategy);
        request.reason.clone_from(&args.reason);
        request.if_release.clone_from(&args.if_release);
        request.wait = args.wait;
        if let Some(tag) = &args.tag {
            request.source.title = Some(match request.source.title.take() {
                Some(title) => format!("{tag}: {title}"),
                None => tag.clone(),
            });
        }
        if args.dry_run {
            let found = ask(client.plan(&target, &request)).await?;
            plan::show(cx, &found, &target.environment);
            cx.out.result(Exit::Done, &json!(found));
            return Ok(Exit::Done);
        }
        start(args, cx, &client, &target, &request).await
    })
}

fn confirm(cx: &Context, target: &Target, yes: bool) -> Result<(), Problem> {
    let what = format!("This deploys {} to {}.", target.project, target.environment);
    confirm::environment(cx, &target.environment, &what, yes)
}

async fn start(
    args: &Args,
    cx: &Context,
    client: &Client,
    target: &Target,
    request: &DeployRequest,
) -> Outcome {
    let mut accepted: Accepted = client
        .deploy(target, request)
        .await
        .map_err(|error| Problem::of_change(error, Some(&target.environment)))?;
    if request.wait && accepted.release.is_none() {
        // It is in the queue; the rollout that is named is the one that it waits for.
        accepted.rollout = None;
    }
    cx.out.event("accepted", &accepted);
    plan::warn(cx, &accepted.warnings);
    if args.detach {
        cx.out.data(&accepted.summary);
        cx.out.progress(format!("`fairway watch -e {}` follows it", target.environment));
        cx.out.result(Exit::Done, &json!(accepted));
        return Ok(Exit::Done);
    }
    follow::rollout(cx, client, target, &accepted).await
}
