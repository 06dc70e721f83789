use super::*;

fn refused(text: &str) -> String {
    parse(text).map(|query| format!("{query:?}")).expect_err(text).to_string()
}

#[test]
fn errors_are_worded_and_placed_as_prometheus_does() {
    for (text, wanted) in [
        ("", "unknown position: parse error: no expression found in input"),
        ("1 +", "1:4: parse error: unexpected end of input"),
        ("foo{", "1:5: parse error: unexpected end of input inside braces"),
        ("(1", "1:3: parse error: unclosed left parenthesis"),
        ("1)", "1:3: parse error: unexpected right parenthesis ')'"),
        ("foo bar", "1:5: parse error: unexpected identifier \"bar\""),
        ("*1", "1:1: parse error: unexpected <op:*>"),
        (
            "sum by test (x)",
            "1:8: parse error: unexpected identifier \"test\" in grouping opts, expected \"(\"",
        ),
        ("unknown(1)", "1:1: parse error: unknown function with name \"unknown\""),
        (
            "rate(foo)",
            "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
        ),
        ("rate(foo[5m], 1)", "1:1: parse error: expected 1 argument(s) in call to \"rate\", got 2"),
        (
            "label_join(a)",
            "1:1: parse error: expected at least 3 argument(s) in call to \"label_join\", got 1",
        ),
        ("1 == 2", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
        ("a + bool b", "1:3: parse error: bool modifier can only be used on comparison operators"),
        ("a and 1", "1:1: parse error: set operator \"and\" not allowed in binary scalar expression"),
        ("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        ("foo{__name__=\"bar\"}", "1:1: parse error: metric name must not be set twice: \"foo\" or \"bar\""),
        ("foo[5m][5m]", "1:8: parse error: ranges only allowed for vector selectors"),
        ("foo offset 5m offset 3m", "1:1: parse error: offset may not be set multiple times"),
        ("foo[0m]", "1:5: parse error: duration must be greater than 0"),
        (
            "-foo[5m]",
            "1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"range vector\"",
        ),
        ("sum()", "1:1: parse error: no arguments for aggregate expression provided"),
        (
            "topk(foo)",
            "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
        ),
        (
            "limitk(1, foo)",
            "1:1: parse error: limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
        ),
        ("info(foo)", "1:1: parse error: function \"info\" is not enabled"),
        ("foo @ bar", "1:7: parse error: unexpected identifier \"bar\" in @, expected timestamp"),
        ("1\n+\n\n}", "4:1: parse error: unexpected character: '}'"),
        ("foo{a=b}", "1:7: parse error: unexpected identifier \"b\" in label matching, expected string"),
        ("5m3", "1:1: parse error: bad number or duration syntax: \"5m3\""),
        ("x{a=~\"b)|(c\"}", "1:3: parse error: error parsing regexp: unopened group"),
        (
            "a + on(x) group_left(x) b",
            "1:3: parse error: label \"x\" must not occur in ON and GROUP clause at once",
        ),
    ] {
        assert_eq!(refused(text), wanted, "{text}");
    }
}

#[test]
fn what_prometheus_takes_is_taken() {
    for text in [
        "1",
        "-1",
        "+Inf",
        "0x1F",
        "1_000",
        ".5",
        "1e3",
        "5m",
        "foo",
        "foo:bar:baz",
        "{\"foo.bar\"}",
        "{\"foo.bar\", \"label.name\"=\"x\"}",
        "foo{`a`=`b`,}",
        "sum",
        "sum + avg",
        "by",
        "offset",
        "start",
        "end",
        "and and and",
        "or",
        "bottomk{a=\"b\"}",
        "sum by (sum, by, offset, on, bool, atan2) (x)",
        "sum(x) without (a,)",
        "SUM BY (a) (x)",
        "foo[300]",
        "foo[5m] offset -5m @ 1234.5",
        "foo @ start()",
        "foo[5m:]",
        "foo[5m:30s] @ end()",
        "rate(foo[5m])[1h:5m] offset 1w",
        "a * on(x) group_left(y) b",
        "a == bool b",
        "a atan2 b",
        "fill + fill",
        "fill_left",
        "# comment\nfoo # more\n",
        "foo{a!~\"x\",b=~\"y\"}",
        "'str'",
        "`raw\\n`",
        "hour()",
        "time() - foo",
        "foo offset 1h30m",
        "foo[1y2w3d]",
        "1 - -1",
        "2 ^ 3 ^ 2",
        "group(x)",
        "step",
        "range",
        "sum by (\"a.b\") (x)",
        "x{a=~\"{foo}\"}",
    ] {
        if let Err(error) = parse(text) {
            panic!("{text}: {error}");
        }
    }
}

#[test]
fn no_text_overflows_the_stack_or_takes_long() {
    let long: [String; 9] = [
        "(".repeat(100_000),
        format!("{}1{}", "(".repeat(1_000), ")".repeat(1_000)),
        "-".repeat(100_000),
        "1".to_owned() + &"^1".repeat(10_000),
        "1".to_owned() + &"+1".repeat(50_000),
        "abs(".repeat(10_000),
        "x[1".to_owned() + &"^1".repeat(10_000),
        "x[".to_owned() + &"(".repeat(100_000),
        "x".to_owned() + &"[5m:1m]".repeat(10_000),
    ];
    for text in long {
        for dialect in [Dialect::Stable, Dialect::Experimental] {
            assert!(parse_as(&text, dialect).is_err());
        }
    }
    assert!(refused(&"x".repeat(QUERY_BYTES_MAX + 1)).contains("longer than"));
    let deepest = format!("{}x{}", "(".repeat(NESTING_MAX), ")".repeat(NESTING_MAX));
    assert!(parse(&deepest).is_ok());
    let longest = "x".to_owned() + &" or x".repeat(OPERATORS_MAX);
    assert!(parse(&longest).is_ok());
}

#[test]
fn a_selector_alone_gives_its_matchers() {
    let matchers = parse_selector("up{job=\"api\"}").unwrap();
    assert_eq!(matchers.len(), 2);
    assert!(
        parse_selector("up[5m]").is_err() && parse_selector("1").is_err() && parse_selector("{}").is_err()
    );
}
