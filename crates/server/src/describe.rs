//! Facts in one sentence each, for `history`, `watch` and the log's readers.

use fairway_engine::certificate::CertificateGain;
use fairway_engine::id::EnvironmentKey;
use fairway_engine::time::Timestamp;
use fairway_engine::{
    Event, Fact, InstanceEnd, JobEnd, Phase, Reading, RolloutKind, RolloutOutcome, StepState, Upgrade,
    UpgradeEnd,
};

/// The event as it crosses the API.
#[must_use]
pub fn to_api(seq: u64, event: &Event) -> fairway_api::Event {
    fairway_api::Event {
        seq,
        at_ms: event.at.0,
        actor: event.actor.clone(),
        project: event.environment.project.to_string(),
        environment: event.environment.environment.to_string(),
        kind: event.fact.name().to_owned(),
        summary: summary(&event.environment, &event.actor, &event.fact),
        detail: detail(&event.fact),
    }
}

/// The fields of the fact. Its name is beside them, as `kind`.
fn detail(fact: &Fact) -> serde_json::Value {
    match serde_json::to_value(fact) {
        Ok(serde_json::Value::Object(stored)) => {
            stored.into_iter().next().map(|(_, fields)| fields).unwrap_or_default()
        }
        // A fact without fields is stored as its name alone.
        Ok(_) | Err(_) => serde_json::Value::Object(serde_json::Map::new()),
    }
}

