//! `topk`, `bottomk`, `limitk`, `limit_ratio`: which of a group's elements stay.

use super::aggregate::{Groups, Param};
use super::column::{ABSENT, Column};
use super::grid::Grid;
use super::{Eval, Run};
use crate::labels::Labels;
use crate::promql::ast::{AggregateOp, Grouping};

#[derive(Clone, Copy, Debug)]
struct Entry {
    value: f64,
    column: usize,
}

/// A binary heap that moves its elements exactly as Go's `container/heap`, because that decides which of equal ones stay.
#[derive(Debug, Default)]
struct Heap {
    entries: Vec<Entry>,
}

impl Heap {
    fn push(&mut self, entry: Entry, less: impl Fn(f64, f64) -> bool) {
        self.entries.push(entry);
        let mut child = self.entries.len() - 1;
        while child > 0 {
            let parent = (child - 1) / 2;
            if !less(self.entries[child].value, self.entries[parent].value) {
                break;
            }
            self.entries.swap(child, parent);
            child = parent;
        }
    }

    /// Puts the first element where it belongs.
    fn sink(&mut self, less: impl Fn(f64, f64) -> bool) {
        let mut parent = 0;
        loop {
            let left = 2 * parent + 1;
            if left >= self.entries.len() {
                return;
            }
            let right = left + 1;
            let child =
                if right < self.entries.len() && less(self.entries[right].value, self.entries[left].value) {
                    right
                } else {
                    left
                };
            if !less(self.entries[child].value, self.entries[parent].value) {
                return;
            }
            self.entries.swap(parent, child);
            parent = child;
        }
    }
}

fn smaller(a: f64, b: f64) -> bool {
    a.is_nan() || a < b
}

fn larger(a: f64, b: f64) -> bool {
    a.is_nan() || a > b
}

impl Run<'_> {
    pub(super) fn rank(
        &mut self,
        op: AggregateOp,
        columns: Vec<Column>,
        grouping: &Grouping,
        param: &Param,
        grid: Grid,
    ) -> Eval<Vec<Column>> {
        let groups = Groups::new(&columns, grouping);
        let mut out: Vec<Column> = columns
            .iter()
            .map(|column| Column::empty(column.labels.clone(), column.drops_name, grid.count))
            .collect();
        let mut order = Vec::new();
        let mut heaps: Vec<Heap> = Vec::new();
        heaps.resize_with(groups.labels.len(), Heap::default);
        let less = if op == AggregateOp::BottomK { larger } else { smaller };
        for step in 0..grid.count {
            self.check_stop()?;
            let kept = (param.values[step].max(0.0) as usize).min(columns.len());
            if kept < 1 {
                continue;
            }
            heaps.iter_mut().for_each(|heap| heap.entries.clear());
            for (index, column) in columns.iter().enumerate() {
                let Some(value) = column.at(step) else { continue };
                let heap = &mut heaps[groups.of_column[index]];
                let entry = Entry { value, column: index };
                if heap.entries.len() < kept {
                    // `limitk` takes them as they come.
                    if op == AggregateOp::LimitK {
                        heap.entries.push(entry)
                    } else {
                        heap.push(entry, less)
                    }
                    continue;
                }
                let worst = heap.entries[0].value;
                let better = match op {
                    AggregateOp::TopK => worst < value,
                    AggregateOp::BottomK => worst > value,
                    AggregateOp::Sum
                    | AggregateOp::Avg
                    | AggregateOp::Min
                    | AggregateOp::Max
                    | AggregateOp::Count
                    | AggregateOp::Group
                    | AggregateOp::Stddev
                    | AggregateOp::Stdvar
                    | AggregateOp::CountValues
                    | AggregateOp::Quantile
                    | AggregateOp::LimitK
                    | AggregateOp::LimitRatio => continue,
                };
                if better || (worst.is_nan() && !value.is_nan()) {
                    heap.entries[0] = entry;
                    heap.sink(less);
                }
            }
            for heap in &mut heaps {
                if op != AggregateOp::LimitK {
                    // The best first; the order of equal ones stays.
                    heap.entries.sort_by(|a, b| {
                        let by = |a: f64, b: f64| less(b, a) && !(a.is_nan() && b.is_nan());
                        match (by(a.value, b.value), by(b.value, a.value)) {
                            (true, false) => std::cmp::Ordering::Less,
                            (false, true) => std::cmp::Ordering::Greater,
                            (true, true) | (false, false) => std::cmp::Ordering::Equal,
                        }
                    });
                }
                for entry in &heap.entries {
                    out[entry.column].values[step] = entry.value;
                    if grid.count == 1 {
                        order.push(entry.column);
                    }
                }
            }
        }
        if grid.count == 1 {
            return Ok(order.into_iter().map(|column| out[column].clone()).collect());
        }
        out.retain(|column| !column.is_empty());
        Ok(out)
    }

    /// Which series stay is decided by a hash of their labels, the same as Prometheus', so that a ratio and its
    /// complement split them.
    pub(super) fn limit_ratio(&self, mut columns: Vec<Column>, param: &Param) -> Vec<Column> {
        for column in &mut columns {
            let offset = hash(&column.labels) as f64 / u64::MAX as f64;
            for (value, ratio) in column.values.iter_mut().zip(&param.values) {
                let ratio = ratio.clamp(-1.0, 1.0);
                let stays = if ratio >= 0.0 { offset < ratio } else { offset >= 1.0 + ratio };
                if !stays || ratio == 0.0 {
                    *value = ABSENT;
                }
            }
        }
        columns.retain(|column| !column.is_empty());
        columns
    }
}

