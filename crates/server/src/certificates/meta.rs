//! What is kept of a set over a restart.

use fairway_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::renewal::Window;
use super::status::Trouble;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Meta {
    /// For people who look into the directory.
    pub(super) names: Vec<String>,
    /// The pair in use.
    pub(super) digest: Option<String>,
    pub(super) renew_at: Option<Timestamp>,
    /// The order under way: it is carried on, not placed again.
    pub(super) order: Option<String>,
    /// Attempts since the last success, with the one under way.
    pub(super) attempts: u32,
    pub(super) trouble: Option<Trouble>,
    /// The authority itself has said when: asking for a retry changes nothing.
    pub(super) binding: bool,
    /// While an attempt is under way: when the next server may go on, should this one die.
    pub(super) after_crash: Option<Timestamp>,
    pub(super) obtained_at: Option<Timestamp>,
    /// When the authority wants the pair in use to be renewed, where it has said so.
    pub(super) window: Option<Window>,
    /// When it is asked for that again.
    pub(super) ask_at: Option<Timestamp>,
}

impl Meta {
    /// The next attempt, where one is needed at all.
    pub(super) fn next_try(&self) -> Timestamp {
        let trouble = self.trouble.as_ref().map(|trouble| trouble.retry_at);
        trouble.max(self.after_crash).max(self.renew_at).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_or_emptier_file_is_understood() {
        let meta: Meta = serde_json::from_str(r#"{"digest": "abc", "later": [1]}"#).unwrap();
        assert_eq!(meta, Meta { digest: Some("abc".to_owned()), ..Meta::default() });
        assert_eq!(meta.next_try(), Timestamp(0));
    }
}
