//! What a sound file means: environments, artifacts, releases, and where each value came from.

// The helpers of a test fail as the test does.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use fairway_config::{
    ArtifactKey, Colour, Diagnostic, Environment, Inputs, Origin, Project, StrategyKind, render,
};
use fairway_engine::id::{ServiceName, TreeDigest};
use fairway_engine::release::{ReleaseSpec, Source};
use fairway_engine::service::{Argument, EnvValue, ReadyProbe, Reference, Runs, ServiceSpec};
use fairway_engine::strategy::{Match, Step, Strategy};

const SHOP: &str = include_str!("fixtures/shop/fairway.toml");
const EVERYTHING: &str = include_str!("fixtures/everything.toml");

fn project(text: &str) -> Project {
    Project::parse("fairway.toml", text).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn digests(project: &Project, environment: &str) -> BTreeMap<ArtifactKey, TreeDigest> {
    let requests = project.artifacts(environment).unwrap();
    requests.into_iter().map(|request| (request.key.clone(), TreeDigest(request.dir.into()))).collect()
}

fn resolve(project: &Project, environment: &str) -> Result<ReleaseSpec, Vec<Diagnostic>> {
    project.resolve(
        environment,
        &Inputs {
            artifacts: digests(project, environment),
            secrets: &|_| Some(7),
            source: Source::default(),
            strategy: None,
        },
    )
}

fn service(spec: &ReleaseSpec, name: &str) -> ServiceSpec {
    spec.services[&ServiceName::new(name).unwrap()].clone()
}

fn environment<'a>(project: &'a Project, name: &str) -> &'a Environment {
    project.environment(name).unwrap()
}

#[test]
fn the_example_of_the_documentation_resolves_in_every_environment() {
    let project = project(SHOP);
    // It shows a backup, which this version keeps and does not act on.
    let warnings: Vec<_> = project.warnings().iter().map(|one| (one.code, one.message.as_str())).collect();
    assert_eq!(warnings, [("config/not-in-effect", "backups are not made by this version")]);
    let names: Vec<&str> = project.environments().map(|environment| environment.name.as_str()).collect();
    assert_eq!(names, ["dev", "production", "staging"]);
    let spec = resolve(&project, "production").unwrap();
    assert_eq!(spec.listen.address, "0.0.0.0:80");
    assert_eq!(spec.listen.host.as_deref(), Some("shop.example"));
    let step = |weight, hold, approve| Step {
        weight,
        hold: Duration::from_secs(hold),
        approve,
        mirror: 0,
        experiment: None,
    };
    assert_eq!(
        spec.deploy.strategy,
        Strategy::Canary {
            steps: vec![step(5, 300, false), step(50, 0, true)],
            matches: vec![],
            sticky: true
        }
    );
    assert_eq!((spec.deploy.approvers, spec.deploy.retain), (1, 5));
    assert_eq!(spec.deploy.bake, Duration::from_secs(120));
    assert_eq!(spec.jobs.expand.as_ref().unwrap().command, ["bin/migrate", "expand"]);
    assert_eq!(spec.jobs.contract_after, Duration::from_secs(86_400));

    let api = service(&spec, "api");
    assert_eq!(api.replicas, 4);
    assert_eq!(api.limits.cpu_millis, Some(1000));
    assert_eq!(api.limits.memory_bytes, Some(512 << 20));
    assert_eq!(api.env["STRIPE_KEY"], EnvValue::Secret { name: "stripe_key".into(), version: 7 });
    let postgres = ServiceName::new("postgres").unwrap();
    assert_eq!(api.env["DATABASE_URL"], EnvValue::Ref(Reference::BackingUrl { service: postgres.clone() }));
    assert_eq!(service(&spec, "worker").stop.timeout, Duration::from_secs(300));
    assert_eq!(service(&spec, "worker").ready.probe, ReadyProbe::Notify);
    assert!(service(&spec, "worker").after.contains(&postgres), "its DATABASE_URL refers to it");
    match service(&spec, "web").runs {
        Runs::Static { artifact, dir, spa, .. } => {
            assert_eq!((&*artifact.0, &*dir, spa), ("dist", "", true));
        }
        Runs::Process { .. } | Runs::Backing { .. } => panic!("web is static"),
    }
    assert!(service(&spec, "postgres").env.is_empty());

    let dev = environment(&project, "dev");
    assert_eq!((dev.listen.address.as_str(), dev.url.as_str()), ("127.0.0.1:8080", "http://127.0.0.1:8080"));
    assert!(!dev.protect.confirm && environment(&project, "production").protect.confirm);
    assert_eq!(dev.deploy.strategy, StrategyKind::BlueGreen);
    assert_eq!(dev.deploy.bake, Duration::ZERO);
    assert_eq!(environment(&project, "production").evidence.gates.len(), 2);
    assert_eq!(environment(&project, "staging").url, "http://staging.shop.example");
}

