//! One task an instance: follows its shim and turns what it says into events.

use std::sync::Arc;

use super::{Entry, Inner, Known, Supervisor, lock};
use crate::client::{self, Follower, News};
use crate::event::{TargetEvent, TargetEventKind};
use crate::exit::Exit;
use crate::key::InstanceKey;
use crate::process::ProcessId;
use crate::record;
use crate::spec::LaunchRecord;
use crate::wire::{Command, End, Enforcement, Health, Phase, RECORD_FILE, State};

/// Other ports to try when strangers keep taking them. Ten in a row is no accident any more, and the restart policy
/// says the rest.
const OTHER_PORTS_MAX: u32 = 10;

impl Supervisor {
    pub(super) fn keep(&self, key: InstanceKey, entry: Arc<Entry>) {
        let task = tokio::spawn(keep(Arc::clone(&self.inner), key, Arc::clone(&entry)));
        // One that still waits for a silent shim would report everything a second time.
        if let Some(earlier) = lock(&entry.keeper).replace(task.abort_handle()) {
            earlier.abort();
        }
    }

    /// Reports what is known, from the beginning.
    pub(super) async fn report_again(&self, key: &InstanceKey, entry: &Entry) {
        let kinds = match &*lock(&entry.known) {
            // Whoever starts it at this moment reports it.
            Known::Nothing => Vec::new(),
            Known::State(state) => Narrator::default().tell(state),
            Known::Unverifiable(why) => vec![TargetEventKind::Unverifiable { why: why.clone() }],
        };
        self.inner.send(key, kinds).await;
    }
}

impl Inner {
    async fn send(&self, key: &InstanceKey, kinds: Vec<TargetEventKind>) {
        for kind in kinds {
            let (environment, instance) = (key.environment.clone(), key.instance.clone());
            // Nobody listens when the server is going down; the next one re-attaches.
            let _ = self.events.send(TargetEvent { environment, instance, kind }).await;
        }
    }
}

async fn keep(inner: Arc<Inner>, key: InstanceKey, entry: Arc<Entry>) {
    let dir = inner.layout.instance(&key);
    let mut follower = Follower::new(&dir);
    let mut narrator = Narrator::default();
    let mut other_ports = 0;
    while let Some(news) = follower.next().await {
        match news {
            News::Unverifiable { why } => {
                *lock(&entry.known) = Known::Unverifiable(why.clone());
                inner.send(&key, vec![TargetEventKind::Unverifiable { why }]).await;
            }
            News::State(state) => {
                let port = state.port;
                if let Some(port) = port {
                    lock(&inner.ports).reserve(port);
                }
                let kinds = narrator.tell(&state);
                let taken = state.phase.port_taken();
                let ended = state.phase.has_ended();
                *lock(&entry.known) = Known::State(state);
                if ended && let Some(port) = port {
                    lock(&inner.ports).release(port);
                }
                inner.send(&key, kinds).await;
                if taken && other_ports < OTHER_PORTS_MAX {
                    other_ports += 1;
                    give_another_port(&inner, &dir, port).await;
                }
            }
        }
    }
}

/// A stranger has the port. The shim waits before it tries again; with another port it need not.
async fn give_another_port(inner: &Inner, dir: &std::path::Path, taken: Option<u16>) {
    let recorded: Option<LaunchRecord> = record::read(dir, RECORD_FILE).unwrap_or_default();
    if !recorded.is_some_and(|record| record.port_assigned) {
        return;
    }
    let Some(port) = lock(&inner.ports).take() else { return };
    let given = client::request(dir, &Command::Port { port }).await.is_ok();
    let unused = if given { taken } else { Some(port) };
    if let Some(port) = unused {
        lock(&inner.ports).release(port);
    }
}

/// Turns a sequence of states into what is new in each.
#[derive(Debug, Default)]
struct Narrator {
    limits_told: bool,
    started: Option<ProcessId>,
    phase: Option<Phase>,
}

impl Narrator {
    fn tell(&mut self, state: &State) -> Vec<TargetEventKind> {
        let mut news = Vec::new();
        if !std::mem::replace(&mut self.limits_told, true) {
            news.extend(not_enforced(state));
        }
        let same = self.phase.as_ref() == Some(&state.phase);
        if let Phase::Running { process, .. } = state.phase
            && self.started != Some(process)
        {
            self.started = Some(process);
            let pid = process.pid.unsigned_abs();
            news.push(TargetEventKind::Started { pid, port: state.port });
        }
        if !same {
            news.extend(current(&state.phase));
            self.phase = Some(state.phase.clone());
        }
        news
    }
}

fn not_enforced(state: &State) -> Option<TargetEventKind> {
    let (mut limits, mut reasons) = (Vec::new(), Vec::new());
    for report in &state.limits {
        match &report.by {
            Enforcement::Nothing { why } => {
                limits.push(report.limit);
                reasons.push(format!("{} is not enforced: {why}", report.limit));
            }
            Enforcement::Cgroup | Enforcement::Rlimit { .. } => {}
        }
    }
    (!limits.is_empty()).then_some(TargetEventKind::NotEnforced { limits, why: reasons })
}

pub(super) fn current(phase: &Phase) -> Option<TargetEventKind> {
    Some(match phase {
        Phase::Starting | Phase::Stopping { .. } => return None,
        Phase::Running { health, .. } => match health {
            Health::Waiting { .. } => return None,
            Health::Ready => TargetEventKind::Ready,
            Health::Suspect { why } => TargetEventKind::Suspect { why: why.clone() },
        },
        Phase::BackingOff { exit, why, restart_in, last_lines, .. } => TargetEventKind::Exited {
            exit: exit.clone(),
            why: why.clone(),
            will_restart_in: Some(*restart_in),
            last_lines: last_lines.clone(),
        },
        Phase::Ended { end } => match end {
            End::Stopped { exit } => TargetEventKind::Stopped { exit: exit.clone() },
            End::SpawnFailed { cause } => TargetEventKind::SpawnFailed { cause: cause.clone() },
            End::GaveUp { cause, last_lines } => {
                TargetEventKind::GaveUp { cause: cause.clone(), last_lines: last_lines.clone() }
            }
            End::Lost { why } => TargetEventKind::Exited {
                exit: Exit::Unknown { why: why.clone() },
                why: None,
                will_restart_in: None,
                last_lines: Vec::new(),
            },
            End::Finished { exit, last_lines } => TargetEventKind::Exited {
                exit: exit.clone(),
                why: None,
                will_restart_in: None,
                last_lines: last_lines.clone(),
            },
            End::TimedOut { after, last_lines } => TargetEventKind::Exited {
                exit: Exit::Unknown { why: format!("stopped after {after:?}") },
                why: None,
                will_restart_in: None,
                last_lines: last_lines.clone(),
            },
        },
    })
}

impl Phase {
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Phase::Ended { .. } => true,
            Phase::Starting | Phase::Running { .. } | Phase::BackingOff { .. } | Phase::Stopping { .. } => {
                false
            }
        }
    }

    fn port_taken(&self) -> bool {
        match self {
            Phase::BackingOff { port_taken, .. } => *port_taken,
            Phase::Starting | Phase::Running { .. } | Phase::Stopping { .. } | Phase::Ended { .. } => false,
        }
    }
}
