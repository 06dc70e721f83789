//! The binary as people run it: help, usage errors, files, and what it says when no server is there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A directory of its own, in which nothing of the machine is seen.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(files: &[(&str, &str)]) -> Self {
        let place = Self::new();
        for (name, text) in files {
            let path = place.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, args: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_fairway"))
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.path())
            .env("FAIRWAY_STATE", self.path().join("no-server"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ran(output)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap()
    }
}

struct Ran(Output);

impl Ran {
    fn code(&self) -> i32 {
        self.0.status.code().expect("it was not killed")
    }

    fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    fn err(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    #[track_caller]
    fn is(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "stdout:\n{}\nstderr:\n{}", self.out(), self.err());
        self
    }
}

const VERBS: &[&str] = &[
    "abort",
    "alert",
    "approve",
    "certificate",
    "check",
    "completions",
    "config",
    "deploy",
    "doctor",
    "down",
    "exec",
    "export",
    "gc",
    "history",
    "init",
    "logs",
    "maintenance",
    "migrate",
    "monitor",
    "pause",
    "plan",
    "promote",
    "purge",
    "reject",
    "restart",
    "resume",
    "retry",
    "rollback",
    "run",
    "scale",
    "schema",
    "secret",
    "seed",
    "server",
    "slo",
    "smoke",
    "status",
    "up",
    "validate",
    "watch",
];

const SHOP: &str = r#"version = 1
project = "shop"

# what the API needs
[service.api]
command = ["sh", "-c", "true"]
port = 4000
route = "/"

[env.dev]

[env.production]
"#;

#[test]
fn every_verb_has_help_with_an_example() {
    let place = Place::new();
    for verb in VERBS {
        let help = place.run(&[verb, "--help"]).is(0);
        assert!(help.out().contains(&format!("fairway {verb}")), "{verb}: {}", help.out());
        assert!(help.out().contains("--env"), "{verb} takes the options of every verb");
        assert!(help.err().is_empty(), "{verb}");
    }
}

#[test]
fn the_list_of_verbs_is_the_one_that_is_tested_here() {
    let help = Place::new().run(&["--help"]).is(0).out();
    let listed: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        // A description that does not fit goes on further to the right.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    let mut sorted = listed.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, VERBS);
}

#[test]
fn a_command_line_that_is_wrong_exits_with_2_and_a_hint() {
    let place = Place::with(&[("fairway.toml", SHOP)]);
    let cases: &[(&[&str], &str, &str)] = &[
        (&["deplyo"], "usage/unknown-verb", "did you mean \"deploy\"?"),
        (&["deploy", "--detatch"], "usage/unknown-option", "did you mean \"--detach\"?"),
        (&["scale", "api"], "usage/missing", "fairway scale"),
        (&["scale", "api", "many", "-e", "dev"], "usage/invalid", "hint:"),
        (&["deploy", "--strategy", "blue-gren"], "usage/invalid", "did you mean \"blue-green\"?"),
        (&["deploy", "--plan", "x", "--tag", "y"], "usage/conflict", "fairway deploy"),
        (&["monitor", "--for", "soon"], "usage/invalid", "is not a duration such as"),
        (&["deploy"], "environment/not-named", "name it with -e: dev, production"),
        (&["deploy", "-e", "prodution"], "config/unknown-environment", "did you mean \"production\"?"),
        (&["status", "--server", "https://example.org"], "usage/server", "ssh -L"),
        (&["init"], "init/exists", "--force"),
        (&["init", "--from", "composer"], "usage/invalid", "did you mean"),
        (&["secret", "set", "a/b", "-e", "dev"], "secret/name", "stripe_key"),
        (&["config", "get", "service.api.nothing", "-e", "dev"], "config/no-such-key", "fairway config list"),
        (&["config", "set", "service.api.prot", "1"], "config/unknown-key", "port"),
    ];
    for (args, code, hint) in cases {
        let ran = place.run(args).is(2);
        assert!(ran.err().starts_with(&format!("error[{code}]: ")), "{args:?}: {}", ran.err());
        assert!(ran.err().contains(hint), "{args:?}: {}", ran.err());
        assert!(ran.out().is_empty(), "{args:?}: errors are not data");
    }
}