#[test]
fn one_line_is_a_project() {
    let project = project("version = 1\nproject = \"p\"\nservice.a.command = \"bin/a --x\"\n");
    let spec = resolve(&project, "dev").unwrap();
    let a = service(&spec, "a");
    assert_eq!(a.ready.probe, ReadyProbe::Alive { for_at_least: Duration::from_secs(1) });
    assert_eq!(a.ready.within, Duration::from_secs(60));
    assert_eq!((a.stop.timeout, a.stop.drain), (Duration::from_secs(10), Duration::from_secs(30)));
    assert_eq!((a.restart.burst, a.restart.burst_window), (5, Duration::from_secs(60)));
    assert_eq!(a.restart.backoff_min, Duration::from_millis(200));
    assert_eq!(spec.deploy.strategy, Strategy::Rolling { max_surge: 1, max_unavailable: 0 });
    assert_eq!(spec.deploy.keep_warm, Duration::from_secs(600));
    match a.runs {
        Runs::Process { command, artifact, workdir, port } => {
            assert_eq!(command, ["bin/a", "--x"].map(|word| Argument::Literal(word.into())));
            assert_eq!((&*artifact.0, &*workdir, port), (".", "", None));
        }
        Runs::Static { .. } | Runs::Backing { .. } => panic!("a is a process"),
    }
}

#[test]
fn every_key_means_something() {
    let project = project(EVERYTHING);
    let spec = resolve(&project, "dev").unwrap();
    let api = service(&spec, "api");
    let route = api.route.unwrap();
    assert_eq!((route.path.as_str(), route.host.as_deref()), ("/api", Some("api.everything.example")));
    assert!(route.strip_prefix);
    assert_eq!(route.sticky_cookie.as_deref(), Some("visitor"));
    assert_eq!(service(&spec, "tcp").route.unwrap().sticky_cookie.as_deref(), Some("fairway_tcp"));
    match &api.runs {
        Runs::Process { command, artifact, workdir, port } => {
            assert_eq!(command[2], Argument::Port);
            assert_eq!((&*artifact.0, workdir.as_str()), ("api", "server"));
            let port = port.as_ref().unwrap();
            assert_eq!((port.declared, port.variable.as_str()), (4000, "API_PORT"));
        }
        Runs::Static { .. } | Runs::Backing { .. } => panic!("api is a process"),
    }
    assert_eq!(api.env["VERSION"], EnvValue::Literal("1.50".into()), "as written, not as a float");
    assert_eq!(api.env["WORKERS"], EnvValue::Literal("4".into()));
    assert_eq!(api.env["LOG_LEVEL"], EnvValue::Literal("debug".into()));
    let web = ServiceName::new("web").unwrap();
    assert_eq!(api.env["WEB_URL"], EnvValue::Ref(Reference::ServiceUrl { service: web }));
    assert_eq!(api.limits.cpu_millis, Some(1500));
    assert_eq!((api.stop.timeout, api.stop.drain), (Duration::from_secs(20), Duration::from_secs(15)));
    assert_eq!(service(&spec, "tcp").stop.drain, Duration::from_secs(45), "from deploy.drain");
    match service(&spec, "web").runs {
        Runs::Static { artifact, dir, .. } => assert_eq!((&*artifact.0, &*dir), ("web/dist", "public")),
        Runs::Process { .. } | Runs::Backing { .. } => panic!("web is static"),
    }
    let expand = spec.jobs.expand.unwrap();
    assert_eq!((&*expand.artifact.0, expand.workdir.as_str()), ("api", "db"));
    assert_eq!(expand.env["STEP"], EnvValue::Literal("expand".into()));
    assert_eq!(expand.env["LOG_LEVEL"], EnvValue::Literal("debug".into()), "the service's env is under it");
    assert_eq!(expand.timeout, Duration::from_secs(3600));
    assert_eq!(expand.user.as_deref(), Some("migrator"));
    let contract = spec.jobs.contract.unwrap();
    assert_eq!((&*contract.artifact.0, contract.workdir.as_str()), ("db", "tools"));
    assert_eq!(spec.jobs.contract_after, Duration::from_secs(48 * 3600));
    match spec.deploy.strategy {
        Strategy::Canary { matches, sticky, .. } => {
            assert_eq!(matches[0], Match::Header { name: "X-Canary".into(), value: "1".into() });
            assert!(!sticky);
        }
        Strategy::Rolling { .. } | Strategy::BlueGreen { .. } => panic!("dev is canary"),
    }
}

