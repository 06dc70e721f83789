//! What survives, what is refused, and what the control socket puts up with.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use fairway_proxy::control::RejectReason;
use fairway_proxy::snapshot::Snapshot;
use fairway_proxy::{AccessLog, RunError, RunOptions};

use crate::support::{HANG, Origin, Proxy, Wire, listener, ok, service};

#[test]
fn the_last_snapshot_is_served_without_a_control_plane() {
    let origin = Origin::start(|_| ok("still here"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let addr = proxy.addr;
    let dir = proxy.stop();
    let proxy = Proxy::start_in(dir, |_| {});
    assert_eq!(proxy.client.hello().generation, 1);
    assert_eq!(Wire::open(addr).get("/").unwrap().text(), "still here");
}

#[test]
fn a_full_disk_does_not_keep_a_proxy_from_starting() {
    let origin = Origin::start(|_| ok("still here"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let addr = proxy.addr;
    let dir = proxy.stop();
    // Stands in for a full disk: no other snapshot can be written.
    std::fs::create_dir(dir.path().join("snapshot.json.new")).unwrap();
    let _proxy = Proxy::start_in(dir, |_| {});
    assert_eq!(Wire::open(addr).get("/").unwrap().text(), "still here");
}

#[test]
fn generations_only_go_forward() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    let first = proxy.snapshot(service(&[("i", origin.addr)]));
    let second = proxy.snapshot(service(&[("i", origin.addr)]));
    proxy.apply(&second).unwrap();
    let refused = proxy.apply(&first).unwrap_err();
    assert_eq!((refused.generation, refused.current, refused.reason), (1, 2, RejectReason::OlderGeneration));
    proxy.apply(&second).expect("the same again is the same as once");
    let mut other = second.clone();
    other.routes.clear();
    assert_eq!(proxy.apply(&other).unwrap_err().reason, RejectReason::SameGenerationDifferent);
    assert_eq!(proxy.wire().get("/").unwrap().text(), "x");
}

#[test]
fn an_address_that_was_just_given_up_can_be_taken_again_at_once() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let listener = listener("preview", crate::support::free_addr());
    for _ in 0..2 {
        let mut with = proxy.snapshot(service(&[("i", origin.addr)]));
        with.listeners.push(listener.clone());
        proxy.apply(&with).expect("the address is this proxy's own");
        let without = proxy.snapshot(service(&[("i", origin.addr)]));
        proxy.apply(&without).unwrap();
    }
}

#[test]
fn a_snapshot_that_cannot_be_served_changes_nothing() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut invalid = proxy.snapshot(service(&[]));
    invalid.routes[0].service = "nobody".into();
    assert!(
        matches!(proxy.apply(&invalid).unwrap_err().reason, RejectReason::Invalid { problems } if problems.len() == 1)
    );
    // The second listener's address is taken: the first new one must not stay bound either.
    let mut taken = proxy.snapshot(service(&[]));
    let free = crate::support::free_addr();
    for (name, addr) in [("a", free), ("b", origin.addr)] {
        taken.listeners.push(listener(name, addr));
    }
    let reason = proxy.apply(&taken).unwrap_err().reason;
    let RejectReason::Bind { listener, addr, errno, .. } = reason else { panic!("{reason:?}") };
    assert_eq!((listener.as_str(), addr, errno), ("b", origin.addr, Some(98)));
    drop(std::net::TcpListener::bind(free).expect("the address is free again"));
    // Stands in for a full disk.
    let blocker = proxy.dir.path().join("snapshot.json.new");
    std::fs::create_dir(&blocker).unwrap();
    let unsaved = proxy.snapshot(service(&[]));
    assert!(matches!(
        proxy.apply(&unsaved).unwrap_err().reason,
        RejectReason::Persist { errno: Some(_), .. }
    ));
    assert_eq!(proxy.wire().get("/").unwrap().text(), "x");
    std::fs::remove_dir(blocker).unwrap();
    proxy.serve(service(&[("i", origin.addr)]));
    assert_eq!(proxy.wire().get("/").unwrap().text(), "x");
}

#[test]
fn two_proxies_do_not_share_a_directory() {
    let proxy = Proxy::start();
    let mut options = RunOptions::new(proxy.dir.path());
    options.handle_signals = false;
    assert!(matches!(fairway_proxy::run(options), Err(RunError::ControlSocket { .. })));
    proxy.runtime.block_on(proxy.client.ping()).unwrap();
}

/// A process that got SIGKILL holds its sockets for some milliseconds, and its supervisor may be faster.
#[test]
fn sockets_that_a_killed_process_still_holds_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let addr = crate::support::free_addr();
    let saved = format!(r#"{{"generation":3,"listeners":[{{"name":"web","addr":"{addr}"}}]}}"#);
    std::fs::write(dir.path().join("snapshot.json"), saved).unwrap();
    let control = std::os::unix::net::UnixListener::bind(dir.path().join("proxy.sock")).unwrap();
    let traffic = std::net::TcpListener::bind(addr).unwrap();
    let dying = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(control);
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(traffic);
    });
    let mut options = RunOptions::new(dir.path());
    options.handle_signals = false;
    let socket = options.control_socket();
    let running = std::thread::spawn(move || fairway_proxy::run(options));
    dying.join().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    crate::support::eventually("it serves", || {
        runtime.block_on(async {
            match fairway_proxy::control::Client::connect(&socket).await {
                Ok(client) => client.hello().generation == 3 && client.shutdown().await.is_ok(),
                Err(_) => false,
            }
        })
    });
    running.join().unwrap().unwrap();
}

