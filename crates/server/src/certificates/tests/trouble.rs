//! What goes wrong, and who is spared then.

use super::*;
use crate::outgoing::peer::{Peer, answer};

const HTTP: &[ChallengeKind] = &[ChallengeKind::Http01];

fn acme(directory: String) -> Source {
    Source::Acme(Acme { directory, challenges: HTTP.to_vec(), ..Acme::default() })
}

#[tokio::test]
async fn an_authority_that_is_down_is_asked_again_later_and_not_by_the_next_server() {
    let mut world = World::new().await;
    let peer = Peer::start(|_| answer(503, "busy")).await;
    let wanted = wanted(&[HOST], acme(peer.url("/directory")));
    let certificates = world.start(wanted.clone());
    let trouble = until_failed(&certificates, HOST).await;
    assert_eq!(trouble.code, "certificate/authority-unreachable");
    assert!(trouble.why.contains("503") && trouble.why.contains("busy"), "{}", trouble.why);
    let wait = trouble.retry_at.since(world.now());
    assert!(wait > Duration::from_secs(50) && wait < Duration::from_secs(70), "{wait:?}");
    let asked = peer.asked().len();
    for _ in 0..3 {
        world.kill().await;
        let next = world.start(wanted.clone());
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(until_failed(&next, HOST).await, trouble, "as it was written down");
    }
    assert_eq!(peer.asked().len(), asked);
    world.kill().await;
    world.advance(Duration::from_secs(80));
    let later = world.start(wanted);
    let longer = until(
        &later,
        HOST,
        |state| matches!(state, NameState::Failed { trouble: again, .. } if again.retry_at != trouble.retry_at),
    );
    let NameState::Failed { trouble, .. } = longer.await else { panic!() };
    let wait = trouble.retry_at.since(world.now());
    assert!(wait > Duration::from_secs(110) && wait < Duration::from_secs(140), "twice as long: {wait:?}");
}

#[tokio::test]
async fn a_limit_is_kept_whoever_is_impatient() {
    let mut world = World::new().await;
    let peer = Peer::start(|_| {
        let problem = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many new orders"}"#;
        let length = problem.len();
        format!("HTTP/1.1 429 X\r\nretry-after: 7200\r\ncontent-length: {length}\r\n\r\n{problem}")
            .into_bytes()
    })
    .await;
    let certificates = world.start(wanted(&[HOST], acme(peer.url("/directory"))));
    let trouble = until_failed(&certificates, HOST).await;
    assert_eq!(trouble.code, "certificate/rate-limited");
    assert!(trouble.why.contains("too many new orders"), "{}", trouble.why);
    let wait = trouble.retry_at.since(world.now());
    assert!(wait > Duration::from_secs(7190) && wait < Duration::from_secs(7220), "{wait:?}");
    let asked = peer.asked().len();
    let refused = certificates.retry("shop/prod", HOST).unwrap_err();
    assert_eq!(refused, NotRetried::Limited { why: trouble.why.clone(), until: trouble.retry_at });
    assert_eq!(certificates.retry("shop/dev", HOST), Err(NotRetried::Unknown));
    certificates.want(wanted(&[HOST], acme(peer.url("/directory"))));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(peer.asked().len(), asked);
}

#[tokio::test]
async fn a_server_that_dies_in_each_attempt_asks_ever_less_often() {
    let mut world = World::new().await;
    // Takes the connection, and gives no answer.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wanted = wanted(&[HOST], acme(format!("http://{}/d", silent.local_addr().unwrap())));
    let mut connected = 0;
    for _ in 0..6 {
        world.start(wanted.clone());
        let asked = tokio::time::timeout(Duration::from_millis(600), silent.accept()).await;
        connected += usize::from(asked.is_ok());
        world.kill().await;
    }
    assert_eq!(connected, 2, "the first attempt is carried on once, at once");
    assert!(world.meta().after_crash.unwrap().since(world.now()) > Duration::from_secs(200));
}

