//! A real PostgreSQL, where one is installed.

// The helpers below unwrap as the tests do.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt;

use common::*;
use fairway_engine::service::BackingEngine;
use fairway_targets::backing::{BackingError, BackingRequest, prepare};
use fairway_targets::event::TargetEventKind;
use fairway_targets::exit::Exit;

fn request(world: &World, engine: BackingEngine) -> BackingRequest {
    let root = world.work.parent().unwrap();
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755)).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    BackingRequest { engine, data_dir: root.join("data/postgres"), port, database: "shop".into() }
}

fn psql(url: &str, statement: &str) -> Result<String, String> {
    let output = std::process::Command::new("psql")
        .args([url, "--no-psqlrc", "-Atc", statement])
        .env("PGCONNECT_TIMEOUT", "10")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[tokio::test]
async fn postgres_is_set_up_once_and_keeps_its_data() {
    let mut world = World::new();
    let request = request(&world, BackingEngine::Postgres);
    // What an interrupted set-up leaves.
    std::fs::create_dir_all(request.data_dir.join("cluster.new/base")).unwrap();
    let backing = match prepare(&request).await {
        Ok(backing) => backing,
        Err(error @ BackingError::Missing { .. }) => {
            assert!(error.to_string().ends_with("apt install postgresql"), "{error}");
            eprintln!("not checked further: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let key = instance("postgres.r1.1");
    world.supervisor.start(key.clone(), backing.spec.clone()).await.unwrap();
    world.ready().await;
    psql(&backing.url, "create table kept as select 42 as n").unwrap();
    assert!(
        psql(&backing.url.replace("fairway:", "fairway:x"), "select 1").unwrap_err().contains("password")
    );
    let password = std::fs::metadata(request.data_dir.join("password")).unwrap();
    assert_eq!(password.permissions().mode() & 0o777, 0o600);
    world.supervisor.stop(&key, None).await.unwrap();
    assert_eq!(world.end().await, TargetEventKind::Stopped { exit: Exit::Code(0) });

    // The next copy, as a later release starts it: the same data, the same address.
    let again = prepare(&request).await.unwrap();
    assert_eq!(again, backing);
    let key = instance("postgres.r1.2");
    world.supervisor.start(key.clone(), again.spec).await.unwrap();
    world.ready().await;
    assert_eq!(psql(&backing.url, "select n from kept").unwrap(), "42");

    // A killed shim takes the server with it; the data survives, and nothing is left to hold it.
    kill(world.shim_pid("postgres.r1.2"), libc::SIGKILL);
    world.end().await;
    let key = instance("postgres.r1.3");
    world.supervisor.start(key.clone(), prepare(&request).await.unwrap().spec).await.unwrap();
    world.ready().await;
    assert_eq!(psql(&backing.url, "select n from kept").unwrap(), "42");
    world.supervisor.stop(&key, None).await.unwrap();
    world.end().await;

    let version = request.data_dir.join("cluster/PG_VERSION");
    std::fs::write(&version, "9\n").unwrap();
    assert!(matches!(prepare(&request).await, Err(BackingError::Version { .. })));
}

#[tokio::test]
async fn what_cannot_be_set_up_says_why() {
    let world = World::new();
    let postgres = request(&world, BackingEngine::Postgres);
    let odd = BackingRequest { database: "a\"; drop".into(), ..postgres.clone() };
    assert!(matches!(prepare(&odd).await, Err(BackingError::DatabaseName { .. })));
    if rustix::process::geteuid().is_root() {
        let shut = world.work.join("shut");
        std::fs::create_dir(&shut).unwrap();
        std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(0o700)).unwrap();
        let unreachable = BackingRequest { data_dir: shut.join("pg"), ..postgres };
        match prepare(&unreachable).await {
            Err(BackingError::Unreachable { at, .. }) => assert_eq!(at, shut),
            Err(BackingError::Missing { .. }) => eprintln!("not checked: PostgreSQL is not installed"),
            other => panic!("{other:?}"),
        }
    }
    match prepare(&request(&world, BackingEngine::Redis)).await {
        Ok(backing) => assert!(backing.url.starts_with("redis://:")),
        Err(error) => assert!(error.to_string().ends_with("apt install redis-server"), "{error}"),
    }
}
