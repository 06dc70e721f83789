use fairway_engine::release::ReleaseSpec;
use fairway_engine::{Command, Phase};

use super::super::compose::{Parts, compose};
use super::*;
use crate::testing::{World, command_of, deploy, key, name, release, service};

pub(in crate::routes) const LISTEN: &str = "127.0.0.1:8080";

fn ports(dir: &tempfile::TempDir) -> Ports {
    Ports::open(dir.path().join("ports.json"))
}

fn of(part: &Part, listener: &str) -> Vec<(String, String, Option<String>)> {
    let own = part.routes.iter().filter(|route| route.listener == listener);
    own.map(|route| (route.path.clone(), route.service.clone(), route.pin.clone())).collect()
}

fn text(path: &str, service: &str, pin: Option<&str>) -> (String, String, Option<String>) {
    (path.to_owned(), format!("shop/dev/{service}"), pin.map(str::to_owned))
}

/// Two releases: one serves, the other is ready and waits for somebody to promote it.
fn half_way() -> World {
    let dev = key("dev");
    let mut world = World::deployed(&dev, release(LISTEN));
    world.give(deploy(&dev, release(LISTEN)));
    world.settle(&dev);
    assert!(matches!(world.of(&dev).rollout.as_ref().unwrap().phase, Phase::Shifting { .. }));
    world
}

#[test]
fn a_new_version_is_on_the_preview_only_and_each_release_calls_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let world = half_way();
    let part = part(world.of(&key("dev")), &ports(&dir), &Offer::default());
    assert_eq!(of(&part, LISTEN), [text("/api", "api", None), text("/", "web", None)]);
    let preview = [text("/api", "api", Some("r2")), text("/", "web", Some("r2"))];
    assert_eq!(of(&part, "shop/dev#preview"), preview);
    assert_eq!(of(&part, "shop/dev/api@r1"), [text("/", "api", Some("r1"))]);
    assert_eq!(of(&part, "shop/dev/api@r2"), [text("/", "api", Some("r2"))]);
    let weights = |service: &str| {
        let versions = &part.services[&format!("shop/dev/{service}")].versions;
        versions.iter().map(|(release, version)| (release.as_str(), version.weight)).collect::<Vec<_>>()
    };
    assert_eq!(weights("web"), [("r1", 100), ("r2", 0)]);
    compose(1, &Parts::from([(key("dev"), part.clone())]), &BTreeMap::new()).validate().unwrap();
}

#[test]
fn a_release_without_its_own_copy_calls_whatever_serves() {
    let dir = tempfile::tempdir().unwrap();
    let dev = key("dev");
    let mut world = half_way();
    world.give(command_of(&dev, Command::Abort { reason: None }));
    let part = part(world.of(&dev), &ports(&dir), &Offer::default());
    assert_eq!(of(&part, "shop/dev/api@r2"), [text("/", "api", None)], "r2 is drained and still asks");
    assert_eq!(of(&part, "shop/dev/api@r1"), [text("/", "api", Some("r1"))]);
}

#[test]
fn nothing_is_public_before_it_has_weight() {
    let dir = tempfile::tempdir().unwrap();
    let dev = key("dev");
    let mut world = World::default();
    world.give(deploy(&dev, release(LISTEN)));
    let started = part(world.of(&dev), &ports(&dir), &Offer::default());
    assert_eq!((started.routes.len(), started.listeners.len()), (0, 0), "{started:?}");
}

#[test]
fn services_of_several_hosts_share_one_preview() {
    let dir = tempfile::tempdir().unwrap();
    let dev = key("dev");
    let mut spec: ReleaseSpec = release(LISTEN);
    for (label, host) in [("web", "shop.example"), ("admin", "admin.shop.example")] {
        let mut one = service(Some("/"), &[]);
        one.route.as_mut().unwrap().host = Some(host.to_owned());
        spec.services.insert(name(label), one);
    }
    let world = World::deployed(&dev, spec);
    let part = part(world.of(&dev), &ports(&dir), &Offer::default());
    compose(1, &Parts::from([(dev, part)]), &BTreeMap::new()).validate().unwrap();
}

pub(in crate::routes) fn served(environment: &str, listen: &str, dir: &tempfile::TempDir) -> Part {
    let environment = key(environment);
    let world = World::deployed(&environment, release(listen));
    part(world.of(&environment), &ports(dir), &Offer::default())
}

#[test]
fn an_old_table_that_stays_in_force_has_the_certificates_of_today() {
    let dir = tempfile::tempdir().unwrap();
    let with = |chain: &str| {
        let mut part = served("dev", LISTEN, &dir);
        let certificate = fairway_proxy::snapshot::Certificate {
            names: vec!["shop.example".to_owned()],
            chain: chain.into(),
            key: "key.pem".into(),
            digest: chain.to_owned(),
            purpose: Default::default(),
        };
        let tls = fairway_proxy::snapshot::Tls { certificates: vec![certificate] };
        part.listeners.get_mut(LISTEN).unwrap().tls = Some(tls);
        part
    };
    let (good, mut refused) = (with("old.pem"), with("new.pem"));
    refused.routes[0].path = "no-slash".to_owned();
    let kept = good.clone().with_certificates_of(&refused);
    assert_eq!(kept, with("new.pem"));
    // Where the newer table has no TLS, the old certificates are better than none.
    assert_eq!(good.clone().with_certificates_of(&served("dev", LISTEN, &dir)), good);
}

#[test]
fn a_lost_address_costs_what_it_led_to_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let part = served("dev", LISTEN, &dir);
    let rest = part.clone().without(LISTEN.parse().unwrap());
    assert!(of(&rest, LISTEN).is_empty());
    assert_eq!(of(&rest, "shop/dev/api@r1"), of(&part, "shop/dev/api@r1"));
    assert_eq!(rest.generation, Generation::default(), "it is not the table that was asked for");
    compose(1, &Parts::from([(key("dev"), rest)]), &BTreeMap::new()).validate().unwrap();
}
