//! What the machine, the jobs and the proxy make of effects, and what befalls them.

use super::*;

impl World {
    pub(super) fn mishap(&mut self) {
        match self.rng.index(6) {
            0 | 1 if self.is_server_up => self.crash("of its own accord"),
            2 if !self.proxy.is_down => {
                self.note(|| "== the proxy dies".to_owned());
                self.proxy.is_down = true;
                self.traffic.restart();
                let away_ms = self.rng.between(10, 20_000);
                self.after(away_ms, Next::ProxyReturns);
            }
            3 => {
                let by_ms = i64::try_from(self.rng.between(1_000, 3_600_000)).unwrap_or(0);
                self.skew_ms += if self.rng.percent(50) { by_ms } else { -by_ms };
                let skew = self.skew_ms;
                self.note(|| format!("== the clock jumps: {skew} ms off"));
            }
            4 => {
                let running: Vec<InstanceId> =
                    self.machine.procs.keys().filter(|id| self.machine.is_running(id)).cloned().collect();
                if let Some(id) = self.rng.pick(&running).cloned() {
                    let turns = [Turn::Dies, Turn::GivesUp, Turn::Falters, Turn::BecomesReady];
                    let turn = turns[self.rng.index(turns.len())];
                    self.turn(&id, turn);
                }
            }
            _ => {}
        }
    }

