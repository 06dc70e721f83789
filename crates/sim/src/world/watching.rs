//! What the server's watchers tell the engine: the proxy's counters, the answers of gates' sources, load and alerts.

use fairway_engine::evidence::{Check, Number};
use fairway_engine::{AbortCause, GateId, Reading, RolloutKind, ScaleReading};

use super::*;
use crate::spec::Quality;

/// While a rollout is judged, and otherwise.
const LOOK_MS: u64 = 2_000;
const GLANCE_MS: u64 = 15_000;

/// Visitors keep coming for so long after the faults have stopped; after that the world has to be at rest.
const VISITED_AFTER_HEALING_MS: u64 = 3_600_000;

impl World {
    pub(super) fn visitors(&mut self) -> Result<(), Violation> {
        let qualities: BTreeMap<ReleaseNumber, Quality> = self
            .environment()
            .map(|environment| {
                let releases = environment.releases.values();
                releases.map(|release| (release.number, Quality::of(&release.spec))).collect()
            })
            .unwrap_or_default();
        if !self.proxy.is_down {
            let table = self.proxy.serves.1.clone();
            let quality = |release| qualities.get(&release).copied().unwrap_or(Quality::Good);
            self.traffic.flow(&mut self.rng, self.now_ms, &table, |release| quality(release).behaviour());
        }
        let is_judged = self.environment().and_then(|environment| environment.evidence()).is_some();
        if self.is_server_up {
            if is_judged {
                self.look_at_traffic()?;
                self.ask_gates()?;
            }
            self.look_at_load()?;
        }
        let again_ms = if is_judged { LOOK_MS } else { GLANCE_MS };
        if !self.healing || self.now_ms - self.healing_from_ms < VISITED_AFTER_HEALING_MS {
            self.after(again_ms, Next::Visitors);
        }
        Ok(())
    }

    fn look_at_traffic(&mut self) -> Result<(), Violation> {
        if self.proxy.is_down || (self.is_stormy() && self.rng.percent(5)) {
            return Ok(());
        }
        let times = if self.is_stormy() && self.rng.percent(5) { 2 } else { 1 };
        for _ in 0..times {
            let (environment, observation) = (self.key.clone(), self.traffic.observation());
            self.input(&Input::Observed { environment, observation })?;
        }
        Ok(())
    }

    fn ask_gates(&mut self) -> Result<(), Violation> {
        let Some(environment) = self.environment() else { return Ok(()) };
        let now = self.clock();
        let due: Vec<(u32, Timestamp, bool)> = environment
            .gates_due()
            .iter()
            .filter(|gate| gate.due <= now)
            .map(|gate| (gate.gate, gate.due, matches!(gate.check, Check::Query { .. })))
            .collect();
        let asks = environment.rollout.as_ref().map(|rollout| rollout.number);
        let releases = environment.rollout.as_ref().map(|rollout| (rollout.to, rollout.from));
        for (gate, due, is_query) in due {
            let Some(rollout) = asks else { break };
            let rate = releases.and_then(|(to, _)| self.traffic.error_rate(to));
            let reading = match (self.traffic.are_metrics_down && is_query, rate) {
                (true, _) => Reading::None { why: "connection refused".to_owned() },
                (false, None) if is_query => Reading::None { why: "no samples".to_owned() },
                (false, Some(rate)) if is_query => {
                    let stable = releases.and_then(|(_, from)| self.traffic.error_rate(from?));
                    Reading::Value { value: Number(rate), stable: stable.map(Number) }
                }
                // A command: it passes, mostly.
                (false, _) => {
                    let fails = self.is_stormy() && self.rng.percent(1);
                    Reading::Value { value: Number(f64::from(u8::from(fails))), stable: None }
                }
            };
            // Now and then an answer to a question of long ago.
            let late_ms = if self.is_stormy() && self.rng.percent(5) { 1_000 } else { 0 };
            let due = Timestamp(due.0.saturating_sub(late_ms));
            let environment = self.key.clone();
            self.input(&Input::Measured { environment, rollout, gate, due, reading })?;
        }
        Ok(())
    }

