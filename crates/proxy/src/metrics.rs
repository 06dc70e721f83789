//! The figures as Prometheus text.
//!
//! `http_*` is what the services of a project answered to somebody: named as the OpenTelemetry conventions have it and
//! as most dashboards do, and without copies and previews, so that an alert on it is about users. `fairway_requests_*`
//! is about copies and refusals, `fairway_proxy_*` has every detail.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::codec::{HeadScan, RequestHead, header_storage};
use crate::control::{
    Ask, CacheStats, Chosen, Command, LATENCY_BOUNDS_US, Say, SeriesStats, Stats, StatusClass,
};

pub(crate) fn text(stats: &Stats) -> String {
    let mut out = Text(String::with_capacity(16 * 1024));
    out.answered(&sums(stats, |series| is_somebodys(series.chosen), true));
    out.mirrored(&sums(stats, |series| series.chosen == Chosen::Mirror, false));
    out.family("fairway_requests_refused_total", "counter", "Requests refused before a route was found.");
    for (status, n) in &stats.refused {
        out.line(format_args!("fairway_requests_refused_total{{code=\"{status}\"}} {n}"));
    }
    out.details(&stats.series);
    for (name, kind, help, value) in [
        ("fairway_proxy_generation", "gauge", "Generation being served.", stats.generation),
        ("fairway_proxy_connections", "gauge", "Open client connections.", stats.connections_open),
        ("fairway_proxy_connections_total", "counter", "Accepted connections.", stats.connections_accepted),
        ("fairway_proxy_log_dropped_total", "counter", "Dropped access log lines.", stats.access_log_dropped),
        (
            "fairway_tls_handshakes_failed_total",
            "counter",
            "Connections that ended before they spoke TLS.",
            stats.handshakes_failed,
        ),
    ] {
        out.family(name, kind, help);
        out.line(format_args!("{name} {value}"));
    }
    out.cache(&stats.cache);
    out.0
}

/// Whether somebody waited for the answer, and did not come to try something out.
fn is_somebodys(chosen: Chosen) -> bool {
    match chosen {
        Chosen::Weight | Chosen::Match | Chosen::Only => true,
        Chosen::Preview | Chosen::Mirror => false,
    }
}

/// One per service and version, or per route of it.
fn sums(stats: &Stats, counts: impl Fn(&SeriesStats) -> bool, by_route: bool) -> Vec<SeriesStats> {
    let mut sums: BTreeMap<(&str, &str, &str), SeriesStats> = BTreeMap::new();
    for series in stats.series.iter().filter(|series| counts(series)) {
        let route = if by_route { series.route.as_str() } else { "" };
        sums.entry((&series.service, &series.version, route))
            .or_insert_with(|| SeriesStats::new(&series.service, &series.version, route))
            .add(series);
    }
    sums.into_values().collect()
}

/// These are said before there is any, so that the first one is an increase.
const CLASSES_ALWAYS: [StatusClass; 3] =
    [StatusClass::Success, StatusClass::ClientError, StatusClass::ServerError];

