//! `cargo xtask e2e`

mod alerts;
mod autoscale;
mod canary;
mod crashes;
mod dice;
mod edge;
pub mod loss;
mod notes;
mod prometheus;
mod quick;
mod refusals;
mod site;

use std::path::{Path, PathBuf};

use crate::checks::Count;
use crate::fault::Done;
use crate::{setup, workspace};

/// Test whole processes: bad input, kills at random moments, and deploys under load
///
/// Builds Fairway as for tests and drives the real binary. Every failure prints how to repeat it. Ends with one line:
/// how many passed and failed.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// This binary, instead of one built from this tree
    #[arg(long, global = true, value_name = "PATH")]
    fairway: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Bad input of every kind: an error with a cause and a hint, and nothing changed
    Refusals,
    /// Copies that follow the load, up and down
    Autoscale,
    /// Canaries that are bad, slow or good, judged by the traffic they get
    Canary,
    /// An alert from a rule to a channel, over `kill -9`, silenced, and queried as Grafana does
    Alerts,
    /// TLS, certificates, limits, headers, streams and balancers, by fairway.toml alone
    Edge,
    /// Together with a real Prometheus, Alertmanager and their tools
    Prometheus,
    /// Commands one right after the other, and several at once
    Quick,
    /// A static site over deploys: old pages keep working, downloads end well
    Site,
    /// `kill -9` of server, proxy and shims at random moments; then all must be as it was asked
    Crashes(crashes::Arguments),
    /// Deploys and rollbacks of the example shop under load, with kills of the control plane among them
    Loss(loss::Arguments),
}

pub fn run(arguments: &Arguments) -> Done {
    setup::ensure(&[setup::NODE, setup::PYTHON])?;
    let fairway = arguments.fairway.clone().map_or_else(workspace::build, workspace::binary)?;
    let mut count = Count::default();
    match &arguments.what {
        None => count.add(short(&fairway)),
        Some(What::Refusals) => count.add(refusals::run(&fairway)),
        Some(What::Autoscale) => count.add(autoscale::run(&fairway)),
        Some(What::Canary) => count.add(canary::run(&fairway)),
        Some(What::Alerts) => count.add(alerts::run(&fairway)),
        Some(What::Edge) => count.add(edge::run(&fairway)),
        Some(What::Prometheus) => count.add(prometheus::run(&fairway)),
        Some(What::Quick) => count.add(quick::run(&fairway)),
        Some(What::Site) => count.add(site::run(&fairway)),
        Some(What::Crashes(arguments)) => count.add(crashes::run(&fairway, arguments)),
        Some(What::Loss(arguments)) => count.add(loss::run(&fairway, arguments)),
    }
    count.close()
}

/// All of it, as long as a person waits for a test.
pub fn short(fairway: &Path) -> Count {
    let mut count = refusals::run(fairway);
    count.add(quick::run(fairway));
    count.add(site::run(fairway));
    count.add(twice(|| canary::run(fairway)));
    count.add(alerts::run(fairway));
    count.add(twice(|| edge::run(fairway)));
    count.add(twice(|| prometheus::short(fairway)));
    count.add(crashes::run(fairway, &crashes::Arguments::short()));
    count.add(loss::run(fairway, &loss::Arguments::short()));
    count
}

/// Stories that rest on how much time other programs take are told once more when one fails; what passes then is flaky,
/// and is said to be. Alerts, kills and losses get no second try: there one failure is a finding.
fn twice(stories: impl Fn() -> Count) -> Count {
    let first = stories();
    if first.failed == 0 {
        return first;
    }
    println!("{} failed: all of these once more", first.failed);
    let second = stories();
    if second.failed == 0 {
        println!("FLAKY   what failed before passes now");
    }
    second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_twice_has_failed_and_what_passes_is_not_run_again() {
        let of = |failures: &[u64]| {
            let left = std::cell::RefCell::new(failures.iter());
            twice(|| {
                let failed = *left.borrow_mut().next().expect("one more run than there may be");
                Count { passed: 1, failed }
            })
        };
        assert_eq!(of(&[0]), Count { passed: 1, failed: 0 });
        assert_eq!(of(&[2, 0]), Count { passed: 1, failed: 0 });
        assert_eq!(of(&[2, 1]), Count { passed: 1, failed: 1 });
    }
}
