//! The series that Fairway itself exports, for docs/reference/metrics.md. The source is held against this table by
//! `cargo xtask tidy`, and a live `/metrics` by `cargo xtask e2e canary`, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use crate::fault::{Context, Done};
use crate::workspace;

/// Where a series is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// In `/metrics` of a server with something deployed.
    Exposed,
    /// There too, as long as a receiver of remote write is set.
    WithReceivers,
    /// In the built-in store, and in no `/metrics`: it is written when something is asked.
    Stored,
}

#[derive(Clone, Copy, Debug)]
pub struct Series {
    pub name: &'static str,
    pub kind: &'static str,
    pub labels: &'static str,
    unit: &'static str,
    meaning: &'static str,
    pub found: Found,
}

/// What tells the services' figures of users apart.
const ROUTE: &str = "environment service version route";
const VERSION: &str = "environment service version";
/// Every detail that the proxy has.
const CHOSEN: &str = "environment service version route chosen";
const COPY: &str = "environment service version instance";

const fn exposed(
    name: &'static str,
    kind: &'static str,
    labels: &'static str,
    unit: &'static str,
    meaning: &'static str,
) -> Series {
    Series { name, kind, labels, unit, meaning, found: Found::Exposed }
}

const fn with_receivers(
    name: &'static str,
    kind: &'static str,
    labels: &'static str,
    meaning: &'static str,
) -> Series {
    Series { name, kind, labels, unit: "samples", meaning, found: Found::WithReceivers }
}

const fn stored(
    name: &'static str,
    labels: &'static str,
    unit: &'static str,
    meaning: &'static str,
) -> Series {
    Series { name, kind: "gauge", labels, unit, meaning, found: Found::Stored }
}

