use std::path::Path;

use fairway_engine::id::{InstanceId, ReleaseNumber};
use fairway_engine::{Command, Failure, InstanceState, Outcome};
use fairway_store::LogReader;
use fairway_store::database::DATABASE_FILE;

use super::*;
use crate::error::StartError;
use crate::record::replay;
use crate::testing::{World, command_of, deploy, key, name, outcome_of, release};

struct Running {
    pump: Pump,
    thread: std::thread::JoinHandle<Result<(), Broken>>,
    effects: mpsc::UnboundedReceiver<Effect>,
}

fn open(dir: &Path) -> Log {
    Log::open(&dir.join(DATABASE_FILE)).unwrap()
}

fn snapshots(dir: &Path) -> Snapshots {
    Snapshots::open(&dir.join("snapshots")).unwrap()
}

/// What the record in `dir` adds up to.
fn replayed(dir: &Path, snapshots: &Snapshots) -> (State, u64) {
    replay(&LogReader::open(&dir.join(DATABASE_FILE)).unwrap(), snapshots).unwrap()
}

fn without_snapshots(dir: &Path) -> (State, u64) {
    replayed(dir, &Snapshots::open(&dir.join("none")).unwrap())
}

impl Running {
    /// A pump on what is in `dir`.
    fn start(dir: &Path) -> Self {
        let log = open(dir);
        let snapshots = snapshots(dir);
        let (state, seq) = replay(&log.reader().unwrap(), &snapshots).unwrap();
        let (effects_in, effects) = mpsc::unbounded_channel();
        let clock = Clock::start(Timestamp(0));
        let (pump, thread) = start(log, snapshots, state, seq, clock, effects_in).unwrap();
        Self { pump, thread, effects }
    }

    async fn stop(self) {
        self.pump.stop().await;
        self.thread.join().unwrap().unwrap();
    }

    fn state(&self) -> State {
        self.pump.shared.read(State::clone)
    }
}

/// The first copy of a service of the first release.
fn first(service: &str) -> InstanceId {
    InstanceId { service: name(service), release: ReleaseNumber(1), ordinal: 1 }
}

#[tokio::test]
async fn what_is_answered_and_let_out_is_on_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path());
    let mut follow = running.pump.follow();
    let recorded = running.pump.command(deploy(&key("dev"), release("127.0.0.1:8080"))).await.unwrap();
    assert_eq!(without_snapshots(dir.path()), (running.state(), recorded.last().unwrap().seq));
    let effect = running.effects.recv().await.unwrap();
    assert!(matches!(effect, Effect::StartInstance { .. }), "{effect:?}");
    let told = follow.recv().await.unwrap();
    assert_eq!((told.seq, &told.event), (1, &recorded[0].event));
    running.stop().await;
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path());
    let refused = running.pump.command(command_of(&key("dev"), Command::Pause)).await.unwrap_err();
    assert!(matches!(refused, Refused::Engine(_)), "{refused:?}");
    assert_eq!((running.state(), running.pump.shared.seq()), (State::default(), 0));
    assert!(running.effects.try_recv().is_err());
    assert_eq!(without_snapshots(dir.path()), (State::default(), 0));
    running.stop().await;
}

#[tokio::test]
async fn many_at_once_are_all_answered_and_the_record_is_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    let names: Vec<_> = (0..3 * BATCH_MAX).map(|n| key(&format!("e{n}"))).collect();
    let mut asked = Vec::new();
    for environment in &names {
        let (pump, environment) = (running.pump.clone(), environment.clone());
        asked.push(tokio::spawn(async move {
            pump.command(deploy(&environment, release("127.0.0.1:8080"))).await.unwrap();
            let instance = InstanceId { service: name("web"), release: ReleaseNumber(1), ordinal: 1 };
            pump.recorded_outcome(outcome_of(&environment, Outcome::InstanceReady { instance }))
                .await
                .unwrap();
        }));
    }
    for one in asked {
        one.await.unwrap();
    }
    let state = running.state();
    assert_eq!(state.environments.len(), names.len());
    assert!(state.environments.values().all(|env| env.instances[&first("web")].is_ready()));
    assert_eq!(without_snapshots(dir.path()), (state, running.pump.shared.seq()));
    running.stop().await;
}

#[tokio::test]
async fn the_snapshot_of_a_stopped_server_is_what_replay_gives() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    running.pump.command(deploy(&key("dev"), release("127.0.0.1:8080"))).await.unwrap();
    running.stop().await;
    let log = LogReader::open(&dir.path().join(DATABASE_FILE)).unwrap();
    let latest = snapshots(dir.path()).latest(STATE_FORMAT, &log).unwrap().snapshot.expect("one was written");
    assert_eq!(replayed(dir.path(), &snapshots(dir.path())), without_snapshots(dir.path()));
    assert_eq!(serde_json::from_slice::<State>(&latest.state).unwrap(), without_snapshots(dir.path()).0);
}

