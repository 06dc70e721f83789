//! Without an authority: files of the user's own, and self-signed ones.

use super::*;

struct Own {
    dir: TempDir,
}

impl Own {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn source(&self) -> Source {
        Source::Files { chain: self.dir.path().join("chain.pem"), key: self.dir.path().join("key.pem") }
    }

    fn write(&self, pair: &Pair) {
        std::fs::write(self.dir.path().join("chain.pem"), &pair.chain_pem).unwrap();
        std::fs::write(self.dir.path().join("key.pem"), &pair.key_pem).unwrap();
    }
}

fn pair(name: &str, now: Timestamp) -> Pair {
    self_signed::make(&[name.to_owned()].into(), now).unwrap()
}

async fn until_digest(world: &World, certificates: &Certificates, digest: &str) {
    until(certificates, HOST, |_| world.site.serving().iter().any(|one| one.digest == digest)).await;
}

#[tokio::test]
async fn own_files_are_served_and_followed() {
    let (mut world, own) = (World::new().await, Own::new());
    let wanted = wanted(&[HOST], own.source());
    let first = pair(HOST, world.now());
    own.write(&first);
    let certificates = world.start(wanted.clone());
    until_digest(&world, &certificates, &first.digest).await;
    let is_manual = |state: &NameState| *state == NameState::Manual { until: first.leaf.not_after };
    until(&certificates, HOST, is_manual).await;

    // Half replaced: what works goes on, and what is wrong is told.
    let second = pair(HOST, world.now());
    std::fs::write(own.dir.path().join("chain.pem"), &second.chain_pem).unwrap();
    world.advance(LOOK_EVERY);
    certificates.want(wanted.clone());
    let trouble = until_failed(&certificates, HOST).await;
    assert_eq!(trouble.code, "certificate/files");
    assert!(trouble.why.ends_with("the key does not belong to the first certificate of the chain"));
    assert_eq!(world.site.serving()[0].digest, first.digest);

    own.write(&second);
    world.advance(LOOK_EVERY);
    certificates.want(wanted.clone());
    until_digest(&world, &certificates, &second.digest).await;
    until(&certificates, HOST, |state| matches!(state, NameState::Manual { .. })).await;

    // Files that are gone when the next server starts: its own copy serves on.
    std::fs::remove_file(own.dir.path().join("key.pem")).unwrap();
    world.kill().await;
    let certificates = world.start(wanted);
    assert_eq!(certificates.offer().certificates[0].digest, second.digest);
    let trouble = until_failed(&certificates, HOST).await;
    assert!(trouble.why.contains("key.pem"), "{}", trouble.why);
}

#[tokio::test]
async fn own_files_that_are_wrong_are_told_with_their_path() {
    let (mut world, own) = (World::new().await, Own::new());
    for (pair, told) in [
        (None, "chain.pem cannot be read"),
        (
            Some(pair("other.example.test", world.now())),
            "not for shop.example.test, but for other.example.test",
        ),
    ] {
        if let Some(pair) = pair {
            own.write(&pair);
        }
        let certificates = world.start(wanted(&[HOST], own.source()));
        let trouble = until_failed(&certificates, HOST).await;
        assert!(trouble.why.contains(told), "{}", trouble.why);
        assert_eq!(certificates.offer(), Offer::default());
        world.kill().await;
    }
}

#[tokio::test]
async fn an_own_certificate_that_has_ended_is_told_and_still_served() {
    let (mut world, own) = (World::new().await, Own::new());
    let ended = pair(HOST, Timestamp(1_000_000_000_000));
    own.write(&ended);
    let certificates = world.start(wanted(&[HOST], own.source()));
    let trouble = until_failed(&certificates, HOST).await;
    assert_eq!(trouble.code, "certificate/ended");
    assert_eq!(certificates.expiries()[0].until, ended.leaf.not_after);
    assert_eq!(world.site.serving()[0].digest, ended.digest);
    assert_eq!(
        world.site.events().iter().filter(|event| matches!(event.what, Happened::Failed(_))).count(),
        1
    );
}

#[tokio::test]
async fn self_signed_ones_are_made_once_and_renewed() {
    let mut world = World::new().await;
    let wanted = wanted(&["localhost", "127.0.0.1"], Source::SelfSigned);
    let is_there = |state: &NameState| matches!(state, NameState::SelfSigned { .. });
    let certificates = world.start(wanted.clone());
    let NameState::SelfSigned { renew_at, .. } = until(&certificates, "localhost", is_there).await else {
        panic!()
    };
    let first = world.site.serving();
    world.kill().await;
    let certificates = world.start(wanted.clone());
    assert_eq!(certificates.offer().certificates, first);
    world.advance(renew_at.since(world.now()) + Duration::from_secs(1));
    certificates.want(wanted);
    until(&certificates, "localhost", |_| world.site.serving() != first).await;
}

