//! How long a switch takes, as clients see it: from the command to the last request that the old version answered.

use std::path::Path;
use std::time::Duration;

use fairway_load::{Kind, Plan, Share};

use super::figure::{Figure, median};
use super::probe::Probe;
use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Show};

/// The resolution is the distance between two requests: 2 ms, well below every goal.
const RATE_PER_S: f64 = 500.0;

/// Between two commands, so that what one leaves behind is not measured with the next.
const PAUSE: Duration = Duration::from_millis(400);

pub fn measure(fairway: &Path, rounds: usize) -> Done<Vec<Figure>> {
    let mut home = Home::new(fairway, Show::Nothing)?;
    home.start_server()?;
    let probe = Probe::write(home.path().join("probe"))?;
    probe.check_out("0")?;
    home.must(probe.directory(), &["deploy", "-e", "dev"])?;

    let mut plan = Plan::new(probe.address());
    plan.rate_per_s = RATE_PER_S;
    plan.mix = vec![Share::new(Kind::KeepAliveGet, 1, "/"), Share::new(Kind::FreshGet, 1, "/")];
    let load = fairway_load::start(plan).context("the load")?;
    let mut commands = Vec::new();
    let mut own_starts = Vec::new();
    for round in 1..=rounds {
        // Beside each deploy, so that a machine that is busy for a while makes both slow.
        own_starts.push(ms(probe.own_start()?));
        probe.check_out(&round.to_string())?;
        std::thread::sleep(PAUSE);
        load.mark(&format!("deploy {round}"));
        home.must(probe.directory(), &["deploy", "-e", "dev", "--strategy", "blue-green"])?;
        std::thread::sleep(PAUSE);
        load.mark(&format!("rollback {round}"));
        commands.push(ms(home.must(probe.directory(), &["rollback", "-e", "dev"])?.took));
    }
    std::thread::sleep(PAUSE);
    let report = load.stop();
    let switched = |act: &str, to: &str| {
        let act = report.acts.iter().find(|seen| seen.name == act);
        let after = act.and_then(|act| act.switched_after(to));
        after.map(ms).ok_or_else(|| Fault::new(format!("{to} never answered")))
    };
    let own_start = median(own_starts);
    let mut deploys = Vec::new();
    let mut rollbacks = Vec::new();
    for round in 1..=rounds {
        deploys.push(switched(&format!("deploy {round}"), &round.to_string())?);
        rollbacks.push(switched(&format!("rollback {round}"), "0")?);
    }
    let requests = format!("{} requests, {} failed", report.total.planned, report.total.failed);
    Ok(vec![
        Figure::new(
            "blue-green: command to all switched, less the app's start",
            median(deploys.clone()) - own_start,
            "ms",
            150.0,
        )
        .detail(format!(
            "{} with it; the app itself starts in {own_start:.0} ms; {requests}",
            spread(deploys)
        ))
        .valid(report.total.failed == 0),
        Figure::new(
            "rollback to a warm release: command to all switched",
            median(rollbacks.clone()),
            "ms",
            100.0,
        )
        .detail(format!("{}; the command returns after {:.0} ms", spread(rollbacks), median(commands)))
        .valid(report.total.failed == 0),
    ])
}

fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (first, last) = (values.first().unwrap_or(&f64::NAN), values.last().unwrap_or(&f64::NAN));
    format!("{} runs, {first:.0} to {last:.0} ms", values.len())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
