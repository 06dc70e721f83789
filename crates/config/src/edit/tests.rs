use super::*;

const SHOP: &str = include_str!("../../tests/fixtures/shop/fairway.toml");

/// Only these lines differ: `-` gone, `+` new.
fn difference(before: &str, after: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("-{line}"));
    gone.chain(new.iter().filter(|line| !old.contains(line)).map(|line| format!("+{line}"))).collect()
}

fn check_set(key: &str, value: &str, expected: &[&str]) -> String {
    let after = set("fairway.toml", SHOP, key, value).unwrap_or_else(|refused| panic!("{key}: {refused:#?}"));
    assert_eq!(difference(SHOP, &after), expected, "{key} = {value}\n{after}");
    after
}

#[test]
fn one_value_changes_and_the_rest_stays() {
    check_set("service.api.port", "4001", &["-port = 4000", "+port = 4001"]);
    check_set(
        "env.production.service.api.replicas",
        "6",
        &["-service.api.replicas = 4", "+service.api.replicas = 6"],
    );
    check_set(
        "service.api.limits.memory",
        "1G",
        &["-limits = { cpu = 1.0, memory = \"512M\" }", "+limits = { cpu = 1.0, memory = \"1G\" }"],
    );
    check_set("project", "store", &["-project = \"shop\"", "+project = \"store\""]);
    check_set(
        "env.staging.host",
        "new.example",
        &["-host = \"staging.shop.example\"", "+host = \"new.example\""],
    );
}

#[test]
fn a_new_value_is_written_in_the_style_around_it() {
    check_set("service.api.replicas", "2", &["+replicas = 2"]);
    check_set(
        "service.api.live.timeout",
        "3s",
        &[
            "-live = { http = \"/livez\", every = \"10s\", failures = 3 }",
            "+live = { http = \"/livez\", every = \"10s\", failures = 3, timeout = \"3s\" }",
        ],
    );
    check_set("env.production.service.api.sticky", "true", &["+service.api.sticky = true"]);
    check_set("deploy.bake", "5m", &["+[deploy]", "+bake = \"5m\""]);
    check_set("env.test.listen", "127.0.0.1:9", &["+[env.test]", "+listen = \"127.0.0.1:9\""]);
    check_set("service.api.stop.timeout", "9s", &["+[service.api.stop]", "+timeout = \"9s\""]);
    check_set("deploy.triggers.p95.above", "2s", &["+[deploy.triggers.p95]", "+above = \"2s\""]);
    check_set("probe.site.http", "/", &["+[probe.site]", "+http = \"/\""]);
    check_set("service.api.autoscale.max", "8", &["+[service.api.autoscale]", "+max = 8"]);
}

#[test]
fn a_value_needs_no_quotes_when_only_a_string_is_meant() {
    check_set("vars.LOG_LEVEL", "debug", &["-LOG_LEVEL = \"info\"", "+LOG_LEVEL = \"debug\""]);
    check_set("vars.RATIO", "1.50", &["+RATIO = 1.50"]);
    check_set("vars.LIST", "[1]", &["+LIST = \"[1]\""]);
    check_set("vars.DAY", "1979-05-27", &["+DAY = \"1979-05-27\""]);
    check_set("vars.URL", "{ ref = \"api.url\" }", &["+URL = { ref = \"api.url\" }"]);
    check_set(
        "service.api.command",
        "bin/api --fast",
        &["-command = [\"bin/api\"]", "+command = \"bin/api --fast\""],
    );
    check_set("service.api.user", "1000", &["+user = \"1000\""]);
    check_set("vars.MOTTO", "say \"hi\"\n", &["+MOTTO = \"\"\"", "+say \"hi\"", "+\"\"\""]);
}

#[test]
fn line_ends_of_windows_and_a_mark_at_the_start_stay() {
    let text = "\u{feff}version = 1\r\nproject = \"p\"\r\nservice.a.command = \"x\" # c\r\n";
    let after = set("f", text, "service.a.command", "y").unwrap();
    assert_eq!(after, text.replace("\"x\"", "\"y\""));
}

#[test]
fn comments_stay() {
    let after = check_set("vars.LOG_LEVEL", "warn", &["-LOG_LEVEL = \"info\"", "+LOG_LEVEL = \"warn\""]);
    assert!(after.contains("# run time") && after.contains("# once per release"));
    let text = "version = 1 # one\nproject = \"p\"\nservice.a.command = \"x\" # the command\n";
    let after = set("f", text, "service.a.command", "y").unwrap();
    assert_eq!(after, text.replace("\"x\"", "\"y\""));
}

