//! Instances as they live and die, with real shims and real processes.

mod common;

use std::time::Duration;

use common::*;
use fairway_engine::service::{LiveProbe, Liveness, ReadyProbe, Stop, StopSignal};
use fairway_targets::event::{GiveUpCause, Limit, TargetEventKind};
use fairway_targets::exit::Exit;
use fairway_targets::spawn_error::SpawnError;
use fairway_targets::spec::{InstanceSpec, LogPolicy, PortRequest};
use fairway_targets::supervisor::{ControlError, InstancePhase, StartError};

#[tokio::test]
async fn a_server_gets_a_port_becomes_ready_answers_and_stops() {
    let mut world = World::new();
    world.start("api.r1.1", server("")).await;
    let (pid, port) = world.started().await;
    world.ready().await;
    let port = port.unwrap();
    assert!((20_000..30_000).contains(&port));
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let status = world.supervisor.status(&instance("api.r1.1")).await.unwrap();
    assert_eq!(status.phase, InstancePhase::Ready { pid });
    assert_eq!(world.stop("api.r1.1").await, TargetEventKind::Stopped { exit: Exit::Signal(15) });
    assert!(!lives(pid.cast_signed()));
    // Asking again tells the same end again.
    assert_eq!(world.stop("api.r1.1").await, TargetEventKind::Stopped { exit: Exit::Signal(15) });
}

#[tokio::test]
async fn a_crash_loop_gives_up_with_its_last_lines() {
    let mut world = World::new();
    world.start("api.r1.1", shell("for n in $(seq 30); do echo line $n; done; echo boom >&2; exit 7")).await;
    let TargetEventKind::GaveUp { cause, last_lines } = world.end().await else { panic!() };
    assert_eq!(
        cause,
        GiveUpCause::CrashLoop { exits: 4, window: Duration::from_secs(60), exit: Exit::Code(7), why: None }
    );
    assert_eq!(last_lines.len(), 20);
    assert!(last_lines.contains(&"boom".to_owned()), "{last_lines:?}");
    assert!(last_lines.contains(&"line 30".to_owned()), "{last_lines:?}");
    assert!(!last_lines.contains(&"line 10".to_owned()), "{last_lines:?}");
}

#[tokio::test]
async fn each_restart_waits_twice_as_long_and_is_told() {
    let mut world = World::new();
    world.start("api.r1.1", shell("exit 1")).await;
    let mut waits = Vec::new();
    while waits.len() < 3 {
        if let TargetEventKind::Exited { will_restart_in: Some(wait), .. } = world.next().await {
            waits.push(wait.as_millis());
        }
    }
    assert_eq!(waits, [10, 20, 40]);
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_reported_with_a_suggestion() {
    let mut world = World::new();
    let argv = vec![fairway_engine::service::Argument::Literal("pyhton3".into())];
    world.start("api.r1.1", InstanceSpec { argv, ..shell("") }).await;
    let TargetEventKind::SpawnFailed { cause } = world.next().await else { panic!() };
    assert!(matches!(&cause, SpawnError::CommandNotFound { suggestion: Some(_), .. }), "{cause}");
}

#[tokio::test]
async fn one_that_listens_elsewhere_is_told_where() {
    let mut world = World::new();
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut spec = server(&format!("os.environ['PORT'] = '{}'", elsewhere.port()));
    spec.ready.within = Duration::from_secs(3);
    world.start("api.r1.1", spec).await;
    let (_, port) = world.started().await;
    let TargetEventKind::GaveUp { cause, .. } = world.end().await else { panic!() };
    let port = port.unwrap();
    assert_eq!(
        cause.to_string(),
        format!(
            "not ready within 3s: listens on {elsewhere}, not on the port it was given in $PORT ({port})"
        )
    );
}

#[tokio::test]
async fn a_taken_port_is_replaced_by_another() {
    let mut world = World::new();
    let mut spec = server("");
    spec.restart.backoff_min = Duration::from_secs(15);
    spec.restart.backoff_max = Duration::from_secs(15);
    let script = "while [ ! -e go ]; do sleep 0.02; done; exec python3 -c \"$APP\"";
    let app = match &spec.argv[2] {
        fairway_engine::service::Argument::Literal(text) => text.clone(),
        fairway_engine::service::Argument::Port => unreachable!(),
    };
    spec.argv = shell(script).argv;
    spec.env = [("APP", app)].into_iter().collect();
    world.start("api.r1.1", spec).await;
    let (_, first) = world.started().await;
    let stranger = std::net::TcpListener::bind(("127.0.0.1", first.unwrap())).unwrap();
    std::fs::write(world.work.join("go"), "").unwrap();
    // The stranger accepts connections and never answers, so the probe waits; the application ends by itself.
    let TargetEventKind::Exited { why, .. } =
        world.until(|kind| matches!(kind, TargetEventKind::Exited { .. })).await
    else {
        panic!()
    };
    assert_eq!(why.unwrap(), format!("port {} is taken by another process", first.unwrap()));
    let (_, second) = world.started().await;
    assert_ne!(first, second);
    world.ready().await;
    drop(stranger);
}

#[tokio::test]
async fn notify_log_line_and_exec_make_ready() {
    let mut world = World::new();
    let notify = r#"exec python3 -c '
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b"STATUS=almost", "\0" + os.environ["NOTIFY_SOCKET"][1:])
s.sendto(b"READY=1\nSTATUS=there", "\0" + os.environ["NOTIFY_SOCKET"][1:])
time.sleep(1000)'"#;
    world.start("a.r1.1", InstanceSpec { ready: ready(ReadyProbe::Notify), ..shell(notify) }).await;
    world.ready().await;
    let probe = ReadyProbe::LogLine { contains: "listening now".into() };
    world
        .start(
            "b.r1.1",
            InstanceSpec { ready: ready(probe), ..shell("echo it is listening now; sleep 1000") },
        )
        .await;
    world.ready().await;
    let probe = ReadyProbe::Exec { command: ["test", "-e", "up"].map(String::from).to_vec() };
    world
        .start("c.r1.1", InstanceSpec { ready: ready(probe), ..shell("sleep 0.2; touch up; sleep 1000") })
        .await;
    world.ready().await;
    assert!(world.work.join("up").exists());
}