#[test]
fn without_a_project_the_hint_is_how_to_get_one() {
    let place = Place::new();
    for verb in ["validate", "up", "deploy", "plan"] {
        let ran = place.run(&[verb, "-e", "dev"]).is(2);
        assert!(ran.err().starts_with("error[project/none]: there is no fairway.toml"), "{}", ran.err());
        assert!(ran.err().contains("fairway init"), "{}", ran.err());
    }
}

#[test]
fn without_a_server_the_hint_is_how_to_start_one_and_nothing_was_changed() {
    let place = Place::with(&[("fairway.toml", SHOP)]);
    for args in [
        &["status"][..],
        &["rollback", "-e", "production"],
        &["deploy", "-e", "production", "--yes"],
        &["logs", "api", "-e", "dev"],
        &["scale", "api", "3", "-e", "dev"],
        &["gc"],
    ] {
        let ran = place.run(args).is(1);
        assert!(
            ran.err().contains("error[server/not-running]: no Fairway server answers at "),
            "{}",
            ran.err()
        );
        assert!(ran.err().contains("hint: `fairway up` starts one"), "{}", ran.err());
    }
}

#[test]
fn production_asks_and_without_a_terminal_it_needs_yes() {
    let place = Place::with(&[("fairway.toml", SHOP)]);
    let ran = place.run(&["deploy", "-e", "production"]).is(4);
    assert!(ran.err().starts_with("error[confirm/needed]"), "{}", ran.err());
    assert!(ran.err().contains("--yes"), "{}", ran.err());
}

#[test]
fn a_rollback_does_not_need_a_file_that_is_valid() {
    let place = Place::with(&[("fairway.toml", "project = \"shop\"\n[service.api\nboom")]);
    // As far as the server, which is not there.
    let ran = place.run(&["rollback", "-e", "production"]).is(1);
    assert!(ran.err().contains("server/not-running"), "{}", ran.err());
}

#[test]
fn validate_shows_every_problem_with_its_place() {
    let text = "version = 1\nproject = \"shop\"\n\n[service.api]\ncomand = [\"bin/api\"]\nport = \"four\"\n\n[env.dev]\n";
    let place = Place::with(&[("fairway.toml", text)]);
    let ran = place.run(&["validate"]).is(2);
    let expected = "error[config/unknown-key]: ";
    assert!(ran.err().starts_with(expected), "{}", ran.err());
    assert!(
        ran.err().contains("\n --> fairway.toml:5:1\n  |\n5 | comand = [\"bin/api\"]\n  | ^^^^^^\n"),
        "{}",
        ran.err()
    );
    assert!(ran.err().contains("hint: did you mean \"command\"?"), "{}", ran.err());
    assert!(
        ran.err().contains("\n --> fairway.toml:6:8\n  |\n6 | port = \"four\"\n  |        ^^^^^^\n"),
        "{}",
        ran.err()
    );
}

#[test]
fn validate_does_not_call_an_environment_valid_that_is_none() {
    let place = Place::with(&[("fairway.toml", SHOP)]);
    place.run(&["validate", "-e", "production"]).is(0);
    let typo = place.run(&["validate", "-e", "prodction"]).is(2);
    assert!(typo.out().is_empty() && typo.err().contains("prodction"), "{}", typo.err());
    assert!(typo.err().contains("hint:"), "{}", typo.err());
}

#[test]
fn json_is_one_object_a_line_and_ends_in_a_result() {
    let place = Place::with(&[("fairway.toml", SHOP)]);
    let lines = |ran: &Ran| -> Vec<Value> {
        ran.out().lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    };
    let fine = lines(&place.run(&["validate", "--json"]).is(0));
    let last = fine.last().unwrap();
    assert_eq!(last["exit"], 0);
    assert_eq!(last["result"]["project"], "shop");
    let failed = place.run(&["deploy", "--json"]).is(2);
    let last = lines(&failed).pop().unwrap();
    assert_eq!((&last["result"], &last["exit"]), (&Value::Null, &Value::from(2)));
    assert_eq!(last["errors"][0]["code"], "environment/not-named");
    let usage = place.run(&["deplyo", "--json"]).is(2);
    assert_eq!(lines(&usage).pop().unwrap()["errors"][0]["code"], "usage/unknown-verb");
    assert!(usage.err().is_empty());
}

