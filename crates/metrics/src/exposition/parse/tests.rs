use super::*;

fn text(body: &str) -> Result<Exposition, ParseError> {
    parse(body.as_bytes(), Format::Text, Limits::default())
}

fn openmetrics(body: &str) -> Result<Exposition, ParseError> {
    parse(body.as_bytes(), Format::OpenMetrics, Limits::default())
}

fn shown(exposition: &Exposition) -> Vec<String> {
    let at = |at_ms: Option<i64>| at_ms.map(|at_ms| format!(" @{at_ms}")).unwrap_or_default();
    let one = |sample: &Exposed| {
        let exemplar = sample.exemplar.as_ref();
        let exemplar =
            exemplar.map(|it| format!(" # {} {}{}", it.labels, number::plain(it.value), at(it.at_ms)));
        let (value, exemplar) = (number::plain(sample.value), exemplar.unwrap_or_default());
        format!("{} {value}{}{exemplar}", sample.labels, at(sample.at_ms))
    };
    exposition.samples.iter().map(one).collect()
}

/// A space that ends a line is seen only so.
fn spaced(text: &str) -> String {
    text.replace(" ␠\n", " \n")
}

const TEXT: &str = r#"# HELP go_gc_duration_seconds A summary of the GC invocation durations.
# 	TYPE go_gc_duration_seconds summary
go_gc_duration_seconds{quantile="0"} 4.9351e-05
go_gc_duration_seconds{quantile="0.25",} 7.424100000000001e-05
go_gc_duration_seconds{quantile="0.9", a="b"} 8.3e-05
go_gc_duration_seconds_count 99

