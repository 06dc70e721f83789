//! The server dies and comes back, the shim dies, the record lies: never a second copy, never a stranger killed.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::*;
use fairway_engine::service::ReadyProbe;
use fairway_targets::event::TargetEventKind;
use fairway_targets::exit::Exit;
use fairway_targets::spec::InstanceSpec;
use fairway_targets::supervisor::{ControlError, InstancePhase, Supervisor};

#[tokio::test]
async fn a_server_that_comes_back_finds_what_runs() {
    let mut world = World::new();
    world.start("api.r1.1", server("")).await;
    let before = world.started().await;
    world.ready().await;
    world.reopen().await;
    assert_eq!(world.next().await, TargetEventKind::Started { pid: before.0, port: before.1 });
    assert_eq!(world.next().await, TargetEventKind::Ready);
    // The same start once more, as a replay would have it.
    world.start("api.r1.1", server("")).await;
    assert_eq!(world.started().await, before);
    assert_eq!(world.stop("api.r1.1").await, TargetEventKind::Stopped { exit: Exit::Signal(15) });
}

/// Not a test: the server process that the next test kills.
#[tokio::test]
#[ignore = "runs for ever; started by another test"]
async fn host_of_a_supervisor() {
    let Some(state) = std::env::var_os("HOST_STATE_DIR") else { return };
    let (supervisor, mut events) = Supervisor::open(std::path::Path::new(&state), shim_command()).unwrap();
    supervisor.start(instance("api.r1.1"), shell("exec sleep 1000")).await.unwrap();
    while events.recv().await.is_some() {}
}

