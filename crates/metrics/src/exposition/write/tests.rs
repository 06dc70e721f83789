use super::*;
use crate::exposition::parse::{Limits, parse};

fn families() -> Vec<Family> {
    let mut histogram =
        Family::new("http_request_duration_seconds", MetricType::Histogram, "How long \"they\" took\\\n");
    histogram.unit = "seconds".to_owned();
    let labels = Labels::new([("route", "/a\"\\\n")]);
    histogram.push_histogram(&labels, &[(0.5, 1.0), (1.0, 2.0), (f64::INFINITY, 3.0)], 2.25, 3.0);
    let mut exemplified = Family::counter("requests_total", "All").with(Labels::new([("code", "2xx")]), 1e6);
    exemplified.points[0].exemplar =
        Some(Exemplar { labels: Labels::new([("trace_id", "f0")]), value: 1.0, at_ms: Some(1_500) });
    exemplified.points[0].at_ms = Some(-1_234);
    vec![
        histogram,
        exemplified,
        Family::counter("errors", "").with(Labels::default(), 0.0),
        Family::new("odd.näme", MetricType::Unknown, "UTF-8")
            .with(Labels::new([("l.b", "v"), ("1", "x")]), f64::NAN),
        Family::new("build_info", MetricType::Info, "").with(Labels::new([("version", "1")]), 1.0),
    ]
}

#[test]
fn the_text_format_is_written() {
    let written = write(&families(), Format::Text);
    assert_eq!(
        written,
        r#"# HELP http_request_duration_seconds How long "they" took\\\n
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{le="0.5",route="/a\"\\\n"} 1
http_request_duration_seconds_bucket{le="1.0",route="/a\"\\\n"} 2
http_request_duration_seconds_bucket{le="+Inf",route="/a\"\\\n"} 3
http_request_duration_seconds_sum{route="/a\"\\\n"} 2.25
http_request_duration_seconds_count{route="/a\"\\\n"} 3
# HELP requests_total All
# TYPE requests_total counter
requests_total{code="2xx"} 1e+06 -1234
# TYPE errors counter
errors 0
# HELP odd_n_me UTF-8
# TYPE odd_n_me untyped
odd_n_me{_="x",l_b="v"} NaN
# TYPE build_info gauge
build_info{version="1"} 1
"#
    );
}

#[test]
fn openmetrics_is_written() {
    let written = write(&families(), Format::OpenMetrics);
    let lines: Vec<&str> = written.lines().collect();
    assert_eq!(lines[0], r#"# HELP http_request_duration_seconds How long \"they\" took\\\n"#);
    assert_eq!(lines[2], "# UNIT http_request_duration_seconds seconds");
    assert_eq!(
        lines[8..],
        [
            "# HELP requests All",
            "# TYPE requests counter",
            r#"requests_total{code="2xx"} 1e+06 -1.234 # {trace_id="f0"} 1.0 1.500"#,
            "# TYPE errors counter",
            "errors_total 0.0",
            r#"# HELP "odd.näme" UTF-8"#,
            r#"# TYPE "odd.näme" unknown"#,
            r#"{"odd.näme","1"="x","l.b"="v"} NaN"#,
            "# TYPE build_info info",
            r#"build_info{version="1"} 1.0"#,
            "# EOF",
        ]
    );
}

#[test]
fn what_is_written_is_read_back() {
    // The text format has no times before 1970; every other part of the families must survive.
    let mut families = families();
    families[1].points[0].at_ms = Some(1_234);
    for format in [Format::Text, Format::TextUtf8, Format::OpenMetrics] {
        let written = write(&families, format);
        let read = parse(written.as_bytes(), format, Limits::default()).unwrap();
        let wanted: Vec<f64> =
            families.iter().flat_map(|family| &family.points).map(|point| point.value).collect();
        assert_eq!(read.samples.len(), wanted.len(), "{written}");
        for (sample, wanted) in read.samples.iter().zip(wanted) {
            assert!(sample.value == wanted || (sample.value.is_nan() && wanted.is_nan()), "{sample:?}");
        }
        assert_eq!(read.samples[0].labels.get("route"), Some("/a\"\\\n"));
        assert_eq!(read.samples[5].at_ms, Some(1_234));
        assert_eq!(read.metadata["http_request_duration_seconds"].help, "How long \"they\" took\\\n");
        if format != Format::Text {
            assert_eq!(read.samples[7].labels.name(), "odd.näme");
        }
    }
}
