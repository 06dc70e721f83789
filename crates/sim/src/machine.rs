//! The machine: processes under their shims, and jobs. It keeps its own truth, whatever the server knows of it.

use std::collections::BTreeMap;

use fairway_engine::id::{InstanceId, JobNumber};
use fairway_engine::{Address, Failure, JobEnd, Outcome};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proc {
    Starting,
    Ready,
    Suspect,
    Down,
    /// Told to stop.
    Stopping,
    /// Ended, and how it was reported.
    Gone(Outcome),
}

/// What happens to a process by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Listens,
    BecomesReady,
    Falters,
    Dies,
    GivesUp,
    Ends,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    Running,
    Ended(JobEnd),
}

#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub procs: BTreeMap<InstanceId, Proc>,
    pub listening: BTreeMap<InstanceId, Address>,
    pub jobs: BTreeMap<JobNumber, Run>,
    ports: u16,
}

impl Machine {
    pub fn new_address(&mut self) -> Address {
        self.ports = self.ports.wrapping_add(1);
        format!("127.0.0.1:{}", 20_000 + u32::from(self.ports)).into()
    }

    #[must_use]
    pub fn is_running(&self, instance: &InstanceId) -> bool {
        match self.procs.get(instance) {
            None | Some(Proc::Gone(_)) => false,
            Some(Proc::Starting | Proc::Ready | Proc::Suspect | Proc::Down | Proc::Stopping) => true,
        }
    }

    /// Everything that a driver would say of `instance` if it were asked.
    #[must_use]
    pub fn report(&self, instance: &InstanceId) -> Vec<Outcome> {
        let id = instance.clone();
        let mut said = Vec::new();
        if let Some(address) = self.listening.get(instance) {
            said.push(Outcome::InstanceStarted { instance: id.clone(), address: Some(address.clone()) });
        }
        match self.procs.get(instance) {
            None | Some(Proc::Starting | Proc::Stopping) => {}
            Some(Proc::Ready) => said.push(Outcome::InstanceReady { instance: id }),
            Some(Proc::Suspect) => {
                said.push(Outcome::InstanceSuspect { instance: id, why: "probe failed".to_owned() });
            }
            Some(Proc::Down) => said.push(Outcome::InstanceDown { instance: id, why: "exit 1".to_owned() }),
            Some(Proc::Gone(how)) => said.push(how.clone()),
        }
        said
    }
}

#[must_use]
pub fn failure(cause: &str) -> Failure {
    Failure { cause: cause.to_owned(), last_lines: vec!["the last line it wrote".to_owned()] }
}
