//! What is removed, and what never is.

mod common;

use common::*;
use fairway_targets::supervisor::ControlError;

#[tokio::test]
async fn only_what_has_ended_is_removed_and_the_newest_are_kept() {
    let mut world = World::new();
    for n in 1..=3 {
        let name = format!("api.r1.{n}");
        world.start(&name, shell("echo hello; exec sleep 1000")).await;
        world.ready().await;
        world.stop(&name).await;
    }
    world.start("web.r1.1", shell("exec sleep 1000")).await;
    world.ready().await;
    std::fs::create_dir_all(world.dir("api.r1.9")).unwrap();
    let lock = world.dir("api.r1.3").join("lock");
    eventually("the last shim is gone", || lock.exists()).await;
    let mut reaped = world.supervisor.reap(1).unwrap();
    // A shim that has just recorded its end may still hold its lock; then it counts as running.
    for _ in 0..200 {
        if reaped.instances.len() >= 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        reaped.instances.extend(world.supervisor.reap(1).unwrap().instances);
    }
    assert_eq!(reaped.instances, [instance("api.r1.1"), instance("api.r1.2")]);
    assert!(!world.dir("api.r1.1").exists());
    assert_eq!(world.log("api.r1.3"), ["hello"]);
    assert!(world.dir("web.r1.1").exists() && world.dir("api.r1.9").exists());
    assert!(matches!(
        world.supervisor.status(&instance("api.r1.1")).await,
        Err(ControlError::Unknown { .. })
    ));
    assert!(world.supervisor.status(&instance("web.r1.1")).await.is_ok());
    assert!(world.supervisor.reap(1).unwrap().instances.is_empty());
}
