//! What the record says of an upgrade.

use std::path::Path;
use std::time::{Duration, Instant};

use fairway_api::Event;
use fairway_api::client::{Client, Endpoint, Target};

use crate::house::{FAIRWAY, House, PATIENCE, Starter, last_line};

/// With a site in it, and its environment `dev`.
fn house_with_a_site(starter: Starter) -> House {
    let house = House::started_by(starter, &[]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = format!(
        "version = 1\nproject = \"shop\"\n[service.web]\nstatic = \"public\"\nroute = \"/\"\n[env.dev]\nlisten = \
         \"{free}\"\n"
    );
    std::fs::write(house.dir.path().join("fairway.toml"), file).unwrap();
    std::fs::create_dir(house.dir.path().join("public")).unwrap();
    std::fs::write(house.dir.path().join("public/index.html"), "hello").unwrap();
    let deployed = house.fairway(&["deploy", "-e", "dev"]);
    assert!(deployed.status.success(), "{}\n{}", last_line(&deployed), house.log());
    house
}

/// None while there is no server.
fn events(house: &House) -> Option<Vec<Event>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::new(Endpoint::Unix(house.state().join("fairway.sock")));
        let target = Target { project: "shop".into(), environment: "dev".into() };
        let mut lines = client.events(&target, 0, false).await.ok()?;
        let mut events = Vec::new();
        while let Some(event) = lines.next().await.ok()? {
            events.push(event);
        }
        Some(events)
    })
}

/// Of upgrades, as `fairway watch` shows them, once there are so many.
fn record(house: &House, count: usize) -> Vec<(String, String)> {
    let until = Instant::now() + PATIENCE;
    loop {
        let told = events(house).into_iter().flatten().filter(|event| {
            ["upgrade_begun", "proxy_handed_over", "upgrade_ended"].contains(&event.kind.as_str())
        });
        let told: Vec<_> = told.map(|event| (event.actor, event.summary)).collect();
        if told.len() >= count {
            return told;
        }
        assert!(Instant::now() < until, "{told:?}\n{}", house.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn down(house: &House) {
    let down = house.fairway(&["down", "-e", "dev", "--yes"]);
    assert!(down.status.success(), "{}", last_line(&down));
}

#[test]
fn who_asked_for_it_and_what_came_of_it_is_on_the_record() {
    let house = house_with_a_site(Starter::Shell);
    let version = house.status().unwrap()["version"].as_str().unwrap().to_owned();
    assert_eq!(house.upgrade(Path::new(FAIRWAY)).code, 0);
    let told = record(&house, 3);
    let me = told[0].0.clone();
    assert_ne!(me, "fairway", "it was a person");
    assert_eq!(told[0].1, format!("upgrade of Fairway from {version} to {version} ({FAIRWAY}) by {me}"));
    assert!(told[1].1.starts_with("the proxy handed its sockets to the new one in "), "{told:?}");
    assert_eq!(
        told[2],
        ("fairway".into(), format!("Fairway runs {version}; before: {version}; asked for by {me}"))
    );

    // One that is refused before anything was changed asks for nothing that would have to be on the record.
    house.upgrade(Path::new("/bin/true")).is(1, "upgrade/not-fairway");
    assert_eq!(record(&house, 3).len(), 3);

    house.upgrade(&house.program("[ $1 = proxy ] && exit 3")).is(1, "upgrade/proxy");
    let refused = "the new proxy did not take over: it ended before it was ready (exit code 3)";
    assert_eq!(
        record(&house, 5)[4].1,
        format!("upgrade to {version} refused, Fairway is {version} as before: {refused}")
    );

    for (crash, why) in [
        ("exec sleep 0", "it ended before it served"),
        ("set -- server run --no-such-option", "it ended before it served"),
    ] {
        let count = record(&house, 5).len();
        let fails = house.program(&format!("case \"$*\" in *--handed*) {crash};; esac"));
        house.upgrade(&fails).is(1, "upgrade/server");
        let told = record(&house, count + 3);
        assert_eq!(
            told[count + 2].1,
            format!("upgrade to {version} failed, the server is {version} again: {why}")
        );
    }
    house.await_proxy();
    let purged = house.fairway(&["purge", "/a", "/b", "--service", "web", "-e", "dev"]);
    assert!(purged.status.success(), "{}", last_line(&purged));
    let mut asked = std::process::Command::new(FAIRWAY);
    asked.args(["history", "-e", "dev"]).current_dir(house.dir.path()).env("FAIRWAY_STATE", house.state());
    let shown = asked.env_remove("FAIRWAY_SERVER").output().unwrap().stdout;
    let shown = String::from_utf8(shown).unwrap();
    let outcomes: Vec<_> = shown.lines().filter(|line| line.starts_with("fairway ")).collect();
    assert_eq!(outcomes.len(), 4, "{shown}");
    for (line, outcome) in outcomes.iter().zip(["came back", "came back", "refused", "done"]) {
        assert!(line.contains(outcome), "{line}");
    }
    let purges: Vec<_> = shown.lines().filter(|line| line.starts_with("purge ")).collect();
    assert_eq!(purges.len(), 1, "{shown}");
    for word in ["/a and 1 more of web", "done", &me, "0 kept answers are gone"] {
        assert!(purges[0].contains(word), "{word}: {shown}");
    }
    down(&house);
}

#[test]
fn an_upgrade_that_the_end_of_the_server_interrupts_is_on_the_record() {
    let mut house = house_with_a_site(Starter::Systemd);
    let version = house.status().unwrap()["version"].as_str().unwrap().to_owned();
    let crashes = house.program("case \"$*\" in *--handed*) kill -KILL $$;; esac");
    let mut command = house.command(&["server", "upgrade", "--binary", crashes.to_str().unwrap()]);
    let upgrading = std::thread::spawn(move || command.output().unwrap());
    house.start_again(Starter::Systemd);
    let told = record(&house, 3);
    assert_eq!(
        told[2].1,
        format!("upgrade to {version} interrupted: the server ended, and was started again as {version}")
    );
    let said = last_line(&upgrading.join().unwrap());
    assert_eq!(said["errors"][0]["code"], "upgrade/server", "{said}");
    assert!(said.to_string().contains("was started again as"), "{said}");
    house.await_proxy();
    down(&house);
}
