use super::*;
use crate::remote::send::{Outgoing, encode};
use crate::remote::wire::{put_bytes, put_int, put_packed};
use crate::sample::{STALE_BITS, stale};

const V1: &str = "application/x-protobuf";
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
const NOW_MS: i64 = 1_700_000_000_000;

fn batch() -> Vec<(Labels, Sample)> {
    let series = |code: &str| Labels::new([(NAME, "http_requests_total"), ("code", code), ("näme", "ü\"\n")]);
    let at = |at_ms: i64, value: f64| Sample { at_ms, value };
    vec![
        (series("2xx"), at(NOW_MS, 1.5)),
        (series("5xx"), at(NOW_MS, -0.0)),
        (series("2xx"), at(NOW_MS + 1, stale())),
        (series("5xx"), at(-5, f64::INFINITY)),
    ]
}

fn squeezed(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).unwrap()
}

fn received(content_type: &str, body: &[u8]) -> Result<Received, Refused> {
    decode(content_type, "snappy", body, &ReceiveLimits::default(), NOW_MS)
}

#[test]
fn what_is_sent_is_received() {
    for (message, content_type) in [(Message::V1, V1), (Message::V2, V2)] {
        let outgoing = encode(&batch(), message);
        assert_eq!(outgoing.headers[1], ("Content-Type", content_type));
        let received = received(content_type, &outgoing.body).unwrap();
        assert_eq!((received.message, received.samples(), received.samples_refused), (message, 4, 0));
        let bits: Vec<Vec<(i64, u64)>> = received
            .series
            .iter()
            .map(|series| {
                series.samples.iter().map(|sample| (sample.at_ms, sample.value.to_bits())).collect()
            })
            .collect();
        assert_eq!(
            bits,
            [
                vec![(NOW_MS, 1.5_f64.to_bits()), (NOW_MS + 1, STALE_BITS)],
                vec![(NOW_MS, (-0.0_f64).to_bits()), (-5, f64::INFINITY.to_bits())],
            ]
        );
        assert_eq!(received.series[0].labels, batch()[0].0);
    }
}

/// What came of it, without the order of two series that are one.
fn told(received: &Result<Received, Refused>) -> String {
    match received {
        Ok(Received { message, series, samples_refused, problem, .. }) => {
            format!("{message:?} {series:?} {samples_refused} {problem:?}")
        }
        Err(refused) => format!("{refused:?}"),
    }
}

#[test]
fn a_series_that_was_seen_before_is_not_taken_apart_again() {
    let receiver = Receiver::new(ReceiveLimits::default());
    let kept: Vec<Labels> = batch().into_iter().map(|(labels, _)| labels).collect();
    let own = |labels: &Labels| kept.iter().find(|kept| *kept == labels).cloned();
    // What one message taught holds for the other.
    for (round, message) in [Message::V2, Message::V1, Message::V1, Message::V2].into_iter().enumerate() {
        let Outgoing { headers, body } = encode(&batch(), message);
        let received = receiver.decode(headers[1].1, "snappy", &body, NOW_MS, own);
        let alone = decode(headers[1].1, "snappy", &body, &ReceiveLimits::default(), NOW_MS);
        assert_eq!(told(&received), told(&alone));
        let of_store = |series: &ReceivedSeries| {
            kept.iter().any(|kept| std::ptr::eq(kept.pairs(), series.labels.pairs()))
        };
        assert_eq!(received.unwrap().series.iter().all(of_store), round > 0);
    }
}