#[test]
fn environments_are_laid_over_each_other() {
    let project = project(EVERYTHING);
    let staging = resolve(&project, "staging").unwrap();
    let production = resolve(&project, "production").unwrap();
    assert_eq!(service(&staging, "api").replicas, 3);
    assert_eq!(service(&production, "api").replicas, 3, "through extends");
    assert_eq!(service(&resolve(&project, "dev").unwrap(), "api").replicas, 2);
    assert_eq!(staging.deploy.strategy, Strategy::Rolling { max_surge: 2, max_unavailable: 1 });
    assert_eq!(
        production.deploy.strategy,
        Strategy::BlueGreen { approve: true },
        "options inherited from others are no error"
    );
    assert_eq!(production.deploy.approvers, 1);
    assert_eq!(production.jobs.smoke.unwrap().command, ["bin/smoke", "--all"]);
    assert_eq!(service(&staging, "exec").env["TEXT"], EnvValue::Literal("staged".into()));
    assert_eq!(environment(&project, "production").url, "https://www.everything.example");
}

#[test]
fn the_strategy_of_the_command_line_has_the_options_of_the_file() {
    let project = project(SHOP);
    let with = |strategy| {
        let inputs = Inputs {
            artifacts: digests(&project, "production"),
            secrets: &|_| Some(1),
            source: Source::default(),
            strategy,
        };
        project.resolve("production", &inputs).unwrap().deploy.strategy
    };
    assert_eq!(with(Some(StrategyKind::BlueGreen)), Strategy::BlueGreen { approve: false });
    assert_eq!(with(None).name(), "canary");
}

#[test]
fn the_same_directory_is_one_artifact_and_every_build_runs() {
    let project = project(
        r#"
version = 1
project = "p"
[service.a]
command = "bin/a"
build = ["make", "a"]
[service.b]
command = "bin/b"
dir = "./x/.."
build = ["make", "b"]
[service.c]
command = "bin/c"
build = ["make", "a"]
[service.d]
command = "bin/d"
dir = "d/"
build = { run = "make", artifact = "out/bin/d" }
[release]
expand = { run = "bin/m", service = "d" }
"#,
    );
    let requests = project.artifacts("dev").unwrap();
    let shown: Vec<(&str, Vec<String>)> = requests
        .iter()
        .map(|request| {
            let builds =
                request.builds.iter().map(|build| format!("{}: {}", build.dir, build.command.join(" ")));
            (request.dir.as_str(), builds.collect())
        })
        .collect();
    let builds = |list: &[&str]| list.iter().map(|build| (*build).to_owned()).collect::<Vec<_>>();
    assert_eq!(shown, [(".", builds(&[".: make a", ".: make b"])), ("d/out/bin/d", builds(&["d: make"]))]);
}

#[test]
fn missing_secrets_and_artifacts_are_told_with_their_place() {
    let project = project(SHOP);
    let inputs =
        Inputs { artifacts: BTreeMap::new(), secrets: &|_| None, source: Source::default(), strategy: None };
    let problems = project.resolve("staging", &inputs).unwrap_err();
    let secret = problems.iter().find(|problem| problem.code == "config/missing-secret").unwrap();
    assert_eq!(secret.span.as_ref().unwrap().line, 7);
    assert_eq!(secret.hint.as_deref(), Some("fairway secret set stripe_key -e staging"));
    assert_eq!(
        problems.iter().filter(|problem| problem.code == "config/missing-secret").count(),
        1,
        "told once"
    );
    assert!(problems.iter().any(|problem| problem.code == "config/missing-artifact"));
}

