//! One copy of each text, for the thousands of series that share it.

use std::collections::HashSet;
use std::sync::Arc;

use crate::labels::Labels;

#[derive(Debug, Default)]
pub(super) struct Interner(HashSet<Arc<str>>);

impl Interner {
    pub fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let made: Arc<str> = text.into();
        self.0.insert(Arc::clone(&made));
        made
    }

    /// Equal labels made of the shared texts.
    pub fn labels(&mut self, labels: &Labels) -> Labels {
        Labels::new(
            labels.iter().map(|(name, value)| (self.text(name), self.text(value))).collect::<Vec<_>>(),
        )
    }

    /// Forgets texts that nobody else uses.
    pub fn purge(&mut self) {
        self.0.retain(|text| Arc::strong_count(text) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shared_while_somebody_uses_them() {
        let mut interner = Interner::default();
        let one = interner.labels(&Labels::new([("a", "b")]));
        let two = interner.labels(&Labels::new([("a", "c")]));
        assert!(Arc::ptr_eq(&one.pairs()[0].0, &two.pairs()[0].0));
        assert_eq!(interner.0.len(), 3);
        drop(two);
        interner.purge();
        assert_eq!(interner.0.len(), 2);
    }
}
