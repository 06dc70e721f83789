//! Commands that run once, whatever happens to the server meanwhile.

mod common;

use std::time::Duration;

use common::*;
use fairway_targets::event::{JobEvent, JobOutcome};
use fairway_targets::exit::Exit;
use fairway_targets::jobs::{JobError, JobStatus, Jobs};
use fairway_targets::logs::{self, LogQuery, Selection};
use fairway_targets::spec::JobSpec;
use tokio::sync::mpsc::Receiver;

async fn outcome(events: &mut Receiver<JobEvent>) -> JobOutcome {
    tokio::time::timeout(PATIENCE, events.recv())
        .await
        .expect("no event came")
        .expect("the runner is gone")
        .outcome
}

fn run(dir: &tempfile::TempDir, script: &str) -> JobSpec {
    JobSpec { workdir: dir.path().to_path_buf(), ..run_once(script) }
}

#[tokio::test]
async fn a_job_reports_its_result_once_with_its_last_lines() {
    let dir = tempfile::tempdir().unwrap();
    let (jobs, mut events) = Jobs::open(dir.path(), shim_command()).unwrap();
    jobs.start(job(1), run(&dir, "echo fine")).await.unwrap();
    assert_eq!(outcome(&mut events).await, JobOutcome::Succeeded);
    jobs.start(job(2), run(&dir, "echo no such table >&2; exit 3")).await.unwrap();
    let failed = JobOutcome::Failed { exit: Exit::Code(3), last_lines: vec!["no such table".into()] };
    assert_eq!(outcome(&mut events).await, failed);
    jobs.start(job(3), JobSpec { argv: vec!["no-such-command".into()], ..run(&dir, "") }).await.unwrap();
    assert!(matches!(outcome(&mut events).await, JobOutcome::SpawnFailed { .. }));
    assert!(events.try_recv().is_err());
    let query = LogQuery {
        environment: environment(),
        selection: Selection::Job(job(2).job),
        since: None,
        until: None,
        grep: None,
        limit: 10,
    };
    assert_eq!(logs::read(dir.path(), &query).unwrap()[0].line.text(), "no such table");
    assert!(matches!(jobs.status(&job(9)).await, Err(JobError::Unknown { .. })));
}

#[tokio::test]
async fn a_job_that_has_run_is_not_run_again_by_anybody() {
    let dir = tempfile::tempdir().unwrap();
    let (jobs, mut events) = Jobs::open(dir.path(), shim_command()).unwrap();
    let spec = run(&dir, "echo run >> runs");
    jobs.start(job(1), spec.clone()).await.unwrap();
    assert_eq!(outcome(&mut events).await, JobOutcome::Succeeded);
    jobs.start(job(1), spec.clone()).await.unwrap();
    assert_eq!(outcome(&mut events).await, JobOutcome::Succeeded);
    drop(jobs);
    let (jobs, mut events) = Jobs::open(dir.path(), shim_command()).unwrap();
    // Not acknowledged: the next server hears of it without asking.
    assert_eq!(jobs.reattach().await.unwrap(), [job(1)]);
    assert_eq!(outcome(&mut events).await, JobOutcome::Succeeded);
    jobs.acknowledge(&job(1)).unwrap();
    let (jobs, mut events) = Jobs::open(dir.path(), shim_command()).unwrap();
    assert_eq!(jobs.reattach().await.unwrap(), []);
    jobs.start(job(1), spec).await.unwrap();
    assert_eq!(outcome(&mut events).await, JobOutcome::Succeeded);
    assert_eq!(std::fs::read_to_string(dir.path().join("runs")).unwrap(), "run\n");
}

#[tokio::test]
async fn a_job_goes_on_without_a_server_and_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let (jobs, events) = Jobs::open(dir.path(), shim_command()).unwrap();
    jobs.start(job(1), run(&dir, "echo run >> runs; while [ ! -e go ]; do sleep 0.02; done; exit 5"))
        .await
        .unwrap();
    drop((jobs, events));
    let (jobs, mut events) = Jobs::open(dir.path(), shim_command()).unwrap();
    jobs.reattach().await.unwrap();
    eventually("it runs", || dir.path().join("runs").exists()).await;
    assert!(matches!(jobs.status(&job(1)).await.unwrap(), JobStatus::Running { .. }));
    std::fs::write(dir.path().join("go"), "").unwrap();
    assert_eq!(outcome(&mut events).await, JobOutcome::Failed { exit: Exit::Code(5), last_lines: vec![] });
    assert_eq!(std::fs::read_to_string(dir.path().join("runs")).unwrap(), "run\n");
}

#[tokio::test]
async fn a_job_beyond_its_time_is_stopped_with_all_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let (jobs, mut events) = Jobs::open(dir.path(), shim_command()).unwrap();
    let timeout = Duration::from_millis(300);
    let script = "sleep 1000 & echo $! > pid; echo waiting for the lock; wait";
    jobs.start(job(1), JobSpec { timeout, ..run(&dir, script) }).await.unwrap();
    let timed_out = JobOutcome::TimedOut { after: timeout, last_lines: vec!["waiting for the lock".into()] };
    assert_eq!(outcome(&mut events).await, timed_out);
    let pid: i32 = std::fs::read_to_string(dir.path().join("pid")).unwrap().trim().parse().unwrap();
    assert!(!lives(pid));
}

#[tokio::test]
async fn a_job_can_be_cancelled_and_one_whose_shim_was_killed_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (jobs, mut events) = Jobs::open(dir.path(), shim_command()).unwrap();
    jobs.start(job(1), run(&dir, "exec sleep 1000")).await.unwrap();
    jobs.cancel(&job(1), None).await.unwrap();
    assert_eq!(outcome(&mut events).await, JobOutcome::Cancelled { exit: Exit::Signal(15) });
    jobs.start(job(2), run(&dir, "echo run >> runs; exec sleep 1000")).await.unwrap();
    eventually("it runs", || dir.path().join("runs").exists()).await;
    let state = std::fs::read(dir.path().join("jobs/shop.production/j2/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    kill(i32::try_from(state["shim"]["pid"].as_i64().unwrap()).unwrap(), libc::SIGKILL);
    assert_eq!(outcome(&mut events).await, JobOutcome::Lost { why: "its shim was killed".into() });
    jobs.start(job(2), run(&dir, "echo run >> runs")).await.unwrap();
    assert_eq!(outcome(&mut events).await, JobOutcome::Lost { why: "its shim was killed".into() });
    assert_eq!(std::fs::read_to_string(dir.path().join("runs")).unwrap(), "run\n");
}