#[test]
fn a_saved_snapshot_whose_address_is_taken_is_an_error_with_its_name() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let listeners = format!(
        r#"{{"generation":1,"listeners":[{{"name":"web","addr":"{}"}}]}}"#,
        taken.local_addr().unwrap()
    );
    std::fs::write(dir.path().join("snapshot.json"), listeners).unwrap();
    let mut options = RunOptions::new(dir.path());
    options.handle_signals = false;
    let error = fairway_proxy::run(options).unwrap_err();
    assert!(error.to_string().contains("\"web\": cannot listen on 127.0.0.1:"), "{error}");
}

#[test]
fn garbage_on_the_control_socket_is_answered_and_forgotten() {
    let proxy = Proxy::start();
    let path = proxy.dir.path().join("proxy.sock");
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("hello"));
    for (line, expect) in [
        ("nonsense", r#"{"say":{"bad_request""#),
        (r#"{"seq":4,"ask":"dance"}"#, r#"{"seq":4,"say":{"bad_request""#),
        (r#"{"seq":5,"ask":"ping"}"#, r#"{"seq":5,"say":"pong"}"#),
    ] {
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let answer = lines.next().unwrap().unwrap();
        assert!(answer.starts_with(expect), "{line} → {answer}");
    }
    stream.write_all(b"{\"seq\":6,").unwrap();
    drop((stream, lines));
    proxy.runtime.block_on(proxy.client.ping()).unwrap();
}

#[test]
fn a_state_directory_with_a_long_path_works() {
    let root = tempfile::tempdir().unwrap();
    let deep = root.path().join("x".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let mut proxy = Proxy::start_in(tempfile::tempdir_in(&deep).unwrap(), |_| {});
    proxy.serve(service(&[]));
    assert_eq!(proxy.stats().generation, 1);
}

#[test]
fn requests_are_logged_as_json_lines() {
    let origin = Origin::start(|_| ok("body"));
    let log = tempfile::tempdir().unwrap();
    let path = log.path().join("access.log");
    let mut proxy = Proxy::start_with(|options| options.access_log = AccessLog::File(path.clone()));
    proxy.serve(service(&[("i", origin.addr)]));
    proxy.wire().post("/a\"b?c", b"xyz").unwrap();
    let expect_id = proxy.wire().get("/missing").unwrap().field("x-request-id").unwrap().to_owned();
    let mut odd = proxy.wire();
    odd.send("GET / HTTP/9.9\r\nHost: a\r\n\r\n");
    odd.read().unwrap();
    proxy.stop();
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    // Each core writes its own lines: their order is that of the cores, not of the requests.
    assert!(lines.iter().any(|line| line["status"] == 505));
    let first = lines.iter().find(|line| line["target"] == "/a\"b?c").unwrap();
    assert_eq!(
        (&first["status"], &first["bytes_in"], &first["bytes_out"]),
        (&200.into(), &3.into(), &4.into())
    );
    assert_eq!((&first["service"], &first["version"]), (&"s".into(), &"r1".into()));
    assert_eq!((&first["instance"], &first["attempts"]), (&"i".into(), &1.into()));
    assert!(lines.iter().any(|line| line["request_id"] == expect_id.as_str()));
}

#[test]
fn metrics_are_served() {
    let origin = Origin::start(|_| ok("body"));
    let addr = crate::support::free_addr();
    let mut proxy = Proxy::start_with(|options| options.metrics_addr = Some(addr));
    proxy.serve(service(&[("i", origin.addr)]));
    proxy.wire().get("/").unwrap();
    crate::support::eventually("it is counted", || proxy.stats().version("s", "r1").requests_total() == 1);
    let text = Wire::open(addr).get("/metrics").unwrap().text();
    assert!(
        text.contains(
            "http_requests_total{environment=\"\",service=\"s\",version=\"r1\",route=\"*/\",code=\"2xx\"} 1\n"
        ),
        "{text}"
    );
    assert_eq!(Wire::open(addr).get("/other").unwrap().status(), 404);
}

#[test]
fn many_snapshots_in_a_row_leave_no_descriptors_behind() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut before = 0;
    for n in 0..60 {
        let mut snapshot = proxy.snapshot(service(&[("i", origin.addr)]));
        let addr = crate::support::free_addr();
        snapshot.listeners.push(listener("more", addr));
        proxy.apply(&snapshot).unwrap();
        if n == 10 {
            before = count();
        }
    }
    let empty = Snapshot { generation: 1_000, ..Snapshot::default() };
    proxy.apply(&empty).unwrap();
    // Other tests of this process open and close descriptors too; 50 listeners on 2 cores would be 150.
    crate::support::eventually("descriptors are closed", || count() < before + 100);
}
