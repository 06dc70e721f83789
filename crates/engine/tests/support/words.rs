//! What scripts show of facts, effects and routes.

use std::fmt::Write as _;

use super::START;
use fairway_engine::time::Timestamp;
use fairway_engine::*;

pub fn after(at: Timestamp) -> String {
    if at.0 == u64::MAX { "never".into() } else { format!("{}s", at.0.saturating_sub(START) as f64 / 1000.0) }
}

pub fn route_table(table: &RouteTable) -> String {
    let mut text = String::new();
    for (service, route) in &table.services {
        let versions: Vec<String> = route
            .versions
            .iter()
            .map(|(release, version)| {
                let copies: Vec<String> =
                    version.instances.keys().map(|id| format!(".{}", id.ordinal)).collect();
                let matches = if version.matches.is_empty() { "" } else { " match" };
                let mirror =
                    if version.mirror == 0 { String::new() } else { format!(" mirror {}%", version.mirror) };
                format!("{release} {}%{matches}{mirror} [{}]", version.weight, copies.join(" "))
            })
            .collect();
        let _ = write!(text, " {service}: {}", versions.join(", "));
    }
    if let Some(preview) = table.preview {
        let _ = write!(text, " (preview {preview})");
    }
    if let Some(message) = &table.maintenance {
        let _ = write!(text, " (maintenance: {message})");
    }
    if text.is_empty() { " nothing".into() } else { text }
}

pub fn phase(phase: &Phase) -> String {
    match phase {
        Phase::Planned | Phase::Starting | Phase::Committing => phase.name().into(),
        Phase::Migrating { job } => format!("migrating by {job}"),
        Phase::Verifying { job, check } => format!("verifying by {job} ({check:?})"),
        Phase::Shifting { step, state } => match state {
            StepState::Raising => format!("shifting step {step}: raising"),
            StepState::Holding { until } => format!("shifting step {step}: holding until {}", after(*until)),
            StepState::AwaitingPromotion => format!("shifting step {step}: awaiting promotion"),
        },
        Phase::Baking { until } => format!("baking until {}", after(*until)),
        Phase::Aborting { cause, shifted } => {
            format!("aborting ({}): {cause}", if *shifted { "shifted" } else { "nothing shifted" })
        }
    }
}