fn because(reason: Option<&String>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

/// The two versions are the same where a build is replaced by another one of it.
fn upgrade_ended(Upgrade { from, to, by, .. }: &Upgrade, end: &UpgradeEnd) -> String {
    match end {
        UpgradeEnd::Done => format!("Fairway runs {to}; before: {from}; asked for by {by}"),
        UpgradeEnd::Refused { why } => {
            format!("upgrade to {to} refused, Fairway is {from} as before: {why}")
        }
        UpgradeEnd::CameBack { why } => {
            format!("upgrade to {to} failed, the server is {from} again: {why}")
        }
        UpgradeEnd::Interrupted { version } => {
            format!("upgrade to {to} interrupted: the server ended, and was started again as {version}")
        }
    }
}

#[must_use]
pub fn summary(environment: &EnvironmentKey, actor: &str, fact: &Fact) -> String {
    match fact {
        Fact::EnvironmentCreated => format!("environment {environment} created"),
        Fact::ReleaseCreated { release } => match &release.spec.source.title {
            Some(title) => format!("release {} made: {title}", release.number),
            None => format!("release {} made", release.number),
        },
        Fact::ReleaseDropped { release, why } => format!("release {release} dropped: {why}"),
        Fact::RolloutPlanned { rollout } => {
            let what = match rollout.kind {
                RolloutKind::Deploy => format!("deploy of {} ({})", rollout.to, rollout.strategy.name()),
                RolloutKind::Rollback => format!("rollback to {}", rollout.to),
            };
            let from = rollout.from.map(|from| format!(", from {from}")).unwrap_or_default();
            format!("rollout {}: {what}{from}{}", rollout.number, because(rollout.reason.as_ref()))
        }
        Fact::Approved => format!("approved by {actor}"),
        Fact::PhaseEntered { phase, .. } => phase_summary(phase),
        Fact::Switched => "all public traffic is switched".to_owned(),
        Fact::Paused => format!("paused by {actor}"),
        Fact::Resumed { paused_for } => format!("resumed by {actor} after {} s", paused_for.as_secs()),
        Fact::RolloutEnded { rollout, outcome, warm_until } => {
            let warm = warm_until.map(|_| "; the old version stays warm").unwrap_or_default();
            match outcome {
                RolloutOutcome::Completed => format!("rollout {rollout} completed{warm}"),
                RolloutOutcome::RolledBack { cause } => format!("rollout {rollout} rolled back: {cause}"),
                RolloutOutcome::Failed { cause } => format!("rollout {rollout} failed: {cause}"),
                RolloutOutcome::Superseded { by } => {
                    format!("rollout {rollout} superseded by {by} ({actor})")
                }
                RolloutOutcome::TakenDown { by } => {
                    format!("rollout {rollout} ended: {by} took the environment down")
                }
            }
        }
        Fact::Cooled { release } => format!("{release} is no longer kept warm"),
        Fact::DeployQueued { reason, .. } => format!("deploy queued by {actor}{}", because(reason.as_ref())),
        Fact::DeployDequeued => "the next queued deploy begins".to_owned(),
        Fact::InstancePlanned { instance, .. } => format!("{instance} starts"),
        Fact::InstanceStarted { instance, address } => match address {
            Some(address) => format!("{instance} runs at {address}"),
            None => format!("{instance} runs"),
        },
        Fact::InstanceReady { instance } => format!("{instance} is ready"),
        Fact::InstanceSuspect { instance, why } => format!("{instance} is suspect: {why}"),
        Fact::InstanceDown { instance, why } => format!("{instance} went down: {why}"),
        Fact::InstanceDraining { instance, .. } => format!("{instance} drains"),
        Fact::InstanceStopping { instance, .. } => format!("{instance} stops"),
        Fact::InstanceEnded { instance, how } => match how {
            InstanceEnd::Stopped { exit } => format!("{instance} stopped ({exit})"),
            InstanceEnd::Failed { failure } => format!("{instance} failed: {}", failure.cause),
            InstanceEnd::Unverifiable { why } => format!("{instance} is beyond control: {why}"),
        },
        Fact::ReplacementDelayed { service, failures, .. } => {
            format!("{service} failed {failures} times; the next copy starts later")
        }
        Fact::RoutesSet { generation, .. } => format!("route table {generation} decided"),
        Fact::RoutesApplied { generation } => format!("route table {generation} in force"),
        Fact::RoutesRefused { generation, why } => {
            format!("the proxy refused route table {generation}: {why}")
        }
        Fact::JobPlanned { job } => format!("{} {} of {} started", job.kind.name(), job.number, job.release),
        Fact::JobEnded { job, end } => match end {
            JobEnd::Succeeded => format!("{job} succeeded"),
            JobEnd::Failed { failure } => format!("{job} failed: {}", failure.cause),
            JobEnd::Lost { why } => format!("{job} is lost: {why}"),
        },
        Fact::ContractScheduled { release, .. } => format!("contract migration of {release} is scheduled"),
        Fact::ContractCancelled { release, why } => {
            format!("contract migration of {release} cancelled: {why}")
        }
        Fact::SchemaContracted { release } => {
            format!("schema contracted for {release}: older releases cannot come back")
        }
        Fact::Observed { .. } => "the proxy's counters were read".to_owned(),
        Fact::Measured { gate, reading } => match reading {
            Reading::Value { value, .. } => format!("gate {}: {value}", gate + 1),
            Reading::None { why } => format!("gate {}: no data: {why}", gate + 1),
        },
        Fact::BaselineFrozen { service, slow_above_ms, requests } => {
            format!("answers of {service} over {slow_above_ms} ms count as slow: stable's p99 of {requests}")
        }
        Fact::GateChanged { finding } => match finding.verdict.reason() {
            Some(_) => finding.to_string(),
            None => format!("{}: {finding}", finding.verdict.name()),
        },
        Fact::StepHeld { finding, .. } => format!("held for want of evidence: {finding}"),
        Fact::GateWaived { name, for_rollout: false, .. } => {
            format!("{name} has no data, and passes without, as the release says")
        }
        Fact::GateWaived { name, for_rollout: true, .. } => {
            format!("{name} has no data, and passes without in this rollout, as {actor} has decided")
        }
        Fact::PausedOnEvidence { finding } => format!("paused by {actor}: {finding}"),
        Fact::ExperimentReported { experiment, step, .. } => {
            format!("experiment {experiment} of step {} reported", step + 1)
        }
        Fact::AlertChanged { alert, firing: true, why } => format!("critical alert {alert} fires: {why}"),
        Fact::AlertChanged { alert, firing: false, .. } => format!("critical alert {alert} is over"),
        Fact::Scaled { service, replicas, until: None } => {
            format!("{service} scaled to {replicas} by {actor}")
        }
        Fact::Scaled { service, replicas, until: Some(_) } => {
            format!("{service} scaled to {replicas} by {actor} for a time; the load decides again after that")
        }
        Fact::ScaleFreed { service } => {
            format!("{service} is no longer scaled by hand")
        }
        Fact::ScaleAdvised { service, replicas } => {
            format!("the load asks for {replicas} copies of {service}")
        }
        Fact::AutoScaled { service, from, to, .. } => {
            format!("{service} scaled from {from} to {to} by its load")
        }
        Fact::RestartRequested { service } => format!("restart of {service} by {actor}"),
        Fact::RestartAbandoned { service, failure } => {
            format!("restart of {service} given up, the old copies stay: {}", failure.cause)
        }
        Fact::MaintenanceOn { message } => format!("maintenance on by {actor}: {message}"),
        Fact::MaintenanceOff => format!("maintenance off by {actor}"),
        Fact::PurgeAsked { service, paths, paths_more, .. } => {
            let service = service.as_ref().map(|service| format!(" of {service}")).unwrap_or_default();
            let more = if *paths_more > 0 { format!(" and {paths_more} more") } else { String::new() };
            let paths = if paths.is_empty() { "all paths".to_owned() } else { paths.join(", ") };
            format!("kept answers{service} let go by {actor}: {paths}{more}")
        }
        Fact::CachePurged { answers, failure: None, .. } => {
            format!("the proxy has let kept answers go: {answers}")
        }
        Fact::CachePurged { failure: Some(why), .. } => format!("the proxy has not emptied its cache: {why}"),
        Fact::PurgeDue { release, rollout, .. } => {
            let after = rollout.map(|rollout| format!(" after rollout {rollout}")).unwrap_or_default();
            format!("the purge hook of {release} is asked{after}")
        }
        Fact::Purged { release, attempts, failure: None } => {
            format!("the purge hook of {release} was carried out{}", after_attempts(*attempts))
        }
        Fact::Purged { release, attempts, failure: Some(why) } => {
            format!("the purge hook of {release} came to nothing{}: {why}", after_attempts(*attempts))
        }
        Fact::TakenDown => format!("taken down by {actor}"),
        Fact::CertificateObtained { names, source, how, until, failing_since, asked_by, .. } => {
            let what = match (how, failing_since) {
                (CertificateGain::Issued, _) => "obtained",
                (CertificateGain::Renewed, _) => "renewed",
                (CertificateGain::Kept, None) => "is there",
                (CertificateGain::Kept, Some(_)) => "works again",
            };
            let since = failing_since.map(|since| format!("; it had failed since {}", utc(since)));
            let (names, asked, until) = (names.join(", "), asked_for(asked_by.as_ref()), utc(*until));
            format!(
                "certificate of {names} {what} ({source}), good until {until}{}{asked}",
                since.unwrap_or_default()
            )
        }
        Fact::CertificateFailed { names, source, why, until, asked_by, .. } => {
            let (names, asked) = (names.join(", "), asked_for(asked_by.as_ref()));
            match until {
                Some(until) => format!(
                    "no newer certificate for {names} ({source}), the one that serves ends {}{asked}: {why}",
                    utc(*until)
                ),
                None => format!("no certificate for {names} ({source}){asked}: {why}"),
            }
        }
        Fact::CertificateRetried { names } => {
            format!("the certificate of {} is to be tried again, by {actor}", names.join(", "))
        }
        Fact::CertificateLetGo { names } => {
            format!("no certificate is wanted for {} any more", names.join(", "))
        }
        Fact::UpgradeBegun { upgrade: Upgrade { from, to, .. }, program } => {
            format!("upgrade of Fairway from {from} to {to} ({program}) by {actor}")
        }
        Fact::ProxyHandedOver { took_ms, .. } => {
            format!("the proxy handed its sockets to the new one in {took_ms} ms")
        }
        Fact::UpgradeEnded { upgrade, end } => upgrade_ended(upgrade, end),
    }
}

fn utc(at: Timestamp) -> String {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
    match time::OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => format!("{} {:02}:{:02} UTC", at.date(), at.hour(), at.minute()),
        Err(_) => at.to_string(),
    }
}

fn asked_for(by: Option<&String>) -> String {
    by.map(|by| format!("; asked for by {by}")).unwrap_or_default()
}

fn after_attempts(attempts: u32) -> String {
    if attempts > 1 { format!(" after {attempts} attempts") } else { String::new() }
}

fn phase_summary(phase: &Phase) -> String {
    match phase {
        Phase::Planned => "planned".to_owned(),
        Phase::Migrating { job } => format!("migrating ({job})"),
        Phase::Starting => "starting the copies".to_owned(),
        Phase::Verifying { job, .. } => format!("verifying over the preview route ({job})"),
        Phase::Shifting { step, state } => match state {
            StepState::Raising => format!("step {}: shifting traffic", step + 1),
            StepState::Holding { .. } => format!("step {}: holding", step + 1),
            StepState::AwaitingPromotion => format!("step {}: waiting for somebody to promote", step + 1),
        },
        Phase::Baking { .. } => "baking: all traffic is switched, and watched".to_owned(),
        Phase::Committing => "committing".to_owned(),
        Phase::Aborting { cause, .. } => format!("aborting: {cause}"),
    }
}