    fn look_at_load(&mut self) -> Result<(), Violation> {
        if self.now_ms - self.sized_ms < GLANCE_MS {
            return Ok(());
        }
        self.sized_ms = self.now_ms;
        let Some(environment) = self.environment() else { return Ok(()) };
        let Some(stable) = environment.stable else { return Ok(()) };
        let sized: Vec<(ServiceName, u32, usize)> = environment
            .release(stable)
            .into_iter()
            .flat_map(|release| &release.spec.services)
            .filter_map(|(service, spec)| Some((service, spec.autoscale.as_ref()?)))
            .map(|(service, settings)| {
                (service.clone(), environment.ready_count(stable, service), settings.metrics.len())
            })
            .collect();
        for (service, copies, metrics) in sized {
            let load = self.traffic.rate as f64 / f64::from(copies.max(1));
            let value = |rng: &mut Rng| (!rng.percent(5)).then_some(Number(load));
            let values = (0..metrics).map(|_| value(&mut self.rng)).collect();
            let silent = if self.is_stormy() && self.rng.percent(10) { 1 } else { 0 };
            let reading = ScaleReading { copies: copies.saturating_sub(silent), values };
            self.input(&Input::Sized { environment: self.key.clone(), service, reading })?;
        }
        Ok(())
    }

    /// Something that all versions share breaks, or comes back; so does what measures them; visitors come and go.
    pub(super) fn turn_of_fortune(&mut self) -> Result<(), Violation> {
        match self.rng.index(5) {
            0 => self.traffic.is_outage = self.rng.percent(40),
            1 => self.traffic.are_metrics_down = self.rng.percent(40),
            2 => {
                let firing = self.rng.percent(30);
                let alert = ["DiskFull", "WebDown"][self.rng.index(2)].to_owned();
                let critical = self.rng.percent(70);
                let (environment, why) = (self.key.clone(), "as its rule says".to_owned());
                self.note(|| format!("== alert {alert} firing={firing} critical={critical}"));
                self.input(&Input::Alert { environment, alert, critical, firing, why })?;
            }
            _ => self.traffic.swing(&mut self.rng),
        }
        let Traffic { rate, is_outage, are_metrics_down, .. } = self.traffic.clone();
        self.note(|| format!("== {rate} requests/s, outage {is_outage}, metrics down {are_metrics_down}"));
        Ok(())
    }

    /// Canaries that were compared with a stable that answers alike, and those of them that the comparison turned back.
    #[must_use]
    pub fn compared(&self) -> (u64, u64) {
        let mut qualities = BTreeMap::new();
        let mut active = None;
        let (mut compared, mut turned_back) = (0, 0);
        for event in &self.log {
            match &event.fact {
                Fact::ReleaseCreated { release } => {
                    qualities.insert(release.number, Quality::of(&release.spec).behaviour());
                }
                Fact::RolloutPlanned { rollout } => active = Some((rollout.clone(), false)),
                Fact::GateChanged { finding } => {
                    if let (GateId::Sequential { .. }, Some((rollout, is_compared))) =
                        (&finding.gate, &mut active)
                    {
                        let to = qualities.get(&rollout.to);
                        let is_equal = rollout.from.is_some_and(|from| qualities.get(&from) == to);
                        if is_equal && !*is_compared && rollout.kind == RolloutKind::Deploy {
                            *is_compared = true;
                            compared += 1;
                        }
                    }
                }
                Fact::PhaseEntered {
                    phase: Phase::Aborting { cause: AbortCause::Evidence { finding }, .. },
                    ..
                } => {
                    if let (GateId::Sequential { .. }, Some((_, true))) = (&finding.gate, &active) {
                        turned_back += 1;
                    }
                }
                _ => {}
            }
        }
        (compared, turned_back)
    }
}