#[tokio::test]
async fn a_sick_instance_becomes_suspect_and_recovers() {
    let mut world = World::new();
    world.start("api.r1.1", server("")).await;
    world.ready().await;
    std::fs::write(world.work.join("sick"), "").unwrap();
    let TargetEventKind::Suspect { why } = world.next().await else { panic!() };
    assert!(why.contains("answers 503"), "{why}");
    std::fs::remove_file(world.work.join("sick")).unwrap();
    assert_eq!(world.next().await, TargetEventKind::Ready);
}

#[tokio::test]
async fn failing_liveness_restarts_the_instance() {
    let mut world = World::new();
    let live = Liveness {
        probe: LiveProbe::Exec { command: ["test", "!", "-e", "stuck"].map(String::from).to_vec() },
        every: Duration::from_millis(30),
        timeout: Duration::from_secs(5),
        failures: 2,
    };
    let ready = ready(ReadyProbe::LogLine { contains: "up".into() });
    let spec = InstanceSpec { live: Some(live), ready, ..shell("rm -f stuck; echo up; exec sleep 1000") };
    world.start("api.r1.1", spec).await;
    let (first, _) = world.started().await;
    world.ready().await;
    std::fs::write(world.work.join("stuck"), "").unwrap();
    let TargetEventKind::Exited { why, exit, .. } = world.next().await else { panic!() };
    assert_eq!(why.unwrap(), "liveness failed: the command ended with exit code 1");
    assert_eq!(exit, Exit::Signal(15));
    let (second, _) = world.started().await;
    assert_ne!(first, second);
    world.ready().await;
}

#[tokio::test]
async fn everything_that_an_instance_forked_ends_with_it() {
    let mut world = World::new();
    // One in the group, one in a session of its own whose parents are gone, one that ignores the stop signal.
    let script = "sleep 1000 & echo $! >> pids; \
                  setsid sh -c 'trap \"\" TERM; (sleep 1000 & echo $! >> pids; wait) & echo $! >> pids' & \
                  while [ $(wc -l < pids) -lt 3 ]; do sleep 0.01; done; echo forked; sleep 1000";
    let stop = Stop { signal: StopSignal::Term, timeout: Duration::from_millis(300), drain: Duration::ZERO };
    let probe = ReadyProbe::LogLine { contains: "forked".into() };
    std::fs::write(world.work.join("pids"), "").unwrap();
    world.start("api.r1.1", InstanceSpec { stop, ready: ready(probe), ..shell(script) }).await;
    world.ready().await;
    let pids: Vec<i32> = world.work_file("pids").lines().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.len() == 3 && pids.iter().all(|pid| lives(*pid)), "{pids:?}");
    assert_eq!(world.stop("api.r1.1").await, TargetEventKind::Stopped { exit: Exit::Signal(15) });
    assert!(pids.iter().all(|pid| !lives(*pid)), "{pids:?}");
}

