use super::*;
use crate::sample::{NAN_BITS, stale};

fn samples(values: &[f64]) -> Vec<Sample> {
    values.iter().enumerate().map(|(i, value)| Sample { at_ms: i as i64 * 15_000, value: *value }).collect()
}

fn bits(samples: &[Sample]) -> Vec<(i64, u64)> {
    samples.iter().map(|sample| (sample.at_ms, sample.value.to_bits())).collect()
}

/// Packs and unpacks, and gives the bytes that it took.
fn check(samples: &[Sample]) -> usize {
    let chunks = pack(samples);
    let mut back = Vec::new();
    for chunk in &chunks {
        assert!(chunk.bytes.len() <= BYTES_MAX, "{chunk:?}");
        let start = back.len();
        chunk.decode(&mut back).unwrap();
        assert_eq!((chunk.min_ms, chunk.max_ms), (back[start].at_ms, back[back.len() - 1].at_ms));
        assert_eq!(usize::from(chunk.count), back.len() - start);
    }
    assert_eq!(bits(&back), bits(samples));
    chunks.iter().map(|chunk| chunk.bytes.len()).sum()
}

#[test]
fn every_bit_of_a_value_comes_back() {
    let odd = [
        0.0,
        -0.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        f64::from_bits(NAN_BITS),
        stale(),
        f64::MIN,
        f64::MAX,
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        f64::EPSILON,
        WHOLE_MAX,
        -WHOLE_MAX,
        WHOLE_MAX + 2.0,
        0.1,
        0.1 + 0.2,
        1e-15,
        1e-16,
        123_456.789,
    ];
    check(&samples(&odd));
    for value in odd {
        check(&samples(&[value]));
        check(&samples(&[value; 121]));
        check(&samples(&[1.0, value, 2.0]));
        check(&samples(&[value, 0.25]));
    }
}

#[test]
fn every_time_comes_back() {
    for times in [
        vec![i64::MIN, i64::MAX],
        vec![i64::MIN, -1, 0, 1, i64::MAX],
        vec![-30_000, -15_000, 0, 15_001, 29_999, 45_000],
        vec![i64::MAX - 1, i64::MAX],
        vec![i64::MIN, i64::MIN + 1],
    ] {
        for value in [1.0, f64::NAN] {
            check(&times.iter().map(|at_ms| Sample { at_ms: *at_ms, value }).collect::<Vec<_>>());
        }
    }
}

#[test]
fn whatever_somebody_stores_comes_back() {
    let mut rng = fastrand::Rng::with_seed(7);
    for round in 0..600 {
        let digits = 10_f64.powi(rng.i32(0..8));
        let mut at_ms = rng.i64(-1 << 40..1 << 40);
        let mut level = rng.f64() * 1e4;
        let list: Vec<Sample> = (0..rng.usize(1..300))
            .map(|_| {
                at_ms += if rng.u8(..) < 20 { rng.i64(1..1 << 30) } else { 15_000 + rng.i64(-9..9) };
                level += rng.f64() * 10.0 - 3.0;
                let value = match round % 4 {
                    0 => (level * digits).round() / digits,
                    1 => level,
                    2 => f64::from_bits(rng.u64(..)),
                    _ => level.round() * 1e9,
                };
                Sample { at_ms, value: if rng.u8(..) == 0 { stale() } else { value } }
            })
            .collect();
        check(&list);
    }
}

#[test]
fn typical_samples_take_less_than_two_bytes() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut counter = 0.0;
    let list = |value: &mut dyn FnMut() -> f64| samples(&(0..120).map(|_| value()).collect::<Vec<_>>());
    for (name, list, bytes_max) in [
        ("constant", list(&mut || 1.0), 24),
        (
            "steady counter",
            list(&mut || {
                counter += 15.0;
                counter
            }),
            24,
        ),
        (
            "counter",
            list(&mut || {
                counter += rng.f64().mul_add(40.0, 80.0).round();
                counter
            }),
            160,
        ),
        (
            "cpu seconds",
            list(&mut || {
                counter += (rng.f64() * 30.0).round() / 100.0;
                counter = (counter * 100.0).round() / 100.0;
                counter
            }),
            160,
        ),
        (
            "gauge",
            list(&mut || (fastrand::Rng::with_seed(counter as u64).f64() * 1000.0).round() / 10.0),
            240,
        ),
    ] {
        let bytes = check(&list);
        assert!(bytes <= bytes_max, "{name}: {bytes}");
    }
}

#[test]
fn what_is_no_chunk_is_refused_and_never_panics() {
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..rng.usize(0..64)).map(|_| rng.u8(..)).collect();
        if let Some(first) = bytes.first_mut() {
            *first = rng.u8(0..4);
        }
        let mut out = Vec::new();
        let _ = decode(&bytes, rng.u16(..300), &mut out);
        assert!(out.len() <= 300);
    }
    assert_eq!(decode(&[], 1, &mut Vec::new()), Err(Garbled));
    let chunk = &pack(&samples(&[1.5, 2.5, f64::NAN, 7.0]))[0];
    for end in 0..chunk.bytes.len() {
        assert_eq!(decode(&chunk.bytes[..end], chunk.count, &mut Vec::new()), Err(Garbled), "{end}");
    }
}