/// XXH64 over the labels in the form in which Prometheus keeps them: each text after its length.
fn hash(labels: &Labels) -> u64 {
    let mut bytes = Vec::new();
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        let length = text.len().to_le_bytes();
        match length {
            [byte, 0, 0, ..] if byte < 255 => bytes.push(byte),
            [low, middle, high, ..] => bytes.extend([255, low, middle, high]),
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    xxh64(&bytes)
}

/// Yann Collet's XXH64 with seed 0.
fn xxh64(input: &[u8]) -> u64 {
    const P1: u64 = 0x9e37_79b1_85eb_ca87;
    const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
    const P3: u64 = 0x1656_67b1_9e37_79f9;
    const P4: u64 = 0x85eb_ca77_c2b2_ae63;
    const P5: u64 = 0x27d4_eb2f_1656_67c5;
    let round =
        |sum: u64, lane: u64| sum.wrapping_add(lane.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |word, byte| (word << 8) | u64::from(*byte));
    let mut rest = input;
    let mut hash = if input.len() >= 32 {
        let mut sums = [P1.wrapping_add(P2), P2, 0, 0_u64.wrapping_sub(P1)];
        while rest.len() >= 32 {
            for (sum, lane) in sums.iter_mut().zip(rest.chunks_exact(8)) {
                *sum = round(*sum, word(lane));
            }
            rest = &rest[32..];
        }
        let joined = [1, 7, 12, 18]
            .iter()
            .zip(&sums)
            .fold(0_u64, |joined, (bits, sum)| joined.wrapping_add(sum.rotate_left(*bits)));
        sums.iter().fold(joined, |hash, sum| (hash ^ round(0, *sum)).wrapping_mul(P1).wrapping_add(P4))
    } else {
        P5
    };
    hash = hash.wrapping_add(input.len() as u64);
    while rest.len() >= 8 {
        hash = (hash ^ round(0, word(&rest[..8]))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        rest = &rest[8..];
    }
    if rest.len() >= 4 {
        hash = (hash ^ word(&rest[..4]).wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        rest = &rest[4..];
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_xxh64() {
        assert_eq!(xxh64(b""), 0xef46_db37_51d8_e999);
        assert_eq!(xxh64(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(xxh64(b"as"), 0x1c33_0fb2_d66b_e179);
        assert_eq!(xxh64(b"asd"), 0x631c_37ce_72a9_7393);
        assert_eq!(xxh64(b"asdf"), 0x4158_72f5_99ce_a71e);
        assert_eq!(
            xxh64(b"Call me Ishmael. Some years ago--never mind how long precisely-"),
            0x02a2_e854_70d6_fd96
        );
    }
}