struct Text(String);

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("memory can be written to");
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn answered(&mut self, sums: &[SeriesStats]) {
        self.family("http_requests_total", "counter", "Requests by class of status; none: nobody got one.");
        for sum in sums {
            self.by_code("http_requests_total", &labels(sum, Detail::Route), sum);
        }
        for name in ["http_request_duration_seconds", "http_server_request_duration_seconds"] {
            self.family(name, "histogram", "From the request's first byte to the response's last.");
            for sum in sums {
                self.histogram(name, &labels(sum, Detail::Route), sum);
            }
        }
        let name = "http_requests_in_flight";
        self.family(name, "gauge", "Requests and upgraded connections in flight.");
        for sum in sums {
            self.sample(name, &labels(sum, Detail::Route), "", sum.in_flight);
        }
    }

    fn mirrored(&mut self, sums: &[SeriesStats]) {
        let name = "fairway_requests_mirrored_total";
        self.family(name, "counter", "Copies sent to the version, by class of status; none: no answer.");
        for sum in sums {
            self.by_code(name, &labels(sum, Detail::Version), sum);
        }
        let name = "fairway_requests_mirrored_dropped_total";
        self.family(name, "counter", "Copies not sent: too many under way, or no instance.");
        for sum in sums {
            self.sample(name, &labels(sum, Detail::Version), "", sum.dropped);
        }
        let name = "fairway_requests_mirrored_duration_seconds";
        self.family(name, "histogram", "From the copy's first byte to its answer's last.");
        for sum in sums {
            self.histogram(name, &labels(sum, Detail::Version), sum);
        }
    }

    fn cache(&mut self, cache: &CacheStats) {
        let name = "fairway_cache_requests_total";
        self.family(name, "counter", "Requests on routes that have a cache, by what became of them.");
        let CacheStats { hit, miss, stale, bypass, bytes } = cache;
        for (result, n) in [("hit", hit), ("miss", miss), ("stale", stale), ("bypass", bypass)] {
            self.line(format_args!("{name}{{result=\"{result}\"}} {n}"));
        }
        let name = "fairway_cache_bytes";
        self.family(name, "gauge", "Memory that kept answers take.");
        self.line(format_args!("{name} {bytes}"));
    }

    fn details(&mut self, all: &[SeriesStats]) {
        let name = "fairway_proxy_requests_total";
        self.family(name, "counter", "Answered requests by class of status and way of choosing the version.");
        for series in all {
            for (class, n) in &series.requests {
                let class = format!(",class=\"{}\"", class.name());
                self.sample(name, &labels(series, Detail::Chosen), &class, *n);
            }
        }
        let name = "fairway_proxy_errors_total";
        self.family(name, "counter", "Failed requests and attempts by cause.");
        for series in all {
            for (cause, n) in &series.errors {
                let cause = format!(",cause=\"{}\"", cause.name());
                self.sample(name, &labels(series, Detail::Chosen), &cause, *n);
            }
        }
        let mut plain = |name: &str, kind: &str, help: &str, value: fn(&SeriesStats) -> u64| {
            self.family(name, kind, help);
            for series in all {
                self.sample(name, &labels(series, Detail::Chosen), "", value(series));
            }
        };
        let help = "Requests that the version failed.";
        plain("fairway_proxy_failures_total", "counter", help, |s| s.failed);
        let help = "The same, those of one client in one second counted once.";
        plain("fairway_proxy_failure_bursts_total", "counter", help, |s| s.error_bursts);
        let help = "Requests and upgraded connections in flight.";
        plain("fairway_proxy_in_flight", "gauge", help, |s| s.in_flight);
        plain("fairway_proxy_received_bytes_total", "counter", "Bytes of request bodies.", |s| s.bytes_in);
        plain("fairway_proxy_sent_bytes_total", "counter", "Bytes of response bodies.", |s| s.bytes_out);
    }

    fn by_code(&mut self, name: &str, labels: &str, sum: &SeriesStats) {
        for class in StatusClass::ALL {
            let n = sum.requests.get(&class).copied().unwrap_or_default();
            if n > 0 || CLASSES_ALWAYS.contains(&class) {
                self.sample(name, labels, &format!(",code=\"{}\"", class.name()), n);
            }
        }
        if sum.unanswered > 0 {
            self.sample(name, labels, ",code=\"none\"", sum.unanswered);
        }
    }

    /// `more`: further labels, each with a comma before it.
    fn sample(&mut self, name: &str, labels: &str, more: &str, value: u64) {
        self.line(format_args!("{name}{{{labels}{more}}} {value}"));
    }

    fn histogram(&mut self, name: &str, labels: &str, series: &SeriesStats) {
        let bounds = LATENCY_BOUNDS_US.iter().map(|us| seconds(*us)).chain(["+Inf".to_owned()]);
        let mut sum = 0;
        for (bound, n) in bounds.zip(&series.latency) {
            sum += n;
            self.line(format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {sum}"));
        }
        self.line(format_args!("{name}_sum{{{labels}}} {}", seconds(series.latency_sum_us)));
        self.line(format_args!("{name}_count{{{labels}}} {sum}"));
    }
}

/// Exact: microseconds as a decimal fraction of seconds.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How far a metric tells series apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Version,
    Route,
    Chosen,
}

/// The key of a service is `project/environment/service`, of which the first two together are the environment: one
/// proxy serves several projects.
fn labels(series: &SeriesStats, detail: Detail) -> String {
    let (environment, service) = series.service.rsplit_once('/').unwrap_or(("", &series.service));
    let mut pairs = vec![("environment", environment), ("service", service), ("version", &series.version)];
    match detail {
        Detail::Version => {}
        Detail::Route => pairs.push(("route", &series.route)),
        Detail::Chosen => pairs.extend([("route", &*series.route), ("chosen", series.chosen.name())]),
    }
    let pair = |(name, value): &(&str, &str)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    };
    pairs.iter().map(pair).collect::<Vec<_>>().join(",")
}

/// A scrape that takes longer than this has failed at the other end too.
const SCRAPE: Duration = Duration::from_secs(10);

/// Scrapes at the same time; more than that is not monitoring.
const SCRAPES_MAX: usize = 16;