#[tokio::test]
async fn two_environments_with_the_same_names_share_a_certificate() {
    let mut world = World::new().await;
    let both =
        ["shop/dev", "shop/prod"].map(|environment| Wanted::new(environment, [HOST], Source::SelfSigned));
    let certificates = world.start(both.to_vec());
    until(&certificates, HOST, |state| matches!(state, NameState::SelfSigned { .. })).await;
    assert_eq!((certificates.offer().certificates.len(), certificates.status().len()), (1, 2));
    certificates.want(Vec::new());
    let gone = async {
        while !world.site.serving().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    assert!(certificates.status().is_empty());
}

#[tokio::test]
async fn files_that_somebody_removed_are_there_before_the_next_snapshot() {
    let (mut world, own) = (World::new().await, Own::new());
    let wanted = wanted(&[HOST], own.source());
    let pair = pair(HOST, world.now());
    own.write(&pair);
    let certificates = world.start(wanted.clone());
    until_digest(&world, &certificates, &pair.digest).await;
    let served = certificates.offer().certificates.remove(0);
    let whole = served.chain.parent().unwrap().to_owned();
    let removals: [&dyn Fn(); 4] = [
        &|| std::fs::remove_file(&served.chain).unwrap(),
        &|| std::fs::remove_file(&served.key).unwrap(),
        &|| std::fs::remove_dir_all(&whole).unwrap(),
        &|| std::fs::remove_dir_all(whole.parent().unwrap()).unwrap(),
    ];
    for remove in removals {
        remove();
        certificates.want(wanted.clone());
        assert_eq!(certificates.offer().certificates, std::slice::from_ref(&served));
        assert_eq!(std::fs::read(&served.chain).unwrap(), pair.chain_pem);
        assert_eq!(std::fs::read(&served.key).unwrap(), pair.key_pem);
    }
}

/// What was told to the environment since it was last asked for.
fn told_to(world: &World, environment: &str, after: &mut usize) -> Vec<String> {
    let events = world.site.events();
    let new = events[*after..].iter().filter(|event| event.environments.iter().any(|one| one == environment));
    let words = new.map(|event| match &event.what {
        Happened::Obtained { how, .. } => format!("{how:?}"),
        Happened::Failed(trouble) => trouble.code.clone(),
        Happened::LetGo => "let go".to_owned(),
    });
    let words = words.collect();
    *after = events.len();
    words
}

#[tokio::test]
async fn what_becomes_of_a_certificate_is_told_to_each_environment_that_wants_it() {
    let (mut world, own) = (World::new().await, Own::new());
    let (first, second) = (pair(HOST, world.now()), pair(HOST, world.now()));
    let of = |environment: &str| Wanted::new(environment, [HOST], own.source());
    let (prod, both) = (vec![of("shop/prod")], vec![of("shop/prod"), of("shop/dev")]);
    let (mut seen, mut told) = (0, Vec::new());
    let is_manual = |state: &NameState| matches!(state, NameState::Manual { .. });
    let is_failed = |state: &NameState| matches!(state, NameState::Failed { .. });

    let certificates = world.start(prod.clone());
    until(&certificates, HOST, is_failed).await;
    own.write(&first);
    world.advance(LOOK_EVERY);
    certificates.want(prod.clone());
    until(&certificates, HOST, is_manual).await;
    told.extend(told_to(&world, "shop/prod", &mut seen));
    assert_eq!(told, ["certificate/files", "Issued"]);

    // The same files fail and are right again.
    std::fs::remove_file(own.dir.path().join("key.pem")).unwrap();
    world.advance(LOOK_EVERY);
    certificates.want(prod.clone());
    until(&certificates, HOST, is_failed).await;
    for expected in [0, 1] {
        told_to(&world, "shop/prod", &mut seen);
        world.advance(if expected == 0 { LOOK_EVERY } else { TROUBLE_AGAIN });
        certificates.want(prod.clone());
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(told_to(&world, "shop/prod", &mut seen).len(), expected, "hourly, not with every look");
    }
    // Whoever asked is told also where nothing has changed.
    assert_eq!(certificates.retried("shop/prod", HOST), Ok(vec![HOST.to_owned()]));
    certificates.retry("shop/prod", HOST).unwrap();
    until(&certificates, HOST, |_| world.site.events().len() > seen).await;
    assert_eq!(told_to(&world, "shop/prod", &mut seen), ["certificate/files"]);
    own.write(&first);
    world.advance(LOOK_EVERY);
    certificates.want(prod.clone());
    until(&certificates, HOST, is_manual).await;
    assert_eq!(told_to(&world, "shop/prod", &mut seen), ["Kept"]);
    own.write(&second);
    world.advance(LOOK_EVERY);
    certificates.want(prod.clone());
    until_digest(&world, &certificates, &second.digest).await;
    until(&certificates, HOST, |_| world.site.events().len() > seen).await;
    assert_eq!(told_to(&world, "shop/prod", &mut seen), ["Renewed"]);

    // Another one wants it too, and does not want it any more.
    certificates.want(both.clone());
    assert_eq!(told_to(&world, "shop/dev", &mut seen), ["Kept"]);
    certificates.want(prod.clone());
    assert_eq!(told_to(&world, "shop/dev", &mut seen), ["let go"]);
    certificates.want(prod.clone());
    assert_eq!(world.site.events().len(), seen, "where nothing changes nothing is told");

    // The next server says how it stands, and that the same names come from elsewhere is not that nobody wants them.
    world.kill().await;
    let certificates = world.open();
    certificates.want(both);
    assert_eq!(told_to(&world, "shop/dev", &mut seen), ["Kept"]);
    certificates.want(wanted(&[HOST], Source::SelfSigned));
    assert!(told_to(&world, "shop/prod", &mut seen).is_empty());
    certificates.want(Vec::new());
    assert_eq!(told_to(&world, "shop/prod", &mut seen), ["let go"]);
}
