//! The steps of scenarios that are about evidence and load.
//!
//! | step | |
//! |---|---|
//! | `observe web.r2=100/3` | the proxy counts 100 more requests and 3 more errors of web in r2, and is read; `/slow=5` more than 1 s, `/bursts=1`, `/unreached=2` attempts without a connection, `/waiting=7` in flight; `restarted` before them: from 0 |
//! | `flow 10s 5 web.r1=190 web.r2=10/1` | the same every second, for 10 s or until the rollout turns back; only the first and the last are shown |
//! | `measure 0 0.2 [stable=0.1]`, `measure 0 none` | what the source of gate 0 said; `late=5s`: asked that long before, `of=#2`: by that rollout |
//! | `alert NAME [warning] on|off` | |
//! | `load api 90 80 [copies=3]` | what the metrics of an autoscaled service say; `-` is nothing |
//! | `evidence`, `due` | shows |

use super::*;
use fairway_engine::evidence::{
    Autoscale, Bounds, Check, Gate, NoData, Number, ScaleBehaviour, ScaleChange, ScaleMetric, ScalePolicy,
    ScaleSelect, ScaleSource, Trigger,
};

/// `error_rate:max0.05:lasts10s:min100`, `p95:vs2`, `query:max1:fail`, `command`, `webhook:pass`
pub fn gate(text: &str) -> Gate {
    let mut parts = text.split(':');
    let label = parts.next().unwrap();
    let check = match label {
        "error_rate" => Check::ErrorRate,
        "p50" | "p95" | "p99" => Check::Latency { percentile: label[1..].parse().unwrap() },
        "query" => Check::Query { promql: "up".into() },
        "command" => Check::Command { job: Box::new(job()) },
        "webhook" => Check::Webhook { url: "http://127.0.0.1:1/".into() },
        _ => panic!("no gate {label:?}"),
    };
    let mut gate = Gate {
        name: label.into(),
        check,
        bounds: Bounds::default(),
        lasts: Duration::ZERO,
        min_requests: 0,
        no_data: NoData::Pause,
    };
    for part in parts {
        let number = |prefix: &str| part.strip_prefix(prefix).and_then(|n| n.parse().ok()).map(Number);
        match part {
            "pass" => gate.no_data = NoData::Pass,
            "fail" => gate.no_data = NoData::Fail,
            _ if part.starts_with("lasts") => gate.lasts = seconds(&part[5..]),
            _ if part.starts_with("requests") => gate.min_requests = part[8..].parse().unwrap(),
            _ if part.starts_with("max") => gate.bounds.max = number("max"),
            _ if part.starts_with("min") => gate.bounds.min = number("min"),
            _ if part.starts_with("vs") => gate.bounds.max_vs_stable = number("vs"),
            _ => panic!("no bound {part:?}"),
        }
    }
    gate
}

/// The defaults.
pub fn triggers() -> Vec<Trigger> {
    vec![
        Trigger::ErrorRate { above: Number(0.05), lasts: Duration::from_secs(120) },
        Trigger::Latency { percentile: 95, above: Duration::from_secs(3), lasts: Duration::from_secs(60) },
        Trigger::CriticalAlert,
    ]
}

/// `1-10:cpu:70,requests:50`: up by 100 % in 15 s at once, down after 300 s, as Kubernetes does by itself.
pub fn autoscale(spec: &mut ReleaseSpec, text: &str) {
    let (copies, metrics) = text.split_once(':').unwrap();
    let (min, max) = copies.split_once('-').unwrap();
    let metric = |text: &str| {
        let (source, target) = text.split_once(':').unwrap();
        let source = match source {
            "cpu" => ScaleSource::Cpu,
            "requests" => ScaleSource::Requests,
            "query" => ScaleSource::Query { promql: "up".into() },
            _ => panic!("no source {source:?}"),
        };
        ScaleMetric { source, target: Number(target.parse().unwrap()) }
    };
    let behaviour = |stabilisation, changes: &[ScaleChange]| ScaleBehaviour {
        stabilisation: Duration::from_secs(stabilisation),
        policies: changes
            .iter()
            .map(|change| ScalePolicy { change: *change, period: Duration::from_secs(15) })
            .collect(),
        select: ScaleSelect::Max,
    };
    let settings = Autoscale {
        min: min.parse().unwrap(),
        max: max.parse().unwrap(),
        metrics: metrics.split(',').map(metric).collect(),
        tolerance: Number(0.1),
        up: behaviour(0, &[ScaleChange::Percent { value: 100 }, ScaleChange::Copies { value: 4 }]),
        down: behaviour(300, &[ScaleChange::Percent { value: 100 }]),
    };
    for service in spec.services.values_mut().filter(|service| service.takes_requests()) {
        service.autoscale = Some(settings.clone());
    }
}

impl Script {
    /// `web.r2=100/3/slow=5/bursts=1`
    fn count(&mut self, words: &[&str]) {
        for word in words {
            let (arm, counts) = word.split_once('=').unwrap_or_else(|| panic!("{word:?} counts nothing"));
            let (service, release) = arm.split_once('.').unwrap();
            let arm = self
                .counters
                .services
                .entry(name(service))
                .or_default()
                .entry(release.parse().unwrap())
                .or_default();
            let parts: Vec<&str> = counts.split('/').collect();
            let named = |key: &str| parts.iter().find_map(|part| part.strip_prefix(key));
            let number = |text: Option<&str>| text.map_or(0, |text| text.parse::<u64>().unwrap());
            let requests = number(Some(parts[0]));
            let errors = number(parts.get(1).copied().filter(|part| !part.contains('=')));
            let slow = number(named("slow="));
            arm.requests += requests;
            arm.errors += errors;
            arm.error_bursts += named("bursts=").map_or(errors, |bursts| bursts.parse().unwrap());
            arm.unreached += number(named("unreached="));
            arm.in_flight = number(named("waiting="));
            arm.latency.resize(LATENCY_BOUNDS_MS.len() + 1, 0);
            // Under 10 ms, or under 5 s.
            arm.latency[1] += requests - slow;
            arm.latency[11] += slow;
        }
    }

