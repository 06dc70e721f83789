//! What is being started at this moment. To prepare a start takes as long as copying a release does, and the order to
//! stop may come in between: it must not find nothing to stop and leave behind a process that nobody knows of.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub struct Starts<K>(Mutex<BTreeMap<K, End>>);

/// What becomes of a start once it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Wanted,
    /// Whatever came of it has to be stopped.
    CalledOff,
}

impl<K> Default for Starts<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone> Starts<K> {
    /// False when the same start is under way: there is nothing to do then.
    pub fn begin(&self, key: &K) -> bool {
        let mut starts = self.lock();
        if starts.contains_key(key) {
            return false;
        }
        starts.insert(key.clone(), End::Wanted);
        true
    }

    /// False when no start is under way. Otherwise whoever starts it stops it.
    pub fn call_off(&self, key: &K) -> bool {
        self.lock().get_mut(key).map(|end| *end = End::CalledOff).is_some()
    }

    pub fn is_called_off(&self, key: &K) -> bool {
        self.lock().get(key) == Some(&End::CalledOff)
    }

    /// From here on an order to stop goes to the process.
    pub fn end(&self, key: &K) -> End {
        self.lock().remove(key).unwrap_or(End::Wanted)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, End>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_to_stop_that_overtakes_the_start_is_kept_for_its_end() {
        let starts = Starts::default();
        assert!(!starts.call_off(&1), "nothing is under way: the process itself is asked");
        assert!(starts.begin(&1));
        assert!(!starts.begin(&1), "the same effect twice is one start");
        assert!(!starts.is_called_off(&1));
        assert!(starts.call_off(&1));
        assert!(starts.is_called_off(&1));
        assert_eq!(starts.end(&1), End::CalledOff);
        assert!(!starts.call_off(&1));
        assert!(starts.begin(&1));
        assert_eq!(starts.end(&1), End::Wanted);
    }
}
