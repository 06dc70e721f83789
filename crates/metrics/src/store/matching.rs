//! From matchers to the series that they accept, over an index from label and value to ids.

use std::cmp::Ordering;

use regex_syntax::hir::literal::Extractor;

use crate::select::{Matcher, Test};

/// An index from label and value to the series that have it.
pub(super) trait LabelIndex {
    type Id: Copy + Ord;
    type Error;

    /// In rising order.
    fn all(&self) -> Vec<Self::Id>;

    /// Of each value of `label` that is among the candidates and accepted: its series in rising order.
    fn lists(
        &self,
        label: &str,
        candidates: &Candidates,
        accept: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Vec<Self::Id>>, Self::Error>;
}

/// Where values that a test finds can be at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Candidates {
    All,
    /// Sorted and unique.
    These(Vec<String>),
    /// Sorted, and none begins with another.
    Prefixes(Vec<String>),
}

/// Matchers, prepared once for all indexes of a query.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// Series that have one of the values found, cheapest first.
    wanted: Vec<Wanted<'a>>,
    /// The test accepts a missing label: series that have one of the values found fall out.
    unwanted: Vec<Wanted<'a>>,
}

#[derive(Debug)]
struct Wanted<'a> {
    matcher: &'a Matcher,
    candidates: Candidates,
}

impl<'a> Plan<'a> {
    pub fn new(matchers: &'a [Matcher]) -> Self {
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for matcher in matchers {
            // A label without a value is in no index, and so a test that accepts it works by what it refuses.
            let missing_is_fine = matcher.matches("");
            let found = match (&matcher.test, missing_is_fine) {
                (Test::Equal(value), false) | (Test::NotEqual(value), true) => {
                    Candidates::These(vec![value.clone()])
                }
                (Test::Regex(pattern), false) | (Test::NotRegex(pattern), true) => literals(pattern.as_str()),
                (Test::Equal(_) | Test::Regex(_), true) | (Test::NotEqual(_) | Test::NotRegex(_), false) => {
                    Candidates::All
                }
            };
            let list = if missing_is_fine { &mut unwanted } else { &mut wanted };
            list.push(Wanted { matcher, candidates: found });
        }
        wanted.sort_by_key(|wanted| match &wanted.candidates {
            Candidates::These(values) => values.len(),
            Candidates::Prefixes(_) => usize::MAX - 1,
            Candidates::All => usize::MAX,
        });
        Self { wanted, unwanted }
    }

    /// The ids that all matchers accept, in rising order.
    pub fn find<I: LabelIndex>(&self, index: &I) -> Result<Vec<I::Id>, I::Error> {
        let mut found: Option<Vec<I::Id>> = None;
        for Wanted { matcher, candidates } in &self.wanted {
            let lists = index.lists(&matcher.label, candidates, &|value| matcher.matches(value))?;
            let ids = union(lists);
            let both = match found {
                Some(before) => intersect(before, &ids),
                None => ids,
            };
            if both.is_empty() {
                return Ok(both);
            }
            found = Some(both);
        }
        let mut found = found.unwrap_or_else(|| index.all());
        for Wanted { matcher, candidates } in &self.unwanted {
            let lists = index.lists(&matcher.label, candidates, &|value| !matcher.matches(value))?;
            if !lists.is_empty() {
                found = subtract(found, &union(lists));
            }
        }
        Ok(found)
    }
}

/// The lists of one label have nothing in common: a series has one value.
fn union<T: Copy + Ord>(mut lists: Vec<Vec<T>>) -> Vec<T> {
    if lists.len() <= 1 {
        return lists.pop().unwrap_or_default();
    }
    let mut all = lists.concat();
    all.sort_unstable();
    all
}

/// One list is searched in rather than read when it is so many times longer than the other.
const MUCH_LONGER: usize = 16;

fn intersect<T: Copy + Ord>(mut left: Vec<T>, right: &[T]) -> Vec<T> {
    if left.len() * MUCH_LONGER < right.len() {
        left.retain(|id| right.binary_search(id).is_ok());
        return left;
    }
    if right.len() * MUCH_LONGER < left.len() {
        return right.iter().filter(|id| left.binary_search(id).is_ok()).copied().collect();
    }
    merge(left, right, true)
}

fn subtract<T: Copy + Ord>(left: Vec<T>, right: &[T]) -> Vec<T> {
    merge(left, right, false)
}

/// Keeps what is in both, or what is in the left one only.
fn merge<T: Copy + Ord>(mut left: Vec<T>, right: &[T], both: bool) -> Vec<T> {
    let mut rest = right;
    left.retain(|id| {
        while let Some((next, after)) = rest.split_first() {
            match next.cmp(id) {
                Ordering::Less => rest = after,
                Ordering::Equal => return both,
                Ordering::Greater => break,
            }
        }
        !both
    });
    left
}

