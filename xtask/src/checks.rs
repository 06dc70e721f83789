//! Named checks, a line each, and how many of them passed.

use std::time::Instant;

use crate::fault::{Done, Fault};

/// Counts what passed and failed, over everything that one command runs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub passed: u64,
    pub failed: u64,
}

impl Count {
    pub fn add(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Runs one check and prints its line, with the findings below it when it fails.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Done<Vec<String>>) {
        let started = Instant::now();
        let findings = check().unwrap_or_else(|fault| vec![fault.to_string().trim_end().to_owned()]);
        let took_s = started.elapsed().as_secs_f64();
        if findings.is_empty() {
            self.passed += 1;
            println!("ok      {name} ({took_s:.1} s)");
            return;
        }
        self.failed += 1;
        println!("FAILED  {name} ({took_s:.1} s)");
        for finding in findings {
            println!("        {}", finding.replace('\n', "\n        "));
        }
    }

    /// The closing line, and the verb's end.
    pub fn close(self) -> Done {
        println!("{} passed, {} failed", self.passed, self.failed);
        match self {
            Count { passed: 0, failed: 0 } => Err(Fault::new("nothing was checked")),
            Count { failed: 0, .. } => Ok(()),
            Count { failed, .. } => Err(Fault::new(format!("{failed} failed: see above"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_within_a_check_counts_as_failed() {
        let mut count = Count::default();
        count.check("good", || Ok(Vec::new()));
        count.check("bad", || Ok(vec!["this".into()]));
        count.check("broken", || Err(Fault::new("cannot")));
        assert_eq!(count, Count { passed: 1, failed: 2 });
        assert!(count.close().is_err());
    }

    #[test]
    fn nothing_checked_is_not_a_success() {
        assert!(Count::default().close().is_err());
        assert!(Count { passed: 1, failed: 0 }.close().is_ok());
    }
}
