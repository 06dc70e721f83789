use std::io::Write as _;

use prost::encoding::{WireType, encode_key};

use super::*;
use crate::remote::wire::put_double;
use crate::sample::is_stale;

const PROTOBUF: &str = "application/x-protobuf";
const AT_NS: u64 = 1_700_000_000_123_456_789;

/// A message being written.
#[derive(Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn new() -> Self {
        Self::default()
    }

    fn text(mut self, tag: u32, text: &str) -> Self {
        put_bytes(&mut self.0, tag, text.as_bytes());
        self
    }

    fn message(mut self, tag: u32, message: Self) -> Self {
        put_bytes(&mut self.0, tag, &message.0);
        self
    }

    fn int(mut self, tag: u32, value: i64) -> Self {
        put_int(&mut self.0, tag, value);
        self
    }

    fn double(mut self, tag: u32, value: f64) -> Self {
        put_double(&mut self.0, tag, value);
        self
    }

    fn fixed(mut self, tag: u32, value: u64) -> Self {
        encode_key(tag, WireType::SixtyFourBit, &mut self.0);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn packed(mut self, tag: u32, values: &[u64]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        put_bytes(&mut self.0, tag, &bytes);
        self
    }

    fn attribute(self, tag: u32, key: &str, value: &str) -> Self {
        self.message(tag, Self::new().text(1, key).message(2, Self::new().text(1, value)))
    }
}

fn metric(name: &str, unit: &str, tag: u32, data: Message) -> Message {
    Message::new().text(1, name).text(2, "What it is.").text(3, unit).message(tag, data)
}

/// A request with these metrics, of a resource that is known.
fn request(metrics: &[Message]) -> Message {
    let resource = Message::new()
        .attribute(1, "service.name", "api")
        .attribute(1, "service.namespace", "shop")
        .attribute(1, "service.instance.id", "i1")
        .attribute(1, "host.name", "h1");
    let scope = metrics.iter().fold(Message::new(), |scope, metric| scope.message(2, metric.clone()));
    Message::new().message(1, Message::new().message(1, resource).message(2, scope))
}

fn read(request: &Message) -> Otlp {
    decode(PROTOBUF, "", &request.0, &ReceiveLimits::default()).unwrap()
}

fn lines(otlp: &Otlp) -> Vec<String> {
    let of = |series: &ReceivedSeries| {
        let labels = series.labels.filter(|name| name != "job" && name != "instance");
        assert_eq!((series.labels.get("job"), series.labels.get("instance")), (Some("shop/api"), Some("i1")));
        let value = |sample: &Sample| {
            let value = if is_stale(sample.value) { "stale".to_owned() } else { sample.value.to_string() };
            format!("{labels} {value} @{}", sample.at_ms)
        };
        series.samples.iter().map(value).collect::<Vec<_>>()
    };
    otlp.series.iter().flat_map(of).collect()
}

fn request_with_all() -> Message {
    let point = Message::new().fixed(3, AT_NS).double(4, 0.5).attribute(7, "http.method", "GET");
    let point = point.attribute(7, "http_method", "PUT");
    let gauge = metric("queue.fill", "1", 5, Message::new().message(1, point));
    let growing = Message::new().int(2, 2).int(3, 1);
    let counted = Message::new().fixed(3, AT_NS).fixed(6, (-7_i64).cast_unsigned());
    let sum = metric("orders", "{order}", 7, growing.message(1, counted));
    let ended = Message::new().fixed(3, AT_NS).int(8, 1);
    let level = metric("open.orders", "", 7, Message::new().int(2, 2).message(1, ended));
    let bounds = [0.5_f64.to_bits(), 2.0_f64.to_bits()];
    let point =
        Message::new().fixed(3, AT_NS).fixed(4, 6).double(5, 3.5).packed(6, &[1, 2, 3]).packed(7, &bounds);
    let histogram =
        metric("http.server.request.duration", "s", 9, Message::new().int(2, 2).message(1, point));
    let quantile = Message::new().double(1, 0.99).double(2, 0.25);
    let point = Message::new().fixed(3, AT_NS).fixed(4, 2).double(5, 0.4).message(6, quantile);
    let summary = metric("gc.pause", "ms", 11, Message::new().message(1, point));
    request(&[gauge, sum, level, histogram, summary])
}

#[test]
fn points_become_samples_as_in_prometheus() {
    let otlp = read(&request_with_all());
    assert_eq!(
        lines(&otlp),
        [
            r#"queue_fill_ratio{http_method="GET;PUT"} 0.5 @1700000000123"#,
            "orders_total -7 @1700000000123",
            "open_orders stale @1700000000123",
            "http_server_request_duration_seconds_sum 3.5 @1700000000123",
            "http_server_request_duration_seconds_count 6 @1700000000123",
            r#"http_server_request_duration_seconds_bucket{le="0.5"} 1 @1700000000123"#,
            r#"http_server_request_duration_seconds_bucket{le="2"} 3 @1700000000123"#,
            r#"http_server_request_duration_seconds_bucket{le="+Inf"} 6 @1700000000123"#,
            "gc_pause_milliseconds_sum 0.4 @1700000000123",
            "gc_pause_milliseconds_count 2 @1700000000123",
            r#"gc_pause_milliseconds{quantile="0.99"} 0.25 @1700000000123"#,
            r#"target_info{host_name="h1"} 1 @1700000000123"#,
        ]
    );
    let kinds: Vec<MetricType> = otlp.metadata.iter().map(|(_, metadata)| metadata.kind).collect();
    let (gauge, counter) = (MetricType::Gauge, MetricType::Counter);
    assert_eq!(kinds, [gauge, counter, gauge, MetricType::Histogram, MetricType::Summary]);
    assert!(otlp.response(0).is_empty());
}

