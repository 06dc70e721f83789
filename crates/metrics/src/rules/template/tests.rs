//! Expectations are what Prometheus 3.5 makes of the same templates, unless said otherwise.

use std::collections::BTreeMap;

use super::*;
use crate::labels::NAME;

fn expand(text: &str, value: f64) -> String {
    let labels = Labels::new([(NAME, "x"), ("foo", "bar")]);
    let external = BTreeMap::from([("site".to_owned(), "north".to_owned())]);
    let scene = Scene {
        labels: &labels,
        value,
        external_labels: &external,
        external_url: "https://fairway.example.org/base",
        at_ms: 1_500,
    };
    let mut ask = |query: &str| match query {
        "x" => Ok([("zap", 1_234_567.0), ("bar", 5.0), ("tiny", 0.000_012_345_67)]
            .map(|(foo, value)| Found { labels: Labels::new([(NAME, "x"), ("foo", foo)]), value })
            .to_vec()),
        "sum(x)" => Ok(vec![Found { labels: Labels::default(), value: 1_234_572.0 }]),
        "sum(" => Err("1:5: parse error: unclosed left parenthesis".to_owned()),
        _ => Ok(Vec::new()),
    };
    match Template::parse(text).unwrap_or_else(|why| panic!("{text}: {why}")).expand(&scene, &mut ask) {
        Ok(text) => text,
        Err(why) => format!("! {why}"),
    }
}

fn check(text: &str, expect: &str) {
    assert_eq!(expand(text, 5.0), expect, "{text}");
}

fn refused(text: &str, expect: &str) {
    assert_eq!(Template::parse(text).unwrap_err(), expect, "{text}");
}

#[test]
fn labels_and_values() {
    check("{{ $labels.foo }} is {{ $value }}", "bar is 5");
    check("{{ .Labels.foo }}{{ .Value }}{{ $.Value }}{{ ($labels).foo }}", "bar55bar");
    check(
        "{{ $labels }} {{ $labels.missing }}| {{ index $labels \"foo\" }} {{ len $labels }}",
        "map[__name__:x foo:bar] | bar 2",
    );
    check("{{ . }}", "{map[__name__:x foo:bar] map[site:north] https://fairway.example.org/base 5}");
    check(
        "{{ $externalLabels.site }} {{ $externalURL }} {{ externalURL }} {{ pathPrefix }}",
        "north https://fairway.example.org/base https://fairway.example.org/base /base",
    );
    check("no braces } { }}", "no braces } { }}");
}

#[test]
fn numbers_for_people() {
    let all = "{{ $value | humanize }} {{ humanize1024 $value }} {{ humanizeDuration $value }} {{ humanizePercentage $value }} {{ humanizeTimestamp $value }}";
    for (value, expect) in [
        (5.0, "5 5 5s 500% 1970-01-01 00:00:05 +0000 UTC"),
        (1_234_567.0, "1.235M 1.177Mi 14d 6h 56m 7s 1.235e+08% 1970-01-15 06:56:07 +0000 UTC"),
        (0.000_012_345_67, "12.35u 1.235e-05 12.35us 0.001235% 1970-01-01 00:00:00 +0000 UTC"),
        (f64::NAN, "NaN NaN NaN NaN% NaN"),
        (f64::INFINITY, "+Inf +Inf +Inf +Inf% +Inf"),
        (-90.0, "-90 -90 -1m 30s -9000% 1969-12-31 23:58:30 +0000 UTC"),
    ] {
        assert_eq!(expand(all, value), expect);
    }
    check(
        "{{ humanize \"1234567\" }} {{ humanize 12345 }}{{ humanizeDuration \"90\" }}",
        "1.235M 12.35k1m 30s",
    );
    check("{{ parseDuration \"1h5m\" }} {{ now }}", "3900 1.5");
}

