//! What history shows besides rollouts: purges and certificates, each with who asked and what came of it.

use fairway_api as api;
use fairway_engine::certificate::{CertificateChange, CertificateGain, CertificateNews};
use fairway_engine::purge::{CachePurge, HookPurge, PurgeAbout, PurgeAccount};

/// Of what Fairway does by itself.
const SELF: &str = "fairway";

pub(super) fn purge(one: &PurgeAccount) -> api::PurgeInfo {
    let (rollout, service, paths, paths_more) = match &one.about {
        PurgeAbout::Asked { service, paths, paths_more, .. } => {
            (None, service.as_ref().map(ToString::to_string), paths.clone(), *paths_more)
        }
        PurgeAbout::Rollout { rollout } => (Some(rollout.0), None, Vec::new(), 0),
        PurgeAbout::Unsaid => (None, None, Vec::new(), 0),
    };
    let (release, attempts) = match &one.hook {
        HookPurge::None => (None, None),
        HookPurge::UnderWay { release } | HookPurge::Superseded { release } => (Some(release), None),
        HookPurge::Done { release, attempts, .. } | HookPurge::Failed { release, attempts, .. } => {
            (Some(release), Some(*attempts))
        }
    };
    let (outcome, cause) = match (&one.cache, &one.hook) {
        (CachePurge::Failed { why, .. }, _) | (_, HookPurge::Failed { why, .. }) => {
            ("failed", Some(why.clone()))
        }
        (CachePurge::UnderWay, _) | (_, HookPurge::UnderWay { .. }) => ("under way", None),
        (_, HookPurge::Superseded { .. }) => ("superseded", None),
        (CachePurge::None | CachePurge::Done { .. }, HookPurge::None | HookPurge::Done { .. }) => {
            ("done", None)
        }
    };
    let answers = match one.cache {
        CachePurge::Done { answers, .. } => Some(answers),
        CachePurge::None | CachePurge::UnderWay | CachePurge::Failed { .. } => None,
    };
    api::PurgeInfo {
        at_ms: one.at.0,
        by: one.by.clone(),
        rollout,
        service,
        paths,
        paths_more,
        outcome: outcome.to_owned(),
        answers,
        release: release.map(ToString::to_string),
        attempts,
        cause,
    }
}

pub(super) fn certificate(one: &CertificateNews) -> api::CertificateNews {
    let blank = api::CertificateNews {
        at_ms: one.at.0,
        names: one.names.clone(),
        outcome: "tried again".to_owned(),
        source: None,
        by: one.by.clone().unwrap_or_else(|| SELF.to_owned()),
        until_ms: None,
        failing_since_ms: None,
        code: None,
        cause: None,
    };
    match &one.what {
        CertificateChange::Retried => blank,
        CertificateChange::Obtained { source, how, until, failing_since } => {
            let outcome = match how {
                CertificateGain::Issued => "issued",
                CertificateGain::Renewed => "renewed",
                CertificateGain::Kept => "works again",
            };
            api::CertificateNews {
                outcome: outcome.to_owned(),
                source: Some(source.clone()),
                until_ms: Some(until.0),
                failing_since_ms: failing_since.map(|since| since.0),
                ..blank
            }
        }
        CertificateChange::Failed { source, code, why, until } => api::CertificateNews {
            outcome: "failed".to_owned(),
            source: Some(source.clone()),
            until_ms: until.map(|until| until.0),
            code: Some(code.clone()),
            cause: Some(why.clone()),
            ..blank
        },
    }
}
