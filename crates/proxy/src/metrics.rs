//! The figures as Prometheus text.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::codec::{HeadScan, RequestHead, header_storage};
use crate::control::{Ask, Command, LATENCY_BOUNDS_US, Say, SeriesStats, Stats};

pub(crate) fn text(stats: &Stats) -> String {
    let mut out = Text(String::with_capacity(4096));
    out.family("fairway_proxy_requests_total", "counter", "Answered requests by class of status.");
    for series in &stats.series {
        for (class, n) in &series.requests {
            out.sample("fairway_proxy_requests_total", series, &[("class", class.name())], *n);
        }
    }
    out.family("fairway_proxy_errors_total", "counter", "Failed requests and attempts by cause.");
    for series in &stats.series {
        for (cause, n) in &series.errors {
            out.sample("fairway_proxy_errors_total", series, &[("cause", cause.name())], *n);
        }
    }
    let name = "fairway_proxy_request_duration_seconds";
    out.family(name, "histogram", "From the first byte of the request to the last byte of the response.");
    for series in &stats.series {
        out.histogram(name, series);
    }
    let mut plain = |name: &str, kind: &str, help: &str, value: fn(&SeriesStats) -> u64| {
        out.family(name, kind, help);
        for series in &stats.series {
            out.sample(name, series, &[], value(series));
        }
    };
    plain("fairway_proxy_in_flight", "gauge", "Requests and upgraded connections in flight.", |s| {
        s.in_flight
    });
    plain("fairway_proxy_received_bytes_total", "counter", "Bytes of request bodies.", |s| s.bytes_in);
    plain("fairway_proxy_sent_bytes_total", "counter", "Bytes of response bodies.", |s| s.bytes_out);
    out.family("fairway_proxy_refused_total", "counter", "Requests refused before a route was found.");
    for (status, n) in &stats.refused {
        out.line(format_args!("fairway_proxy_refused_total{{status=\"{status}\"}} {n}"));
    }
    for (name, kind, help, value) in [
        ("fairway_proxy_generation", "gauge", "Generation being served.", stats.generation),
        ("fairway_proxy_connections", "gauge", "Open client connections.", stats.connections_open),
        ("fairway_proxy_connections_total", "counter", "Accepted connections.", stats.connections_accepted),
        ("fairway_proxy_log_dropped_total", "counter", "Dropped access log lines.", stats.access_log_dropped),
    ] {
        out.family(name, kind, help);
        out.line(format_args!("{name} {value}"));
    }
    out.0
}

struct Text(String);

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("memory can be written to");
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, series: &SeriesStats, more: &[(&str, &str)], value: u64) {
        let labels = labels(series, more);
        self.line(format_args!("{name}{{{labels}}} {value}"));
    }

    fn histogram(&mut self, name: &str, series: &SeriesStats) {
        let bounds = LATENCY_BOUNDS_US.iter().map(|us| seconds(*us)).chain(["+Inf".to_owned()]);
        let bucket = format!("{name}_bucket");
        let mut sum = 0;
        for (bound, n) in bounds.zip(&series.latency) {
            sum += n;
            self.sample(&bucket, series, &[("le", &bound)], sum);
        }
        let labels = labels(series, &[]);
        self.line(format_args!("{name}_sum{{{labels}}} {}", seconds(series.latency_sum_us)));
        self.line(format_args!("{name}_count{{{labels}}} {sum}"));
    }
}

/// Exact: microseconds as a decimal fraction of seconds.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn labels(series: &SeriesStats, more: &[(&str, &str)]) -> String {
    let fixed = [("service", &*series.service), ("version", &*series.version), ("route", &*series.route)];
    let pair = |(name, value): &(&str, &str)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    };
    fixed.iter().chain(more).map(pair).collect::<Vec<_>>().join(",")
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
    use crate::control::{Cause, StatusClass};

    #[test]
    fn text_is_what_prometheus_reads() {
        let mut series = SeriesStats::new("shop/production/api", "r3", "a\"b/");
        series.requests.insert(StatusClass::Success, 3);
        series.errors.insert(Cause::Connect, 1);
        series.latency[0] = 2;
        series.latency[14] = 1;
        series.latency_sum_us = 12_345_000;
        let text = text(&Stats { generation: 9, series: vec![series], ..Stats::default() });
        let labels = r#"service="shop/production/api",version="r3",route="a\"b/""#;
        for line in [
            format!("fairway_proxy_requests_total{{{labels},class=\"2xx\"}} 3"),
            format!("fairway_proxy_errors_total{{{labels},cause=\"connect\"}} 1"),
            format!("fairway_proxy_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 2"),
            format!("fairway_proxy_request_duration_seconds_bucket{{{labels},le=\"10\"}} 2"),
            format!("fairway_proxy_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 3"),
            format!("fairway_proxy_request_duration_seconds_sum{{{labels}}} 12.345"),
            format!("fairway_proxy_request_duration_seconds_count{{{labels}}} 3"),
            "fairway_proxy_generation 9".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
    }
}
