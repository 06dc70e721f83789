use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use fairway_engine::id::ReleaseNumber;
use fairway_engine::purge::{CachePurge, HookPurge, PURGES_MAX, PurgeAbout, PurgeHook};
use fairway_engine::release::ReleaseSpec;
use fairway_engine::{Command, Fact};

use super::*;
use crate::outgoing::Roots;
use crate::outgoing::peer::{Peer, answer, ok};
use crate::testing::{World, command_of, deploy, key, outcome_of, release};

fn hook(url: &str) -> PurgeHook {
    let secret = EnvValue::Secret { name: "cdn_token".to_owned(), version: 2 };
    PurgeHook {
        url: EnvValue::Literal(url.to_owned()),
        method: "PURGE".to_owned(),
        headers: BTreeMap::from([("authorization".to_owned(), secret)]),
        body: Some("{\"all\":true}".to_owned()),
        attempts: 3,
        timeout: Duration::from_secs(10),
    }
}

fn asked(url: &str) -> Asked {
    let secret = |name: &str, version: u32| Ok(format!("Bearer {name}-{version}"));
    Asked { pause: Duration::from_millis(1), ..Asked::of(hook(url), secret).unwrap() }
}

#[tokio::test]
async fn a_cdn_gets_the_request_with_its_secrets() {
    let cdn = Peer::start(|_| ok("done")).await;
    let went = asked(&cdn.url("/zones/7")).carry_out(&Outgoing::new(Roots::System)).await;
    assert_eq!(went, (1, None));
    let got = cdn.asked().remove(0);
    assert_eq!(got.line, "PURGE /zones/7 HTTP/1.1");
    assert_eq!(got.header("authorization"), Some("Bearer cdn_token-2"));
    assert_eq!(got.body, b"{\"all\":true}");
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_is_wrong_is_not() {
    let outgoing = Outgoing::new(Roots::System);
    let count = AtomicUsize::new(0);
    let cdn = Peer::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => answer(503, "busy"),
        1 => Vec::new(),
        _ => ok(""),
    })
    .await;
    assert_eq!(asked(&cdn.url("/")).carry_out(&outgoing).await, (3, None));

    let cdn = Peer::start(|_| answer(429, "slowly")).await;
    let (attempts, failure) = asked(&cdn.url("/")).carry_out(&outgoing).await;
    assert_eq!((attempts, failure.as_deref()), (3, Some("the answer was 429: slowly")));

    let cdn = Peer::start(|got| answer(403, &format!("{:?} may not", got.header("authorization")))).await;
    let (attempts, failure) = asked(&cdn.url("/")).carry_out(&outgoing).await;
    assert_eq!(attempts, 1);
    assert_eq!(failure.as_deref(), Some("the answer was 403: Some(\"…\") may not"), "the token is nobody's");
}

#[tokio::test]
async fn nobody_there_is_told_after_the_last_attempt() {
    let gone = Peer::start(|_| ok("")).await.url("/");
    let (attempts, failure) = asked(&gone).carry_out(&Outgoing::new(Roots::System)).await;
    assert_eq!(attempts, 3);
    let failure = failure.unwrap();
    assert!(failure.contains("no connection"), "{failure}");
}

#[test]
fn a_secret_that_cannot_be_read_is_the_reason() {
    let error = Asked::of(hook("http://127.0.0.1:1/"), |_, _| Err("it was purged".to_owned())).unwrap_err();
    assert_eq!(error, "secret cdn_token (version 2) cannot be read: it was purged");
}

fn hooked() -> ReleaseSpec {
    let mut spec = release("127.0.0.1:8080");
    spec.deploy.purge = Some(hook("http://127.0.0.1:1/"));
    spec
}

fn given(world: &World) -> usize {
    world.log.iter().filter(|event| matches!(event.fact, Fact::PurgeDue { .. })).count()
}

fn by_hand(world: &mut World, shop: &EnvironmentKey) {
    world.give(command_of(shop, Command::Purge { service: None, paths: Vec::new() }));
    let purge = world.of(shop).last_purge;
    world.give(outcome_of(shop, Outcome::CachePurged { purge, answers: 3, failure: None }));
}

#[test]
fn it_is_due_after_a_release_and_a_rollback_and_when_somebody_asks() {
    let shop = key("production");
    let mut world = World::deployed(&shop, hooked());
    assert_eq!(given(&world), 1);
    let since = due(&world.state).remove(0).key.1;
    let went =
        |failure: Option<&str>| Outcome::Purged { since, attempts: 2, failure: failure.map(str::to_owned) };
    world.give(outcome_of(&shop, went(Some("no connection"))));
    assert!(due(&world.state).is_empty());
    let purged = world.of(&shop).purged.clone().unwrap();
    assert_eq!((purged.attempts, purged.failure.as_deref()), (2, Some("no connection")));
    assert!(world.of(&shop).stable.is_some(), "a failure undoes nothing");
    let events = world.log.len();
    world.give(outcome_of(&shop, went(None)));
    assert_eq!(world.log.len(), events, "nobody had asked again");

    by_hand(&mut world, &shop);
    assert_eq!((given(&world), due(&world.state).len()), (2, 1));

    // A second one that is undone before anybody saw it tells nobody.
    world.give(deploy(&shop, hooked()));
    world.settle(&shop);
    world.give(command_of(&shop, Command::Abort { reason: None }));
    world.settle(&shop);
    assert!(world.of(&shop).rollout.is_none());
    assert_eq!(given(&world), 2);
    by_hand(&mut world, &shop);
    assert_eq!(given(&world), 3);
}

