//! Names of OpenTelemetry as names of Prometheus: its translation "underscore escaping with suffixes", the default.

/// What a name is for, as far as its suffix goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A sum that only grows.
    Counter,
    Gauge,
    Other,
}

/// Empty when nothing of the name can stay.
pub(super) fn metric(name: &str, unit: &str, kind: Kind) -> String {
    let mut tokens: Vec<&str> = name.split(|char| !is_kept(char)).filter(|token| !token.is_empty()).collect();
    if tokens.is_empty() {
        return String::new();
    }
    let (main, per) = unit_suffixes(unit);
    let (main, per) = (cleaned(main), cleaned(&per));
    let per = if per == "per_" { "" } else { per.trim_end_matches('_') };
    let per = if tokens.contains(&per) { "" } else { per };
    let main = if tokens.contains(&&*main) { "" } else { &main };
    let main = if per.is_empty() { main } else { main.trim_end_matches('_') };
    tokens.extend([main, per].into_iter().filter(|suffix| !suffix.is_empty()));
    if kind == Kind::Counter {
        tokens.retain(|token| *token != "total");
        tokens.push("total");
    }
    if kind == Kind::Gauge && unit == "1" {
        tokens.retain(|token| *token != "ratio");
        tokens.push("ratio");
    }
    let joined = tokens.join("_");
    if joined.starts_with(|first: char| first.is_ascii_digit()) { format!("_{joined}") } else { joined }
}

/// An attribute's key as a label's name.
pub(super) fn label(key: &str) -> String {
    let kept: String =
        key.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect();
    if kept.starts_with(|first: char| first.is_ascii_digit()) {
        format!("key_{kept}")
    } else if kept.starts_with('_') && !kept.starts_with("__") {
        format!("key{kept}")
    } else {
        kept
    }
}

fn is_kept(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == ':'
}

/// Of `By/s`: `bytes` and `per_second`.
fn unit_suffixes(unit: &str) -> (&str, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    // What stands in braces is a remark.
    let named = |part: &'_ str| !part.is_empty() && !part.contains(['{', '}']);
    let (main, per) = (main.trim(), per.trim());
    let main = if named(main) { main_unit(main) } else { "" };
    let per = if named(per) { format!("per_{}", per_unit(per)) } else { String::new() };
    (main, per)
}

fn cleaned(unit: &str) -> String {
    let mut out = String::with_capacity(unit.len());
    for char in unit.chars().map(|char| if is_kept(char) { char } else { '_' }) {
        if !(char == '_' && (out.is_empty() || out.ends_with('_'))) {
            out.push(char);
        }
    }
    out
}

fn main_unit(unit: &str) -> &str {
    match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "1" => "",
        "%" => "percent",
        other => other,
    }
}

fn per_unit(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_as_prometheus_names_them() {
        let check = |name: &str, unit: &str, kind, wanted: &str| assert_eq!(metric(name, unit, kind), wanted);
        check("http.server.request.duration", "s", Kind::Other, "http_server_request_duration_seconds");
        check("system.network.io", "By", Kind::Counter, "system_network_io_bytes_total");
        check("requests.total", "{request}", Kind::Counter, "requests_total");
        check("total.requests", "1", Kind::Counter, "requests_total");
        check("cpu.utilization", "1", Kind::Gauge, "cpu_utilization_ratio");
        check("cpu.ratio.now", "1", Kind::Gauge, "cpu_now_ratio");
        check("disk.io", "By/s", Kind::Gauge, "disk_io_bytes_per_second");
        check("disk.io", "{op}/s", Kind::Gauge, "disk_io_per_second");
        check("disk.io.bytes", "By", Kind::Gauge, "disk_io_bytes");
        check("broken.disk", "%", Kind::Gauge, "broken_disk_percent");
        check("1st", "", Kind::Gauge, "_1st");
        check("a__b..c", "foo__bar", Kind::Gauge, "a_b_c_foo_bar");
        check("a:b", "m/%", Kind::Gauge, "a:b_meters");
        check("...", "s", Kind::Gauge, "");
    }

    #[test]
    fn labels_are_named_as_prometheus_names_them() {
        for (key, wanted) in [
            ("http.method", "http_method"),
            ("1st", "key_1st"),
            ("_x", "key_x"),
            ("__x", "__x"),
            ("naïve:y", "na_ve_y"),
            ("", ""),
        ] {
            assert_eq!(label(key), wanted);
        }
    }
}