#[test]
fn an_environment_that_does_not_exist_is_refused_with_the_nearest() {
    let project = project(SHOP);
    assert!(project.artifacts("prodution").is_err() && project.resolved_with_origin("prodution").is_err());
    let problems = project.environment("prodution").unwrap_err();
    assert_eq!(problems[0].code, "config/unknown-environment");
    assert_eq!(problems[0].hint.as_deref(), Some("did you mean \"production\"?"));
}

#[test]
fn each_value_says_where_it_came_from_and_secrets_stay_references() {
    let project = project(SHOP);
    let settings = project.resolved_with_origin("production").unwrap();
    let find =
        |key: &str| settings.iter().find(|setting| setting.key == key).unwrap_or_else(|| panic!("no {key}"));
    assert_eq!(find("service.api.replicas").value, "4");
    match &find("service.api.replicas").origin {
        Origin::Overlay { environment, span } => {
            assert_eq!(environment.as_str(), "production");
            assert!(SHOP.lines().nth(span.line as usize - 1).unwrap().contains("replicas = 4"));
        }
        other @ (Origin::Default | Origin::File(_)) => panic!("{other:?}"),
    }
    assert!(matches!(&find("service.api.port").origin, Origin::File(span) if span.line > 1));
    assert_eq!(find("service.api.stop.timeout").origin, Origin::Default);
    assert_eq!(find("service.api.stop.timeout").value, "\"10s\"");
    assert_eq!(find("deploy.bake").value, "\"2m\"");
    assert_eq!(find("listen").value, "\"0.0.0.0:80\"");
    assert_eq!(find("vars.STRIPE_KEY").value, "{ secret = \"stripe_key\" }");
    assert_eq!(find("service.worker.stop.timeout").value, "\"5m\"");
    assert_eq!(find("service.web.build.artifact").value, "\"dist\"");
    let keys: Vec<&str> = settings.iter().map(|setting| setting.key.as_str()).collect();
    let unique: std::collections::BTreeSet<&str> = keys.iter().copied().collect();
    assert_eq!(keys.len(), unique.len(), "a key is there twice");
}

#[test]
fn an_overlay_may_choose_another_way_to_run() {
    let project = project(
        r#"
version = 1
project = "p"
vars.DATABASE_URL = { ref = "db.url" }
[service.api]
command = "bin/api"
port = 3000
ready = { http = "/healthz" }
[service.db]
uses = "postgres"
backup = { every = "6h" }
[service.cache]
command = "bin/cache"
port = 6000
route = "/cache"
after = ["api"]
[env.dev]
service.api.ready.tcp = true
service.db.command = "bin/fake-db"
service.db.port = 5000
service.cache.uses = "redis"
[env.production]
"#,
    );
    let dev = resolve(&project, "dev").unwrap();
    assert_eq!(service(&dev, "api").ready.probe, ReadyProbe::Tcp);
    assert!(matches!(service(&dev, "db").runs, Runs::Process { .. }));
    let db = ServiceName::new("db").unwrap();
    let url = |spec: &ReleaseSpec| service(spec, "api").env["DATABASE_URL"].clone();
    assert_eq!(url(&dev), EnvValue::Ref(Reference::ServiceUrl { service: db.clone() }));
    let cache = service(&dev, "cache");
    assert!(cache.is_backing() && cache.route.is_none() && cache.after.is_empty());
    let production = resolve(&project, "production").unwrap();
    assert_eq!(url(&production), EnvValue::Ref(Reference::BackingUrl { service: db }));
    assert_eq!(service(&production, "api").ready.probe, ReadyProbe::Http { path: "/healthz".into() });
}

#[test]
fn a_mark_at_the_start_and_line_ends_of_windows_are_no_error() {
    let text = format!("\u{feff}{}", SHOP.replace('\n', "\r\n"));
    let project = project(&text);
    assert_eq!(project.environments().count(), 3);
    let bad = text.replace("port = 4000", "prot = 4000");
    let problems = Project::parse("f", &bad).unwrap_err();
    let span = problems[0].span.clone().unwrap();
    assert!(bad[span.bytes.start..].starts_with("prot"), "{span:?}");
    assert_eq!(span.column, 1);
}