#[tokio::test]
async fn an_instance_that_ignores_its_stop_signal_is_killed() {
    let mut world = World::new();
    let script = "trap '' TERM; echo deaf; while :; do sleep 0.05; done";
    let ready = ready(ReadyProbe::LogLine { contains: "deaf".into() });
    world.start("api.r1.1", InstanceSpec { ready, ..shell(script) }).await;
    world.ready().await;
    world.supervisor.stop(&instance("api.r1.1"), Some(Duration::from_millis(100))).await.unwrap();
    assert_eq!(world.end().await, TargetEventKind::Stopped { exit: Exit::Signal(9) });
}

#[tokio::test]
async fn orphans_are_collected_while_the_instance_lives() {
    let mut world = World::new();
    let script = "for n in $(seq 50); do sh -c 'sh -c \"echo \\$\\$ >> pids\" &'; done; sleep 0.2; echo done; sleep 1000";
    let ready = ready(ReadyProbe::LogLine { contains: "done".into() });
    world.start("api.r1.1", InstanceSpec { ready, ..shell(script) }).await;
    world.ready().await;
    let pids = world.work_file("pids");
    assert_eq!(pids.lines().count(), 50);
    eventually("no zombie is left", || {
        pids.lines().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_output_stays_within_its_disk() {
    let mut world = World::new();
    let log = LogPolicy { file_bytes_max: 256 << 10, files_max: 3 };
    let script = "yes 'a line of some length, again and again' | head -c 30000000; echo end >&2; sleep 1000";
    let ready = ready(ReadyProbe::LogLine { contains: "end".into() });
    world.start("api.r1.1", InstanceSpec { log, ready, ..shell(script) }).await;
    world.ready().await;
    let used: u64 = std::fs::read_dir(world.dir("api.r1.1").join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(used <= 3 * (256 << 10), "{used} bytes");
    assert!(world.log("api.r1.1").iter().any(|line| line == "end"));
}

#[tokio::test]
async fn a_full_disk_neither_stops_the_instance_nor_hides_its_end() {
    let world = World::new();
    if !rustix::process::geteuid().is_root() {
        eprintln!("not checked: a small file system can be mounted by root only");
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(disk.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("not checked: tmpfs cannot be mounted here");
        return;
    }
    let work = world.work.clone();
    drop(world);
    let state = disk.path().join("state");
    let (supervisor, events) = fairway_targets::supervisor::Supervisor::open(&state, shim_command()).unwrap();
    let script = "while [ ! -e full ]; do sleep 0.02; done; yes 'a line' | head -c 2999997; touch written; \
                  while [ ! -e freed ]; do sleep 0.02; done; echo after; exit 3";
    std::fs::create_dir_all(&work).unwrap();
    let mut spec = InstanceSpec { workdir: work.clone(), ..shell(script) };
    spec.restart.burst = 0;
    supervisor.start(instance("api.r1.1"), spec).await.unwrap();
    let mut events = events;
    let mut next = async || tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap().kind;
    assert!(matches!(next().await, TargetEventKind::Started { .. }));
    assert_eq!(next().await, TargetEventKind::Ready);
    // To the last byte; what the shim has in reserve is its own.
    let _ = std::fs::write(disk.path().join("hog"), vec![0; 4 << 20]);
    std::fs::write(work.join("full"), "").unwrap();
    eventually("the application goes on", || work.join("written").exists()).await;
    let status = supervisor.status(&instance("api.r1.1")).await.unwrap();
    assert!(status.log_lines_dropped > 100_000, "{}", status.log_lines_dropped);
    std::fs::write(work.join("freed"), "").unwrap();
    let TargetEventKind::GaveUp { last_lines, .. } = next().await else { panic!() };
    assert_eq!(last_lines.last().unwrap(), "after");
    let record = std::fs::read_to_string(state.join("instances/shop.production/api.r1.1/exit.json")).unwrap();
    assert!(record.contains("gave_up"), "{record}");
    drop(supervisor);
    let unmounted = std::process::Command::new("umount").arg("-l").arg(disk.path()).status().unwrap();
    assert!(unmounted.success());
    let _ = std::fs::remove_dir_all(&work);
}

#[tokio::test]
async fn a_secret_is_on_no_command_line_and_in_no_file() {
    let mut world = World::new();
    let secret = format!("s3cret-{}", std::process::id());
    let env = [("TOKEN", &secret)].into_iter().collect();
    let script =
        "test -n \"$TOKEN\" && echo got it; test -e crashed || { touch crashed; exit 1; }; sleep 1000";
    let mut spec = InstanceSpec { env, ..shell(script) };
    spec.ready = ready(ReadyProbe::Exec { command: ["test", "-e", "crashed"].map(String::from).to_vec() });
    world.start("api.r1.1", spec).await;
    world.until(|kind| matches!(kind, TargetEventKind::Exited { .. })).await;
    world.ready().await;
    // After the crash the shim still had it.
    assert_eq!(world.log("api.r1.1").iter().filter(|line| *line == "got it").count(), 2);
    for (path, content) in files_below(&world.state) {
        let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{} holds the secret", path.display());
    }
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&command).contains(&secret), "{}", entry.path().display());
    }
}

#[tokio::test]
async fn a_path_longer_than_a_socket_address_works() {
    let mut world = World::with_state(&format!("{}/{}", "d".repeat(120), "e".repeat(120)));
    world.start("api.r1.1", shell("sleep 1000")).await;
    world.ready().await;
    assert!(world.supervisor.status(&instance("api.r1.1")).await.is_ok());
    world.reopen().await;
    world.ready().await;
    assert_eq!(world.stop("api.r1.1").await, TargetEventKind::Stopped { exit: Exit::Signal(15) });
}

#[tokio::test]
async fn limits_hold_or_are_said_not_to() {
    let mut world = World::new();
    let mut spec = shell("test $(ulimit -n) = 77 && echo limited; sleep 1000");
    spec.limits.open_files = Some(77);
    spec.limits.cpu_millis = Some(500);
    spec.ready = ready(ReadyProbe::LogLine { contains: "limited".into() });
    world.start("api.r1.1", spec).await;
    let first = world.next().await;
    if let TargetEventKind::NotEnforced { limits, why } = first {
        assert_eq!(limits, [Limit::Cpu]);
        assert!(why[0].starts_with("cpu is not enforced: "), "{why:?}");
    } else {
        assert!(matches!(first, TargetEventKind::Started { .. }));
    }
    world.ready().await;
}

#[tokio::test]
async fn a_probe_without_a_port_and_an_unknown_instance_are_refused() {
    let world = World::new();
    let spec = InstanceSpec { port: PortRequest::None, ..server("") };
    let refused = world.supervisor.start(instance("api.r1.1"), spec).await;
    assert!(matches!(refused, Err(StartError::ProbeWithoutPort { .. })));
    assert!(matches!(
        world.supervisor.stop(&instance("api.r1.1"), None).await,
        Err(ControlError::Unknown { .. })
    ));
    assert!(!world.dir("api.r1.1").exists());
}

#[tokio::test]
async fn a_command_runs_in_the_instances_surroundings() {
    let mut world = World::new();
    let env = [("TOKEN", "hunter2")].into_iter().collect();
    world.start("api.r1.1", InstanceSpec { env, ..shell("sleep 1000") }).await;
    world.ready().await;
    world.reopen().await;
    use fairway_targets::exec::ExecOutput;
    let argv = ["sh", "-c", "echo $TOKEN; pwd; cat; echo bad >&2; exit 4"].map(String::from).to_vec();
    let mut session = world.supervisor.exec(&instance("api.r1.1"), argv).await.unwrap();
    session.stdin.send(b"typed\n".to_vec()).await.unwrap();
    drop(session.stdin);
    let (mut out, mut err, mut exit) = (Vec::new(), Vec::new(), None);
    while let Some(output) = session.output.recv().await {
        match output {
            ExecOutput::Stdout(chunk) => out.extend(chunk),
            ExecOutput::Stderr(chunk) => err.extend(chunk),
            ExecOutput::Exited(how) => exit = Some(how),
        }
    }
    let expect = format!("hunter2\n{}\ntyped\n", world.work.display());
    assert_eq!(
        (String::from_utf8(out).unwrap(), err, exit),
        (expect, b"bad\n".to_vec(), Some(Exit::Code(4)))
    );
    // Nobody listens any more: it ends.
    let session =
        world.supervisor.exec(&instance("api.r1.1"), vec!["sleep".into(), "1000".into()]).await.unwrap();
    let pid = session.pid.cast_signed();
    assert!(lives(pid));
    drop(session);
    eventually("the command ends", || !lives(pid)).await;
    assert!(world.supervisor.exec(&instance("api.r1.1"), vec!["slep".into()]).await.is_err());
}

#[tokio::test]
async fn a_shim_is_small_and_idle() {
    let mut world = World::new();
    world.start("api.r1.1", shell("sleep 1000")).await;
    world.ready().await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.shim_pid("api.r1.1"))).unwrap();
    let rss: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    eprintln!("{rss} kB");
    // Unoptimised, with the whole standard library's pages; the release build is below four.
    assert!(rss < 8 << 10, "{rss} kB");
}

