//! What goes well.

use std::os::unix::fs::PermissionsExt as _;

use fairway_engine::certificate::CertificateGain;
use fairway_engine::id::EnvironmentKey;
use fairway_engine::service::EnvValue;

use super::pebble::Setup;
use super::*;

const HTTP: &[ChallengeKind] = &[ChallengeKind::Http01];
const TLS: &[ChallengeKind] = &[ChallengeKind::TlsAlpn01];
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn a_certificate_is_ordered_by_http() {
    let mut world = World::new().await;
    let Some(pebble) = Pebble::start(&world.site).await else { return };
    let certificates = world.start(wanted(&[HOST, WWW], pebble.acme(HTTP)));
    let (until, renew_at) = until_valid(&certificates, HOST).await;
    assert_eq!(state_of(&certificates, WWW), NameState::Valid { until, renew_at, suggested: true });
    let life = until.since(world.now());
    assert!(life > 89 * DAY && life < 91 * DAY, "{life:?}");
    let left = until.since(renew_at);
    assert!(left >= 28 * DAY && left <= 32 * DAY, "a third, and a fiftieth around it, says pebble: {left:?}");

    let [serving] = &world.site.serving()[..] else { panic!("{:?}", world.site.offer()) };
    assert_eq!(serving.names, [HOST, WWW]);
    assert_eq!(*serving, certificates.offer().certificates[0]);
    let (chain, key) = (std::fs::read(&serving.chain).unwrap(), std::fs::read(&serving.key).unwrap());
    let pair = Pair::read(chain, key, &[HOST.to_owned(), WWW.to_owned()].into()).unwrap();
    assert_eq!((pair.digest, pair.leaf.not_after), (serving.digest.clone(), until));
    for path in [&serving.key, &world.file("account.json").unwrap(), &world.file("meta.json").unwrap()] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    assert_eq!(certificates.offer().http_challenges, BTreeMap::new(), "answers are taken back");
    // A key lies in one place.
    until_gone(&serving.key.parent().unwrap().with_file_name("order.key")).await;
    let [Event { what: Happened::Obtained { .. }, .. }] = &world.site.events()[..] else {
        panic!("{:?}", world.site.events())
    };
    assert_eq!(certificates.expiries().len(), 2);
}

#[tokio::test]
async fn a_certificate_is_ordered_by_tls() {
    let mut world = World::new().await;
    let Some(pebble) = Pebble::start(&world.site).await else { return };
    let certificates = world.start(wanted(&[HOST, WWW], pebble.acme(TLS)));
    until_valid(&certificates, WWW).await;
    assert_eq!(certificates.offer().certificates.len(), 1, "answers are taken back");
    let place = world.site.serving()[0].chain.ancestors().nth(2).unwrap().to_owned();
    let proofs = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap());
    for proof in proofs.filter(|entry| entry.file_name().to_string_lossy().starts_with("challenge-")) {
        until_gone(&proof.path()).await;
    }
}

/// A proxy that starts again serves from the snapshot that it wrote down, and needs every file that it names.
#[tokio::test]
async fn no_file_goes_that_the_proxy_may_still_name() {
    let mut world = World::new().await;
    let Some(pebble) = Pebble::start(&world.site).await else { return };
    let acme = |challenges: &[ChallengeKind]| wanted(&[HOST], pebble.acme(challenges));
    let all_there =
        |offer: &Offer| offer.certificates.iter().all(|one| one.chain.is_file() && one.key.is_file());
    // The preflight's proof is with the proxy when the server dies, and the proxy cannot be told for a while.
    let certificates = world.start(acme(TLS));
    until(&certificates, HOST, |_| !world.site.offer().certificates.is_empty()).await;
    world.site.down.store(true, Ordering::SeqCst);
    world.kill().await;
    let certificates = world.start(acme(TLS));
    until(&certificates, HOST, |state| matches!(state, NameState::Failed { .. })).await;
    let named = world.site.offer();
    assert!(!named.certificates.is_empty() && all_there(&named), "{named:?}");
    world.kill().await;
    world.site.down.store(false, Ordering::SeqCst);
    world.advance(Duration::from_secs(24 * 60 * 60));
    let certificates = world.start(acme(TLS));
    until(&certificates, HOST, |state| matches!(state, NameState::Valid { .. })).await;
    assert!(all_there(&world.site.offer()));
    until_gone(&named.certificates[0].chain).await;
}

#[tokio::test]
async fn a_port_that_leads_elsewhere_leaves_the_other_challenge() {
    let mut world = World::new().await;
    let closed = pebble::free_port();
    let Some(pebble) = Pebble::start_with(closed, world.site.tls_port, 0).await else { return };
    let lookout =
        Lookout { resolver: world.resolver.clone(), http_port: closed, tls_port: world.site.tls_port };
    let options = Options {
        now: Arc::new(|| now_ahead(&AtomicU64::default())),
        jitter: 0,
        lookout,
        secret_of: secrets(),
    };
    let certificates = Certificates::open(world.state.path(), options, world.site.clone()).unwrap();
    certificates.want(wanted(&[HOST], pebble.acme(&[ChallengeKind::Http01, ChallengeKind::TlsAlpn01])));
    world.tasks.push(tokio::spawn(certificates.clone().run()));
    until_valid(&certificates, HOST).await;
}