#[rustfmt::skip]
pub const ALL: &[Series] = &[
    exposed("http_requests_total", "counter", "environment service version route code", "requests", "Answered to users, by class of status (`2xx`); `none`: nobody got one. Copies and previews are not in it."),
    exposed("http_request_duration_seconds", "histogram", ROUTE, "seconds", "From the request's first byte to the response's last."),
    exposed("http_server_request_duration_seconds", "histogram", ROUTE, "seconds", "The same, as the OpenTelemetry conventions name it."),
    exposed("http_requests_in_flight", "gauge", ROUTE, "requests", "Requests and upgraded connections without an end so far."),
    exposed("fairway_requests_mirrored_total", "counter", "environment service version code", "requests", "Copies that a mirroring version got, by class of its answer; `none`: no answer."),
    exposed("fairway_requests_mirrored_dropped_total", "counter", VERSION, "requests", "Copies that were not sent: too many under way, or no instance."),
    exposed("fairway_requests_mirrored_duration_seconds", "histogram", VERSION, "seconds", "From the copy's first byte to its answer's last."),
    exposed("fairway_requests_refused_total", "counter", "code", "requests", "Refused before a route was found, by status."),
    exposed("fairway_proxy_requests_total", "counter", "environment service version route chosen class", "requests", "Answered, by class of status and by how the version was chosen: `weight`, `match`, `only`, `preview`, `mirror`."),
    exposed("fairway_proxy_errors_total", "counter", "environment service version route chosen cause", "failures", "Failed requests and attempts by cause. An attempt that was repeated with success is here and in no status."),
    exposed("fairway_proxy_failures_total", "counter", CHOSEN, "requests", "Requests that the version failed: what rollouts are judged by."),
    exposed("fairway_proxy_failure_bursts_total", "counter", CHOSEN, "requests", "The same, those of one client within one second counted once."),
    exposed("fairway_proxy_in_flight", "gauge", CHOSEN, "requests", "Requests and upgraded connections without an end so far."),
    exposed("fairway_proxy_received_bytes_total", "counter", CHOSEN, "bytes", "Of request bodies."),
    exposed("fairway_proxy_sent_bytes_total", "counter", CHOSEN, "bytes", "Of response bodies."),
    exposed("fairway_proxy_generation", "gauge", "", "number", "Routing table that the proxy serves by."),
    exposed("fairway_proxy_connections", "gauge", "", "connections", "Open client connections."),
    exposed("fairway_proxy_connections_total", "counter", "", "connections", "Accepted client connections."),
    exposed("fairway_tls_handshakes_failed_total", "counter", "", "connections", "Ended before they spoke TLS."),
    exposed("fairway_certificate_expiry_timestamp_seconds", "gauge", "environment name", "Unix seconds", "When the certificate that serves ends."),
    exposed("fairway_certificate_renewal_timestamp_seconds", "gauge", "environment name", "Unix seconds", "When it is renewed; none where that is not planned, or has failed."),
    exposed("fairway_certificate_failing", "gauge", "environment name", "0 or 1", "1 when it could not be had or renewed the last time that it was tried."),
    exposed("fairway_cache_requests_total", "counter", "result", "requests", "On routes that have a cache, by what became of them: `hit`, `miss`, `stale`, `bypass`."),
    exposed("fairway_cache_bytes", "gauge", "", "bytes", "Memory that kept answers take."),
    exposed("fairway_proxy_log_dropped_total", "counter", "", "lines", "Access log lines that were dropped, as the disk did not keep up."),
    exposed("fairway_proxy_up", "gauge", "", "0 or 1", "1 when the proxy answers the control plane."),
    exposed("fairway_events_total", "counter", "", "events", "On the record."),
    exposed("fairway_rollouts_active", "gauge", "", "rollouts", "Under way."),
    exposed("fairway_deployments_total", "counter", "environment outcome", "rollouts", "Ended since the server started, by outcome."),
    exposed("fairway_deployment_last_end_timestamp_seconds", "gauge", "environment outcome", "Unix seconds", "When the last rollout of this outcome ended."),
    exposed("fairway_release_info", "gauge", "environment release version", "1", "The release that serves; `version` is its title, else its commit, else its number."),
    exposed("fairway_instances_wanted", "gauge", "environment service", "copies", "That are to serve."),
    exposed("fairway_instances", "gauge", "environment service state", "copies", "By state: `ready`, `starting`, `suspect`, `down`, `draining`, `stopping`."),
    exposed("fairway_instances_ready", "gauge", "", "copies", "Ready, of all services."),
    exposed("fairway_instance_restarts_total", "counter", COPY, "times", "That a copy ended by itself."),
    exposed("process_cpu_seconds_total", "counter", COPY, "seconds", "CPU time of a copy, all of its processes."),
    exposed("process_resident_memory_bytes", "gauge", COPY, "bytes", "Memory of a copy, all of its processes."),
    exposed("process_cpu_limit_cores", "gauge", COPY, "cores", "That a copy may use; only with a limit."),
    exposed("process_memory_limit_bytes", "gauge", COPY, "bytes", "That a copy may use; only with a limit."),
    exposed("node_cpu_seconds_total", "counter", "cpu mode", "seconds", "Time of the machine's CPUs by mode."),
    exposed("node_memory_MemTotal_bytes", "gauge", "", "bytes", "Memory of the machine."),
    exposed("node_memory_MemAvailable_bytes", "gauge", "", "bytes", "Memory that can be had without swapping."),
    exposed("node_load1", "gauge", "", "processes", "That run or wait to, over a minute."),
    exposed("node_filesystem_size_bytes", "gauge", "mountpoint", "bytes", "Size of a filesystem that Fairway writes to."),
    exposed("node_filesystem_avail_bytes", "gauge", "mountpoint", "bytes", "That can still be written there."),
    exposed("fairway_metrics_series", "gauge", "", "series", "In the memory of the built-in store."),
    exposed("fairway_metrics_disk_bytes", "gauge", "", "bytes", "Disk space that samples take."),
    exposed("fairway_scrape_series_limited", "gauge", "environment service version instance job", "series", "Dropped in a target's last scrape, because it shows too many."),
    with_receivers("fairway_remote_write_samples_sent_total", "counter", "receiver host", "That a receiver took."),
    with_receivers("fairway_remote_write_samples_lost_total", "counter", "receiver host reason", "That a receiver refused, or for which there was no room."),
    with_receivers("fairway_remote_write_samples_pending", "gauge", "receiver host", "That wait to be sent."),
    with_receivers("fairway_remote_write_retries_total", "counter", "receiver host", "Batches that were sent again."),
    stored("up", "environment service version instance job", "0 or 1", "1 when the last scrape of a target was good. `scrape_duration_seconds` and the other `scrape_*` of Prometheus come with it."),
    stored("probe_success", "environment probe", "0 or 1", "1 when a check of `[probe.NAME]` was good."),
    stored("probe_duration_seconds", "environment probe", "seconds", "That the check took."),
    stored("probe_http_status_code", "environment probe", "status", "Of the answer to a check over HTTP."),
    stored("probe_ssl_earliest_cert_expiry", "environment probe", "Unix seconds", "When the first certificate of the chain ends."),
];

const HEAD: &str = "# Metrics\n\n\
    What Fairway exports of itself and of what it runs. The server's `/metrics` shows it, the built-in store keeps it,\n\
    and gates, rules and dashboards ask for it by these names; services' own series keep the names that they have.\n\
    Counters begin at 0 with the process that counts. `version` is the release (`r12`), `environment` is\n\
    `project/environment`. A histogram has the series `_bucket` (with `le`), `_sum` and `_count`.\n";

/// docs/reference/metrics.md.
pub fn page() -> String {
    let mut text = HEAD.to_owned();
    for (title, found) in [
        ("In `/metrics`", Found::Exposed),
        ("In `/metrics`, with a receiver of remote write", Found::WithReceivers),
        ("In the built-in store", Found::Stored),
    ] {
        text.push_str(&format!(
            "\n## {title}\n\n| name | type | labels | unit | meaning |\n|---|---|---|---|---|\n"
        ));
        for series in ALL.iter().filter(|series| series.found == found) {
            let Series { name, kind, unit, meaning, .. } = series;
            let labels: Vec<String> =
                series.labels.split_whitespace().map(|label| format!("`{label}`")).collect();
            text.push_str(&format!("| `{name}` | {kind} | {} | {unit} | {meaning} |\n", labels.join(", ")));
        }
    }
    text
}

