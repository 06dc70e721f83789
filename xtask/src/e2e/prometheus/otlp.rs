//! As much of OTLP's protobuf as one request needs. Field numbers are those of
//! `opentelemetry/proto/metrics/v1/metrics.proto`.

/// `ExportMetricsServiceRequest`: a gauge and a monotonic, cumulative sum of one service.
pub fn request(at_ns: u64, gauge: f64, sum: f64) -> Vec<u8> {
    let point = |value: f64| {
        let attribute = nested(7, &attribute("queue", "mail"));
        [attribute, fixed(3, at_ns), fixed(4, value.to_bits())].concat()
    };
    let gauge = [text(1, "otlp.depth"), nested(5, &nested(1, &point(gauge)))].concat();
    // Aggregation temporality 2 is cumulative.
    let sum = [nested(1, &point(sum)), number(2, 2), number(3, 1)].concat();
    let sum = [text(1, "otlp.jobs"), nested(7, &sum)].concat();
    let scope = [nested(2, &gauge), nested(2, &sum)].concat();
    let resource = nested(1, &attribute("service.name", "collector"));
    nested(1, &[nested(1, &resource), nested(2, &scope)].concat())
}

fn attribute(key: &str, value: &str) -> Vec<u8> {
    [text(1, key), nested(2, &text(1, value))].concat()
}

fn text(field: u32, text: &str) -> Vec<u8> {
    nested(field, text.as_bytes())
}

fn nested(field: u32, bytes: &[u8]) -> Vec<u8> {
    [varint(u64::from(field) << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn number(field: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(field) << 3), varint(value)].concat()
}

fn fixed(field: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(field) << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use fairway_metrics::remote::{ReceiveLimits, otlp};

    #[test]
    fn it_is_read_as_what_it_means() {
        let body = super::request(1_700_000_000_000_000_000, 2.5, 40.0);
        let read = otlp::decode("application/x-protobuf", "", &body, &ReceiveLimits::default()).unwrap();
        let names: Vec<&str> =
            read.series.iter().filter_map(|series| series.labels.get("__name__")).collect();
        assert!(names.contains(&"otlp_depth") && names.contains(&"otlp_jobs_total"), "{names:?}");
        assert_eq!(read.points_refused, 0);
    }
}
