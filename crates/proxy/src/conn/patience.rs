//! How long a client is waited for that sends a body little by little.

/// Time that waiting uses up and that bytes earn back, never more than there was at first. A byte a minute earns next
/// to nothing; a line that is slow, and one that stands still for a while and then catches up, lose nothing.
#[derive(Debug)]
pub(super) struct Patience {
    full_ms: u64,
    left_ms: u64,
    /// 0: any byte earns it all back.
    bytes_per_s_min: u64,
    waits_since_ms: Option<u64>,
    /// Bytes that have not earned a whole millisecond yet, times a thousand.
    change: u64,
}

impl Patience {
    pub(super) fn new(full_ms: u64, bytes_per_s_min: u64) -> Self {
        Self { full_ms, left_ms: full_ms, bytes_per_s_min, waits_since_ms: None, change: 0 }
    }

    /// Nothing is there. When the wait for it begins here: how long it may take. It goes on until [`Self::got`].
    pub(super) fn wait(&mut self, now_ms: u64) -> Option<u64> {
        let begins = self.waits_since_ms.is_none();
        self.waits_since_ms.get_or_insert(now_ms);
        begins.then_some(self.left_ms)
    }

    pub(super) fn got(&mut self, bytes: usize, now_ms: u64) {
        if let Some(since) = self.waits_since_ms.take() {
            self.left_ms = self.left_ms.saturating_sub(now_ms.saturating_sub(since));
        }
        let earned = (bytes as u64).saturating_mul(1000).saturating_add(self.change);
        match earned.checked_div(self.bytes_per_s_min) {
            None => self.left_ms = self.full_ms,
            Some(earned_ms) => {
                self.change = earned % self.bytes_per_s_min;
                self.left_ms = self.left_ms.saturating_add(earned_ms).min(self.full_ms);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long somebody is listened to who sends so many bytes at this distance, up to an hour.
    fn listened_ms(rate_min: u64, bytes: usize, every_ms: u64) -> u64 {
        let mut patience = Patience::new(60_000, rate_min);
        let mut now = 5_000;
        while now < 3_600_000 {
            let left = patience.wait(now).unwrap();
            assert_eq!(patience.wait(now + 1), None, "a wait that goes on does not begin again");
            if left < every_ms {
                return now + left - 5_000;
            }
            now += every_ms;
            patience.got(bytes, now);
        }
        now
    }

    const HOUR: std::ops::RangeFrom<u64> = 3_600_000..;

    #[test]
    fn a_byte_a_second_is_not_progress() {
        assert_eq!(listened_ms(64, 1, 1_000), 60_937);
        assert_eq!(listened_ms(64, 1, 59_000), 60_015);
        assert!(!HOUR.contains(&listened_ms(64, 60, 1_000)));
    }

    #[test]
    fn whoever_keeps_the_rate_on_the_whole_is_listened_to() {
        assert!(HOUR.contains(&listened_ms(64, 64, 1_000)));
        assert!(HOUR.contains(&listened_ms(64, 64 * 50, 50_000)));
        assert!(HOUR.contains(&listened_ms(64, 1, 15)));
        assert!(HOUR.contains(&listened_ms(1_000_000, 1_000_000_000, 59_000)));
    }

    #[test]
    fn silence_is_cut_off_whatever_came_before() {
        let mut patience = Patience::new(60_000, 64);
        patience.got(usize::MAX, 0);
        assert_eq!(patience.wait(0), Some(60_000));
        patience.got(1, u64::MAX);
        assert_eq!(patience.wait(u64::MAX), Some(16), "with what was left of the first");
    }

    #[test]
    fn without_a_rate_every_byte_counts() {
        assert!(HOUR.contains(&listened_ms(0, 1, 59_000)));
        assert_eq!(listened_ms(0, 1, 61_000), 60_000);
    }
}