/// Eight megabytes of its own.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None where mounting is not allowed.
    fn mount() -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(disk.0.path())
            .output();
        mount.is_ok_and(|mount| mount.status.success()).then_some(disk)
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.path().join("filler")).unwrap();
        while std::io::Write::write(&mut file, &[0; 4096]).is_ok_and(|written| written > 0) {}
    }

    fn clear(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok());
    }
}

#[tokio::test]
async fn a_full_disk_refuses_commands_and_keeps_outcomes_until_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: a file system cannot be mounted here");
        return;
    };
    let dir = disk.0.path();
    let mut running = Running::start(dir);
    let environment = key("dev");
    running.pump.command(deploy(&environment, release("127.0.0.1:8080"))).await.unwrap();
    while running.effects.try_recv().is_ok() {}
    let before = running.state();

    disk.fill();
    let mut late = release("127.0.0.1:8080");
    late.source.title = Some("x".repeat(600 << 10));
    let refused = running.pump.command(deploy(&environment, late)).await.unwrap_err();
    assert!(matches!(&refused, Refused::NotRecorded(why) if why.contains("no room")), "{refused:?}");
    assert_eq!(running.state(), before, "what is not on the record did not happen");
    assert!(running.effects.try_recv().is_err(), "nothing of it is let out");
    assert_eq!(without_snapshots(dir).0, before);

    let instance = first("api");
    let failure = Failure { cause: "exit code 1".into(), last_lines: vec!["y".repeat(600 << 10)] };
    let failed = outcome_of(&environment, Outcome::InstanceFailed { instance, failure });
    let pump = running.pump.clone();
    let outcome = tokio::spawn(async move { pump.recorded_outcome(failed).await });
    // An answer to a command shows that the pump has been there and could not write.
    let refused = running.pump.command(command_of(&environment, Command::Down)).await;
    assert!(matches!(refused, Err(Refused::NotRecorded(_)) | Ok(_)), "{refused:?}");
    assert!(!outcome.is_finished(), "it waits");

    disk.clear();
    let recorded = tokio::time::timeout(Duration::from_secs(10), outcome).await.expect("it is tried again");
    let recorded = recorded.unwrap().unwrap();
    assert!(!recorded.is_empty());
    assert!(!running.state().environments[&environment].instances.contains_key(&first("api")));
    assert_eq!(without_snapshots(dir), (running.state(), running.pump.shared.seq()));
    running.stop().await;
}

#[tokio::test]
async fn an_outcome_that_no_log_can_hold_does_not_stop_all_that_comes_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    let environment = key("dev");
    running.pump.command(deploy(&environment, release("127.0.0.1:8080"))).await.unwrap();
    let failure = Failure { cause: "exit code 1".into(), last_lines: vec!["y".repeat(5 << 20)] };
    let failed = Outcome::InstanceFailed { instance: first("api"), failure };
    let ready = Outcome::InstanceReady { instance: first("web") };
    let (impossible, good, after) = tokio::join!(
        running.pump.recorded_outcome(outcome_of(&environment, failed)),
        running.pump.recorded_outcome(outcome_of(&environment, ready)),
        running.pump.command(command_of(&environment, Command::Down)),
    );
    assert!(matches!(impossible, Err(Refused::NotRecorded(_))), "{impossible:?}");
    assert!(!good.unwrap().is_empty());
    assert!(!after.unwrap().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_log_that_went_on_without_it_ends_the_pump_instead_of_fooling_it() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    let mut world = World::default();
    world.give(deploy(&key("other"), release("127.0.0.1:8080")));
    open(dir.path()).append(1, &[to_record(&world.log[0]).unwrap()]).unwrap();
    let answer = running.pump.command(deploy(&key("dev"), release("127.0.0.1:8080"))).await;
    assert!(matches!(answer, Err(Refused::Stopping)), "{answer:?}");
    running.pump.ended().await;
    let broken = running.thread.join().unwrap().unwrap_err();
    let told = StartError::from(broken).to_api();
    assert!(told.causes.iter().any(|cause| cause.contains("goes on at record 2")), "{told:?}");
    assert!(told.hint.is_some());
}

#[tokio::test]
async fn after_a_start_an_outcome_does_not_let_the_clock_fail_other_environments() {
    let dir = tempfile::tempdir().unwrap();
    let (late, other) = (key("late"), key("other"));
    let mut world = World::default();
    // Long ago by the wall's clock: every deadline has passed.
    world.give(deploy(&late, release("127.0.0.1:8080")));
    world.give(deploy(&other, release("127.0.0.1:8081")));
    let records: Vec<_> = world.log.iter().map(|event| to_record(event).unwrap()).collect();
    open(dir.path()).append(1, &records).unwrap();

    let running = Running::start(dir.path());
    let instance = first("web");
    running.pump.recorded_outcome(outcome_of(&other, Outcome::InstanceReady { instance })).await.unwrap();
    let instances = running.state().environments[&late].instances.clone();
    assert_eq!(instances.len(), 2);
    for instance in instances.values() {
        assert!(matches!(instance.state, InstanceState::Starting { .. }), "{instance:?}");
    }
    running.stop().await;
}