#[test]
fn without_a_hook_nothing_is_due() {
    let shop = key("production");
    let mut world = World::deployed(&shop, release("127.0.0.1:8080"));
    by_hand(&mut world, &shop);
    assert!(due(&world.state).is_empty());
}

fn asked_for(world: &mut World, shop: &EnvironmentKey) -> u32 {
    let service = Some("web".parse().unwrap());
    let paths = (0..40).map(|number| format!("/{number}{}", "x".repeat(300))).collect();
    world.give(command_of(shop, Command::Purge { service, paths }));
    world.of(shop).last_purge
}

fn answered(world: &mut World, shop: &EnvironmentKey, purge: u32, failure: Option<&str>) {
    let failure = failure.map(str::to_owned);
    world.give(outcome_of(shop, Outcome::CachePurged { purge, answers: 3, failure }));
}

#[test]
fn who_asked_what_it_was_about_and_what_came_of_it_is_kept() {
    let shop = key("production");
    let mut world = World::deployed(&shop, hooked());
    let after = &world.of(&shop).purges[0];
    let rollout = world.of(&shop).history[0].number;
    assert_eq!((after.by.as_str(), &after.about), ("fairway", &PurgeAbout::Rollout { rollout }));

    let purge = asked_for(&mut world, &shop);
    let told = world.of(&shop).purges[1].clone();
    let PurgeAbout::Asked { service, paths, paths_more, .. } = told.about else { panic!("{told:?}") };
    assert_eq!((told.by.as_str(), service.unwrap().as_str(), paths.len(), paths_more), ("ann", "web", 32, 8));
    assert!(paths.iter().all(|path| path.len() == 200), "the record is bounded");
    assert_eq!(world.of(&shop).purges[0].hook.clone(), HookPurge::UnderWay { release: ReleaseNumber(1) });

    answered(&mut world, &shop, purge, None);
    answered(&mut world, &shop, purge, Some("told twice"));
    let at = Timestamp(1_000_000);
    let of = |world: &World, index: usize| {
        let one = &world.of(&shop).purges[index];
        (one.cache.clone(), one.hook.clone())
    };
    let release = ReleaseNumber(1);
    assert_eq!(of(&world, 0).1, HookPurge::Superseded { release }, "one hook is due at a time");
    assert_eq!(of(&world, 1), (CachePurge::Done { at, answers: 3 }, HookPurge::UnderWay { release }));
    assert_eq!(world.of(&shop).purge.clone().unwrap().by, "ann");
    world.give(outcome_of(&shop, Outcome::Purged { since: at, attempts: 2, failure: Some("no".to_owned()) }));
    let failed = HookPurge::Failed { release, at, attempts: 2, why: "no".to_owned() };
    assert_eq!(of(&world, 1).1, failed);
}

#[test]
fn a_proxy_that_has_not_emptied_its_cache_is_told_and_no_cdn_asks_it_for_the_old_answers() {
    let shop = key("production");
    let mut world = World::deployed(&shop, hooked());
    let purge = asked_for(&mut world, &shop);
    answered(&mut world, &shop, purge, Some("no answer"));
    let told = world.of(&shop).purges.back().unwrap();
    let why = "no answer".to_owned();
    assert_eq!(
        (&told.cache, &told.hook),
        (&CachePurge::Failed { at: Timestamp(1_000_000), why }, &HookPurge::None)
    );
    assert_eq!(given(&world), 1, "after the release alone");
}

#[test]
fn purges_without_end_are_bounded() {
    let shop = key("production");
    let mut world = World::deployed(&shop, hooked());
    let first = asked_for(&mut world, &shop);
    for _ in 0..2 * PURGES_MAX {
        by_hand(&mut world, &shop);
    }
    assert_eq!(world.of(&shop).purges.len(), PURGES_MAX);
    let events = world.log.len();
    answered(&mut world, &shop, first, None);
    assert_eq!(world.log.len(), events, "nobody remembers it");
}

#[test]
fn what_older_fairways_wrote_down_is_understood() {
    let shop = key("production");
    let mut world = World::deployed(&shop, hooked());
    for by in ["fairway", "ann"] {
        let fact = r#"{"purge_due":{"release":1}}"#;
        let fact: Fact = serde_json::from_str(fact).unwrap();
        let event =
            fairway_engine::Event { at: Timestamp(5), actor: by.to_owned(), environment: shop.clone(), fact };
        world.state.apply(&event).unwrap();
    }
    let rollout = world.of(&shop).history[0].number;
    let told = world.of(&shop).purges.iter().map(|one| (one.by.as_str(), one.about.clone()));
    let expected = [
        ("fairway", PurgeAbout::Rollout { rollout }),
        ("fairway", PurgeAbout::Rollout { rollout }),
        ("ann", PurgeAbout::Unsaid),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}
