//! The moments at which an expression is evaluated.

use crate::sample::TimestampMs;

#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub start_ms: TimestampMs,
    pub step_ms: i64,
    /// At least 1, except below a subquery whose range holds no step.
    pub count: usize,
}

impl Grid {
    pub fn instant(at_ms: TimestampMs) -> Self {
        Self { start_ms: at_ms, step_ms: 1, count: 1 }
    }

    pub fn first(self) -> Self {
        Self { count: self.count.min(1), ..self }
    }

    pub fn at(self, step: usize) -> TimestampMs {
        self.start_ms.saturating_add(self.step_ms.saturating_mul(step as i64))
    }

    pub fn end_ms(self) -> TimestampMs {
        self.at(self.count.saturating_sub(1))
    }

    pub fn times(self) -> impl Iterator<Item = TimestampMs> {
        (0..self.count).map(move |step| self.at(step))
    }
}
