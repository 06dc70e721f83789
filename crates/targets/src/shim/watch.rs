//! When a probe is due, and how often in a row it has failed.

use std::time::{Duration, Instant};

use super::probe::{Failure, Probe, Verdict};

/// The first look at a fresh instance. A connection to a loopback port costs microseconds.
const FIRST_DELAY: Duration = Duration::from_millis(10);

/// A command costs a process each time.
const FIRST_COMMAND_DELAY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) probe: Probe,
    every: Duration,
    failures_max: u32,
    failures: u32,
    due: Instant,
    started: Instant,
}

/// What a verdict means for the instance.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Good,
    /// Failed, not yet often enough to count.
    Doubt(Failure),
    Bad(Failure),
}

impl Watch {
    pub(crate) fn new(probe: Probe, every: Duration, failures_max: u32, now: Instant) -> Self {
        let every = every.max(FIRST_DELAY);
        Self { probe, every, failures_max: failures_max.max(1), failures: 0, due: now, started: now }
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now >= self.due && !self.probe.in_flight()
    }

    /// When to look at this watch again; none while an answer is under way that has its own deadline.
    pub(crate) fn next(&self) -> Instant {
        match self.probe.deadline() {
            Some(deadline) if self.probe.in_flight() => deadline,
            Some(lingering) => self.due.min(lingering),
            None => self.due,
        }
    }

    /// Until it is ready for the first time an instance is asked again after a tenth of the time it has taken so
    /// far: readiness is seen at most 10 % late, and one that takes minutes is not hammered.
    pub(crate) fn judge(&mut self, verdict: Verdict, waiting: bool, now: Instant) -> Finding {
        let first = if self.probe.is_command() { FIRST_COMMAND_DELAY } else { FIRST_DELAY };
        let patience = ((now - self.started) / 10).max(first);
        self.due = now + if waiting { patience.min(self.every) } else { self.every };
        match verdict {
            Ok(()) => {
                self.failures = 0;
                Finding::Good
            }
            Err(failure) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= self.failures_max {
                    Finding::Bad(failure)
                } else {
                    Finding::Doubt(failure)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::Check;
    use super::*;

    #[test]
    fn failures_count_only_in_a_row() {
        let now = Instant::now();
        let probe = Probe::new(Check::Tcp { port: 1 }, Duration::from_secs(1));
        let mut watch = Watch::new(probe, Duration::from_secs(1), 2, now);
        let failure = || Failure { why: "no".into(), refused: false };
        assert_eq!(watch.judge(Err(failure()), false, now), Finding::Doubt(failure()));
        assert_eq!(watch.judge(Ok(()), false, now), Finding::Good);
        assert_eq!(watch.judge(Err(failure()), false, now), Finding::Doubt(failure()));
        assert_eq!(watch.judge(Err(failure()), false, now), Finding::Bad(failure()));
    }

    #[test]
    fn a_fresh_instance_is_asked_often_and_a_ready_one_as_configured() {
        let start = Instant::now();
        let probe = Probe::new(Check::Tcp { port: 1 }, Duration::from_secs(1));
        let mut watch = Watch::new(probe, Duration::from_secs(5), 1, start);
        let mut delay_after = |elapsed: Duration, waiting| {
            watch.judge(Ok(()), waiting, start + elapsed);
            watch.next() - (start + elapsed)
        };
        assert_eq!(delay_after(Duration::from_millis(5), true), FIRST_DELAY);
        assert_eq!(delay_after(Duration::from_secs(2), true), Duration::from_millis(200));
        assert_eq!(delay_after(Duration::from_secs(90), true), Duration::from_secs(5));
        assert_eq!(delay_after(Duration::from_millis(5), false), Duration::from_secs(5));
    }
}
