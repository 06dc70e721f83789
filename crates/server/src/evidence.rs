//! What a rollout is judged by, as the API tells it.

use fairway_api as api;
use fairway_engine::evidence::Number;
use fairway_engine::verdict::{ArmReport, BadEvent, Bound, EvidenceView, Finding, GateId, TestCounts};

#[must_use]
pub fn to_api(view: &EvidenceView) -> api::EvidenceStatus {
    let of_service = |(service, arms): (&fairway_engine::id::ServiceName, &Vec<ArmReport>)| {
        let service = service.to_string();
        arms.iter().map(|report| arm(&service, report)).collect::<Vec<_>>()
    };
    api::EvidenceStatus {
        share: view.share.map(plain),
        mirror: view.mirror,
        experiment: view.experiment.clone(),
        looked_ms: view.looked_at.map(|at| at.0),
        until_ms: view.until.map(|at| at.0),
        gates: view.gates.iter().map(gate).collect(),
        arms: view.arms.iter().flat_map(of_service).collect(),
    }
}

fn plain(number: Number) -> f64 {
    number.0
}

#[must_use]
pub fn gate(finding: &Finding) -> api::GateStatus {
    let bound = finding.bound.as_ref().map(|bound| match bound {
        Bound::Max { .. } => "max",
        Bound::Min { .. } => "min",
        Bound::MaxVsStable { .. } => "max_vs_stable",
        Bound::Evidence { .. } => "evidence",
        Bound::Success => "success",
    });
    api::GateStatus {
        name: finding.name.clone(),
        kind: match finding.gate {
            GateId::Sequential { .. } => api::GateKind::Count,
            GateId::Gate { .. } => api::GateKind::Gate,
            GateId::Trigger { .. } => api::GateKind::Trigger,
        },
        about: about(finding),
        verdict: finding.verdict.name().to_owned(),
        reason: finding.verdict.reason().map(ToString::to_string),
        service: finding.service.as_ref().map(ToString::to_string),
        value: finding.value.map(plain),
        unit: unit(finding),
        bound: bound.map(str::to_owned),
        threshold: finding.bound.as_ref().and_then(Bound::limit).map(plain),
        stable: finding.stable.map(plain),
        samples: finding.samples,
        needed: finding.needed,
        next_look_ms: finding.next_look.map(|at| at.0),
        detectable_ratio: finding.detectable_ratio.map(plain),
        counts: finding.counts.as_ref().map(counts),
        text: finding.to_string(),
    }
}

fn about(finding: &Finding) -> api::About {
    match &finding.gate {
        GateId::Sequential { event, .. } => match event {
            BadEvent::Error => api::About::Errors,
            BadEvent::Slow => api::About::Slowness,
            BadEvent::Unreached => api::About::Connections,
            BadEvent::Silence => api::About::Silence,
        },
        GateId::Gate { .. } | GateId::Trigger { .. } => match unit(finding) {
            api::Unit::Share => api::About::Errors,
            api::Unit::Seconds => api::About::Slowness,
            // The third trigger.
            api::Unit::Plain | api::Unit::Evidence if matches!(finding.gate, GateId::Trigger { .. }) => {
                api::About::Alert
            }
            api::Unit::Plain | api::Unit::Evidence => api::About::Source,
        },
    }
}

/// A gate on the proxy's counters bears the name of its metric; what other sources say has no unit that is known.
fn unit(finding: &Finding) -> api::Unit {
    match finding.gate {
        GateId::Sequential { event: BadEvent::Silence, .. } => return api::Unit::Seconds,
        GateId::Sequential { event: BadEvent::Error | BadEvent::Slow | BadEvent::Unreached, .. } => {
            return api::Unit::Evidence;
        }
        GateId::Gate { .. } | GateId::Trigger { .. } => {}
    }
    // `error_rate #2`, `p95 for 60 s`
    match finding.name.split(' ').next().unwrap_or_default() {
        "error_rate" => api::Unit::Share,
        "p50" | "p90" | "p95" | "p99" => api::Unit::Seconds,
        _ => api::Unit::Plain,
    }
}

fn counts(counts: &TestCounts) -> api::CountsStatus {
    api::CountsStatus {
        new_requests: counts.new.requests,
        new_bad: counts.new.bad,
        stable_requests: counts.stable.requests,
        stable_bad: counts.stable.bad,
        share: counts.share.0,
        slow_above_ms: counts.slow_above_ms,
    }
}

fn arm(service: &str, report: &ArmReport) -> api::ArmStatus {
    api::ArmStatus {
        service: service.to_owned(),
        release: report.release.to_string(),
        requests: report.requests,
        errors: report.errors,
        p50: report.p50.map(plain),
        p95: report.p95.map(plain),
        p99: report.p99.map(plain),
    }
}

#[cfg(test)]
mod tests {
    use fairway_engine::verdict::Verdict;

    use super::*;

    fn finding(gate: GateId, name: &str) -> Finding {
        Finding {
            gate,
            name: name.to_owned(),
            verdict: Verdict::Failing,
            service: None,
            value: None,
            bound: None,
            stable: None,
            samples: 0,
            needed: 0,
            counts: None,
            detectable_ratio: None,
            next_look: None,
        }
    }

    #[test]
    fn what_a_gate_is_about_is_said_beside_its_name() {
        let of = |gate: GateId, name: &str| about(&finding(gate, name));
        let counted = |event| {
            let service = fairway_engine::id::ServiceName::new("web").unwrap();
            of(GateId::Sequential { service, event }, "whatever it is called")
        };
        assert_eq!(counted(BadEvent::Error), api::About::Errors);
        assert_eq!(counted(BadEvent::Slow), api::About::Slowness);
        assert_eq!(counted(BadEvent::Unreached), api::About::Connections);
        assert_eq!(counted(BadEvent::Silence), api::About::Silence);
        let trigger = GateId::Trigger { index: 0 };
        assert_eq!(of(trigger.clone(), "error_rate for 120 s"), api::About::Errors);
        assert_eq!(of(trigger.clone(), "p95 for 60 s"), api::About::Slowness);
        assert_eq!(of(trigger, "critical alert WebDown: no copy is ready"), api::About::Alert);
        assert_eq!(of(GateId::Gate { index: 0 }, "max(queue_depth)"), api::About::Source);
    }

    #[test]
    fn a_gate_of_the_proxys_counters_has_a_unit_and_a_query_has_none() {
        let of = |name: &str| unit(&finding(GateId::Gate { index: 0 }, name));
        assert_eq!(of("error_rate #2"), api::Unit::Share);
        assert_eq!(of("p95 for 60 s"), api::Unit::Seconds);
        assert_eq!(of("max(error_rate{version=\"$version\"})"), api::Unit::Plain);
    }
}