/// What an anchored expression can match begins with, or is, one of a few texts: `a|b`, `api-.*`.
///
/// Look-arounds count as if they always held, so this may name too much, never too little; whoever uses it tests
/// each value still.
fn literals(pattern: &str) -> Candidates {
    let Ok(hir) = regex_syntax::parse(pattern) else { return Candidates::All };
    let mut sequence = Extractor::new().extract(&hir);
    sequence.sort();
    sequence.dedup();
    let exact = sequence.is_exact();
    let Some(found) = sequence.literals() else { return Candidates::All };
    let mut texts = Vec::with_capacity(found.len());
    for literal in found {
        match std::str::from_utf8(literal.as_bytes()) {
            Ok(text) if exact || !text.is_empty() => texts.push(text.to_owned()),
            _ => return Candidates::All,
        }
    }
    texts.sort();
    texts.dedup();
    if exact {
        return Candidates::These(texts);
    }
    // In order, a text comes right after the one that it begins with.
    texts.dedup_by(|later, kept| later.starts_with(kept.as_str()));
    Candidates::Prefixes(texts)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::labels::Labels;

    fn candidates(pattern: &str) -> Candidates {
        literals(Matcher::regex(pattern).unwrap().as_str())
    }

    #[test]
    fn an_expression_of_few_texts_is_looked_up() {
        let these = |texts: &[&str]| Candidates::These(texts.iter().map(|text| (*text).to_owned()).collect());
        let prefixes =
            |texts: &[&str]| Candidates::Prefixes(texts.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(candidates("b|a|b"), these(&["a", "b"]));
        assert_eq!(candidates("api-(blue|green)"), these(&["api-blue", "api-green"]));
        assert_eq!(candidates("5.."), prefixes(&["5"]));
        assert_eq!(candidates("api-.*|web|api-x.*"), prefixes(&["api-", "web"]));
        assert_eq!(candidates("ä.*"), prefixes(&["ä"]));
        assert_eq!(candidates(".*"), Candidates::All);
        assert_eq!(candidates(".+-api"), Candidates::All);
        assert_eq!(candidates(".*foo|bar"), Candidates::All);
    }

    struct Small(Vec<Labels>);

    impl LabelIndex for Small {
        type Id = usize;
        type Error = ();

        fn all(&self) -> Vec<usize> {
            (0..self.0.len()).collect()
        }

        fn lists(
            &self,
            label: &str,
            candidates: &Candidates,
            accept: &dyn Fn(&str) -> bool,
        ) -> Result<Vec<Vec<usize>>, ()> {
            let mut lists: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
            for (id, labels) in self.0.iter().enumerate() {
                let value = labels.get(label).unwrap_or_default();
                let possible = match candidates {
                    Candidates::All => true,
                    Candidates::These(texts) => texts.iter().any(|text| text == value),
                    Candidates::Prefixes(texts) => texts.iter().any(|text| value.starts_with(text.as_str())),
                };
                if !value.is_empty() && possible && accept(value) {
                    lists.entry(value).or_default().push(id);
                }
            }
            Ok(lists.into_values().collect())
        }
    }

    #[test]
    fn an_index_finds_what_each_matcher_accepts_by_itself() {
        let mut rng = fastrand::Rng::with_seed(5);
        let values = ["", "a", "b", "ab", "abc", "b\nc", "ä", "5xx"];
        let patterns = [
            "", "a", "a|b", ".*", ".+", "a.*", "(a|b).*", "|a", "[ab]", "(?i)A", "a?b", "b.c", "5..",
            r"\bab\b", "^a$|b",
        ];
        for _ in 0..2_000 {
            let series: Vec<Labels> = (0..rng.usize(0..60))
                .map(|_| Labels::new(["x", "y"].map(|name| (name, values[rng.usize(..values.len())]))))
                .collect();
            let matchers: Vec<Matcher> = (0..rng.usize(0..4))
                .map(|_| {
                    let value = values[rng.usize(..values.len())].to_owned();
                    let pattern = Matcher::regex(patterns[rng.usize(..patterns.len())]).unwrap();
                    let test = match rng.u8(..4) {
                        0 => Test::Equal(value),
                        1 => Test::NotEqual(value),
                        2 => Test::Regex(pattern),
                        _ => Test::NotRegex(pattern),
                    };
                    Matcher { label: ["x", "y", "z"][rng.usize(..3)].to_owned(), test }
                })
                .collect();
            let expected: Vec<usize> = (0..series.len())
                .filter(|id| matchers.iter().all(|matcher| matcher.accepts(&series[*id])))
                .collect();
            assert_eq!(Plan::new(&matchers).find(&Small(series)).unwrap(), expected, "{matchers:?}");
        }
    }

    #[test]
    fn long_and_short_lists_meet_in_every_way() {
        let mut rng = fastrand::Rng::with_seed(9);
        for _ in 0..500 {
            let mut list = |max| {
                let set: std::collections::BTreeSet<u32> =
                    (0..rng.usize(0..max)).map(|_| rng.u32(..300)).collect();
                set.into_iter().collect::<Vec<u32>>()
            };
            for (left, right) in [(list(200), list(200)), (list(4), list(300)), (list(300), list(4))] {
                let common = |wanted: bool| -> Vec<u32> {
                    left.iter().copied().filter(|id| right.contains(id) == wanted).collect()
                };
                assert_eq!(intersect(left.clone(), &right), common(true));
                assert_eq!(subtract(left.clone(), &right), common(false));
            }
        }
    }
}