#[tokio::test]
async fn a_name_that_does_not_lead_here_is_not_told_to_the_authority() {
    let mut world = World::new().await;
    let peer = Peer::start(|_| answer(500, "")).await;
    let somebody = Peer::start(|_| answer(404, "")).await;
    let source = acme(peer.url("/directory"));
    for (name, code) in [
        ("unknown.example.test", "certificate/unresolved"),
        ("*.example.test", "certificate/name"),
        ("localhost", "certificate/name"),
    ] {
        let certificates = world.start(wanted(&[name], source.clone()));
        let trouble = until_failed(&certificates, name).await;
        assert_eq!(trouble.code, code, "{trouble:?}");
        assert!(trouble.hint.is_some() && trouble.retry_at.since(world.now()) < Duration::from_secs(20));
        world.kill().await;
    }
    for (port, code) in
        [(somebody.port, "certificate/somebody-else"), (pebble::free_port(), "certificate/unreached")]
    {
        let mut elsewhere = World::new().await;
        let lookout = Lookout { resolver: world.resolver.clone(), http_port: port, tls_port: port };
        let ahead_ms = Arc::clone(&elsewhere.ahead_ms);
        let options =
            Options { now: Arc::new(move || now_ahead(&ahead_ms)), jitter: 1, lookout, secret_of: secrets() };
        let certificates =
            Certificates::open(elsewhere.state.path(), options, elsewhere.site.clone()).unwrap();
        certificates.want(wanted(&[HOST], source.clone()));
        elsewhere.tasks.push(tokio::spawn(certificates.clone().run()));
        let trouble = until_failed(&certificates, HOST).await;
        assert_eq!(trouble.code, code, "{trouble:?}");
    }
    assert_eq!(peer.asked().len(), 0);
}

#[tokio::test]
async fn a_proxy_that_takes_no_answer_is_no_reason_to_ask_the_authority() {
    let mut world = World::new().await;
    let peer = Peer::start(|_| answer(500, "")).await;
    world.site.down.store(true, Ordering::SeqCst);
    let certificates = world.start(wanted(&[HOST], acme(peer.url("/directory"))));
    let trouble = until_failed(&certificates, HOST).await;
    assert_eq!(trouble.code, "certificate/proxy");
    assert_eq!(peer.asked().len(), 0);
}

#[tokio::test]
async fn without_a_disk_nobody_is_asked() {
    let mut world = World::new().await;
    let peer = Peer::start(|_| answer(500, "")).await;
    let wanted = wanted(&[HOST], acme(peer.url("/directory")));
    let sets = world.state.path().join("certificates/sets");
    let certificates = world.open();
    // As a disk that lets nothing be written: rights do not stop a superuser.
    std::fs::remove_dir(&sets).unwrap();
    std::fs::write(&sets, "").unwrap();
    certificates.want(wanted);
    world.tasks.push(tokio::spawn(certificates.clone().run()));
    let trouble = until_failed(&certificates, HOST).await;
    assert_eq!(trouble.code, "certificate/disk");
    assert_eq!(peer.asked().len(), 0);
    // Mended.
    std::fs::remove_file(&sets).unwrap();
    certificates.retry("shop/prod", HOST).unwrap();
    let state = until(
        &certificates,
        HOST,
        |state| matches!(state, NameState::Failed { trouble, .. } if trouble.code != "certificate/disk"),
    );
    state.await;
}

#[tokio::test]
async fn a_wrong_answer_is_told_with_the_authoritys_words() {
    let mut world = World::new().await;
    let Some(pebble) = Pebble::start(&world.site).await else { return };
    world.site.lies.store(true, Ordering::SeqCst);
    let certificates = world.start(wanted(&[HOST], pebble.acme(HTTP)));
    let trouble = until_failed(&certificates, HOST).await;
    assert_eq!(trouble.code, "certificate/challenge");
    assert!(trouble.why.contains(HOST) && trouble.why.contains("http-01"), "{}", trouble.why);
    let wait = trouble.retry_at.since(world.now());
    assert!(wait > Duration::from_secs(290) && wait < Duration::from_secs(331), "{wait:?}");
    assert_eq!(certificates.offer(), Offer::default());
    // Somebody mends it and does not want to wait.
    world.site.lies.store(false, Ordering::SeqCst);
    certificates.retry("shop/prod", HOST).unwrap();
    until(&certificates, HOST, |state| matches!(state, NameState::Valid { .. })).await;
}

#[tokio::test]
async fn a_renewal_that_fails_leaves_the_certificate_in_place() {
    let mut world = World::new().await;
    let Some(pebble) = Pebble::start(&world.site).await else { return };
    let wanted = wanted(&[HOST], pebble.acme(HTTP));
    let certificates = world.start(wanted.clone());
    let (until, renew_at) = until_valid(&certificates, HOST).await;
    let serving = world.site.serving();
    world.site.lies.store(true, Ordering::SeqCst);
    world.advance(renew_at.since(world.now()) + Duration::from_secs(1));
    certificates.want(wanted);
    let failed = super::until(&certificates, HOST, |state| matches!(state, NameState::Failed { .. })).await;
    assert_eq!(failed.until(), Some(until));
    assert_eq!(world.site.serving(), serving);
    assert!(serving[0].chain.is_file() && serving[0].key.is_file());
}