#[test]
fn what_would_make_the_file_wrong_is_refused() {
    for (key, value, code) in [
        ("service.api.prot", "1", code::UNKNOWN_KEY),
        ("service.api.port", "70000", code::OUT_OF_RANGE),
        ("service.api.port", "many", code::WRONG_TYPE),
        ("service.api.port.number.x", "1", code::UNKNOWN_KEY),
        ("service.api.route", "/", code::ROUTE_TAKEN),
        ("service.api.after", "[\"worker\", \"nobody\"]", code::UNKNOWN_SERVICE),
        ("service.api.command", "a | b", code::COMMAND),
        ("vars.X", "{ ref = \"nothing\" }", code::UNKNOWN_REFERENCE),
        ("env.dev.extends", "prod", code::UNKNOWN_ENVIRONMENT),
        ("", "1", code::SYNTAX),
        ("a..b", "1", code::SYNTAX),
        ("vars.LOG_LEVEL.deeper", "1", code::UNKNOWN_KEY),
        ("nothing", "1", code::UNKNOWN_KEY),
    ] {
        let refused = set("fairway.toml", SHOP, key, value).expect_err(key);
        assert!(
            refused.diagnostics.iter().any(|d| d.code == code),
            "{key} = {value}: {:#?}",
            refused.diagnostics
        );
    }
    assert!(set("f", "not toml", "project", "x").is_err());
}

#[test]
fn unset_takes_one_key_and_the_comment_right_above_it() {
    let after = unset("f", SHOP, "service.api.live").unwrap();
    assert_eq!(difference(SHOP, &after), ["-live = { http = \"/livez\", every = \"10s\", failures = 3 }"]);
    let after = unset("f", SHOP, "env.production.service.api.replicas").unwrap();
    assert_eq!(difference(SHOP, &after), ["-service.api.replicas = 4"]);
    let after = unset("f", SHOP, "env.production.protect.confirm").unwrap();
    assert!(after.contains("protect = { approvers = 1 }"), "{after}");

    let text = "version = 1\nproject = \"p\"\n\n# about what follows\n\n# about the port\n[service.b]\ncommand = \"b\"\n\n[service.a]\n# kept\n\n# its own\nport = 1\ncommand = \"x\"\n";
    let after = unset("f", text, "service.a.port").unwrap();
    assert!(after.contains("# kept") && !after.contains("# its own") && !after.contains("port ="), "{after}");
    let after = unset("f", text, "service.b").unwrap();
    assert!(after.contains("# about what follows") && !after.contains("# about the port"), "{after}");
}

#[test]
fn unset_of_what_is_not_there_or_is_needed_is_refused() {
    for (key, code) in [
        ("service.api.prot", code::UNKNOWN_KEY),
        ("service.nobody.port", code::UNKNOWN_KEY),
        ("service.api.replicas.x", code::UNKNOWN_KEY),
        ("version", code::MISSING_KEY),
        ("service.api.command", code::NOTHING_TO_RUN),
        ("service.postgres", code::UNKNOWN_REFERENCE),
    ] {
        let refused = unset("fairway.toml", SHOP, key).expect_err(key);
        assert!(refused.diagnostics.iter().any(|d| d.code == code), "{key}: {:#?}", refused.diagnostics);
    }
}

#[test]
fn garbage_keys_and_values_never_panic() {
    let pieces = [
        "a", ".", "\"", "'", "[", "]", "{", "}", "=", "\n", "\0", "ü", "service", "env", "vars", "1", "#",
        "\"\"\"",
    ];
    let mut state = 1_u64;
    let mut piece = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        pieces[(state >> 33) as usize % pieces.len()]
    };
    for _ in 0..300 {
        let key: String = (0..5).map(|_| piece()).collect();
        let value: String = (0..4).map(|_| piece()).collect();
        for key in [key.clone(), format!("vars.{key}"), format!("service.api.{key}"), "vars.X".to_owned()] {
            if let Ok(after) = set("f", SHOP, &key, &value) {
                assert!(Project::parse("f", &after).is_ok());
            }
            let _ = unset("f", SHOP, &key);
        }
    }
}