#[test]
fn formats() {
    for (format, expect) in [
        ("\"%.4g\" $value", "5"),
        ("\"%d\" $value", "%!d(float64=5)"),
        ("\"%s\" $value", "%!s(float64=5)"),
        ("\"%08.2f\" $value", "00005.00"),
        ("\"%-10.1f|\" $value", "5.0       |"),
        ("\"%+.1e\" $value", "+5.0e+00"),
        ("\"%x %t %5s %.2s\" 255 true \"abc\" \"abc\"", "ff true   abc ab"),
        ("\"%v %v\" 1", "1 %!v(MISSING)"),
        ("\"%v\" 1 2", "1%!(EXTRA int=2)"),
        ("\"%z\" 1", "%!z(int=1)"),
        ("\"%\"", "%!(NOVERB)"),
        ("\"%c %*d %5t %#v %T\" 65 5 3 true \"a\" $value", "A     3  true \"a\" float64"),
        ("\"%6d|%-6d|%06d|%+d|% d\" 42 42 42 42 5", "    42|42    |000042|+42| 5"),
        ("\"%s %f\" 5 5", "%!s(int=5) %!f(int=5)"),
        ("\"%x %v\" \"hi\" $labels", "6869 map[__name__:x foo:bar]"),
        ("\"%99999999999d\" 1", &format!("{:>1000}", 1)),
    ] {
        check(&format!("{{{{ printf {format} }}}}"), expect);
    }
    check(
        "{{ print 1 2 \"a\" \"b\" 3 $value }}|{{ println \"a\" 1 }}|{{ print }}|{{ print nil }}",
        "1 2ab3 5|a 1\n||<nil>",
    );
}

#[test]
fn control() {
    let size = "{{ if gt $value 5.0 }}big{{ else if eq $value 5.0 }}five{{ else }}small{{ end }}";
    assert_eq!([6.0, 5.0, 4.0].map(|value| expand(size, value)), ["big", "five", "small"]);
    // Go refuses to compare a float with a whole number; ours does what is meant.
    check("{{ if gt $value 4 }}big{{ end }}", "big");
    check(
        "{{ range $k, $v := $labels }}{{ $k }}={{ $v }};{{ end }}{{ range $labels }}{{ . }},{{ end }}",
        "__name__=x;foo=bar;x,bar,",
    );
    check(
        "{{ range $i, $x := query \"x\" }}{{ $i }}:{{ $x.Value }}:{{ $x.Labels.foo }} {{ end }}",
        "0:5:bar 1:1.234567e-05:tiny 2:1.234567e+06:zap ",
    );
    check(
        "{{ with query \"sum(x)\" }}{{ . | first | value | humanize }}{{ end }}{{ with query \"nosuch\" }}yes{{ else }}none{{ end }} {{ query \"x\" | first | label \"foo\" }}",
        "1.235Mnone bar",
    );
    check(
        "{{- /* c */ -}}  x  {{- \" y \" -}}  z {{ $a := 3 }}{{ $a }}{{ $a = 4 }}{{ $a }}{{ with $b := 7 }}{{ $b }}{{ . }}{{ end }}{{ range $i := query \"x\" }}{{ break }}{{ end }}",
        "x y z 3477",
    );
    check(
        "{{ range query \"x\" }}{{ if eq .Value 5.0 }}{{ continue }}{{ end }}{{ .Labels.foo }} {{ end }}",
        "tiny zap ",
    );
    check("{{ if false }}a{{ else with $labels.foo }}{{ . }}{{ end }}", "bar");
    check("{{ (index (query \"x\") 0).Value }}", "5");
}

#[test]
fn functions() {
    check(
        "{{ and true 0 5 }} {{ or \"\" \"x\" }} {{ not 1 }} {{ eq 1 2 1 }} {{ lt \"a\" \"b\" }} {{ ne 1 2 }} {{ le 1 1 }}",
        "0 x false true true true true",
    );
    check(
        "{{ 0x10 }} {{ 1e3 }} {{ 1.5 }} {{ 'a' }} {{ `raw` }} {{ true }} {{ -3 }}",
        "16 1000 1.5 97 raw true -3",
    );
    check(
        "{{ html \"<a>\" }} {{ js \"a'b\" }} {{ urlquery \"a b\" }} {{ slice \"abcdef\" 1 3 }} {{ len \"abc\" }}",
        "&lt;a&gt; a\\'b a+b bc 3",
    );
    check(
        "{{ \"a b\" | title }} {{ toUpper \"a\" }} {{ reReplaceAll \"b(.)\" \"[$1]\" \"abcd\" }} {{ match \"a.*\" \"abc\" }}",
        "A B A a[c]d true",
    );
    check(
        "{{ stripPort \"h:80\" }} {{ stripDomain \"a.b.c:80\" }} {{ stripDomain \"10.0.0.1:80\" }} {{ stripPort \"[::1]:80\" }}",
        "h a:80 10.0.0.1:80 ::1",
    );
    check(
        "{{ graphLink \"up > 1\" }} {{ tableLink \"up\" }}",
        "/graph?g0.expr=up+%3E+1&g0.tab=0 /graph?g0.expr=up&g0.tab=1",
    );
    check(
        "{{ args 1 \"b\" }} {{ (args 1 \"b\").arg1 }} {{ safeHtml \"x\" }} {{ sortByLabel \"foo\" (query \"x\") | len }}",
        "map[arg0:1 arg1:b] b x 3",
    );
}

