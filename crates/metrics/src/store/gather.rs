//! The samples of one series, put together from chunks of several places.

use crate::sample::{Sample, TimestampMs};

use super::chunk::{Garbled, decode};

/// Adds the samples of a chunk that are in the range. Where two places have a sample of one time, the first one added
/// stays: they are equal, unless a copy is damaged.
pub(super) fn add_chunk(
    out: &mut Vec<Sample>,
    bytes: &[u8],
    count: u16,
    from_ms: TimestampMs,
    to_ms: TimestampMs,
) -> Result<(), Garbled> {
    let start = out.len();
    if let Err(garbled) = decode(bytes, count, out) {
        out.truncate(start);
        return Err(garbled);
    }
    while out.len() > start && out.last().is_some_and(|last| last.at_ms > to_ms) {
        out.pop();
    }
    let early = out[start..].partition_point(|sample| sample.at_ms < from_ms);
    if early > 0 {
        out.drain(start..start + early);
    }
    if start > 0 && out.len() > start && out[start].at_ms <= out[start - 1].at_ms {
        // Stable, so that the earlier one of two stays first.
        out.sort_by_key(|sample| sample.at_ms);
        out.dedup_by_key(|sample| sample.at_ms);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::chunk::pack;
    use super::*;

    fn chunk(list: &[(i64, f64)]) -> super::super::chunk::Chunk {
        pack(&list.iter().map(|(at_ms, value)| Sample { at_ms: *at_ms, value: *value }).collect::<Vec<_>>())
            .swap_remove(0)
    }

    fn check(chunks: &[&[(i64, f64)]], range: (i64, i64), expected: &[(i64, f64)]) {
        let mut out = Vec::new();
        for list in chunks {
            let chunk = chunk(list);
            add_chunk(&mut out, &chunk.bytes, chunk.count, range.0, range.1).unwrap();
        }
        assert_eq!(out.iter().map(|sample| (sample.at_ms, sample.value)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn chunks_are_cut_to_the_range_and_nothing_is_there_twice() {
        let one: &[(i64, f64)] = &[(1, 1.0), (2, 2.0), (3, 3.0)];
        check(&[one], (2, 2), &[(2, 2.0)]);
        check(&[one], (4, 9), &[]);
        check(&[one, &[(4, 4.0)]], (0, 9), &[(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]);
        check(&[one, &[(2, 7.0), (3, 3.0), (4, 4.0)]], (0, 9), &[(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]);
        check(&[&[(5, 5.0)], one], (2, 9), &[(2, 2.0), (3, 3.0), (5, 5.0)]);
    }
}
