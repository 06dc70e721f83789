//! What of an alert is kept.

use super::super::alert::Alert;
use crate::labels::Labels;

/// Labels are an identity; whoever puts a text of this size there made a mistake.
const LABELS_BYTES_MAX: usize = 16 << 10;

/// A paragraph. Longer ones are cut: an alert is worth more than its prose.
const ANNOTATION_BYTES_MAX: usize = 4 << 10;

const ANNOTATIONS_MAX: usize = 64;

const URL_BYTES_MAX: usize = 8 << 10;

/// `None` when its labels are too large, or there are none.
pub(super) fn bounded(alert: Alert) -> Option<Alert> {
    let bytes: usize = alert.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    if alert.labels.is_empty() || bytes > LABELS_BYTES_MAX {
        return None;
    }
    let fits = |(name, value): (&str, &str)| name.len().max(value.len()) <= ANNOTATION_BYTES_MAX;
    let annotations = if alert.annotations.len() <= ANNOTATIONS_MAX && alert.annotations.iter().all(fits) {
        alert.annotations
    } else {
        let kept = alert.annotations.iter().filter(|(name, _)| name.len() <= ANNOTATION_BYTES_MAX);
        Labels::new(kept.take(ANNOTATIONS_MAX).map(|(name, value)| (name, cut(value))))
    };
    // A part of an address leads elsewhere.
    let fits = alert.generator_url.len() <= URL_BYTES_MAX;
    let generator_url = if fits { alert.generator_url } else { String::new() };
    Some(Alert { annotations, generator_url, ..alert })
}

fn cut(text: &str) -> String {
    if text.len() <= ANNOTATION_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(ANNOTATION_BYTES_MAX);
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(label: &str, annotation: &str, url: &str) -> Alert {
        let labels = Labels::new([("alertname", label)]);
        let annotations = Labels::new([("summary", annotation)]);
        Alert { labels, annotations, starts_at_ms: 0, ends_at_ms: None, generator_url: url.to_owned() }
    }

    #[test]
    fn prose_is_cut_and_a_wild_identity_refused() {
        let short = alert("A", "fine", "http://x/");
        assert_eq!(bounded(short.clone()), Some(short));
        let long = bounded(alert("A", &"é".repeat(9_000), &"u".repeat(9_000))).unwrap();
        let summary = long.annotations.get("summary").unwrap();
        assert!(summary.len() <= ANNOTATION_BYTES_MAX + 3 && summary.ends_with("é…"));
        assert_eq!(long.generator_url, "");
        assert_eq!(bounded(alert(&"x".repeat(20_000), "", "")), None);
        assert_eq!(bounded(alert("", "", "")), None);
        let many = Labels::new((0..500).map(|index| (format!("a{index}"), "x".to_owned())));
        let many = bounded(Alert { annotations: many, ..alert("A", "", "") }).unwrap();
        assert_eq!(many.annotations.len(), ANNOTATIONS_MAX);
    }
}