# HELP nohelp1
# HELP nohelp2 ␠
# HELP "quoted.name" with \\ and \n
# TYPE h histogram
h_bucket{le="1"} 1
h_bucket { le = "+Inf" , } 2 1234
#comment
#  another TYPE comment
some:aggregate:rate5m{a_b="c"}	1
wide{a="1" b="2"} 1
_a{x="q\"\\\n\x"} -Inf 15
{"my.metric", "l.b"="v", plain="w"} NaN
{plain="w", "late"} +Inf
nul{a="abc"} 1
last{a="line
end"} 0x"#;

#[test]
fn the_text_format_is_read() {
    let body = spaced(TEXT).trim_end_matches("0x").to_owned() + "7";
    let read = text(&body).unwrap();
    assert_eq!(
        shown(&read),
        [
            r#"go_gc_duration_seconds{quantile="0.0"} 0.000049351"#,
            r#"go_gc_duration_seconds{quantile="0.25"} 0.00007424100000000001"#,
            r#"go_gc_duration_seconds{a="b", quantile="0.9"} 0.000083"#,
            "go_gc_duration_seconds_count 99",
            r#"h_bucket{le="1.0"} 1"#,
            r#"h_bucket{le="+Inf"} 2 @1234"#,
            r#"some:aggregate:rate5m{a_b="c"} 1"#,
            r#"wide{a="1", b="2"} 1"#,
            r#"_a{x="q\"\\\n\\x"} -Inf @15"#,
            r#"my.metric{l.b="v", plain="w"} NaN"#,
            r#"late{plain="w"} +Inf"#,
            r#"nul{a="abc"} 1"#,
            r#"last{a="line\nend"} 7"#,
        ]
    );
    let help = |family: &str| read.metadata[family].help.clone();
    assert_eq!(help("go_gc_duration_seconds"), "A summary of the GC invocation durations.");
    assert_eq!((help("nohelp1"), help("nohelp2")), (String::new(), String::new()));
    assert_eq!(help("quoted.name"), "with \\ and \n");
    assert_eq!(read.metadata["go_gc_duration_seconds"].kind, MetricType::Summary);
    assert_eq!(read.metadata["h"].kind, MetricType::Histogram);
}

#[test]
fn what_prometheus_refuses_in_a_text_is_refused_with_its_line() {
    let check = |body: &str, wanted: &str| {
        let error = text(body).expect_err(body).to_string();
        assert!(error.starts_with(wanted), "{body:?} gave {error:?}, not {wanted:?}");
    };
    check("a", "line 1: expected a value, got the end of the body");
    check("a 1\nb\nc 1", "line 2: expected a value, got the end of the line");
    check("a 1\n{b=\"c\"} 1", "line 2: the metric has no name");
    check("{__name__=\"a\"} 1", "line 1: the metric has no name");
    check("a{__name__=\"b\"} 1", "line 1: label \"__name__\" is there twice");
    check("a{b=\"1\",b=\"2\"} 1", "line 1: label \"b\" is there twice");
    check("a{\"b\"} 1", "line 1: the metric has two names");
    check("{\"a\",\"b\"} 1", "line 1: the metric has two names");
    check("{\"\"} 1", "line 1: the metric's name is empty");
    check("a{\"\"=\"x\"} 1", "line 1: a label's name is empty");
    check("a{b='c'} 1", "line 1: expected a label's value, got \"'c'} 1\"");
    check("a{b=\"c} 1\n", "line 1: expected a label's value");
    check("a{b=\"c\\\nd\"} 1\n", "line 1: expected a label's value");
    check("a{b} 1", "line 1: expected =");
    check("a{b:c=\"d\"} 1", "line 1: expected =");
    check("a{,} 1", "line 1: expected a label's name or }");
    check("a{b=\"c\",,} 1", "line 1: expected a label's name or }");
    check("a{b=\"c\"\n} 1", "line 1: expected a label's name or }");
    check("a true", "line 1: \"true\" is no value");
    check("a 0x1p3", "line 1: \"0x1p3\" is no value");
    check("a 1_000", "line 1: \"1_000\" is no value");
    check("a 1e999", "line 1: \"1e999\" is no value");
    check("a +NaN", "line 1: \"+NaN\" is no value");
    check("a 1 -1", "line 1: expected a timestamp or the end of the line");
    check("a 1 1.5", "line 1: expected a timestamp or the end of the line");
    check("a 1 99999999999999999999", "line 1: \"99999999999999999999\" is no timestamp");
    check("a 1 1 1", "line 1: expected a timestamp or the end of the line");
    check("a 1 # {x=\"y\"} 1", "line 1: expected a timestamp or the end of the line");
    check("9a 1", "line 1: expected a metric's name, { or #");
    check("é 1", "line 1: expected a metric's name, { or #");
    check("a\u{e9} 1", "line 1: \"é\" is no value");
    check("\n\n# TYPE a gage\n", "line 3: invalid metric type \"gage\"");
    check("# TYPE a unknown\n", "line 1: invalid metric type \"unknown\"");
    check("# TYPE a  gauge\n", "line 1: invalid metric type \" gauge\"");
    check("# TYPE a\n", "line 1: invalid metric type \"\"");
    check("# TYPE 1 gauge\n", "line 1: expected a metric's name");
    check("a\0 1", "line 1: \"\\0\" is no value");
    let not_utf8 = |body: &[u8]| parse(body, Format::Text, Limits::default()).unwrap_err().problem;
    assert_eq!(not_utf8(b"a{b=\"\xff\"} 1"), Problem::NotUtf8 { what: "a label's value" });
    assert_eq!(not_utf8(b"{\"\xff\"} 1"), Problem::NotUtf8 { what: "a name in quotes" });
    assert_eq!(not_utf8(b"# HELP a \xff\n"), Problem::NotUtf8 { what: "the help text" });
    assert!(parse(b"# \xff\na{b=\"\0\"} 1", Format::Text, Limits::default()).is_ok());
}

const OPENMETRICS: &str = r#"# HELP foo What \"it\" is.
# TYPE foo counter
# UNIT foo_seconds seconds
foo_total{a="b",} 17.0 1520879607.789 # {trace_id="x 1",b="é"} 1.5 1520879606
foo_created{a="b"} 1520872607.123
# TYPE h histogram
h_bucket{le="1"} 3 # {} 0.5
# TYPE g gaugehistogram
g_bucket{le="1"} 3
# TYPE i info
i_info{version="1"} 1
# TYPE s stateset
s{s="on"} 0
# TYPE u unknown
# HELP u ␠
u -1 -0.5
{"q.n","l.b"="v"} NaN
# EOF
"#;

#[test]
fn openmetrics_is_read() {
    let read = openmetrics(&spaced(OPENMETRICS)).unwrap();
    assert_eq!(
        shown(&read),
        [
            r#"foo_total{a="b"} 17 @1520879607789 # {b="é", trace_id="x 1"} 1.5 @1520879606000"#,
            r#"foo_created{a="b"} 1520872607.123"#,
            r#"h_bucket{le="1.0"} 3 # {} 0.5"#,
            r#"g_bucket{le="1"} 3"#,
            r#"i_info{version="1"} 1"#,
            r#"s{s="on"} 0"#,
            "u -1 @-500",
            r#"q.n{l.b="v"} NaN"#,
        ]
    );
    assert_eq!(read.metadata["foo"].help, "What \"it\" is.");
    assert_eq!(read.metadata["foo_seconds"].unit, "seconds");
    assert_eq!(read.metadata["s"].kind, MetricType::StateSet);
    assert!(openmetrics("# EOF").unwrap().samples.is_empty());
}

#[test]
fn what_prometheus_refuses_in_openmetrics_is_refused_with_its_line() {
    let check = |body: &str, wanted: &str| {
        let error = openmetrics(body).expect_err(body).to_string();
        assert!(error.starts_with(wanted), "{body:?} gave {error:?}, not {wanted:?}");
    };
    check("", "line 1: the body does not end with # EOF");
    check("a 1\n", "line 1: the body does not end with # EOF");
    check("a 1", "line 1: the body does not end with # EOF");
    check("# EOF\n\n", "line 1: there is more after # EOF");
    check("# EOFa 1\n# EOF\n", "line 1: there is more after # EOF");
    check("\n# EOF\n", "line 1: expected a metric's name, { or #");
    check("# a comment\n# EOF\n", "line 1: expected HELP, TYPE, UNIT or EOF");
    check("#EOF\n", "line 1: expected a space after #");
    check("# TYPE c untyped\n# EOF\n", "line 1: invalid metric type \"untyped\"");
    check("# TYPE c  counter\n# EOF\n", "line 1: invalid metric type \" counter\"");
    check("# HELP c\n# EOF\n", "line 1: expected a space and a text");
    check("# UNIT metric suffix\n# EOF\n", "line 1: unit \"suffix\" is not a suffix of metric \"metric\"");
    check("# UNIT suffix suffix\n# EOF\n", "line 1: unit \"suffix\" is not a suffix of metric \"suffix\"");
    check("a\t1\n# EOF\n", "line 1: expected a space and a value");
    check("a  1\n# EOF\n", "line 1: expected a value");
    check("a 1 \n# EOF\n", "line 1: \"\" is no timestamp");
    check("a 1 1 1\n# EOF\n", "line 1: expected the end of the line");
    check("a {b=\"c\"} 1\n# EOF\n", "line 1: \"{b=\\\"c\\\"}\" is no value");
    check("a{b=\"c\" } 1\n# EOF\n", "line 1: expected , or }");
    check("a{b=\"c\"d=\"e\"} 1\n# EOF\n", "line 1: expected , or }");
    check("a{b=\"c\", d=\"e\"} 1\n# EOF\n", "line 1: expected a label's name or }");
    check("a{b=\"c\nd\"} 1\n# EOF\n", "line 1: expected a label's value");
    check("a 1 NaN\n# EOF\n", "line 1: \"NaN\" is no timestamp");
    check("a 1 1e300\n# EOF\n", "line 1: \"1e300\" is no timestamp");
    check("a 1 # {b=\"c\"}\n# EOF\n", "line 1: expected a space and a value");
    check("a 1 # {\"b\"} 1\n# EOF\n", "line 1: expected =");
    check("a 1 # {b=\"c\"} x\n# EOF\n", "line 1: \"x\" is no value");
    check("a 1 # {b=\"c\"} 1 Inf\n# EOF\n", "line 1: \"Inf\" is no timestamp");
    check("a 1 # b\n# EOF\n", "line 1: \"#\" is no timestamp");
    check("a 1\nb 1 1 # {\n# EOF\n", "line 2: expected a label's name or }");
}

#[test]
fn who_shows_more_than_the_limits_is_refused() {
    let limits = Limits { body_bytes_max: 40, labels_max: 3, name_bytes_max: 4, value_bytes_max: 5 };
    let problem = |body: &str| parse(body.as_bytes(), Format::Text, limits).unwrap_err().problem;
    assert_eq!(problem(&"#".repeat(41)), Problem::BodyTooLarge { bytes: 41, limit: 40 });
    assert_eq!(problem("a{b=\"1\",c=\"1\",d=\"1\"} 1"), Problem::TooManyLabels { limit: 3 });
    assert_eq!(problem("abcde 1"), Problem::TooLong { what: "the metric's name", limit: 4 });
    assert_eq!(problem("a{abcde=\"1\"} 1"), Problem::TooLong { what: "a label's name", limit: 4 });
    assert_eq!(problem("a{b=\"123456\"} 1"), Problem::TooLong { what: "a label's value", limit: 5 });
    assert_eq!(problem("# HELP a 123456"), Problem::TooLong { what: "the help text", limit: 5 });
    assert!(parse(b"abcd{a=\"12345\",b=\"\"} 1", Format::Text, limits).is_ok());
}

#[test]
fn a_message_never_carries_a_whole_body() {
    let error = text(&format!("a {}\n", "9".repeat(1 << 20))).unwrap_err().to_string();
    assert!(error.len() < 300, "{}", error.len());
    let error = text(&format!("a{{{}\n", "é".repeat(1 << 20))).unwrap_err().to_string();
    assert!(error.len() < 1000, "{}", error.len());
}

#[test]
fn a_body_may_be_cut_anywhere() {
    for (body, format) in [(TEXT, Format::Text), (OPENMETRICS, Format::OpenMetrics)] {
        for end in 0..body.len() {
            let read = parse(&body.as_bytes()[..end], format, Limits::default());
            // A cut OpenMetrics body is always seen to be cut: that is what # EOF is for.
            let whole = body.trim_end().len();
            assert!(format == Format::Text || end >= whole || read.is_err(), "cut at {end}");
        }
    }
}

/// A generator that is the same on every machine: xorshift64*.
fn random(state: &mut u64) -> usize {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    usize::try_from(state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap()
}

#[test]
fn garbage_is_refused_or_read_and_no_more() {
    let mut state = 0x5eed_5eed;
    let pieces: [&[u8]; 24] = [
        b"a",
        b"{",
        b"}",
        b"\"",
        b"\\",
        b"\n",
        b" ",
        b"\t",
        b"=",
        b",",
        b"#",
        b"# TYPE ",
        b"# HELP ",
        b"# EOF",
        b"1",
        b"NaN",
        b"\0",
        b"\xff",
        b"\xc3\xa9",
        b" # {",
        b"le=\"1\"",
        b"histogram",
        b"-",
        b"1e9",
    ];
    let (mut read, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mut body: Vec<u8> = Vec::new();
        if round % 2 == 0 {
            for _ in 0..random(&mut state) % 30 {
                body.extend(pieces[random(&mut state) % pieces.len()]);
            }
        } else {
            body.extend(if round % 4 == 1 { TEXT } else { OPENMETRICS }.as_bytes());
            for _ in 0..1 + random(&mut state) % 3 {
                let (at, piece) =
                    (random(&mut state) % body.len(), pieces[random(&mut state) % pieces.len()]);
                body.splice(at..(at + random(&mut state) % 4).min(body.len()), piece.iter().copied());
            }
        }
        for format in [Format::Text, Format::OpenMetrics] {
            match parse(&body, format, Limits::default()) {
                Ok(_) => read += 1,
                Err(error) => {
                    refused += 1;
                    assert!(error.line <= 1 + body.iter().filter(|byte| **byte == b'\n').count());
                }
            }
        }
    }
    assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused: the garbage is no good");
}
