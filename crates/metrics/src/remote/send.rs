//! Remote write, sending: samples as a body.

use std::collections::HashMap;

use crate::labels::Labels;
use crate::remote::wire::{put_bytes, put_double, put_int, put_packed};
use crate::sample::Sample;

/// The two messages of remote write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// A request's body and the headers that say what it is.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// `Content-Encoding: snappy`, `Content-Type`, `X-Prometheus-Remote-Write-Version`.
    pub headers: [(&'static str, &'static str); 3],
    pub body: Vec<u8>,
}

/// The samples in one request. Samples of a series stay in their order.
#[must_use]
pub fn encode(samples: &[(Labels, Sample)], message: Message) -> Outgoing {
    let mut order: Vec<(&Labels, Vec<Sample>)> = Vec::new();
    let mut places: HashMap<&Labels, usize> = HashMap::new();
    for (labels, sample) in samples {
        let place = *places.entry(labels).or_insert_with(|| {
            order.push((labels, Vec::new()));
            order.len() - 1
        });
        order[place].1.push(*sample);
    }
    let plain = match message {
        Message::V1 => encode_v1(&order),
        Message::V2 => encode_v2(&order),
    };
    let body = snap::raw::Encoder::new()
        .compress_vec(&plain)
        .expect("snappy takes everything below 4 GiB, and a batch is far below");
    let (content_type, version) = match message {
        Message::V1 => ("application/x-protobuf", "0.1.0"),
        Message::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
    };
    let headers = [
        ("Content-Encoding", "snappy"),
        ("Content-Type", content_type),
        ("X-Prometheus-Remote-Write-Version", version),
    ];
    Outgoing { headers, body }
}

fn put_sample(out: &mut Vec<u8>, sample: Sample) {
    let mut message = Vec::with_capacity(20);
    put_double(&mut message, 1, sample.value);
    put_int(&mut message, 2, sample.at_ms);
    put_bytes(out, 2, &message);
}

fn encode_v1(series: &[(&Labels, Vec<Sample>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (labels, samples) in series {
        let mut one = Vec::new();
        for (name, value) in labels.iter() {
            let mut label = Vec::with_capacity(name.len() + value.len() + 8);
            put_bytes(&mut label, 1, name.as_bytes());
            put_bytes(&mut label, 2, value.as_bytes());
            put_bytes(&mut one, 1, &label);
        }
        samples.iter().for_each(|sample| put_sample(&mut one, *sample));
        put_bytes(&mut out, 1, &one);
    }
    out
}

fn encode_v2<'a>(series: &[(&'a Labels, Vec<Sample>)]) -> Vec<u8> {
    // The first symbol is the empty text: a reference of 0 says "nothing".
    let mut symbols: Vec<&'a str> = vec![""];
    let mut places: HashMap<&'a str, u32> = HashMap::from([("", 0)]);
    let mut all = Vec::new();
    for (labels, samples) in series {
        let mut references = Vec::with_capacity(2 * labels.len());
        for text in labels.iter().flat_map(|(name, value)| [name, value]) {
            let next = u32::try_from(symbols.len()).unwrap_or(u32::MAX);
            let place = *places.entry(text).or_insert(next);
            if place == next {
                symbols.push(text);
            }
            references.push(place);
        }
        let mut one = Vec::new();
        put_packed(&mut one, 1, &references);
        samples.iter().for_each(|sample| put_sample(&mut one, *sample));
        put_bytes(&mut all, 5, &one);
    }
    let mut out = Vec::with_capacity(all.len());
    symbols.iter().for_each(|symbol| put_bytes(&mut out, 4, symbol.as_bytes()));
    out.append(&mut all);
    out
}
