//! Alerts that are only the echo of another one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::alert::Fingerprint;
use super::matching::{Match, accepts_all};
use crate::labels::Labels;

/// While an alert that `source` accepts fires, alerts that `target` accepts and that agree in the labels `equal` are
/// not told. A label that both lack agrees. An alert that is source and target at once is not muted by another such
/// alert, and so never by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InhibitRule {
    pub source: Vec<Match>,
    pub target: Vec<Match>,
    pub equal: Vec<String>,
}

/// Firing sources of one rule by the values of their equal labels.
#[derive(Debug, Default)]
struct Sources {
    any: BTreeMap<Vec<String>, Fingerprint>,
    /// Those that are no target at the same time.
    one_sided: BTreeMap<Vec<String>, Fingerprint>,
}

/// All firing sources at one time, built once so that ten thousand alerts do not look at each other.
#[derive(Debug)]
pub(super) struct Inhibitions<'a> {
    rules: Vec<(&'a InhibitRule, Sources)>,
}

impl<'a> Inhibitions<'a> {
    pub(super) fn of<'b>(
        rules: &'a [InhibitRule],
        firing: impl Iterator<Item = (Fingerprint, &'b Labels)> + Clone,
    ) -> Self {
        let rules = rules.iter().map(|rule| {
            let mut sources = Sources::default();
            for (fingerprint, labels) in
                firing.clone().filter(|(_, labels)| accepts_all(&rule.source, labels))
            {
                let values = values(rule, labels);
                if !accepts_all(&rule.target, labels) {
                    sources.one_sided.entry(values.clone()).or_insert(fingerprint);
                }
                sources.any.entry(values).or_insert(fingerprint);
            }
            (rule, sources)
        });
        Self { rules: rules.collect() }
    }

    /// The alert that mutes this one.
    pub(super) fn muting(&self, labels: &Labels) -> Option<Fingerprint> {
        self.rules.iter().filter(|(rule, _)| accepts_all(&rule.target, labels)).find_map(|(rule, sources)| {
            let two_sided = accepts_all(&rule.source, labels);
            let sources = if two_sided { &sources.one_sided } else { &sources.any };
            sources.get(&values(rule, labels)).copied()
        })
    }
}

fn values(rule: &InhibitRule, labels: &Labels) -> Vec<String> {
    rule.equal.iter().map(|name| labels.get(name).unwrap_or_default().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::matching::MatchOp;
    use super::*;

    fn labels(text: &[(&str, &str)]) -> Labels {
        Labels::new(text.iter().copied())
    }

    #[track_caller]
    fn check(target_severity: &str, firing: &[(&str, &str)], asked: &[(&str, &str)], muted: bool) {
        let rule = InhibitRule {
            source: vec![Match::new("severity", MatchOp::Equal, "critical").unwrap()],
            target: vec![Match::new("severity", MatchOp::Regex, target_severity).unwrap()],
            equal: vec!["service".to_owned()],
        };
        let (firing, asked) = (labels(firing), labels(asked));
        let list = [(Fingerprint::of(&firing), &firing), (Fingerprint::of(&asked), &asked)];
        let rules = [rule];
        let inhibitions = Inhibitions::of(&rules, list.into_iter());
        assert_eq!(
            inhibitions.muting(&asked),
            muted.then(|| Fingerprint::of(&firing)),
            "{firing} and {asked}"
        );
    }

    #[test]
    fn a_source_mutes_a_target_with_the_same_labels() {
        let warning = [("service", "api"), ("severity", "warning")];
        check("warning", &[("service", "api"), ("severity", "critical")], &warning, true);
        check("warning", &[("service", "web"), ("severity", "critical")], &warning, false);
        check("warning", &[("service", "api"), ("severity", "info")], &warning, false);
        // Neither has the label.
        check("warning", &[("severity", "critical")], &[("severity", "warning")], true);
    }

    #[test]
    fn what_is_source_and_target_is_not_muted_by_its_like() {
        let one = [("alertname", "A"), ("severity", "critical")];
        let other = [("alertname", "B"), ("severity", "critical")];
        check(".*", &one, &other, false);
        check(".*", &one, &one, false);
    }
}
