use fairway_engine::id::Generation;

use super::super::part::tests::{LISTEN, served};
use super::*;
use crate::testing::key;

#[test]
fn what_the_proxy_has_is_told_apart_by_environment() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::from([
        (key("dev"), served("dev", LISTEN, &dir)),
        (key("staging"), served("staging", "127.0.0.1:8081", &dir)),
    ]);
    let read: Parts = parts_of(&compose(7, &parts, &BTreeMap::new()));
    assert_eq!(read.keys().collect::<Vec<_>>(), parts.keys().collect::<Vec<_>>());
    for (environment, part) in &parts {
        let own = Part { generation: Generation::default(), ..part.clone() };
        assert_eq!(read[environment], own);
    }
}

#[test]
fn the_environment_that_is_at_fault_gives_way_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let good = Parts::from([
        (key("dev"), served("dev", LISTEN, &dir)),
        (key("staging"), served("staging", "127.0.0.1:8081", &dir)),
    ]);
    let mut parts = good.clone();
    // Both have a new table; that of dev is fine.
    parts.get_mut(&key("dev")).unwrap().generation = Generation(90);
    let staging = parts.get_mut(&key("staging")).unwrap();
    staging.generation = Generation(91);
    staging.routes[0].path = "no-slash".to_owned();
    let problems = compose(1, &parts, &BTreeMap::new()).validate().unwrap_err();
    assert_eq!(culprit(&parts, &good, &RejectReason::Invalid { problems }), Some(key("staging")));

    let bind = |addr: &str| RejectReason::Bind {
        listener: addr.to_owned(),
        addr: addr.parse().unwrap(),
        errno: None,
        message: String::new(),
    };
    assert_eq!(culprit(&parts, &good, &bind("127.0.0.1:8081")), Some(key("staging")));
    assert_eq!(culprit(&good, &good, &bind(LISTEN)), Some(key("dev")), "an old address may be lost as well");
    let full = RejectReason::Persist { errno: None, message: String::new() };
    assert_eq!(culprit(&parts, &good, &full), None, "a full disk is nobody's table");
}

#[test]
fn a_certificate_that_cannot_be_read_is_the_fault_of_nobody_elses_table() {
    let dir = tempfile::tempdir().unwrap();
    let good = Parts::from([
        (key("dev"), served("dev", LISTEN, &dir)),
        (key("staging"), served("staging", "127.0.0.1:8081", &dir)),
    ]);
    let mut parts = good.clone();
    parts.get_mut(&key("dev")).unwrap().generation = Generation(90);
    let lost = |listener: &str| RejectReason::Invalid {
        problems: vec![Invalid::Listener {
            name: listener.to_owned(),
            problem: "chain.pem: gone".to_owned(),
        }],
    };
    assert_eq!(
        culprit(&parts, &good, &lost("127.0.0.1:8081")),
        None,
        "the new table of dev has no part in it"
    );
    assert_eq!(culprit(&parts, &good, &lost(LISTEN)), Some(key("dev")));
}

#[test]
fn two_environments_on_one_address_the_newer_gives_way() {
    let dir = tempfile::tempdir().unwrap();
    let good = Parts::from([(key("staging"), served("staging", LISTEN, &dir))]);
    let mut parts = good.clone();
    parts.insert(key("dev"), served("dev", LISTEN, &dir));
    let problems = compose(1, &parts, &BTreeMap::new()).validate().unwrap_err();
    assert_eq!(culprit(&parts, &good, &RejectReason::Invalid { problems }), Some(key("dev")));
}
