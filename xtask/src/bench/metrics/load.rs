//! What both sides are given: the series of a shop's services, every 15 s.
//!
//! A third are requests by service, instance, route and code; a third are cumulative buckets of durations; a third is
//! everything else: CPU seconds, bytes, temperatures, things that never change. The values are those of the store's own
//! benchmark.

use fairway_metrics::labels::Labels;
use fairway_metrics::sample::Sample;
use fairway_metrics::store::bench::{KINDS, Source};

pub const STEP_MS: i64 = 15_000;

const SERVICES: usize = 20;
const CODES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "none"];
const BOUNDS: [&str; 10] = ["0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "+Inf"];

/// By kind, from the first that is no counter of requests or errors on.
const OTHERS: [&str; 7] = [
    "up",
    "process_cpu_seconds_total",
    "node_cpu_seconds_total",
    "queue_fill_percent",
    "queue_length",
    "process_resident_memory_bytes",
    "job_duration_seconds_sum",
];

#[derive(Debug)]
pub struct Load {
    series: Vec<One>,
    at_ms: i64,
}

#[derive(Debug)]
struct One {
    labels: Labels,
    source: Source,
    /// Of a bucket that is not the first of its histogram: what is below its bound is in it as well.
    adds_to_previous: bool,
}

impl Load {
    pub fn new(series: usize, start_ms: i64) -> Load {
        let third = series / 3;
        let requests = (0..third).map(|number| {
            let code = number / (2 * SERVICES) % CODES.len();
            // Errors are rare.
            let kind = if CODES[code] == "5xx" || CODES[code] == "none" { 6 } else { number % 6 };
            let labels = labels("http_requests_total", number % SERVICES, number / SERVICES % 2)
                .with("route", &format!("/api/v1/things/{}", number / (2 * SERVICES * CODES.len())))
                .with("code", CODES[code]);
            One { labels, source: Source::new(kind, number as u64), adds_to_previous: false }
        });
        let buckets = (0..third).map(|number| {
            let (histogram, bound) = (number / BOUNDS.len(), number % BOUNDS.len());
            let labels = labels("http_request_duration_seconds_bucket", histogram % SERVICES, 0)
                .with("route", &format!("/api/v1/things/{}", histogram / SERVICES))
                .with("le", BOUNDS[bound]);
            let source = Source::new(histogram % 4, (third + number) as u64);
            One { labels, source, adds_to_previous: bound > 0 }
        });
        let others = (2 * third..series).map(|number| {
            let first = KINDS - OTHERS.len();
            let (kind, number) = (number % OTHERS.len(), number / OTHERS.len());
            let labels = labels(OTHERS[kind], number % SERVICES, number / SERVICES);
            One { labels, source: Source::new(first + kind, number as u64), adds_to_previous: false }
        });
        Load { series: requests.chain(buckets).chain(others).collect(), at_ms: start_ms }
    }

    /// One sample of each series.
    pub fn round(&mut self) -> Vec<(Labels, Sample)> {
        let at_ms = self.at_ms;
        self.at_ms += STEP_MS;
        let mut below = 0.0;
        self.series
            .iter_mut()
            .map(|one| {
                let own = one.source.draw();
                let value = if one.adds_to_previous { below + own } else { own };
                below = value;
                (one.labels.clone(), Sample { at_ms, value })
            })
            .collect()
    }
}

fn labels(name: &str, service: usize, instance: usize) -> Labels {
    Labels::new([
        ("__name__", name.to_owned()),
        ("environment", "production".to_owned()),
        ("service", format!("service-{service}")),
        ("instance", format!("service-{service}-{instance}")),
        ("version", "2026-08-01.3".to_owned()),
    ])
}

/// 500 rules: for each service five expressions over five windows.
pub fn rules(query_offset_ms: i64) -> String {
    let mut text =
        format!("groups:\n- name: bench\n  interval: 5s\n  query_offset: {query_offset_ms}ms\n  rules:\n");
    for service in 0..SERVICES {
        let of = format!("service=\"service-{service}\"");
        for window in ["1m", "5m", "10m", "30m", "1h"] {
            let rate = |matchers: &str| format!("rate(http_requests_total{{{of}{matchers}}}[{window}])");
            let buckets = format!("rate(http_request_duration_seconds_bucket{{{of}}}[{window}])");
            let record = |what: &str, expression: String| {
                format!(
                    "  - record: service:{what}:{window}\n    expr: {expression}\n    labels: {{ service: service-{service} }}\n"
                )
            };
            text.push_str(&record("requests:rate", format!("sum by (route) ({})", rate(""))));
            text.push_str(&record(
                "duration:p95",
                format!("histogram_quantile(0.95, sum by (le) ({buckets}))"),
            ));
            text.push_str(&record(
                "memory:max",
                format!("max(max_over_time(process_resident_memory_bytes{{{of}}}[{window}]))"),
            ));
            let errors = rate(",code=\"5xx\"");
            let all = rate("");
            text.push_str(&format!(
                "  - alert: Errors{window}OfService{service}\n    expr: sum({errors}) / sum({all}) > 0.05\n    for: 5m\n"
            ));
            text.push_str(&format!(
                "  - alert: Down{window}OfService{service}\n    expr: min_over_time(up{{{of}}}[{window}]) < 1\n    \
                 labels: {{ severity: critical }}\n    annotations: {{ summary: 'down for {{{{ $value }}}}' }}\n"
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fairway_metrics::rules::RuleFile;

    use super::*;

    #[test]
    fn every_series_has_a_name_of_its_own_and_buckets_grow() {
        let mut load = Load::new(3_000, 0);
        let round = load.round();
        let names: BTreeSet<_> = round.iter().map(|(labels, _)| labels.clone()).collect();
        assert_eq!((round.len(), names.len()), (3_000, 3_000));
        for name in ["http_requests_total", "http_request_duration_seconds_bucket"] {
            assert_eq!(names.iter().filter(|labels| labels.name() == name).count(), 1_000);
        }
        let first: Vec<f64> = round[1_000..1_010].iter().map(|(_, sample)| sample.value).collect();
        assert!(first.is_sorted(), "{first:?}");
        assert_eq!(load.round()[0].1.at_ms, STEP_MS);
        assert_eq!(Load::new(10_000, 0).round().len(), 10_000);
    }

    #[test]
    fn there_are_five_hundred_rules() {
        let file = RuleFile::parse("rules.yml", &rules(1_000)).unwrap();
        assert_eq!(file.groups.iter().map(|group| group.rules.len()).sum::<usize>(), 500);
    }
}