pub fn fact(fact: &Fact) -> String {
    match fact {
        Fact::ReleaseCreated { release } => format!("release {} created", release.number),
        Fact::ReleaseDropped { release, why } => format!("release {release} dropped: {why}"),
        Fact::RolloutPlanned { rollout } => {
            let from = rollout.from.map_or("nothing".into(), |from| from.to_string());
            format!("{} planned: {:?} {from} -> {}", rollout.number, rollout.kind, rollout.to)
        }
        Fact::PhaseEntered { phase: entered, deadline } => {
            let deadline = deadline.map_or(String::new(), |at| format!(" (at most until {})", after(at)));
            format!("{}{deadline}", phase(entered))
        }
        Fact::RolloutEnded { rollout, outcome, warm_until } => {
            let why = match outcome {
                RolloutOutcome::RolledBack { cause } | RolloutOutcome::Failed { cause } => {
                    format!(": {cause}")
                }
                RolloutOutcome::Superseded { by } => format!(" by {by}"),
                RolloutOutcome::TakenDown { by } => format!(" by {by}"),
                RolloutOutcome::Completed => String::new(),
            };
            let warm =
                warm_until.map_or(String::new(), |at| format!(", the old one warm until {}", after(at)));
            format!("{rollout} {}{why}{warm}", outcome.name())
        }
        Fact::Resumed { paused_for } => format!("resumed after {}s", paused_for.as_secs()),
        Fact::Cooled { release } => format!("{release} no longer warm"),
        Fact::InstancePlanned { instance, deadline, .. } => {
            format!("{instance} planned, ready by {}", after(*deadline))
        }
        Fact::InstanceStarted { instance, .. } => format!("{instance} started"),
        Fact::InstanceReady { instance } => format!("{instance} ready"),
        Fact::InstanceSuspect { instance, why } => format!("{instance} suspect: {why}"),
        Fact::InstanceDown { instance, why } => format!("{instance} down: {why}"),
        Fact::InstanceDraining { instance, deadline, cut } => {
            format!("{instance} draining, cut by {cut}, until {}", after(*deadline))
        }
        Fact::InstanceStopping { instance, deadline } => {
            format!("{instance} stopping until {}", after(*deadline))
        }
        Fact::InstanceEnded { instance, how } => match how {
            InstanceEnd::Stopped { exit } => format!("{instance} stopped ({exit})"),
            InstanceEnd::Failed { failure } => format!("{instance} failed: {}", failure.cause),
            InstanceEnd::Unverifiable { why } => format!("{instance} beyond control: {why}"),
        },
        Fact::ReplacementDelayed { service, failures, not_before } => {
            format!("{service}: failure {failures}, replaced not before {}", after(*not_before))
        }
        Fact::RoutesSet { generation, table } => format!("{generation}:{}", route_table(table)),
        Fact::RoutesApplied { generation } => format!("{generation} applied"),
        Fact::RoutesRefused { generation, why } => format!("{generation} refused: {why}"),
        Fact::JobPlanned { job } => format!("{} planned: {} of {}", job.number, job.kind.name(), job.release),
        Fact::JobEnded { job, end } => match end {
            JobEnd::Succeeded => format!("{job} succeeded"),
            JobEnd::Failed { failure } => format!("{job} failed: {}", failure.cause),
            JobEnd::Lost { why } => format!("{job} lost: {why}"),
        },
        Fact::ContractScheduled { release, due } => format!("contraction of {release} due {}", after(*due)),
        Fact::ContractCancelled { release, why } => format!("contraction of {release} cancelled: {why}"),
        Fact::SchemaContracted { release } => format!("schema contracted by {release}"),
        Fact::Scaled { service, replicas, until: None } => format!("{service} scaled to {replicas}"),
        Fact::Scaled { service, replicas, until: Some(until) } => {
            format!("{service} scaled to {replicas} until {}", after(*until))
        }
        Fact::ScaleFreed { service } => format!("{service} no longer scaled by hand"),
        Fact::ScaleAdvised { service, replicas } => format!("{service}: the load asks for {replicas}"),
        Fact::AutoScaled { service, from, to, .. } => {
            format!("{service} scaled by its load from {from} to {to}")
        }
        Fact::Observed { .. } => "observed".into(),
        Fact::Measured { gate, reading } => match reading {
            Reading::Value { value, .. } => format!("gate {gate} measured: {value}"),
            Reading::None { why } => format!("gate {gate} measured nothing: {why}"),
        },
        Fact::BaselineFrozen { service, slow_above_ms, requests } => {
            format!("{service}: slow is over {slow_above_ms} ms, by {requests} requests of stable")
        }
        Fact::GateChanged { finding } => format!("{}: {finding}", finding.verdict.name()),
        Fact::StepHeld { until, finding } => format!("held until {}: {finding}", after(*until)),
        Fact::GateWaived { name, for_rollout: false, .. } => format!("waived: {name}"),
        Fact::GateWaived { name, for_rollout: true, .. } => format!("waived for this rollout: {name}"),
        Fact::PausedOnEvidence { finding } => format!("paused: {finding}"),
        Fact::ExperimentReported { experiment, step, arms } => {
            let sides = arms.iter().flat_map(|(service, sides)| {
                sides.iter().map(move |side| {
                    let ms = |p: Option<evidence::Number>| {
                        p.map_or("-".into(), |p| format!("{} ms", (p.0 * 1000.0).round()))
                    };
                    let (p50, p99) = (ms(side.p50), ms(side.p99));
                    format!(
                        "{service} {}: {} requests, {} errors, p50 {p50}, p99 {p99}",
                        side.release, side.requests, side.errors
                    )
                })
            });
            format!("experiment {experiment} of step {step}: {}", sides.collect::<Vec<_>>().join("; "))
        }
        Fact::AlertChanged { alert, firing: true, why } => format!("alert {alert} fires: {why}"),
        Fact::AlertChanged { alert, firing: false, .. } => format!("alert {alert} is over"),
        Fact::RestartRequested { service } => format!("restart of {service}"),
        Fact::RestartAbandoned { service, failure } => {
            format!("restart of {service} abandoned: {}", failure.cause)
        }
        Fact::MaintenanceOn { message } => format!("maintenance on: {message}"),
        Fact::DeployQueued { .. } => "deploy queued".into(),
        Fact::CertificateObtained { names, .. }
        | Fact::CertificateFailed { names, .. }
        | Fact::CertificateRetried { names }
        | Fact::CertificateLetGo { names } => format!("{}: {}", names.join(", "), fact.name()),
        Fact::UpgradeBegun { upgrade, .. } => format!("upgrade to {} begun", upgrade.to),
        Fact::ProxyHandedOver { .. } => "proxy handed over".into(),
        Fact::UpgradeEnded { upgrade, .. } => format!("upgrade to {} ended", upgrade.to),
        Fact::EnvironmentCreated
        | Fact::Approved
        | Fact::Switched
        | Fact::Paused
        | Fact::DeployDequeued
        | Fact::MaintenanceOff
        | Fact::PurgeAsked { .. }
        | Fact::CachePurged { .. }
        | Fact::PurgeDue { .. }
        | Fact::Purged { .. }
        | Fact::TakenDown => fact.name().replace('_', " "),
    }
}

pub fn effect(effect: &Effect) -> String {
    match effect {
        Effect::StartInstance { instance, .. } => format!("start {instance}"),
        Effect::StopInstance { instance, .. } => format!("stop {instance}"),
        Effect::ApplyRoutes { generation, .. } => format!("apply {generation}"),
        Effect::RunJob { job, .. } => format!("run {job}"),
        Effect::CancelJob { job, .. } => format!("cancel {job}"),
    }
}
