//! `POST /v1/gc?dry_run=true|false`: what no retained release needs.

mod sites;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Query, State};
use fairway_api::{ApiError, GcItem, GcReport};
use fairway_store::{Removal, Roots};
use serde::Deserialize;

use super::{Answer, App, blocking};
use crate::ENDED_KEPT;

/// What was touched within this time may belong to a deploy that has not been asked for yet.
const GRACE: Duration = Duration::from_secs(3600);

#[derive(Debug, Deserialize)]
pub struct Wanted {
    #[serde(default)]
    dry_run: bool,
}

pub async fn gc(State(app): State<App>, Query(wanted): Query<Wanted>) -> Answer<GcReport> {
    blocking(move || {
        let fail = |error: String| ApiError::new("gc/failed", "cleaning up failed").cause(error);
        let roots = roots(&app);
        let now = SystemTime::now();
        let plan = app.trees.gc(&roots, GRACE, now).map_err(|e| fail(e.to_string()))?;
        let removed = if wanted.dry_run {
            plan.remove.clone()
        } else {
            // Releases that came while the plan was made are among the roots of now.
            app.trees.apply(&plan, &self::roots(&app), GRACE, now).map_err(|e| fail(e.to_string()))?.removed
        };
        let mut report = report(&removed, !wanted.dry_run);
        let sites = sites::unneeded(&app.state_dir, &kept_sites(&app), GRACE, now);
        for site in sites {
            if !wanted.dry_run {
                site.remove().map_err(|e| fail(format!("{}: {e}", site.path.display())))?;
            }
            report.bytes += site.bytes;
            let (what, why) = (site.path.display().to_string(), site.why.to_owned());
            report.items.push(GcItem { what, why, bytes: site.bytes });
        }
        if !wanted.dry_run {
            let reaped = app.drivers.supervisor.reap(ENDED_KEPT).map_err(|e| fail(e.to_string()))?;
            report.bytes += reaped.bytes;
            let names = reaped.instances.iter().map(ToString::to_string);
            report.items.extend(names.chain(reaped.jobs.iter().map(ToString::to_string)).map(|what| {
                GcItem {
                    what,
                    why: format!("ended, and {ENDED_KEPT} newer ones are kept with their logs"),
                    bytes: 0,
                }
            }));
        }
        Ok(report)
    })
    .await
    .map(Json)
}

/// Every static site of a release that may be started, and of copies that run.
fn kept_sites(app: &App) -> BTreeSet<(String, String)> {
    app.pump.shared.read(|state| {
        let environments = state.environments.values();
        environments
            .flat_map(|env| {
                let name = format!("{}.{}", env.key.project, env.key.environment);
                let specs = env.releases.values().map(|release| &release.spec);
                let queued = env.queue.iter().map(|queued| &*queued.spec);
                let services = specs.chain(queued).flat_map(|spec| spec.services.keys());
                let running = env.instances.keys().map(|instance| &instance.service);
                let services: BTreeSet<_> = services.chain(running).map(ToString::to_string).collect();
                services.into_iter().map(move |service| (name.clone(), service))
            })
            .collect()
    })
}

/// Every tree that a release on the record could still be started from.
fn roots(app: &App) -> Roots {
    let trees = app.pump.shared.read(|state| {
        state
            .environments
            .values()
            .flat_map(|env| {
                let queued = env.queue.iter().map(|queued| &*queued.spec);
                env.releases.values().map(|release| &release.spec).chain(queued)
            })
            .flat_map(crate::artifacts::of_spec)
            .collect()
    });
    Roots { trees, ..Roots::default() }
}

fn report(removed: &[Removal], done: bool) -> GcReport {
    let items: Vec<GcItem> = removed
        .iter()
        .map(|one| GcItem { what: one.path.display().to_string(), why: one.why.to_owned(), bytes: one.bytes })
        .collect();
    GcReport { bytes: items.iter().map(|item| item.bytes).sum(), items, done }
}
