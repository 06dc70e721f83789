//! Reading rule files. Messages are those of Prometheus 3.5, where it has one.

use super::*;

fn fails(text: &str, expect: &[&str]) {
    let error = RuleFile::parse("f.yml", text).unwrap_err();
    let said: Vec<String> =
        error.problems.iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect();
    assert_eq!(said, expect);
}

#[test]
fn everything_that_is_wrong_is_told_with_its_place() {
    fails(
        r#"groups:
- name: a
  labels: {"__name__": y}
  rules:
  - record: foo bar{
    expr: up
  - record: foo
    alert: bar
    expr: up
  - alert: x
  - expr: up
  - alert: y
    expr: sum(up
  - record: z
    expr: up
    for: 5m
    keep_firing_for: 5m
    annotations: {a: b}
  - alert: t
    expr: up
    labels: {"0bad": "x", ok: "{{ $foo }}"}
    annotations: {"a-b": "x", "c": "{{ nope 1 }}"}
- name: a
  rules: []
- name: ""
"#,
        &[
            "3:24: invalid label name: __name__",
            "5:13: group \"a\", rule 1, \"foo bar{\": braces present in the recording rule name; should it be in expr?: foo bar{",
            "8:12: group \"a\", rule 2, \"bar\": only one of 'record' and 'alert' must be set",
            "10:5: group \"a\", rule 3, \"x\": field 'expr' must be set in rule",
            "11:5: group \"a\", rule 4, \"\": one of 'record' or 'alert' must be set",
            "13:11: group \"a\", rule 5, \"y\": could not parse expression: 1:7: parse error: unclosed left parenthesis",
            "14:13: group \"a\", rule 6, \"z\": invalid field 'annotations' in recording rule",
            "14:13: group \"a\", rule 6, \"z\": invalid field 'for' in recording rule",
            "14:13: group \"a\", rule 6, \"z\": invalid field 'keep_firing_for' in recording rule",
            "22:36: group \"a\", rule 7, \"t\": annotation \"c\": template: __alert_t:1: function \"nope\" not defined",
            "21:31: group \"a\", rule 7, \"t\": label \"ok\": template: __alert_t:1: undefined variable \"$foo\"",
            "23:3: groupname: \"a\" is repeated in the same file",
            "25:3: Groupname must not be empty",
        ],
    );
}

#[test]
fn fields_and_types_are_checked() {
    fails("groups:\n- name: a\n  foo: 1\n", &["3:3: field foo not found in type rulefmt.RuleGroup"]);
    fails("group: []\n", &["1:1: field group not found in type rulefmt.RuleGroups"]);
    fails("groups:\n- name: a\n  interval: 5x\n", &["3:13: unknown unit \"x\" in duration \"5x\""]);
    fails("groups:\n- name: a\n  limit: x\n", &["3:10: cannot unmarshal !!str `x` into int"]);
    fails("groups: {a: b}\n", &["1:9: cannot unmarshal !!map into []rulefmt.RuleGroup"]);
    fails("- a\n", &["1:1: cannot unmarshal !!seq into rulefmt.RuleGroups"]);
    fails(
        "groups:\n- name: a\n  rules:\n  - alert: a\n    alert: b\n",
        &["5:5: mapping key \"alert\" already defined at line 4"],
    );
    fails(
        "groups:\n- name: a\n  rules:\n  - {alert: a, expr: [1]}\n  - {alert: b, expr: up, for: -5m}\n",
        &[
            "4:22: group \"a\", rule 1, \"a\": cannot unmarshal !!seq into string",
            "4:5: group \"a\", rule 1, \"a\": field 'expr' must be set in rule",
            "5:31: group \"a\", rule 2, \"b\": not a valid duration string: \"-5m\"",
        ],
    );
}

#[test]
fn a_file_is_written_as_it_was_read() {
    let text = "groups:\n- name: a\n  interval: 1m\n  query_offset: 30s\n  limit: 5\n  labels: {team: x}\n  rules:\n  - record: a:b\n    expr: |\n      sum(\n        up # all\n      )\n    labels: {q: '{{ kept }}'}\n  - {alert: A, expr: up == 0, for: 1h, keep_firing_for: 90s, labels: {severity: 1, n: '{{ $value }}'}, annotations: {d: \"two\\nlines\"}}\n- name: b\n";
    let file = RuleFile::parse("f.yml", text).unwrap();
    assert_eq!(file.text, text);
    let again = RuleFile::parse("f.yml", &write(&file.groups)).unwrap();
    let plain = |file: &RuleFile| {
        // Places move; everything else must not.
        let groups = file.groups.iter().cloned().map(|mut group| {
            group.rules.iter_mut().for_each(|rule| rule.place = Place::default());
            format!("{group:?}")
        });
        groups.collect::<Vec<_>>()
    };
    assert_eq!(plain(&again), plain(&file));
    assert!(RuleFile::parse("f.yml", "").unwrap().groups.is_empty());
}

#[test]
fn garbage_is_refused_and_breaks_nothing() {
    let whole = include_str!("../../builtin/alerts.yml");
    for cut in (0..whole.len()).step_by(997).filter(|cut| whole.is_char_boundary(*cut)) {
        let _ = RuleFile::parse("f.yml", &whole[..cut]);
        let _ = RuleFile::parse("f.yml", &whole[cut..]);
    }
    let _ = RuleFile::parse("f.yml", "\u{0}\u{feff}{{{");
    let deep = format!("groups:\n- name: a\n  rules:\n  - alert: a\n    expr: {}1\n", "(".repeat(100_000));
    assert!(RuleFile::parse("f.yml", &deep).is_err());
}