#[test]
fn a_secret_in_plain_text_is_warned_about_and_not_repeated() {
    let text = "version = 1\nproject = \"p\"\nvars.DB_PASSWORD = \"hunter2\"\nservice.a.command = \"x\"\n[env.production]\n";
    let project = project(text);
    assert_eq!(project.warnings()[0].code, "config/plain-secret");
    let shown = render(project.warnings(), project.source(), Colour::Off);
    let settings = format!("{:?}", project.resolved_with_origin("production").unwrap());
    assert!(!shown.contains("hunter2") && !settings.contains("hunter2"), "{shown}{settings}");
    let dev = Project::parse("f", &text.replace("production", "dev")).unwrap();
    assert!(dev.warnings().is_empty());
}

#[test]
fn no_setting_is_told_twice() {
    let project = project(EVERYTHING);
    for environment in project.environments() {
        let settings = project.resolved_with_origin(environment.name.as_str()).unwrap();
        let keys: std::collections::BTreeSet<&str> =
            settings.iter().map(|setting| setting.key.as_str()).collect();
        assert_eq!(keys.len(), settings.len());
    }
}

/// Against the plain definition: there is an order exactly when services can be taken away one by one.
#[test]
fn a_cycle_is_found_exactly_when_there_is_one() {
    let mut state = 42_u64;
    let mut random = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let (mut cyclic, mut acyclic) = (0, 0);
    for _ in 0..300 {
        let edges: Vec<Vec<u64>> = (0..6).map(|_| (0..random(3)).map(|_| random(6)).collect()).collect();
        let mut text = "version = 1\nproject = \"p\"\n".to_owned();
        for (index, after) in edges.iter().enumerate() {
            let after: Vec<String> = after.iter().map(|other| format!("\"s{other}\"")).collect();
            text += &format!("[service.s{index}]\ncommand = \"x\"\nafter = [{}]\n", after.join(", "));
        }
        let mut left: Vec<u64> = (0..6).collect();
        while let Some(at) = left.iter().position(|index| {
            edges[usize::try_from(*index).unwrap()].iter().all(|other| !left.contains(other))
        }) {
            left.remove(at);
        }
        let told = Project::parse("f", &text).is_err();
        assert_eq!(told, !left.is_empty(), "{text}");
        if told { cyclic += 1 } else { acyclic += 1 }
    }
    assert!(cyclic > 30 && acyclic > 30, "{cyclic} {acyclic}");
}

#[test]
fn a_project_may_go_to_another_thread() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Project>();
    check::<Diagnostic>();
}

#[cfg(unix)]
#[test]
fn what_is_not_on_the_disk_is_told_before_anything_starts() {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use fairway_config::Stage;

    let project = project(
        r#"
version = 1
project = "p"
[service.a]
command = "bin/a"
[service.b]
command = "bin/b"
[service.c]
command = "nothing-of-this-name"
[service.d]
command = "x"
dir = "none"
[service.e]
command = "./out"
build = { run = "sh build.sh", artifact = "target/out" }
[service.f]
static = "public"
route = "/"
[service.g]
command = "tool"
[release]
smoke = "bin/missing"
"#,
    );
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let write = |path: &str, mode| {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), "").unwrap();
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    write("bin/a", 0o755);
    write("bin/b", 0o644);
    write("tool", 0o755);
    write("path/sh", 0o755);
    let search = root.join("path");
    let told = |stage| -> Vec<(u32, &str)> {
        let problems = project.check_files("dev", root, Some(search.as_os_str()), stage).unwrap();
        problems.iter().map(|problem| (problem.span.as_ref().unwrap().line, problem.code)).collect()
    };
    let (no_directory, no_command) = ("config/no-directory", "config/no-command");
    let always = [
        (7, no_command),
        (9, no_command),
        (12, no_directory),
        (17, no_directory),
        (20, no_command),
        (22, no_command),
    ];
    assert_eq!(told(Stage::BeforeBuild), always);
    let after = told(Stage::AfterBuild);
    assert!(after.contains(&(15, no_directory)), "{after:?}");
    write("target/out", 0o755);
    assert_eq!(told(Stage::AfterBuild), always);
    let problems = project.check_files("dev", root, Some(search.as_os_str()), Stage::BeforeBuild).unwrap();
    let hints: Vec<&str> = problems.iter().filter_map(|problem| problem.hint.as_deref()).collect();
    assert!(
        hints.contains(&"chmod +x bin/b") && hints.iter().any(|hint| hint.contains("\"./tool\"")),
        "{hints:?}"
    );
}
