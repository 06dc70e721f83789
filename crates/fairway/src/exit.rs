//! What the exit code says. Scripts depend on it: a meaning is never changed.

use std::process::ExitCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// Failed, and nothing was changed.
    Failed,
    /// The command line or fairway.toml is wrong.
    Usage,
    /// Findings or changes, where `--exit-code` asked for it.
    Findings,
    /// Denied, or an approval is needed.
    Denied,
    /// Rolled back: the version before serves.
    RolledBack,
    /// It is not known what came of it.
    Unknown,
    /// A newer one took over, or holds the environment.
    Superseded,
    /// Ctrl-C; what runs on the server goes on.
    Interrupted,
    /// The exit code of a command that ran on the user's behalf (`exec`, `run`).
    OfCommand(u8),
}

impl Exit {
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Findings => 3,
            Exit::Denied => 4,
            Exit::RolledBack => 5,
            Exit::Unknown => 6,
            Exit::Superseded => 7,
            Exit::Interrupted => 130,
            Exit::OfCommand(code) => code,
        }
    }

    /// The code that the server put into an error.
    #[must_use]
    pub fn of_server(code: u8) -> Self {
        match code {
            2 => Exit::Usage,
            4 => Exit::Denied,
            5 => Exit::RolledBack,
            6 => Exit::Unknown,
            7 => Exit::Superseded,
            _ => Exit::Failed,
        }
    }

    /// As a rollout ended: the words of `RolloutInfo::outcome`.
    #[must_use]
    pub fn of_outcome(outcome: &str) -> Self {
        match outcome {
            "completed" => Exit::Done,
            "rolled back" => Exit::RolledBack,
            "failed" => Exit::Failed,
            "superseded" | "taken down" => Exit::Superseded,
            _ => Exit::Unknown,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_a_rollout_has_the_code_of_the_interface() {
        let codes = ["completed", "failed", "rolled back", "superseded", "taken down", "lost in space"]
            .map(|outcome| Exit::of_outcome(outcome).code());
        assert_eq!(codes, [0, 1, 5, 7, 7, 6]);
    }

    #[test]
    fn a_code_of_a_newer_server_that_is_unknown_here_is_a_failure() {
        assert_eq!(Exit::of_server(42), Exit::Failed);
        assert_eq!(Exit::of_server(0), Exit::Failed, "an error never exits with 0");
    }
}