    pub fn observe(&mut self, words: &[&str]) {
        let words = match words.split_first() {
            Some((&"restarted", words)) => {
                self.counters = Observation { source: self.counters.source + 1, ..Observation::default() };
                words
            }
            _ => words,
        };
        self.count(words);
        let observation = self.counters.clone();
        self.input(&Input::Observed { environment: self.key.clone(), observation });
    }

    /// Every second, until the events are other than "observed".
    pub fn flow(&mut self, words: &[&str]) {
        let (time, words) = words.split_first().unwrap();
        let steps = seconds(time).as_secs();
        for step in 1..=steps {
            self.now += 1_000;
            let before = self.out.len();
            self.input(&Input::Tick);
            self.count(words);
            let observation = self.counters.clone();
            self.input(&Input::Observed { environment: self.key.clone(), observation });
            let said = self.out.split_off(before);
            let news: Vec<&str> = said
                .lines()
                .filter(|line| !line.ends_with("  observed") && !line.contains("(ignored"))
                .collect();
            if !news.is_empty() {
                self.say(&format!("{step}s:"));
                for line in news {
                    self.out.push_str(&format!("{line}\n"));
                }
            }
            let turned = self.env().and_then(|env| env.rollout.as_ref());
            if turned.is_none_or(|rollout| matches!(rollout.phase, Phase::Aborting { .. })) {
                return;
            }
        }
    }

    pub fn measure(&mut self, words: &[&str]) {
        let reading = match words[1] {
            "none" => Reading::None { why: "connection refused".into() },
            value => Reading::Value {
                value: Number(value.parse().unwrap()),
                stable: words
                    .iter()
                    .find_map(|word| word.strip_prefix("stable="))
                    .map(|stable| Number(stable.parse().unwrap())),
            },
        };
        let gate = words[0].parse().unwrap();
        let env = self.env().unwrap();
        let rollout = env.rollout.as_ref().map_or(RolloutNumber(0), |rollout| rollout.number);
        // An answer from far away may come when something else is asked.
        let asked =
            env.gates_due().iter().find(|due| due.gate == gate).map_or(Timestamp(self.now), |due| due.due);
        let late = words.iter().find_map(|word| word.strip_prefix("late=")).map(seconds);
        let due = late.map_or(asked, |late| {
            Timestamp(asked.0.saturating_sub(u64::try_from(late.as_millis()).unwrap()))
        });
        let of = words
            .iter()
            .find_map(|word| word.strip_prefix("of=#"))
            .map(|n| RolloutNumber(n.parse().unwrap()));
        let (environment, rollout) = (self.key.clone(), of.unwrap_or(rollout));
        self.input(&Input::Measured { environment, rollout, gate, due, reading });
    }

    pub fn alert(&mut self, words: &[&str]) {
        self.input(&Input::Alert {
            environment: self.key.clone(),
            alert: words[0].into(),
            critical: !words.contains(&"warning"),
            firing: words.contains(&"on"),
            why: "as its rule says".into(),
        });
    }

    pub fn load(&mut self, words: &[&str]) {
        let copies = words.iter().find_map(|word| word.strip_prefix("copies=")).map(|n| n.parse().unwrap());
        let service = name(words[0]);
        let values = words[1..].iter().filter(|word| !word.contains('='));
        let reading = ScaleReading {
            copies: copies.unwrap_or_else(|| {
                let env = self.env().unwrap();
                env.ready_count(env.stable.unwrap(), &service)
            }),
            values: values.map(|word| word.parse().ok().map(Number)).collect(),
        };
        self.input(&Input::Sized { environment: self.key.clone(), service, reading });
    }

    pub fn evidence(&mut self) {
        let Some(view) = self.env().and_then(Environment::evidence) else {
            return self.say("no evidence is gathered");
        };
        let until = view.until.map_or(String::new(), |at| format!(", until {}", after(at)));
        let share = view.share.map_or("-".into(), |share| format!("{:.1}%", share.0 * 100.0));
        let step = view.step.map_or("no step".into(), |step| format!("step {step} of {}", view.steps));
        self.say(&format!("{step}: set {}%, gets {share}{until}", view.weight));
        for finding in &view.gates {
            let ratio = finding
                .detectable_ratio
                .map_or(String::new(), |ratio| format!("; could have seen {:.1}x", ratio.0));
            let next = finding.next_look.map_or(String::new(), |at| format!("; next look {}", after(at)));
            self.say(&format!("{} {finding}{ratio}{next}", finding.verdict.name()));
        }
    }

    pub fn due(&mut self) {
        let due: Vec<String> = self
            .env()
            .unwrap()
            .gates_due()
            .iter()
            .map(|due| format!("gate {} {} {}", due.gate, due.name, after(due.due)))
            .collect();
        self.say(&if due.is_empty() { "nothing".to_owned() } else { due.join(", ") });
    }
}