/// Serves `GET /metrics`.
pub(crate) async fn serve(listener: TcpListener, commands: mpsc::Sender<Command>) {
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(SCRAPES_MAX));
    loop {
        let Ok(place) = std::sync::Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let commands = commands.clone();
                tokio::spawn(async move {
                    let _place = place;
                    // Who does not read the answer does not get it.
                    let _ = tokio::time::timeout(SCRAPE, answer(stream, commands)).await;
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, commands: mpsc::Sender<Command>) -> std::io::Result<()> {
    let mut buf = Vec::new();
    let mut scan = HeadScan::default();
    let (status, body) = loop {
        match scan.request(&buf) {
            Err(refusal) => break (refusal.status(), format!("{refusal}\n")),
            Ok(Some((start, end))) => {
                let is_metrics = {
                    let mut storage = header_storage();
                    RequestHead::parse(&buf[start..end], &mut storage)
                        .is_ok_and(|head| head.method == "GET" && head.path() == "/metrics")
                };
                if !is_metrics {
                    break (404, "only GET /metrics is served here\n".to_owned());
                }
                let (reply, said) = oneshot::channel();
                let asked = commands.send(Command { ask: Ask::Metrics, reply }).await.is_ok();
                match said.await {
                    Ok(Say::Metrics { text }) if asked => break (200, text),
                    _ => break (503, "the proxy is going down\n".to_owned()),
                }
            }
            Ok(None) => {
                if stream.read_buf(&mut buf).await? == 0 {
                    return Ok(());
                }
            }
        }
    };
    let head = format!(
        "HTTP/1.1 {status} \r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Cause;

    fn series(chosen: Chosen, class: StatusClass, n: u64) -> SeriesStats {
        let mut series = SeriesStats::new("shop/production/api", "r3", "a\"b/");
        series.chosen = chosen;
        series.requests.insert(class, n);
        series
    }

    fn check(stats: &Stats, expect: &[String], not: &[&str]) {
        let text = text(stats);
        for line in expect {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
        for part in not {
            assert!(!text.contains(part), "{part}\nis in\n{text}");
        }
    }

    #[test]
    fn text_is_what_prometheus_reads() {
        let mut weight = series(Chosen::Weight, StatusClass::Success, 3);
        weight.errors.insert(Cause::Connect, 1);
        weight.latency[0] = 2;
        weight.latency[14] = 1;
        weight.latency_sum_us = 12_345_000;
        weight.in_flight = 4;
        weight.unanswered = 1;
        let refused = [(431, 2)].into();
        let stats = Stats { generation: 9, series: vec![weight], refused, ..Stats::default() };
        let labels = r#"environment="shop/production",service="api",version="r3",route="a\"b/""#;
        let histogram = ["http_request_duration_seconds", "http_server_request_duration_seconds"];
        let mut expect: Vec<String> = histogram
            .iter()
            .flat_map(|name| {
                [
                    format!("{name}_bucket{{{labels},le=\"0.005\"}} 2"),
                    format!("{name}_bucket{{{labels},le=\"10\"}} 2"),
                    format!("{name}_bucket{{{labels},le=\"+Inf\"}} 3"),
                    format!("{name}_sum{{{labels}}} 12.345"),
                    format!("{name}_count{{{labels}}} 3"),
                ]
            })
            .collect();
        expect.extend([
            format!("http_requests_total{{{labels},code=\"2xx\"}} 3"),
            format!("http_requests_total{{{labels},code=\"5xx\"}} 0"),
            format!("http_requests_total{{{labels},code=\"none\"}} 1"),
            format!("http_requests_in_flight{{{labels}}} 4"),
            format!("fairway_proxy_errors_total{{{labels},chosen=\"weight\",cause=\"connect\"}} 1"),
            "fairway_requests_refused_total{code=\"431\"} 2".to_owned(),
            "fairway_proxy_generation 9".to_owned(),
        ]);
        check(&stats, &expect, &["code=\"1xx\""]);
    }

    #[test]
    fn copies_and_previews_are_not_in_the_figures_of_users() {
        let mut mirror = series(Chosen::Mirror, StatusClass::ServerError, 7);
        (mirror.unanswered, mirror.dropped) = (2, 5);
        let series = vec![
            series(Chosen::Weight, StatusClass::Success, 1),
            series(Chosen::Match, StatusClass::Success, 10),
            series(Chosen::Only, StatusClass::Success, 100),
            series(Chosen::Preview, StatusClass::ServerError, 1_000),
            mirror,
        ];
        let route = r#"environment="shop/production",service="api",version="r3",route="a\"b/""#;
        let version = r#"environment="shop/production",service="api",version="r3""#;
        check(
            &Stats { series, ..Stats::default() },
            &[
                format!("http_requests_total{{{route},code=\"2xx\"}} 111"),
                format!("http_requests_total{{{route},code=\"5xx\"}} 0"),
                format!("fairway_requests_mirrored_total{{{version},code=\"5xx\"}} 7"),
                format!("fairway_requests_mirrored_total{{{version},code=\"none\"}} 2"),
                format!("fairway_requests_mirrored_dropped_total{{{version}}} 5"),
                format!("fairway_proxy_requests_total{{{route},chosen=\"preview\",class=\"5xx\"}} 1000"),
            ],
            &[],
        );
    }
}