/// Where names of series are written down.
const SOURCES: &[&str] = &[
    "crates/proxy/src/metrics.rs",
    "crates/server/src/watching.rs",
    "crates/server/src/watching/figures.rs",
    "crates/server/src/watching/probes.rs",
    "crates/server/src/watching/writing.rs",
];

/// Names in the source that the table does not have, and the other way round.
pub fn check_source() -> Done<Vec<String>> {
    let mut written: BTreeSet<String> = BTreeSet::new();
    for source in SOURCES {
        let text = std::fs::read_to_string(workspace::root().join(source)).context(source)?;
        written.extend(names(&text).map(str::to_owned));
    }
    let known: BTreeSet<&str> = ALL.iter().map(|series| series.name).collect();
    let unknown = written.iter().filter(|name| !known.contains(name.as_str()));
    let mut findings: Vec<String> = unknown
        .map(|name| format!("{name} is exported and not in the table of xtask/src/exported.rs"))
        .collect();
    // `up` comes with the scrape.
    let gone = known.iter().filter(|name| **name != "up" && !written.contains(**name));
    findings.extend(
        gone.map(|name| format!("{name} is in the table of xtask/src/exported.rs and nobody exports it")),
    );
    Ok(findings)
}

/// Text in quotes that is the name of one of our series, tests left out.
fn names(source: &str) -> impl Iterator<Item = &str> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.split('"').skip(1).step_by(2).filter(|text| {
        let is_ours = ["http_", "fairway_", "process_", "node_", "probe_"];
        is_ours.iter().any(|prefix| text.starts_with(prefix))
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// What a live exposition shows and the table does not say, and the other way round: names, types and labels.
pub fn check_live(exposition: &str) -> Vec<String> {
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut findings = Vec::new();
    for line in exposition.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kinds.insert(name, kind);
        }
    }
    let known: BTreeMap<&str, &Series> = ALL.iter().map(|series| (series.name, series)).collect();
    for (name, kind) in &kinds {
        match known.get(name) {
            Some(series) if series.kind == *kind && series.found != Found::Stored => {}
            Some(series) => findings.push(format!("{name} is a {kind}, and the table says {}", series.kind)),
            None => findings.push(format!("{name} is shown and not in the table")),
        }
    }
    let gone = ALL.iter().filter(|series| series.found == Found::Exposed && !kinds.contains_key(series.name));
    findings.extend(gone.map(|series| format!("{} is in the table and not shown", series.name)));
    let samples = exposition.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in samples {
        let (name, labels) = line.split_once('{').unwrap_or((line, ""));
        let name = name.split(' ').next().unwrap_or_default();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let Some(series) = known.get(name).or_else(|| known.get(family?)) else {
            findings.push(format!("{name} has a sample and no line in the table"));
            continue;
        };
        let said: BTreeSet<&str> = series.labels.split(' ').filter(|label| !label.is_empty()).collect();
        let shown: BTreeSet<&str> = label_names(labels).filter(|label| *label != "le").collect();
        if shown != said {
            findings.push(format!("{name} has the labels {shown:?}, and the table says {said:?}"));
        }
    }
    findings.sort();
    findings.dedup();
    findings
}

/// Of `a="1",b="x"} 3`. Values of ours hold no quotes.
fn label_names(labels: &str) -> impl Iterator<Item = &str> {
    let parts = labels.split('"').step_by(2);
    parts.filter_map(|part| part.trim_start_matches(',').strip_suffix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_series_is_listed_twice() {
        let names: BTreeSet<&str> = ALL.iter().map(|series| series.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn the_source_is_held_against_the_table() {
        assert_eq!(check_source().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn names_are_found_in_code_and_not_in_tests() {
        let source =
            "Family::gauge(\"node_load1\", \"Load of node_load1.\")\n#[cfg(test)]\nmod tests { \"node_x\" }";
        assert_eq!(names(source).collect::<Vec<_>>(), ["node_load1"]);
    }

    #[test]
    fn a_live_exposition_is_held_against_the_table_in_both_directions() {
        let mut text = String::new();
        for series in ALL.iter().filter(|series| series.found == Found::Exposed) {
            text.push_str(&format!("# TYPE {} {}\n", series.name, series.kind));
        }
        text.push_str(
            "node_cpu_seconds_total{cpu=\"0\",mode=\"user\"} 3\nhttp_request_duration_seconds_bucket",
        );
        text.push_str("{environment=\"a\",service=\"b\",version=\"c\",route=\"d\",le=\"1\"} 2\n");
        assert_eq!(check_live(&text), Vec::<String>::new());
        let without = text.replace("# TYPE node_load1 gauge\n", "");
        assert_eq!(check_live(&without), ["node_load1 is in the table and not shown"]);
        let more = format!("{text}# TYPE fairway_new gauge\nfairway_new 1\nnode_load1{{x=\"1\"}} 2\n");
        assert_eq!(check_live(&more).len(), 3, "{:?}", check_live(&more));
    }
}