#[tokio::test]
async fn nonces_that_are_thrown_away_hold_nothing_up() {
    let mut world = World::new().await;
    let Some(pebble) = Pebble::start_with(world.site.http_port, world.site.tls_port, 20).await else {
        return;
    };
    let certificates = world.start(wanted(&[HOST], pebble.acme(HTTP)));
    until_valid(&certificates, HOST).await;
}

#[tokio::test]
async fn a_certificate_is_renewed_and_served_all_along() {
    let mut world = World::new().await;
    let Some(pebble) = Pebble::start(&world.site).await else { return };
    let wanted = wanted(&[HOST], pebble.acme(HTTP));
    let certificates = world.start(wanted.clone());
    let (_, renew_at) = until_valid(&certificates, HOST).await;
    let before = world.site.serving().remove(0);
    world.advance(renew_at.since(world.now()) - Duration::from_secs(60));
    certificates.want(wanted.clone());
    tokio::task::yield_now().await;
    assert!(matches!(state_of(&certificates, HOST), NameState::Valid { .. }), "not before its time");
    world.advance(Duration::from_secs(120));
    certificates.want(wanted);
    until(&certificates, HOST, |state| {
        assert!(state.until().is_some(), "{state:?}");
        assert_eq!(world.site.serving().len(), 1);
        world.site.serving()[0] != before
    })
    .await;
    until_valid(&certificates, HOST).await;
    let after = world.site.serving().remove(0);
    assert_ne!((&after.digest, &after.chain, &after.key), (&before.digest, &before.chain, &before.key));
    until_gone(before.key.parent().unwrap()).await;
    assert!(after.chain.is_file() && after.key.is_file());
}

#[tokio::test]
async fn the_account_and_the_certificate_outlive_the_server() {
    let mut world = World::new().await;
    let Some(pebble) = Pebble::start(&world.site).await else { return };
    let first = world.start(wanted(&[HOST], pebble.acme(HTTP)));
    until_valid(&first, HOST).await;
    let account = std::fs::read(world.file("account.json").unwrap()).unwrap();
    world.kill().await;
    let both = [wanted(&[HOST], pebble.acme(HTTP)), wanted(&[WWW], pebble.acme(HTTP))].concat();
    let offered = world.site.serving();
    let second = world.start(both);
    assert_eq!(second.offer().certificates, offered, "at once, from the disk");
    until_valid(&second, WWW).await;
    assert!(matches!(state_of(&second, HOST), NameState::Valid { .. }));
    assert_eq!(std::fs::read(world.file("account.json").unwrap()).unwrap(), account);
    let told = |how| {
        let is_told =
            |event: &Event| matches!(&event.what, Happened::Obtained { how: told, .. } if *told == how);
        world.site.events().iter().filter(|event| is_told(event)).count()
    };
    let gains = [CertificateGain::Issued, CertificateGain::Kept, CertificateGain::Renewed].map(told);
    assert_eq!(
        gains,
        [2, 1, 0],
        "the second server says how the first certificate stands: {:?}",
        world.site.events()
    );
}

#[tokio::test]
async fn sets_that_are_new_together_share_an_account() {
    let mut world = World::new().await;
    let Some(pebble) = Pebble::start(&world.site).await else { return };
    let each = [wanted(&[HOST], pebble.acme(HTTP)), wanted(&[WWW], pebble.acme(HTTP))].concat();
    let certificates = world.start(each);
    until_valid(&certificates, HOST).await;
    until_valid(&certificates, WWW).await;
    assert_eq!(pebble.asked("POST /sign-me-up"), 1);
}

#[tokio::test]
async fn an_order_is_carried_on_after_a_kill() {
    let mut world = World::new().await;
    let Some(pebble) = Pebble::start(&world.site).await else { return };
    world.site.hangs.store(true, Ordering::SeqCst);
    let wanted = wanted(&[HOST], pebble.acme(HTTP));
    let certificates = world.start(wanted.clone());
    world.site.hanging.notified().await;
    assert_eq!(state_of(&certificates, HOST), NameState::Ordering { step: Step::Challenge, until: None });
    world.kill().await;
    assert!(world.meta().order.is_some());
    let key = std::fs::read(world.file("order.key").unwrap()).unwrap();
    world.site.hangs.store(false, Ordering::SeqCst);
    let certificates = world.start(wanted);
    until_valid(&certificates, HOST).await;
    assert_eq!(std::fs::read(&world.site.serving()[0].key).unwrap(), key);
    assert_eq!(pebble.asked("POST /order-plz"), 1);
}

