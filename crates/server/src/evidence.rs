//! What a rollout is judged by, as the API tells it.

use fairway_api as api;
use fairway_engine::evidence::Number;
use fairway_engine::verdict::{ArmReport, Bound, EvidenceView, Finding};

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
        verdict: finding.verdict.name().to_owned(),
        reason: finding.verdict.reason().map(ToString::to_string),
        service: finding.service.as_ref().map(ToString::to_string),
        value: finding.value.map(plain),
        bound: bound.map(str::to_owned),
        threshold: finding.bound.as_ref().and_then(Bound::limit).map(plain),
        stable: finding.stable.map(plain),
        samples: finding.samples,
        needed: finding.needed,
        next_look_ms: finding.next_look.map(|at| at.0),
        detectable_ratio: finding.detectable_ratio.map(plain),
        text: finding.to_string(),
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