#[test]
fn config_changes_one_value_and_nothing_else() {
    let place = Place::with(&[("fairway.toml", SHOP)]);
    place.run(&["config", "set", "service.api.replicas", "4", "-e", "production"]).is(0);
    assert!(place.read("fairway.toml").contains("# what the API needs"), "comments stay");
    let get = |environment: &str| {
        place.run(&["config", "get", "service.api.replicas", "-e", environment]).is(0).out().trim().to_owned()
    };
    assert_eq!((get("production").as_str(), get("dev").as_str()), ("4", "1"));
    let before = place.read("fairway.toml");
    place.run(&["config", "set", "service.api.replicas", "lots"]).is(2);
    assert_eq!(place.read("fairway.toml"), before, "what is not valid is not written");
    place.run(&["config", "unset", "service.api.replicas", "-e", "production"]).is(0);
    assert_eq!(get("production"), "1");
    let entries: Vec<_> = std::fs::read_dir(place.path()).unwrap().collect();
    assert_eq!(entries.len(), 1, "nothing is left beside the file");
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

#[test]
fn init_makes_a_valid_file_of_the_procfile_of_an_example() {
    let procfile = std::fs::read_to_string(example("notes").join("Procfile")).unwrap();
    let place = Place::with(&[("Procfile", &procfile)]);
    let ran = place.run(&["init"]).is(0);
    assert!(ran.out().starts_with("wrote fairway.toml from Procfile"), "{}", ran.out());
    place.run(&["validate"]).is(0);
    let before = place.read("fairway.toml");
    place.run(&["init"]).is(2);
    assert_eq!(place.read("fairway.toml"), before, "never written over without --force");
    place.run(&["init", "--force"]).is(0);
}

#[test]
fn init_lists_what_it_could_not_take_over() {
    let compose = "services:\n  web:\n    image: nginx:1\n    build: .\n    command: bin/web\n    ports: [\"80:8080\"]\n    networks: [front]\n";
    let place = Place::with(&[("compose.yaml", compose)]);
    let ran = place.run(&["init", "--print"]).is(0);
    assert!(ran.err().contains("not taken over:"), "{}", ran.err());
    assert!(ran.err().contains("networks"), "{}", ran.err());
    assert!(!place.path().join("fairway.toml").exists(), "--print writes nothing");
}

#[test]
fn init_of_nothing_says_what_it_looked_for() {
    let ran = Place::new().run(&["init"]).is(2);
    assert!(ran.err().starts_with("error[init/nothing]"), "{}", ran.err());
    assert!(ran.err().contains("hint: write a Procfile"), "{}", ran.err());
}

#[test]
fn completions_schema_and_reference_are_printed() {
    let place = Place::new();
    for (shell, mark) in
        [("bash", "complete -F"), ("zsh", "#compdef fairway"), ("fish", "complete -c fairway")]
    {
        assert!(place.run(&["completions", shell]).is(0).out().contains(mark), "{shell}");
    }
    let schema: Value = serde_json::from_str(&place.run(&["schema"]).is(0).out()).unwrap();
    assert!(schema["$schema"].is_string());
    assert!(place.run(&["reference"]).is(0).out().contains("\n## fairway deploy\n"));
}

#[test]
fn doctor_without_a_project_still_looks_at_the_machine() {
    let place = Place::new();
    let ran = place.run(&["doctor", "--json"]);
    let last: Value = serde_json::from_str(ran.out().lines().last().unwrap()).unwrap();
    let whats: Vec<&str> =
        last["result"].as_array().unwrap().iter().filter_map(|finding| finding["what"].as_str()).collect();
    for what in ["kernel", "cgroup v2", "descriptors", "state directory", "disk", "server", "fairway.toml"] {
        assert!(whats.contains(&what), "{what} of {whats:?}");
    }
    place.run(&["doctor", "--fix"]);
    assert!(place.path().join("no-server").is_dir(), "--fix makes the state directory");
}

#[test]
fn the_unit_of_the_server_is_shown_and_not_written() {
    let ran = Place::new().run(&["server", "install", "--print"]).is(0);
    assert!(ran.out().contains("KillMode=process"), "{}", ran.out());
}

#[test]
fn output_that_nobody_reads_is_not_an_error() {
    let place = Place::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_fairway"))
        .arg("reference")
        .current_dir(place.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