    fn quality(&self, id: &InstanceId) -> Quality {
        let release = self.environment().and_then(|environment| environment.release(id.release));
        release.map_or(Quality::Good, |release| Quality::of(&release.spec))
    }

    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::StartInstance { instance, .. } => self.start(&instance),
            Effect::StopInstance { instance, .. } => self.stop(instance),
            Effect::ApplyRoutes { generation, .. } => {
                let Some(environment) = self.environment() else { return };
                if environment.routes.generation != generation {
                    return;
                }
                let table = Arc::clone(&environment.routes.table);
                let delay_ms = if self.is_stormy() && self.rng.percent(10) {
                    self.rng.between(100, 30_000)
                } else {
                    self.rng.between(0, 30)
                };
                self.after(delay_ms, Next::Table(generation, table));
            }
            Effect::RunJob { job, .. } => match self.machine.jobs.get(&job) {
                Some(Run::Ended(end)) => {
                    let end = end.clone();
                    self.say(Outcome::JobEnded { job, end });
                }
                Some(Run::Running) => {}
                None => {
                    self.machine.jobs.insert(job, Run::Running);
                    let (takes_ms, end) = match self.rng.index(20) {
                        0 | 1 if self.is_stormy() => (500, JobEnd::Failed { failure: failure("exit 1") }),
                        2 if self.is_stormy() => (60_000, JobEnd::Failed { failure: failure("timeout") }),
                        3 if self.is_stormy() => (700, JobEnd::Lost { why: "boot id changed".to_owned() }),
                        _ => (self.rng.between(10, 10_000), JobEnd::Succeeded),
                    };
                    self.after(takes_ms, Next::Job(job, end));
                }
            },
            Effect::CancelJob { job, .. } => match self.machine.jobs.get(&job) {
                Some(Run::Ended(end)) => {
                    let end = end.clone();
                    self.say(Outcome::JobEnded { job, end });
                }
                Some(Run::Running) => {
                    let takes_ms = self.rng.between(1, 3_000);
                    self.after(takes_ms, Next::Job(job, JobEnd::Failed { failure: failure("cancelled") }));
                }
                None => {
                    let end = JobEnd::Failed { failure: failure("cancelled before it began") };
                    self.machine.jobs.insert(job, Run::Ended(end.clone()));
                    self.say(Outcome::JobEnded { job, end });
                }
            },
        }
    }

    fn start(&mut self, id: &InstanceId) {
        if self.machine.procs.contains_key(id) {
            // Known: starting it twice is the same as once.
            for outcome in self.machine.report(id) {
                self.say(outcome);
            }
            return;
        }
        let Some(release) = self.environment().and_then(|environment| environment.release(id.release)) else {
            return;
        };
        let Some(spec) = release.spec.services.get(&id.service) else { return };
        let within_ms = u64::try_from(spec.ready.within.as_millis()).unwrap_or(5_000);
        let mut quality = Quality::of(&release.spec);
        if spec.is_backing() || self.healing && self.environment().and_then(|e| e.stable) == Some(id.release)
        {
            quality = Quality::Good;
        }
        if self.is_stormy() && self.rng.percent(3) {
            quality = Quality::CrashLoop;
        }
        self.machine.procs.insert(id.clone(), Proc::Starting);
        let listens_ms = self.rng.between(1, 50);
        self.after(listens_ms, Next::Process(id.clone(), Turn::Listens));
        let ready_ms = listens_ms + self.rng.between(0, within_ms * 7 / 10);
        match quality {
            Quality::NeverReady => {
                if self.rng.percent(70) {
                    self.after(within_ms, Next::Process(id.clone(), Turn::GivesUp));
                }
            }
            Quality::CrashLoop => {
                self.after(ready_ms / 2, Next::Process(id.clone(), Turn::Dies));
                self.after(ready_ms, Next::Process(id.clone(), Turn::GivesUp));
            }
            Quality::Good
            | Quality::BadListener
            | Quality::Erring
            | Quality::Failing
            | Quality::Slow
            | Quality::Bursty
            | Quality::Hanging
            | Quality::Refusing => {
                self.after(ready_ms, Next::Process(id.clone(), Turn::BecomesReady));
            }
            Quality::LateCrash => {
                self.after(ready_ms, Next::Process(id.clone(), Turn::BecomesReady));
                let dies_ms = ready_ms + self.rng.between(100, 90_000);
                self.after(dies_ms, Next::Process(id.clone(), Turn::Dies));
                let then = if self.rng.percent(50) { Turn::GivesUp } else { Turn::BecomesReady };
                self.after(dies_ms + 2_000, Next::Process(id.clone(), then));
            }
            Quality::Flapping => {
                let mut at_ms = ready_ms;
                for _ in 0..4 {
                    self.after(at_ms, Next::Process(id.clone(), Turn::BecomesReady));
                    at_ms += self.rng.between(100, 30_000);
                    self.after(at_ms, Next::Process(id.clone(), Turn::Falters));
                    at_ms += self.rng.between(100, 10_000);
                }
                self.after(at_ms, Next::Process(id.clone(), Turn::BecomesReady));
            }
        }
    }

    fn stop(&mut self, id: InstanceId) {
        let ended = Outcome::InstanceStopped { instance: id.clone(), exit: "signal 15".to_owned() };
        match self.machine.procs.get(&id) {
            None => {
                // Never started: and never to be, should the start arrive late.
                self.machine.procs.insert(id, Proc::Gone(ended.clone()));
                self.say(ended);
            }
            Some(Proc::Gone(how)) => {
                let how = how.clone();
                self.say(how);
            }
            Some(Proc::Stopping) => {}
            Some(Proc::Starting | Proc::Ready | Proc::Suspect | Proc::Down) => {
                self.machine.procs.insert(id.clone(), Proc::Stopping);
                let takes_ms = if self.is_stormy() && self.rng.percent(5) {
                    self.rng.between(1_000, 60_000)
                } else {
                    self.rng.between(1, 900)
                };
                self.after(takes_ms, Next::Process(id, Turn::Ends));
            }
        }
    }

    pub(super) fn turn(&mut self, id: &InstanceId, turn: Turn) {
        let Some(proc) = self.machine.procs.get(id).cloned() else { return };
        let instance = id.clone();
        match (turn, proc) {
            (Turn::Listens, Proc::Starting | Proc::Ready | Proc::Suspect | Proc::Down) => {
                let takes =
                    self.environment().is_some_and(|environment| environment.takes(id.release, &id.service));
                if takes && !self.machine.listening.contains_key(id) {
                    let address = self.machine.new_address();
                    self.machine.listening.insert(instance.clone(), address.clone());
                    self.say(Outcome::InstanceStarted { instance, address: Some(address) });
                }
            }
            (Turn::BecomesReady, Proc::Starting | Proc::Suspect | Proc::Down) => {
                if self.quality(id) == Quality::NeverReady && self.is_stormy() {
                    return;
                }
                self.machine.procs.insert(instance.clone(), Proc::Ready);
                self.say(Outcome::InstanceReady { instance });
            }
            (Turn::Falters, Proc::Ready) if !self.healing => {
                self.machine.procs.insert(instance.clone(), Proc::Suspect);
                self.say(Outcome::InstanceSuspect {
                    instance: instance.clone(),
                    why: "probe failed".to_owned(),
                });
                let back_ms = self.rng.between(100, 30_000);
                self.after(back_ms, Next::Process(instance, Turn::BecomesReady));
            }
            (Turn::Dies, Proc::Ready | Proc::Suspect) => {
                self.machine.procs.insert(instance.clone(), Proc::Down);
                self.say(Outcome::InstanceDown { instance: instance.clone(), why: "exit 1".to_owned() });
                let back_ms = self.rng.between(100, 20_000);
                self.after(back_ms, Next::Process(instance, Turn::BecomesReady));
            }
            (Turn::Dies, Proc::Starting) => {
                self.say(Outcome::InstanceDown { instance, why: "exit 1".to_owned() });
            }
            (Turn::GivesUp, Proc::Starting | Proc::Ready | Proc::Suspect | Proc::Down) => {
                let how =
                    Outcome::InstanceFailed { instance: instance.clone(), failure: failure("exit 1, again") };
                self.machine.procs.insert(instance, Proc::Gone(how.clone()));
                self.say(how);
            }
            (Turn::Ends, Proc::Stopping) => {
                let how =
                    Outcome::InstanceStopped { instance: instance.clone(), exit: "exit code 0".to_owned() };
                self.machine.procs.insert(instance, Proc::Gone(how.clone()));
                self.say(how);
            }
            (
                Turn::Listens | Turn::BecomesReady | Turn::Falters | Turn::Dies | Turn::GivesUp | Turn::Ends,
                Proc::Starting | Proc::Ready | Proc::Suspect | Proc::Down | Proc::Stopping | Proc::Gone(_),
            ) => {}
        }
    }

    pub(super) fn table_arrives(&mut self, generation: Generation, table: Arc<RouteTable>) {
        if self.proxy.is_down {
            return;
        }
        let is_new = generation > self.proxy.serves.0;
        let bad = table.listen.as_ref().is_some_and(|listen| listen.address.ends_with(":1"));
        if is_new && (bad || (self.is_stormy() && self.rng.percent(2))) {
            self.say(Outcome::RoutesRefused { generation, why: "cannot listen: address in use".to_owned() });
            return;
        }
        if is_new && self.is_stormy() && self.rng.percent(2) {
            self.note(|| format!("== the proxy serves {generation} and dies before it is durable"));
            self.proxy.take_and_die(generation, table);
            self.proxy.is_down = false;
            let lives_ms = self.rng.between(0, 50);
            self.after(lives_ms, Next::ProxyDies);
            return;
        }
        match self.proxy.take(generation, table) {
            Taken::Applied { gone } => {
                self.note(|| format!("  the proxy serves {generation}"));
                self.say(Outcome::RoutesApplied { generation });
                for instance in gone {
                    if !self.is_stormy() || !self.rng.percent(10) {
                        let takes_ms = if self.is_stormy() { self.rng.between(1, 25_000) } else { 2 };
                        self.after(takes_ms, Next::Drained(instance));
                    }
                }
            }
            Taken::Known => self.say(Outcome::RoutesApplied { generation }),
            Taken::Older => {}
        }
    }
}