#[tokio::test]
async fn a_killed_server_process_takes_nothing_with_it() {
    let mut world = World::new();
    let mut host = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "host_of_a_supervisor", "--ignored"])
        .env("HOST_STATE_DIR", &world.state)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let record = world.dir("api.r1.1").join("state.json");
    eventually("it is ready", || {
        std::fs::read_to_string(&record).is_ok_and(|state| state.contains(r#"{"is":"ready"}"#))
    })
    .await;
    let pid = world.recorded("api.r1.1")["phase"]["process"]["pid"].as_u64().unwrap();
    host.kill().unwrap();
    host.wait().unwrap();
    world.reopen().await;
    assert_eq!(u64::from(world.started().await.0), pid);
    assert_eq!(world.next().await, TargetEventKind::Ready);
    assert_eq!(world.stop("api.r1.1").await, TargetEventKind::Stopped { exit: Exit::Signal(15) });
}

#[tokio::test]
async fn what_ended_meanwhile_is_told_from_its_record() {
    let mut world = World::new();
    let mut spec = shell("while [ ! -e go ]; do sleep 0.01; done; echo last words; exit 9");
    spec.restart.burst = 0;
    world.start("api.r1.1", spec.clone()).await;
    world.ready().await;
    let (supervisor, events) = Supervisor::open(&world.state, shim_command()).unwrap();
    (world.supervisor, world.events) = (supervisor, events);
    std::fs::write(world.work.join("go"), "").unwrap();
    let record = world.dir("api.r1.1").join("exit.json");
    eventually("it ends", || record.exists()).await;
    world.supervisor.reattach().await.unwrap();
    let TargetEventKind::GaveUp { cause, last_lines } = world.next().await else { panic!() };
    assert!(cause.to_string().contains("exit code 9"), "{cause}");
    assert_eq!(last_lines, ["last words"]);
    // Starting a key that has ended starts nothing.
    std::fs::remove_file(world.work.join("go")).unwrap();
    world.start("api.r1.1", spec).await;
    assert!(matches!(world.next().await, TargetEventKind::GaveUp { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_starts_at_once_by_two_servers_make_one_copy() {
    let mut world = World::new();
    let (other, mut other_events) = Supervisor::open(&world.state, shim_command()).unwrap();
    for round in 0..5 {
        let name = format!("api.r1.{round}");
        let spec = shell(&format!("echo $$ >> pids.{round}; exec sleep 1000"));
        let spec = InstanceSpec { workdir: world.work.clone(), ..spec };
        let starts: Vec<_> = (0..8)
            .map(|n| {
                let supervisor = if n % 2 == 0 { world.supervisor.clone() } else { other.clone() };
                let (key, spec) = (instance(&name), spec.clone());
                tokio::spawn(async move { supervisor.start(key, spec).await })
            })
            .collect();
        for start in starts {
            start.await.unwrap().unwrap();
        }
        let (pid, _) = world.started().await;
        while let Some(event) = other_events.recv().await {
            if let TargetEventKind::Started { pid: seen, .. } = event.kind {
                assert_eq!(seen, pid, "the servers see two copies");
                break;
            }
        }
        eventually("it runs", || !world.work_file(&format!("pids.{round}")).is_empty()).await;
        assert_eq!(world.work_file(&format!("pids.{round}")), format!("{pid}\n"));
        world.stop(&name).await;
        while other_events.recv().await.is_some_and(|event| !event.kind.is_end()) {}
    }
}

#[tokio::test]
async fn a_record_that_names_another_start_time_is_unverifiable_and_left_alone() {
    let mut world = World::new();
    world.start("api.r1.1", shell("echo run >> runs; exec sleep 1000")).await;
    let (pid, _) = world.started().await;
    world.ready().await;
    let mut record = world.recorded("api.r1.1");
    let ticks = record["shim"]["start_ticks"].as_u64().unwrap();
    record["shim"]["start_ticks"] = (ticks - 1).into();
    let path = world.dir("api.r1.1").join("state.json");
    std::fs::write(&path, record.to_string()).unwrap();
    world.reopen().await;
    let TargetEventKind::Unverifiable { why } = world.next().await else { panic!() };
    assert!(why.contains("its record names process"), "{why}");
    assert!(matches!(
        world.supervisor.kill(&instance("api.r1.1")).await,
        Err(ControlError::Unverifiable { .. })
    ));
    world.start("api.r1.1", shell("echo run >> runs; exec sleep 1000")).await;
    assert!(matches!(world.next().await, TargetEventKind::Unverifiable { .. }));
    let status = world.supervisor.status(&instance("api.r1.1")).await.unwrap();
    assert!(matches!(status.phase, InstancePhase::Unverifiable { .. }));
    assert!(lives(pid.cast_signed()));
    assert_eq!(world.work_file("runs"), "run\n");
    // Somebody puts it right: it is found again.
    record["shim"]["start_ticks"] = ticks.into();
    std::fs::write(&path, record.to_string()).unwrap();
    world.supervisor.reattach().await.unwrap();
    assert_eq!(world.started().await.0, pid);
    world.stop("api.r1.1").await;
}

#[tokio::test]
async fn a_record_that_names_a_stranger_kills_no_stranger() {
    let mut world = World::new();
    world.start("api.r1.1", shell("exec sleep 1000")).await;
    world.ready().await;
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = stranger.id().cast_signed();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks: u64 = stat[stat.rfind(')').unwrap()..].split_whitespace().nth(20).unwrap().parse().unwrap();
    kill(world.shim_pid("api.r1.1"), libc::SIGKILL);
    world.end().await;
    // Its lock is free, and its record, as far as anybody can tell, names a process that lives.
    let dir = world.dir("api.r1.1");
    std::fs::remove_file(dir.join("exit.json")).unwrap();
    let mut record = world.recorded("api.r1.1");
    record["shim"] = serde_json::json!({"pid": pid, "start_ticks": ticks});
    std::fs::write(dir.join("state.json"), record.to_string()).unwrap();
    world.reopen().await;
    let TargetEventKind::Unverifiable { why } = world.next().await else { panic!() };
    assert!(why.contains("holds no lock"), "{why}");
    assert!(lives(pid));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn damaged_records_are_told_and_change_nothing() {
    let mut world = World::new();
    world.start("api.r1.1", shell("exec sleep 1000")).await;
    let (pid, _) = world.started().await;
    world.ready().await;
    let path = world.dir("api.r1.1").join("state.json");
    let good = std::fs::read(&path).unwrap();
    for garbage in [&b""[..], b"{", b"null", b"\xff\xff"] {
        std::fs::write(&path, garbage).unwrap();
        world.reopen().await;
        assert!(matches!(world.next().await, TargetEventKind::Unverifiable { .. }));
        assert!(lives(pid.cast_signed()));
    }
    std::fs::write(&path, good).unwrap();
    world.reopen().await;
    assert_eq!(world.started().await.0, pid);
    world.stop("api.r1.1").await;
}

#[tokio::test]
async fn when_a_shim_is_killed_nothing_of_its_instance_runs_on() {
    let mut world = World::new();
    let script = "(setsid sleep 1000 & echo $! > background); echo forked; exec sleep 1000";
    let ready = ready(ReadyProbe::LogLine { contains: "forked".into() });
    for (name, while_away) in [("api.r1.1", false), ("api.r1.2", true)] {
        world.start(name, InstanceSpec { ready: ready.clone(), ..shell(script) }).await;
        let (pid, _) = world.started().await;
        world.ready().await;
        let background: i32 = world.work_file("background").trim().parse().unwrap();
        assert!(lives(background));
        let shim = world.shim_pid(name);
        if while_away {
            let (supervisor, events) = Supervisor::open(&world.state, shim_command()).unwrap();
            (world.supervisor, world.events) = (supervisor, events);
            kill(shim, libc::SIGKILL);
            eventually("the application ends with its shim", || !lives(pid.cast_signed())).await;
            world.supervisor.reattach().await.unwrap();
        } else {
            kill(shim, libc::SIGKILL);
        }
        let end = world
            .until_of(name, |kind| {
                matches!(
                    kind,
                    TargetEventKind::Exited { exit: Exit::Unknown { .. }, will_restart_in: None, .. }
                )
            })
            .await;
        let TargetEventKind::Exited { exit, .. } = end else { panic!() };
        assert_eq!(exit.to_string(), "ended, exit status unknown: its shim was killed");
        for pid in [pid.cast_signed(), background] {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            assert!(!lives(pid), "{name} {while_away} {stat:?}");
        }
    }
}

#[tokio::test]
async fn a_restart_of_the_machine_is_told_as_such() {
    let mut world = World::new();
    world.start("api.r1.1", shell("exec sleep 1000")).await;
    world.ready().await;
    kill(world.shim_pid("api.r1.1"), libc::SIGKILL);
    world.end().await;
    let dir = world.dir("api.r1.1");
    std::fs::remove_file(dir.join("exit.json")).unwrap();
    let mut record = world.recorded("api.r1.1");
    record["boot_id"] = "another".into();
    // The pid is in use again after the restart, by somebody else.
    record["shim"] = serde_json::json!({"pid": std::process::id(), "start_ticks": 1});
    std::fs::write(dir.join("state.json"), record.to_string()).unwrap();
    world.reopen().await;
    let TargetEventKind::Exited { exit, .. } = world.next().await else { panic!() };
    assert_eq!(exit.to_string(), "ended, exit status unknown: the machine was restarted");
}

#[tokio::test]
async fn a_terminated_shim_stops_its_instance_in_order() {
    let mut world = World::new();
    world.start("api.r1.1", shell("trap 'echo bye; exit 0' TERM; while :; do sleep 0.02; done")).await;
    world.ready().await;
    // What a machine that goes down does.
    kill(world.shim_pid("api.r1.1"), libc::SIGHUP);
    kill(world.shim_pid("api.r1.1"), libc::SIGTERM);
    assert_eq!(world.end().await, TargetEventKind::Stopped { exit: Exit::Code(0) });
    assert_eq!(world.log("api.r1.1")[0], "bye");
}

#[tokio::test]
async fn a_directory_made_by_a_server_that_died_can_still_be_started() {
    let mut world = World::new();
    std::fs::create_dir_all(world.dir("api.r1.1")).unwrap();
    assert_eq!(world.supervisor.reattach().await.unwrap(), []);
    world.start("api.r1.1", shell("exec sleep 1000")).await;
    world.ready().await;
    world.stop("api.r1.1").await;
}

#[tokio::test]
async fn a_shim_that_cannot_start_leaves_nothing_behind() {
    let world = World::new();
    for command in [vec!["/no/such/shim".into()], vec!["false".into()], vec![]] {
        let (supervisor, _events) = Supervisor::open(&world.state, command).unwrap();
        assert!(supervisor.start(instance("api.r1.1"), shell("sleep 1000")).await.is_err());
        assert!(!world.dir("api.r1.1").exists());
        assert!(supervisor.list().await.is_empty());
    }
}

/// Servers, shims and applications are killed at random. The application itself notes when two of it run at once.
#[tokio::test]
async fn whatever_is_killed_there_is_never_a_second_copy() {
    let mut world = World::new();
    let script = "exec python3 -c '
import fcntl, time
lock = open(\"lock\", \"w\")
try: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError: open(\"twice\", \"w\")
open(\"runs\", \"a\").write(\"x\"); print(\"up\", flush=True); time.sleep(1000)'";
    let mut spec = shell(script);
    spec.ready = ready(ReadyProbe::LogLine { contains: "up".into() });
    spec.restart.burst = 1000;
    // A fixed sequence (Lehmer's generator), so that a failure comes again.
    let mut random = 20_261_121u64;
    let mut draw = move |below: u64| {
        random = random * 48_271 % 0x7fff_ffff;
        random % below
    };
    let mut ordinal = 1;
    let mut dead = BTreeSet::new();
    for _ in 0..40 {
        let name = format!("api.r1.{ordinal}");
        // Whoever is told that it ended for good starts another; a replay starts the same one again.
        world.start(&name, spec.clone()).await;
        let up_or_over = |kind: &TargetEventKind| *kind == TargetEventKind::Ready || kind.is_end();
        let last = world.until_of(&name, up_or_over).await;
        if last.is_end() {
            dead.insert(ordinal);
            ordinal += 1;
            continue;
        }
        tokio::time::sleep(Duration::from_millis(draw(40))).await;
        match draw(4) {
            0 => world.reopen().await,
            1 => kill(world.shim_pid(&name), libc::SIGKILL),
            2 => {
                if let Some(pid) = world.recorded(&name)["phase"]["process"]["pid"].as_i64() {
                    kill(i32::try_from(pid).unwrap(), libc::SIGKILL);
                }
            }
            _ => {
                kill(world.shim_pid(&name), libc::SIGKILL);
                world.reopen().await;
            }
        }
        assert!(!world.work.join("twice").exists(), "two copies ran at once");
    }
    assert!(!dead.is_empty() && world.work_file("runs").len() > 5);
    // After the faults it works again.
    ordinal += 1;
    let name = format!("api.r1.{ordinal}");
    for older in 1..ordinal {
        let name = format!("api.r1.{older}");
        if world.supervisor.stop(&instance(&name), None).await.is_ok() {
            world.until_of(&name, TargetEventKind::is_end).await;
        }
    }
    world.reopen().await;
    world.start(&name, spec).await;
    eventually("it is ready", || {
        std::fs::read_to_string(world.dir(&name).join("state.json"))
            .is_ok_and(|state| state.contains("\"ready\""))
    })
    .await;
    assert!(!world.work.join("twice").exists(), "two copies ran at once");
    world.supervisor.stop(&instance(&name), None).await.unwrap();
}
