//! The name of a series.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The label that holds a metric's name.
pub const NAME: &str = "__name__";

/// Label pairs, sorted by name, names unique, no empty values (an empty value is no label, as in Prometheus). Cheap to
/// clone. Ordered as Prometheus orders series: pair by pair, name before value.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The last of several pairs with one name counts.
    pub fn new<N: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut list: Vec<(Arc<str>, Arc<str>)> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        // Stable, so that the last one stays last.
        list.sort_by(|a, b| a.0.cmp(&b.0));
        let mut unique: Vec<(Arc<str>, Arc<str>)> = Vec::with_capacity(list.len());
        for pair in list {
            match unique.last_mut() {
                Some(last) if last.0 == pair.0 => *last = pair,
                Some(_) | None => unique.push(pair),
            }
        }
        unique.retain(|(_, value)| !value.is_empty());
        Self(unique.into())
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        self.0.get(found).map(|(_, value)| &**value)
    }

    /// The metric's name; empty when there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.get(NAME).unwrap_or_default()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The shared pairs, for whoever interns or rebuilds them.
    #[must_use]
    pub fn pairs(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.0
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those whose name passes.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&str) -> bool) -> Self {
        if self.0.iter().all(|(name, _)| keep(name)) {
            return self.clone();
        }
        Self(self.0.iter().filter(|(name, _)| keep(name)).cloned().collect())
    }

    /// With this label set, or removed when `value` is empty.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let others = self.0.iter().filter(|(known, _)| &**known != name).cloned();
        if value.is_empty() {
            return Self(others.collect());
        }
        Self::new(others.chain([(Arc::from(name), Arc::from(value))]))
    }
}

/// `{__name__="up", job="api"}` in the form that Prometheus prints: `up{job="api"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let mut others = self.iter().filter(|(name, _)| *name != NAME).peekable();
        if others.peek().is_none() {
            return if self.name().is_empty() { f.write_str("{}") } else { Ok(()) };
        }
        f.write_str("{")?;
        for (index, (name, value)) in others.enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

impl Serialize for Labels {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::collections::BTreeMap::<String, String>::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_sorted_unique_and_not_empty() {
        let labels = Labels::new([("b", "1"), ("a", "x"), ("b", "2"), ("c", "")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "x"), ("b", "2")]);
        assert_eq!((labels.get("b"), labels.get("c")), (Some("2"), None));
        assert_eq!(labels.with("a", "").with("d", "4").to_string(), r#"{b="2", d="4"}"#);
    }

    #[test]
    fn a_series_is_shown_as_prometheus_shows_it() {
        assert_eq!(Labels::new([(NAME, "up"), ("job", "api")]).to_string(), r#"up{job="api"}"#);
        assert_eq!(Labels::new([(NAME, "up")]).to_string(), "up");
        assert_eq!(Labels::default().to_string(), "{}");
    }
}
