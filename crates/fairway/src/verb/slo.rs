//! `fairway slo`

use fairway_api::{SloInfo, SloStanding};
use serde_json::json;

use crate::ago;
use crate::context::Context;
use crate::duration;
use crate::exit::Exit;
use crate::output::{Colours, Paint, printable};
use crate::problem::{Outcome, Problem, ask};

/// Objectives, and how much of their error budget is left
///
/// A burn rate of 1 spends the budget exactly by the end of the window; 14 spends a month's in two days. Exits with 3
/// when a budget is spent and `--exit-code` is given.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway slo -e production\n  fairway slo api -e production\n  fairway slo -e production --exit-code || echo 'ship what makes it reliable'"
)]
pub struct Args {
    /// Only this one
    name: Option<String>,
    /// Exit with 3 when a budget is spent
    #[arg(long)]
    exit_code: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let mut slos = ask(client.slos(&target)).await?;
        if let Some(name) = &args.name {
            let known: Vec<String> = slos.iter().map(|slo| slo.name.clone()).collect();
            slos.retain(|slo| slo.name == *name);
            if slos.is_empty() {
                return Err(Problem::usage(
                    "slo/unknown",
                    format!("{} has no objective {name:?}", target.environment),
                    if known.is_empty() {
                        "objectives are in [slo.NAME] of fairway.toml".to_owned()
                    } else {
                        format!("there are {}", known.join(", "))
                    },
                ));
            }
        }
        if slos.is_empty() {
            cx.out.progress(format!(
                "{} has no objectives; they are in [slo.NAME] of fairway.toml",
                target.environment
            ));
        } else {
            let now_ms = ago::now_ms();
            let shown: Vec<String> = slos.iter().map(|slo| describe(slo, now_ms, cx.out.colours())).collect();
            cx.out.data(shown.join("\n"));
        }
        let exit = if args.exit_code && slos.iter().any(is_spent) { Exit::Findings } else { Exit::Done };
        cx.out.result(exit, &json!(slos));
        Ok(exit)
    })
}

fn is_spent(slo: &SloInfo) -> bool {
    matches!(slo.standing, SloStanding::Measured { remaining_ratio, .. } if remaining_ratio <= 0.0)
}

fn days(ms: u64) -> String {
    duration::show_ms(0, ms)
}

fn describe(slo: &SloInfo, now_ms: u64, colours: Colours) -> String {
    let name = colours.paint(Paint::Bold, &printable(&slo.name));
    let mut lines = vec![format!(
        "{name}  {}% over {}: {}",
        percent(slo.objective),
        days(slo.window_ms),
        printable(&slo.goal)
    )];
    match &slo.standing {
        SloStanding::NoData => {
            lines.push("    no figures yet: nothing was recorded in the window".to_owned())
        }
        SloStanding::NoTraffic => lines.push("    no traffic in the window".to_owned()),
        SloStanding::Unknown { why } => {
            lines.push(format!("    {}: {}", colours.paint(Paint::Warn, "not known"), printable(why)));
        }
        SloStanding::Measured { good, total, remaining_ratio, exhausted_at_ms } => {
            let paint = match *remaining_ratio {
                left if left <= 0.0 => Paint::Bad,
                left if left < 0.25 => Paint::Warn,
                _ => Paint::Good,
            };
            let word = if *remaining_ratio <= 0.0 { "overspent" } else { "left" };
            let left = format!("{}% of the budget {word}", percent(remaining_ratio.abs()));
            lines.push(format!(
                "    {}; {:.0} of {:.0} were good ({}%)",
                colours.paint(paint, &left),
                good,
                total,
                percent(good / total)
            ));
            let burns: Vec<String> = slo
                .burns
                .iter()
                .map(|burn| {
                    let rate = burn.rate.map_or_else(|| "no traffic".to_owned(), |rate| format!("{rate:.2}"));
                    format!("{} over {}", rate, days(burn.window_ms))
                })
                .collect();
            lines.push(format!("    burn rates: {}", burns.join(", ")));
            match exhausted_at_ms {
                Some(at_ms) if *remaining_ratio > 0.0 => lines.push(format!(
                    "    at the pace of the last hour it is spent in {} ({} UTC)",
                    duration::show_ms(now_ms, *at_ms),
                    ago::utc(*at_ms)
                )),
                Some(_) | None => {}
            }
        }
    }
    if slo.covered_ms < slo.window_ms && slo.covered_ms > 0 {
        let share = slo.covered_ms as f64 / slo.window_ms as f64;
        lines.push(format!(
            "    figures for {} of it ({}%); the rest counts as neither good nor bad",
            days(slo.covered_ms),
            percent(share)
        ));
    }
    lines.join("\n")
}

/// Three digits after the point at most, and no more than are needed: 99.9, 99.995.
fn percent(ratio: f64) -> f64 {
    (ratio * 1e5).round() / 1e3
}

#[cfg(test)]
mod tests {
    use fairway_api::SloBurn;

    use super::*;

    fn slo(standing: SloStanding) -> SloInfo {
        SloInfo {
            name: "api".to_owned(),
            goal: "requests to api that did not fail".to_owned(),
            objective: 0.999,
            window_ms: 30 * 86_400_000,
            covered_ms: 86_400_000,
            standing,
            burns: vec![
                SloBurn { window_ms: 3_600_000, rate: Some(1.5) },
                SloBurn { window_ms: 300_000, rate: None },
            ],
        }
    }

    fn measured(remaining_ratio: f64, exhausted_at_ms: Option<u64>) -> SloInfo {
        slo(SloStanding::Measured { good: 9995.0, total: 10_000.0, remaining_ratio, exhausted_at_ms })
    }

    #[test]
    fn a_budget_is_told_with_what_it_is_known_by() {
        let shown = describe(&measured(0.5, Some(7_200_000)), 0, Colours::Off);
        assert_eq!(
            shown.lines().collect::<Vec<_>>(),
            [
                "api  99.9% over 30d 0h: requests to api that did not fail",
                "    50% of the budget left; 9995 of 10000 were good (99.95%)",
                "    burn rates: 1.50 over 1h 00m, no traffic over 5m 00s",
                "    at the pace of the last hour it is spent in 2h 00m (1970-01-01 02:00:00 UTC)",
                "    figures for 1d 0h of it (3.333%); the rest counts as neither good nor bad",
            ]
        );
        assert!(describe(&measured(-0.2, Some(0)), 0, Colours::Off).contains("20% of the budget overspent"));
        assert!(describe(&slo(SloStanding::NoData), 0, Colours::Off).contains("no figures yet"));
    }

    #[test]
    fn only_a_measured_budget_can_be_spent() {
        assert!(is_spent(&measured(0.0, None)) && !is_spent(&measured(0.1, None)));
        assert!(!is_spent(&slo(SloStanding::NoData)));
        assert!(!is_spent(&slo(SloStanding::Unknown { why: "gone".to_owned() })));
    }
}
