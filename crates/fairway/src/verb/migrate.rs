//! `fairway migrate`

use fairway_api::{EnvironmentStatus, JobOutcome, JobRequest};
use serde_json::json;

use crate::ago;
use crate::confirm;
use crate::context::Context;
use crate::exit::Exit;
use crate::job;
use crate::output::Table;
use crate::problem::{Outcome, Problem, ask};

/// Migrations: what is due, expand now, contract now
///
/// A rollout runs `expand` before traffic and `contract` some time after it. After a contraction releases from before
/// it cannot run any more, and a rollback to them is refused.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway migrate status -e production\n  fairway migrate contract -e production --dry-run"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// What has run and what is due
    Status,
    /// Run the expand migration of the release that serves
    Expand(Job),
    /// Run the contract migration now; releases from before it cannot come back
    Contract(Job),
}

#[derive(Debug, clap::Args)]
struct Job {
    /// Show what would run, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for the environment's name
    #[arg(long)]
    yes: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    match &args.what {
        What::Status => status(cx),
        What::Expand(job) => migrate(cx, job, &JobRequest::Expand, "expand"),
        What::Contract(job) => migrate(cx, job, &JobRequest::Contract, "contract"),
    }
}

fn migrate(cx: &Context, args: &Job, request: &JobRequest, kind: &str) -> Outcome {
    if args.dry_run {
        return dry_run(cx, kind);
    }
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let what = match request {
            JobRequest::Contract => {
                "After this, releases from before it cannot be rolled back to.".to_owned()
            }
            JobRequest::Expand | JobRequest::Smoke | JobRequest::Seed | JobRequest::OneOff { .. } => {
                format!("This migrates the database of {}.", target.environment)
            }
        };
        confirm::environment(cx, &target.environment, &what, args.yes)?;
        job::run(cx, &client, &target, request).await
    })
}

/// What fairway.toml says now; the server runs what the release says that serves.
fn dry_run(cx: &Context, kind: &str) -> Outcome {
    let project = cx.need_project_file()?.load()?;
    let environment = cx.environment(&project)?;
    let job = if kind == "expand" { &environment.jobs.expand } else { &environment.jobs.contract };
    let Some(job) = job else {
        return Err(Problem::usage(
            "migrate/none",
            format!("{} has no {kind} migration", environment.name),
            format!("[release] {kind} = [\"bin/migrate\", \"{kind}\"]"),
        ));
    };
    cx.out.data(format!("would run: {}", job.command.join(" ")));
    cx.out.data(format!("  in {}, for at most {}", job.artifact, crate::duration::show(job.timeout)));
    cx.out.result(Exit::Done, &json!({ "command": job.command, "dir": job.artifact.as_str() }));
    Ok(Exit::Done)
}

fn status(cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let status = ask(client.environment(&target)).await?;
        cx.out.data(describe(&status, ago::now_ms()));
        let jobs: Vec<_> = status.jobs.iter().filter(|job| is_migration(&job.kind)).collect();
        let result = json!({
            "contract_due_ms": status.contract_due_ms,
            "contracted_by": status.contracted_by,
            "jobs": jobs,
        });
        cx.out.result(Exit::Done, &result);
        Ok(Exit::Done)
    })
}

fn is_migration(kind: &str) -> bool {
    kind.contains("expand") || kind.contains("contract")
}

fn describe(status: &EnvironmentStatus, now_ms: u64) -> String {
    let mut text = Vec::new();
    text.push(match (status.contract_due_ms, &status.contracted_by) {
        (Some(due), _) if due > now_ms => {
            format!("contract: due in {}, at {} UTC", crate::duration::show_ms(now_ms, due), ago::utc(due))
        }
        (Some(_), _) => "contract: due now".to_owned(),
        (None, Some(by)) => format!("contract: done by {by}; releases before it cannot come back"),
        (None, None) => "contract: nothing due".to_owned(),
    });
    let mut table = Table::default();
    for job in status.jobs.iter().filter(|job| is_migration(&job.kind)) {
        let end = match &job.outcome {
            JobOutcome::Running => "running".to_owned(),
            JobOutcome::Succeeded => "succeeded".to_owned(),
            JobOutcome::Failed { cause, .. } => format!("failed: {cause}"),
            JobOutcome::Lost { why } => format!("unknown: {why}"),
        };
        table.row([
            format!("j{}", job.number),
            job.kind.clone(),
            job.release.clone(),
            ago::ago(job.started_ms, now_ms),
            end,
        ]);
    }
    if !table.is_empty() {
        text.push(table.render());
    }
    text.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::tests::environment;

    #[test]
    fn it_says_when_the_contraction_is_due_or_that_there_is_none() {
        let mut status = environment();
        assert_eq!(describe(&status, 0), "contract: nothing due");
        status.contract_due_ms = Some(7_200_000);
        assert_eq!(describe(&status, 0), "contract: due in 2h 00m, at 1970-01-01 02:00:00 UTC");
        assert_eq!(describe(&status, 7_200_001), "contract: due now");
    }
}