#[tokio::test]
async fn an_order_that_the_authority_has_forgotten_is_placed_again() {
    let mut world = World::new().await;
    let Some(pebble) = Pebble::start(&world.site).await else { return };
    let source = pebble.acme(HTTP);
    world.site.hangs.store(true, Ordering::SeqCst);
    world.start(wanted(&[HOST], source.clone()));
    world.site.hanging.notified().await;
    world.kill().await;
    let mut meta = world.meta();
    meta.order = meta.order.map(|url| url + "-forgotten");
    std::fs::write(world.file("meta.json").unwrap(), serde_json::to_vec(&meta).unwrap()).unwrap();
    world.site.hangs.store(false, Ordering::SeqCst);
    let certificates = world.start(wanted(&[HOST], source));
    until_valid(&certificates, HOST).await;
    assert_eq!(pebble.asked("POST /order-plz"), 2);
}

#[tokio::test]
async fn an_account_that_the_authority_has_forgotten_is_opened_again() {
    let mut world = World::new().await;
    let Some(first) = Pebble::start(&world.site).await else { return };
    let certificates = world.start(wanted(&[HOST], first.acme(HTTP)));
    until_valid(&certificates, HOST).await;
    world.kill().await;
    let Some(second) = Pebble::start(&world.site).await else { return };
    // As an authority that was set up anew at the same address.
    let known = std::fs::read_to_string(world.file("account.json").unwrap()).unwrap();
    let known = known.replace(&first.origin(), &second.origin());
    let Source::Acme(acme) = second.acme(HTTP) else { panic!() };
    let shelf = Shelf::open(world.state.path()).unwrap();
    let moved = shelf.account(&authority::account_name(&acme)).unwrap();
    std::fs::write(&moved, &known).unwrap();
    let certificates = world.start(wanted(&[HOST], second.acme(HTTP)));
    until_valid(&certificates, HOST).await;
    assert_ne!(std::fs::read_to_string(&moved).unwrap(), known);
}

#[tokio::test]
async fn what_is_not_wanted_any_more_is_taken_back_in_the_middle() {
    let mut world = World::new().await;
    let Some(pebble) = Pebble::start(&world.site).await else { return };
    world.site.hangs.store(true, Ordering::SeqCst);
    let certificates = world.start(wanted(&[HOST], pebble.acme(HTTP)));
    world.site.hanging.notified().await;
    world.site.hangs.store(false, Ordering::SeqCst);
    certificates.want(wanted(&[WWW], pebble.acme(HTTP)));
    until_valid(&certificates, WWW).await;
    assert_eq!(certificates.status().len(), 1);
    assert_eq!(certificates.offer().http_challenges, BTreeMap::new());
    assert_eq!(world.site.serving()[0].names, [WWW]);
}

#[tokio::test]
async fn an_account_that_the_authority_must_know_is_opened_with_its_key() {
    let mut world = World::new().await;
    let setup = Setup { external_account: true, ..Setup::of(&world.site) };
    let Some(pebble) = Pebble::start_as(setup).await else { return };
    let with = |hmac: Option<EnvValue>| {
        let Source::Acme(acme) = pebble.acme(HTTP) else { panic!() };
        let environment =
            EnvironmentKey { project: "shop".parse().unwrap(), environment: "prod".parse().unwrap() };
        let key_id = pebble::KEY_ID.to_owned();
        let account = hmac.map(|hmac| ExternalAccount { environment, key_id, hmac });
        wanted(&[HOST], Source::Acme(Acme { account, ..acme }))
    };
    let secret = |name: &str, version| Some(EnvValue::Secret { name: name.to_owned(), version });
    let certificates = world.start(with(None));
    let trouble = until_failed(&certificates, HOST).await;
    assert_eq!(trouble.code, "certificate/refused");
    assert!(trouble.hint.as_ref().is_some_and(|hint| hint.contains("eab_kid")), "{trouble:?}");
    for (hmac, expect) in [(secret("garbage", 1), "not base64"), (secret("gone", 1), "there is none")] {
        certificates.want(with(hmac));
        let is_told = |state: &NameState| matches!(state, NameState::Failed { trouble, .. } if trouble.why.contains(expect));
        let state = until(&certificates, HOST, is_told).await;
        let NameState::Failed { trouble, .. } = state else { panic!("{state:?}") };
        assert_eq!(trouble.code, "certificate/account");
    }
    certificates.want(with(secret("acme_hmac", 3)));
    until(&certificates, HOST, |state| matches!(state, NameState::Valid { .. })).await;
}

#[tokio::test]
async fn a_certificate_that_the_authority_wants_back_is_renewed_early() {
    let mut world = World::new().await;
    let Some(pebble) = Pebble::start(&world.site).await else { return };
    let wanted = wanted(&[HOST], pebble.acme(HTTP));
    let certificates = world.start(wanted.clone());
    let (_, renew_at) = until_valid(&certificates, HOST).await;
    assert!(renew_at.since(world.now()) > 50 * DAY);
    let before = world.site.serving().remove(0);
    pebble.set_window(&before.chain, "2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z").await;
    world.advance(DAY + Duration::from_secs(60));
    certificates.want(wanted);
    until(&certificates, HOST, |_| world.site.serving()[0] != before).await;
    assert_eq!(pebble.asked("POST /order-plz"), 2);
    // The next one has a window of its own, and nothing goes in a circle.
    let (_, renew_at) = until_valid(&certificates, HOST).await;
    assert!(renew_at.since(world.now()) > 50 * DAY);
}