#[test]
fn mistakes_seen_while_expanding_say_where() {
    for (text, expect) in [
        (
            "{{ .Nope }}",
            "at <.Nope>: can't evaluate field Nope in type struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value interface {} }",
        ),
        (
            "{{ first (query \"nosuch\") }}",
            "at <first (query \"nosuch\")>: error calling first: first() called on vector with no elements",
        ),
        (
            "{{ query \"sum(\" }}",
            "at <query \"sum(\">: error calling query: 1:5: parse error: unclosed left parenthesis",
        ),
        (
            "{{ humanize \"abc\" }}",
            "at <humanize \"abc\">: error calling humanize: strconv.ParseFloat: parsing \"abc\": invalid syntax",
        ),
        (
            "{{ index $labels 3 }}",
            "at <index $labels 3>: error calling index: value has type int; should be string",
        ),
        ("{{ $value.foo }}", "at <$value.foo>: can't evaluate field foo in type float64"),
        (
            "{{ eq $value \"a\" }}",
            "at <eq $value \"a\">: error calling eq: incompatible types for comparison: float64 and string",
        ),
        ("{{ humanize 1 2 3 }}", "at <humanize 1 2 3>: wrong number of args for humanize: want 1 got 3"),
    ] {
        check(text, &format!("! {expect}"));
    }
}

#[test]
fn mistakes_seen_when_reading() {
    for (text, expect) in [
        ("a\n{{ $foo }}", "2: undefined variable \"$foo\""),
        ("{{ nope 1 }}", "1: function \"nope\" not defined"),
        ("{{ if }}", "1: missing value for if"),
        ("{{ $value", "1: unclosed action"),
        ("{{ end }}", "1: unexpected {{end}}"),
        ("{{ if true }}", "1: unexpected EOF"),
        ("{{ }}", "1: missing value for command"),
        ("{{ $value | 3 }}", "1: non executable command in pipeline stage"),
        ("{{ $value 3 }}", "1: can't give argument to non-function"),
        ("{{ break }}", "1: {{break}} outside {{range}}"),
        ("{{ define \"t\" }}{{ end }}", "1: {{define}} is not supported here"),
        ("{{ if true }}{{ $a := 1 }}{{ end }}{{ $a }}", "1: undefined variable \"$a\""),
        ("{{ \"abc }}", "1: unterminated quoted string"),
        ("{{ (print 1 }}", "1: unclosed left paren"),
    ] {
        refused(text, expect);
    }
}

#[test]
fn garbage_is_refused_and_never_breaks_anything() {
    let parts = [
        "{{", "}}", " ", "$labels", ".", "(", ")", "|", "\"", "`", "'", "é", "-", "if", "range", "end",
        "else", "/*", "*/", ":=", "=", "$", ",", "1", "0x", "printf", "\\", "with", "\n", "%",
    ];
    let mut state = 7_u64;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(parts[(state >> 33) as usize % parts.len()]);
        }
        if Template::parse(&text).is_ok() {
            expand(&text, 1.0);
        }
    }
    assert!(Template::parse(&"{{ if true }}".repeat(10_000)).is_err());
    assert!(Template::parse(&format!("{{{{ {} }}}}", "(".repeat(10_000))).is_err());
    assert!(Template::parse(&"x".repeat(1 << 20)).is_err());
}

#[test]
fn an_expansion_has_a_bound() {
    let nested = "{{ range 1000 }}{{ range 1000 }}x{{ end }}{{ end }}";
    assert!(expand(nested, 1.0).starts_with("! "));
    assert!(expand("{{ range 90000 }}xxxxxxxxxx{{ end }}", 1.0).starts_with("! longer than"));
}