#[test]
fn labels_that_come_after_the_samples_count_too() {
    let receiver = Receiver::new(ReceiveLimits::default());
    let label = |name: &str, value: &str| {
        let (mut label, mut field) = (Vec::new(), Vec::new());
        put_bytes(&mut label, 1, name.as_bytes());
        put_bytes(&mut label, 2, value.as_bytes());
        put_bytes(&mut field, 1, &label);
        field
    };
    let mut sample = Vec::new();
    put_bytes(&mut sample, 2, &[]);
    let names = |parts: &[&[u8]]| {
        let mut plain = Vec::new();
        put_bytes(&mut plain, 1, &parts.concat());
        let own = |labels: &Labels| Some(labels.clone());
        let received = receiver.decode(V1, "snappy", &squeezed(&plain), NOW_MS, own).unwrap();
        received.series.iter().map(|series| series.labels.to_string()).collect::<Vec<_>>()
    };
    let (up, job) = (label(NAME, "up"), label("job", "api"));
    assert_eq!(names(&[&up, &sample]), ["up"]);
    assert_eq!(names(&[&up, &sample, &job]), [r#"up{job="api"}"#]);
    assert_eq!(names(&[&sample, &up]), ["up"]);
    assert_eq!(names(&[&up, &job, &sample]), [r#"up{job="api"}"#]);
    assert_eq!(names(&[&up, &sample]), ["up"]);
}

#[test]
fn headers_say_which_message_it_is() {
    let body = encode(&batch(), Message::V1).body;
    let refusal = |content_type: &str, encoding: &str| {
        let refused = decode(content_type, encoding, &body, &ReceiveLimits::default(), NOW_MS).unwrap_err();
        (refused.status(), refused.to_string())
    };
    assert_eq!(refusal("text/plain", "snappy").0, 415);
    assert_eq!(refusal("application/x-protobuf;proto=x.Y", "snappy").0, 415);
    assert_eq!(refusal(V1, "gzip"), (415, "\"gzip\" is not an encoding that is read here".to_owned()));
    for (content_type, encoding) in
        [("", ""), (V1, "Snappy"), ("application/x-protobuf; proto=prometheus.WriteRequest", "")]
    {
        assert!(decode(content_type, encoding, &body, &ReceiveLimits::default(), NOW_MS).is_ok());
    }
}

#[test]
fn a_body_that_lies_about_its_size_is_refused_before_anything_is_allocated() {
    // Snappy's header is the length as a varint: these say 4 GiB - 1, 31 MiB, and 8 where there are 2.
    let four_gib = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
    assert_eq!(received(V1, &four_gib).unwrap_err(), Refused::TooLarge { what: "bytes", limit: 32 << 20 });
    let thirty_one_mib = [0x80, 0x80, 0xc0, 0x0f, 0, b'x'];
    assert_eq!(received(V1, &thirty_one_mib).unwrap_err(), Refused::Lies { said: 31 << 20 });
    assert_eq!(received(V1, &[8, 0x04, b'x', b'y']).unwrap_err(), Refused::Compression);
    assert_eq!(received(V1, b"").unwrap_err(), Refused::Compression);
    // What is truly that dense is read.
    let dense = squeezed(&vec![0x42; 1 << 20]);
    assert_ne!(received(V1, &dense).unwrap_err(), Refused::Lies { said: 1 << 20 });
}

#[test]
fn limits_hold_for_both_messages() {
    let check = |limits: ReceiveLimits, what: &str| {
        for (message, content_type) in [(Message::V1, V1), (Message::V2, V2)] {
            let body = encode(&batch(), message).body;
            match decode(content_type, "snappy", &body, &limits, NOW_MS) {
                Err(Refused::TooLarge { what: found, .. }) => assert_eq!(found, what),
                other => panic!("{what}: {other:?}"),
            }
        }
    };
    let all = ReceiveLimits::default();
    check(ReceiveLimits { bytes_max: 50, ..all }, "bytes");
    check(ReceiveLimits { series_max: 1, ..all }, "series");
    check(ReceiveLimits { samples_max: 3, ..all }, "samples");
    check(ReceiveLimits { labels_max: 2, ..all }, "labels on a series");
    check(ReceiveLimits { name_bytes_max: 10, ..all }, "bytes in a label's value");
    check(ReceiveLimits { value_bytes_max: 2, ..all }, "bytes in a label's value");
}

/// A v1 series of these labels with one sample.
fn series_v1(labels: &[(&str, &str)], at_ms: i64) -> Vec<u8> {
    let mut series = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        put_bytes(&mut label, 1, name.as_bytes());
        put_bytes(&mut label, 2, value.as_bytes());
        put_bytes(&mut series, 1, &label);
    }
    let mut sample = Vec::new();
    put_int(&mut sample, 2, at_ms);
    put_bytes(&mut series, 2, &sample);
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &series);
    out
}

#[test]
fn a_series_that_cannot_be_is_refused_and_the_others_are_kept() {
    let check = |labels: &[(&str, &str)], at_ms: i64, why: &str| {
        let mut plain = series_v1(labels, at_ms);
        plain.extend(series_v1(&[(NAME, "good"), ("empty", "")], NOW_MS));
        let received = received(V1, &squeezed(&plain)).unwrap();
        assert_eq!(
            (received.samples(), received.samples_refused, received.problem.as_deref()),
            (1, 1, Some(why))
        );
        assert_eq!(received.series[0].labels.to_string(), "good");
        let answer = received.answer(&Stored::All);
        assert_eq!((answer.status, answer.body), (400, format!("1 samples were refused: {why}")));
    };
    check(&[("a", "b")], NOW_MS, "the series {a=\"b\"} has no metric name");
    check(&[(NAME, "")], NOW_MS, "the series {} has no metric name");
    check(&[(NAME, "x"), ("", "b")], NOW_MS, "a label has no name");
    check(&[(NAME, "x"), ("a", "b"), ("a", "c")], NOW_MS, "the series x{a=\"c\"} has a label twice");
    check(&[(NAME, "x")], NOW_MS + 600_001, "out of bounds: a sample of x is too far ahead");
}

#[test]
fn a_reference_to_nothing_is_refused() {
    let check = |references: &[u32], why: &str| {
        let mut series = Vec::new();
        put_packed(&mut series, 1, references);
        put_bytes(&mut series, 2, &[]);
        let mut plain = Vec::new();
        put_bytes(&mut plain, 5, &series);
        for symbol in ["", NAME, "up"] {
            put_bytes(&mut plain, 4, symbol.as_bytes());
        }
        let received = received(V2, &squeezed(&plain)).unwrap();
        assert_eq!(received.problem.as_deref(), Some(why));
    };
    check(&[1, 2, 1], "a series has a label name without a value");
    check(&[1, 3], "a series refers to a symbol that is not there");
    check(&[2, 1], "the series {up=\"__name__\"} has no metric name");
}

#[test]
fn answers_tell_the_sender_whether_to_come_again() {
    for (message, content_type) in [(Message::V1, V1), (Message::V2, V2)] {
        let received = received(content_type, &encode(&batch(), message).body).unwrap();
        let headers = |written: &str| match message {
            Message::V1 => Vec::new(),
            Message::V2 => vec![
                ("X-Prometheus-Remote-Write-Samples-Written", written.to_owned()),
                ("X-Prometheus-Remote-Write-Histograms-Written", "0".to_owned()),
                ("X-Prometheus-Remote-Write-Exemplars-Written", "0".to_owned()),
            ],
        };
        let all = received.answer(&Stored::All);
        assert_eq!(all, Answer { status: 204, headers: headers("4"), body: String::new() });
        let part = received.answer(&Stored::Some { written: 3, why: "too old".to_owned() });
        assert_eq!(part, Answer { status: 400, headers: headers("3"), body: "too old".to_owned() });
        let none =
            received.answer(&Stored::None { why: "disk full".to_owned(), retry_after_seconds: Some(5) });
        let mut wanted = headers("0");
        wanted.push(("Retry-After", "5".to_owned()));
        assert_eq!(none, Answer { status: 503, headers: wanted, body: "disk full".to_owned() });
    }
}

#[test]
fn histograms_exemplars_and_metadata_are_counted() {
    let mut series = Vec::new();
    let mut label = Vec::new();
    put_bytes(&mut label, 1, NAME.as_bytes());
    put_bytes(&mut label, 2, b"h");
    put_bytes(&mut series, 1, &label);
    put_bytes(&mut series, 3, b"");
    put_bytes(&mut series, 4, b"");
    put_bytes(&mut series, 4, b"");
    let mut plain = Vec::new();
    put_bytes(&mut plain, 1, &series);
    put_bytes(&mut plain, 3, b"");
    let received = received(V1, &squeezed(&plain)).unwrap();
    assert_eq!(
        (received.histograms_ignored, received.exemplars_ignored, received.metadata_ignored),
        (2, 1, 1)
    );
    assert_eq!((received.samples(), received.answer(&Stored::All).status), (0, 204));
}

#[test]
fn garbage_is_refused_or_read_and_no_more() {
    let mut state = 0x5eed_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap()
    };
    let mut refused = 0;
    // One that knows the good series, and those of the garbage that are none the worse for it.
    let receiver = Receiver::new(ReceiveLimits::default());
    for message in [Message::V1, Message::V2] {
        let content_type = encode(&batch(), message).headers[1].1;
        let plain = snap::raw::Decoder::new().decompress_vec(&encode(&batch(), message).body).unwrap();
        for end in 0..plain.len() {
            let _ = received(content_type, &squeezed(&plain[..end]));
            let _ = received(content_type, &encode(&batch(), message).body[..end / 2]).unwrap_err();
        }
        for _ in 0..10_000 {
            let mut bad = plain.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() % bad.len();
                bad[at] = u8::try_from(random() % 256).unwrap();
            }
            let bad = squeezed(&bad);
            let alone = received(content_type, &bad);
            let own = |labels: &Labels| Some(labels.clone());
            let after_others = receiver.decode(content_type, "snappy", &bad, NOW_MS, own);
            assert_eq!(told(&after_others), told(&alone));
            refused += usize::from(alone.is_err());
        }
    }
    assert!(refused > 1000, "{refused}: the garbage is no good");
}