#[test]
fn what_is_not_cumulative_is_refused_and_told() {
    let point = || Message::new().fixed(3, AT_NS).double(4, 1.0);
    let delta = metric("d", "", 7, Message::new().int(2, 1).message(1, point()).message(1, point()));
    let unknown = metric("u", "", 9, Message::new().message(1, Message::new()));
    let exponential = metric("e", "", 10, Message::new().int(2, 2).message(1, Message::new()));
    let good =
        metric("g", "", 5, Message::new().message(1, point()).message(1, Message::new().double(4, 1.0)));
    let otlp = read(&request(&[delta, unknown, exponential, good]));
    assert_eq!((otlp.points_refused, otlp.samples()), (5, 2));
    assert_eq!(otlp.problem.as_deref(), Some("metric \"d\" is not cumulative: delta cannot be kept"));
    let partial = Message::new().int(1, 7).text(2, otlp.problem.as_deref().unwrap());
    assert_eq!(otlp.response(2), Message::new().message(1, partial).0);
}

#[test]
fn values_of_any_kind_become_text() {
    let any = |value: Message| Message::new().text(1, "v").message(2, value);
    let check = |value: Message, wanted: &str| {
        let point = Message::new().fixed(3, AT_NS).double(4, 1.0).message(7, any(value));
        let otlp = read(&request(&[metric("g", "", 5, Message::new().message(1, point))]));
        assert_eq!(otlp.series[0].labels.get("v"), Some(wanted));
    };
    check(Message::new().int(2, 1), "true");
    check(Message::new().int(3, -4), "-4");
    check(Message::new().double(4, 0.25), "0.25");
    check(Message::new().text(7, "foo"), "Zm9v");
    let list = Message::new().message(1, Message::new().int(3, 1)).message(1, Message::new().text(1, "a\""));
    check(Message::new().message(5, list), r#"[1,"a\""]"#);
    let map = Message::new().message(1, Message::new().text(1, "k").message(2, Message::new().int(2, 1)));
    check(Message::new().message(6, map), r#"{"k":true}"#);
    // Deep nesting must not take the stack.
    let deep = (0..10_000).fold(Message::new().int(3, 1), |inner, _| {
        Message::new().message(5, Message::new().message(1, inner))
    });
    let point = Message::new().fixed(3, AT_NS).double(4, 1.0).message(7, any(deep));
    assert_eq!(read(&request(&[metric("g", "", 5, Message::new().message(1, point))])).samples(), 2);
}

#[test]
fn a_gzipped_body_is_read_up_to_the_limit() {
    let gzip = |plain: &[u8]| {
        let mut packing = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packing.write_all(plain).unwrap();
        packing.finish().unwrap()
    };
    let request = request_with_all();
    let limits = ReceiveLimits::default();
    assert_eq!(decode(PROTOBUF, "gzip", &gzip(&request.0), &limits).unwrap().samples(), 12);
    let bomb = gzip(&vec![0; (32 << 20) + 1]);
    assert!(bomb.len() < 1 << 16);
    let refused = decode(PROTOBUF, "gzip", &bomb, &limits).unwrap_err();
    assert_eq!(refused, OtlpRefused::TooLarge { what: "bytes", limit: 32 << 20 });
    assert_eq!(decode(PROTOBUF, "gzip", &request.0, &limits).unwrap_err(), OtlpRefused::Compression);
    assert_eq!(decode(PROTOBUF, "br", &request.0, &limits).unwrap_err().answer().status, 415);
    assert_eq!(decode("application/json", "", b"{}", &limits).unwrap_err().answer().status, 415);
}

#[test]
fn a_long_name_on_many_short_points_is_refused() {
    let limits = ReceiveLimits { bytes_max: 20_000, ..ReceiveLimits::default() };
    let data = (0..400).fold(Message::new(), |data, at| {
        data.message(1, Message::new().fixed(3, AT_NS).double(4, 1.0).attribute(7, "k", &at.to_string()))
    });
    let request = request(&[metric(&"n".repeat(1000), "", 5, data)]);
    let refused = decode(PROTOBUF, "", &request.0, &limits).unwrap_err();
    assert_eq!(refused, OtlpRefused::TooLarge { what: "bytes in labels", limit: 80_000 });
    let limits = ReceiveLimits { series_max: 10, ..ReceiveLimits::default() };
    let refused = decode(PROTOBUF, "", &request.0, &limits).unwrap_err();
    assert_eq!(refused, OtlpRefused::TooLarge { what: "series", limit: 10 });
}

#[test]
fn garbage_is_refused_or_read_and_no_more() {
    let plain = request_with_all().0;
    let limits = ReceiveLimits::default();
    for end in 0..plain.len() {
        let _ = decode(PROTOBUF, "", &plain[..end], &limits);
    }
    let mut state = 7_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap()
    };
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut bad = plain.clone();
        for _ in 0..1 + random() % 4 {
            let at = random() % bad.len();
            bad[at] = u8::try_from(random() % 256).unwrap();
        }
        refused += usize::from(decode(PROTOBUF, "", &bad, &limits).is_err());
    }
    assert!(refused > 1000, "{refused}: the garbage is no good");
}
