//! What the probes' answers mean for an instance, and the words for why it is not ready.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fairway_engine::service::{LiveProbe, ReadyProbe};

use super::group::StopWhy;
use super::probe::{Check, Failure, Probe, Verdict};
use super::watch::{Finding, Watch};
use super::{Activity, Shim};
use crate::event::GiveUpCause;
use crate::spec::Role;
use crate::wire::{Health, Phase};
use crate::{process, sockets};

impl Shim {
    pub(super) fn watch(&mut self, now: Instant) {
        let Role::Instance { ready, live, protocol, .. } = &self.launch.role else { return };
        let protocol = *protocol;
        let port = self.state.port.unwrap_or(0);
        let check = match &ready.probe {
            ReadyProbe::Http { path } => Some(Check::Http { port, path: path.clone(), protocol }),
            ReadyProbe::Tcp => Some(Check::Tcp { port }),
            ReadyProbe::Exec { command } => Some(Check::Exec { command: command.clone() }),
            ReadyProbe::Notify | ReadyProbe::LogLine { .. } | ReadyProbe::Alive { .. } => None,
        };
        self.readiness =
            check.map(|check| Watch::new(Probe::new(check, ready.timeout), ready.every, ready.failures, now));
        self.liveness = live.as_ref().map(|live| {
            let check = match &live.probe {
                LiveProbe::Http { path } => Check::Http { port, path: path.clone(), protocol },
                LiveProbe::Tcp => Check::Tcp { port },
                LiveProbe::Exec { command } => Check::Exec { command: command.clone() },
            };
            Watch::new(Probe::new(check, live.timeout), live.every, live.failures, now)
        });
    }

    pub(super) fn on_verdict(&mut self, is_readiness: bool, verdict: Verdict, now: Instant) {
        let Phase::Running { process, health } = &self.state.phase else { return };
        let (process, health) = (*process, health.clone());
        let waiting = match health {
            Health::Waiting { .. } => true,
            Health::Ready | Health::Suspect { .. } => false,
        };
        let watch = if is_readiness { &mut self.readiness } else { &mut self.liveness };
        let Some(watch) = watch else { return };
        match (is_readiness, watch.judge(verdict, waiting, now), health) {
            (true, Finding::Good, Health::Waiting { .. } | Health::Suspect { .. }) => {
                self.ever_ready = true;
                self.enter(Phase::Running { process, health: Health::Ready });
            }
            (true, Finding::Doubt(failure) | Finding::Bad(failure), Health::Waiting { .. }) => {
                // Not news, and not worth a sync of the disk every few milliseconds: told when somebody asks.
                self.state.phase =
                    Phase::Running { process, health: Health::Waiting { why: Some(failure.why) } };
            }
            (true, Finding::Bad(failure), Health::Ready) => {
                let why = self.explain(failure).0;
                self.enter(Phase::Running { process, health: Health::Suspect { why } });
            }
            // A fresh instance answers to readiness alone; liveness begins where that is done.
            (false, Finding::Bad(failure), Health::Ready | Health::Suspect { .. }) => {
                let why = format!("liveness failed: {}", failure.why);
                self.stop(StopWhy::NotLive { why }, self.launch.stop.timeout, now);
            }
            (true, Finding::Good | Finding::Doubt(_), Health::Ready)
            | (true, Finding::Doubt(_) | Finding::Bad(_), Health::Suspect { .. })
            | (false, _, _) => {}
        }
    }

    /// Looks where the instance listens instead, when it does not listen where it should.
    pub(super) fn explain(&self, failure: Failure) -> (String, Vec<SocketAddr>) {
        let (Activity::Up(group), Some(port), true) = (&self.activity, self.state.port, failure.refused)
        else {
            return (failure.why, Vec::new());
        };
        let own = process::descendants(self.state.shim.pid).unwrap_or_default();
        let elsewhere = sockets::listening(own.iter().map(|process| process.pid).chain([group.main.pid]));
        if elsewhere.is_empty() {
            return (failure.why, elsewhere);
        }
        let places = elsewhere.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        let variable = self.launch.port.as_ref().and_then(|given| given.variable.as_ref());
        let given_in = variable.map(|name| format!(" in ${name}")).unwrap_or_default();
        let why = if elsewhere.iter().all(|at| at.port() == port) {
            format!("listens on {places}, which 127.0.0.1:{port} does not reach")
        } else {
            format!("listens on {places}, not on the port it was given{given_in} ({port})")
        };
        (why, elsewhere)
    }

    pub(super) fn not_ready(&self, within: Duration) -> GiveUpCause {
        let (why, listens_on) = match (&self.launch.role, &self.state.phase) {
            (Role::Instance { ready, .. }, Phase::Running { health: Health::Waiting { why }, .. }) => {
                match (why, &ready.probe) {
                    (Some(why), _) => {
                        let refused = why.starts_with("nothing listens");
                        self.explain(Failure { why: why.clone(), refused })
                    }
                    (None, ReadyProbe::Notify) => {
                        ("READY=1 did not come on $NOTIFY_SOCKET".into(), Vec::new())
                    }
                    (None, ReadyProbe::LogLine { contains }) => {
                        (format!("no line of output contains {contains:?}"), Vec::new())
                    }
                    (
                        None,
                        ReadyProbe::Http { .. }
                        | ReadyProbe::Tcp
                        | ReadyProbe::Exec { .. }
                        | ReadyProbe::Alive { .. },
                    ) => ("no probe has been answered yet".into(), Vec::new()),
                }
            }
            (_, Phase::BackingOff { exit, why: Some(why), .. }) => (format!("{exit} ({why})"), Vec::new()),
            (_, Phase::BackingOff { exit, .. }) => (format!("it keeps ending: {exit}"), Vec::new()),
            (_, Phase::Running { .. } | Phase::Starting | Phase::Stopping { .. } | Phase::Ended { .. }) => {
                ("it did not get there".into(), Vec::new())
            }
        };
        GiveUpCause::NotReady { within, why, listens_on }
    }

    pub(super) fn awaited_text(&self) -> Option<String> {
        match &self.launch.role {
            Role::Instance { ready, .. } => match &ready.probe {
                ReadyProbe::LogLine { contains } => Some(contains.clone()),
                ReadyProbe::Http { .. }
                | ReadyProbe::Tcp
                | ReadyProbe::Exec { .. }
                | ReadyProbe::Notify
                | ReadyProbe::Alive { .. } => None,
            },
            Role::Job { .. } => None,
        }
    }
}