#[tokio::test]
async fn garbage_on_the_control_socket_disturbs_nobody() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let mut world = World::new();
    world.start("api.r1.1", shell("exec sleep 1000")).await;
    world.ready().await;
    let socket = world.dir("api.r1.1").join("ctl.sock");
    let connect = || UnixStream::connect(&socket).unwrap();
    let mut rude = connect();
    rude.write_all(b"hello\n{\"do\":\"dance\"}\n\xff\xfe\n").unwrap();
    let mut answer = vec![0; 4096];
    let len = rude.read(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer[..len]).contains("not a command"));
    let mut endless = connect();
    // It is cut off; how far one gets is the kernel's affair.
    let _ = endless.write_all(&vec![b'x'; 1 << 20]);
    // One that asks and asks and never reads.
    let deaf = connect();
    deaf.set_nonblocking(true).unwrap();
    for _ in 0..50_000 {
        if (&deaf).write_all(b"{\"do\":\"status\"}\n").is_err() {
            break;
        }
    }
    let crowd: Vec<_> = (0..40).map(|_| connect()).collect();
    // With all of them still there, and again with all of them just gone.
    let status = world.supervisor.signal(&instance("api.r1.1"), libc::SIGCONT).await;
    assert!(status.is_ok(), "{status:?}");
    drop((rude, endless, deaf, crowd));
    let status = world.supervisor.signal(&instance("api.r1.1"), libc::SIGCONT).await;
    assert!(status.is_ok(), "{status:?}");
    let status = world.supervisor.status(&instance("api.r1.1")).await.unwrap();
    assert!(matches!(status.phase, InstancePhase::Ready { .. }));
    assert_eq!(world.stop("api.r1.1").await, TargetEventKind::Stopped { exit: Exit::Signal(15) });
}

