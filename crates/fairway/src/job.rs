//! A job on the server, followed from here: its output, and how it ended.

use std::time::Duration;

use fairway_api::client::{Client, Target};
use fairway_api::{JobInfo, JobOutcome, JobRequest, LogQuery};
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::follow;
use crate::output::Paint;
use crate::problem::{Outcome, Problem, ask};

/// How often it is asked whether the job has ended.
const ASK: Duration = Duration::from_millis(200);
/// Output that was written before the end is here within this time after it.
const LAST_OUTPUT: Duration = Duration::from_millis(300);
/// From the first line on: a one-off command may print its all before we listen.
const LINES_MAX: u32 = 100_000;

/// Starts a job, prints its output (stdout to stdout, stderr to stderr) and answers with how it ended.
///
/// # Errors
/// When it is refused, or failed.
pub async fn run(cx: &Context, client: &Client, target: &Target, request: &JobRequest) -> Outcome {
    let accepted = client
        .run_job(target, request)
        .await
        .map_err(|error| Problem::of_change(error, Some(&target.environment)))?;
    let Some(number) = accepted.job else {
        return Err(Problem::failed(
            "job/none",
            "the server started no job",
            format!("fairway status -e {}", target.environment),
        ));
    };
    cx.out.progress(&accepted.summary);
    tokio::select! {
        ended = until_ended(cx, client, target, number) => tell(cx, target, request, &ended?),
        _ = tokio::signal::ctrl_c() => {
            cx.out.progress(format!(
                "detached: job j{number} goes on on the server; `fairway status -e {}` shows how it ends",
                target.environment
            ));
            cx.out.result(Exit::Interrupted, &json!({ "detached": true, "job": number }));
            Ok(Exit::Interrupted)
        }
    }
}

/// A job that is over, and whether its output was shown.
struct Ended {
    job: JobInfo,
    was_shown: bool,
}

async fn until_ended(cx: &Context, client: &Client, target: &Target, number: u32) -> Result<Ended, Problem> {
    let mut query =
        LogQuery { job: Some(number), follow: true, limit: Some(LINES_MAX), ..LogQuery::default() };
    let mut lines = ask(client.logs(target, &query)).await?;
    let mut is_open = true;
    let mut was_shown = false;
    let mut ended: Option<JobInfo> = None;
    loop {
        let wait = if ended.is_some() { LAST_OUTPUT } else { ASK };
        tokio::select! {
            biased;
            line = lines.next(), if is_open => match line {
                Ok(Some(line)) => {
                    was_shown = true;
                    // From here on, should the server go away in the middle.
                    query.since_ms = Some(line.at_ms + 1);
                    cx.out.event("log", &line);
                    if !cx.out.is_json() {
                        let text = format!("{}\n", line.message);
                        if line.stream == "stderr" { cx.out.progress(&line.message) } else { cx.out.raw(text.as_bytes()) }
                    }
                }
                // The end of the output, or a server that goes away: the job itself is asked for below.
                Ok(None) | Err(_) => is_open = false,
            },
            () = tokio::time::sleep(wait) => {
                if let Some(job) = ended {
                    return Ok(Ended { job, was_shown });
                }
                let job = follow::patient(cx, || client.job(target, number)).await?;
                if job.outcome != JobOutcome::Running {
                    ended = Some(job);
                }
                if !is_open && let Ok(opened) = client.logs(target, &query).await {
                    lines = opened;
                    is_open = true;
                }
            }
        }
    }
}

fn tell(cx: &Context, target: &Target, request: &JobRequest, ended: &Ended) -> Outcome {
    let job = &ended.job;
    let environment = &target.environment;
    match &job.outcome {
        JobOutcome::Succeeded | JobOutcome::Running => {
            let done = cx.out.progress_colours().paint(Paint::Good, "done");
            cx.out.progress(format!("{done}: {} in {environment} with {}", job.kind, job.release));
            cx.out.result(Exit::Done, &json!(job));
            Ok(Exit::Done)
        }
        JobOutcome::Failed { cause, last_lines } => {
            if let (JobRequest::OneOff { .. }, Some(code)) = (request, exit_code(cause)) {
                cx.out.progress(cause);
                cx.out.result(Exit::OfCommand(code), &json!(job));
                return Ok(Exit::OfCommand(code));
            }
            Err(Problem::Failed {
                code: "job/failed",
                what: format!("{} (j{}) failed in {environment}", job.kind, job.number),
                causes: vec![cause.clone()],
                lines: if ended.was_shown { Vec::new() } else { last_lines.clone() },
                hint: Some(format!(
                    "`fairway logs -e {environment} --job j{}` shows what it wrote; it runs on the server, with the PATH \
                     of the server",
                    job.number
                )),
                exit: Exit::Failed,
            })
        }
        JobOutcome::Lost { why } => Err(Problem::Failed {
            code: "job/lost",
            what: format!("it is not known how {} (j{}) ended in {environment}", job.kind, job.number),
            causes: vec![why.clone()],
            lines: Vec::new(),
            hint: Some("look at what it did before you run it again".to_owned()),
            exit: Exit::Unknown,
        }),
    }
}

/// `exit code 3`, as the supervisor puts it; a signal is 128 and its number, as in a shell.
fn exit_code(cause: &str) -> Option<u8> {
    let after = |word: &str| -> Option<u8> {
        let rest = &cause[cause.find(word)? + word.len()..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok()
    };
    after("exit code ").or_else(|| after("signal ").and_then(|signal| signal.checked_add(128)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_of_a_command_is_passed_on() {
        assert_eq!(exit_code("exit code 3"), Some(3));
        assert_eq!(exit_code("bin/x: exit code 42 after 3s"), Some(42));
        assert_eq!(exit_code("signal 9"), Some(137));
        assert_eq!(exit_code("command not found"), None);
        assert_eq!(exit_code("exit code 4096"), None);
    }
}