#[tokio::test]
async fn an_instance_runs_as_the_user_it_names() {
    let mut world = World::new();
    let mut spec = shell("id -un; id -G; echo HOME=$HOME; exec sleep 1000");
    spec.user = Some("nobody".into());
    spec.workdir = "/".into();
    spec.ready = ready(ReadyProbe::LogLine { contains: "HOME=".into() });
    world.supervisor.start(instance("api.r1.1"), spec).await.unwrap();
    if !rustix::process::geteuid().is_root() {
        let TargetEventKind::SpawnFailed { cause } = world.end().await else { panic!() };
        assert!(matches!(cause, SpawnError::CannotBecomeUser { .. }));
        return;
    }
    world.ready().await;
    let log = world.log("api.r1.1");
    assert_eq!(log[0], "nobody");
    assert!(!log[1].split(' ').any(|group| group == "0"), "it kept root's groups: {log:?}");
    assert_eq!(world.stop("api.r1.1").await, TargetEventKind::Stopped { exit: Exit::Signal(15) });
}

#[tokio::test]
async fn a_memory_limit_holds_by_whatever_means() {
    let mut world = World::new();
    let script = "exec python3 -c 'print(\"begin\", flush=True); x = bytearray(400 << 20); print(\"had it\", flush=True)'";
    let mut spec = shell(script);
    spec.limits.memory_bytes = Some(100 << 20);
    spec.restart.burst = 0;
    world.start("api.r1.1", spec).await;
    world.end().await;
    let log = world.log("api.r1.1");
    assert!(log.iter().any(|line| line == "begin") && !log.iter().any(|line| line == "had it"), "{log:?}");
}

#[tokio::test]
async fn an_idle_shim_uses_no_processor() {
    let mut world = World::new();
    world.start("api.r1.1", shell("exec sleep 1000")).await;
    world.ready().await;
    let shim = world.shim_pid("api.r1.1");
    let switches = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        count.trim().parse().unwrap()
    };
    // Let what follows the start settle.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = switches();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(switches() - before <= 1, "it woke up {} times", switches() - before);
}
