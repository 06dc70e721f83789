//! `fairway history`

mod beside;

use fairway_api::{ReleaseInfo, RolloutInfo, UpgradeInfo};
use serde_json::json;

use crate::ago;
use crate::context::Context;
use crate::duration;
use crate::evidence;
use crate::exit::Exit;
use crate::output::{Colours, Paint, Table, printable, width, wrap};
use crate::problem::{Outcome, Problem, ask};

/// Rollouts that are over, newest first
///
/// `*` marks a release that `fairway rollback` can go to. Below them are caches that were emptied and what became of
/// certificates, each with who asked for it, and then the upgrades of Fairway itself. With a number all that is on the
/// record of one rollout: for one that was called off, the figures that did it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway history -e production\n  fairway history -e production --since 2d\n  fairway history 7 -e production"
)]
pub struct Args {
    /// Only this rollout, in full, such as 7
    #[arg(value_parser = number)]
    rollout: Option<u32>,
    /// How many at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, conflicts_with = "rollout")]
    limit: usize,
    /// Only those that ended within this time, such as 2d
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with = "rollout")]
    since: Option<std::time::Duration>,
}

fn number(text: &str) -> Result<u32, String> {
    text.trim_start_matches('#').parse().map_err(|_| format!("{text:?} is not a rollout such as 7"))
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let mut history = ask(client.history(&target)).await?;
        if let Some(number) = args.rollout {
            return one(cx, &target.environment, &history, number);
        }
        let status = ask(client.environment(&target)).await?;
        let now = ago::now_ms();
        let from = args.since.map_or(0, |since| now.saturating_sub(since.as_millis() as u64));
        history.retain(|rollout| rollout.ended_ms >= from);
        history.sort_by_key(|rollout| std::cmp::Reverse(rollout.number));
        history.truncate(args.limit);
        if history.is_empty() {
            cx.out.progress(format!("no rollout of {} is over", target.environment));
        } else {
            cx.out.data(table(&history, &status.retained, now, cx.out.data_width(), cx.out.colours()));
        }
        let (mut purges, mut certificates) = (status.purges, status.certificate_news);
        purges.retain(|purge| purge.at_ms >= from);
        certificates.retain(|news| news.at_ms >= from);
        if !purges.is_empty() || !certificates.is_empty() {
            cx.out.data(beside::table(&purges, &certificates, args.limit, now, cx.out.colours()));
        }
        let mut upgrades = status.upgrades;
        upgrades.retain(|upgrade| upgrade.ended_ms >= from);
        if !upgrades.is_empty() {
            cx.out.data(of_fairway(&upgrades, now, cx.out.colours()));
        }
        cx.out.result(Exit::Done, &json!(history));
        Ok(Exit::Done)
    })
}

fn one(cx: &Context, environment: &str, history: &[RolloutInfo], number: u32) -> Outcome {
    let Some(rollout) = history.iter().find(|rollout| rollout.number == number) else {
        return Err(Problem::failed(
            "rollout/unknown",
            format!("no rollout #{number} of {environment} is over"),
            format!(
                "`fairway history -e {environment}` lists them; `fairway status -e {environment}` shows one that goes on"
            ),
        ));
    };
    cx.out.data(describe(rollout, environment, cx.out.data_width(), cx.out.colours()));
    cx.out.result(Exit::Done, &json!(rollout));
    Ok(Exit::Done)
}

/// Columns before the text of a fact.
const FACT_INDENT: usize = 12;

fn describe(rollout: &RolloutInfo, environment: &str, columns: usize, colours: Colours) -> String {
    let mut facts: Vec<(&str, String)> = vec![("outcome", outcome(rollout, colours))];
    facts.extend(rollout.cause.clone().map(|cause| ("because", cause)));
    let from = rollout.from.as_deref().map(|from| format!(" from {from}")).unwrap_or_default();
    facts.push(("what", format!("{} of {}{from}, {}", rollout.kind, rollout.to, rollout.strategy)));
    facts.extend(rollout.title.clone().map(|title| ("title", title)));
    facts.extend(rollout.reason.clone().map(|reason| ("reason", reason)));
    facts.push(("by", rollout.requested_by.clone()));
    facts.push(("began", format!("{} UTC", ago::utc(rollout.requested_ms))));
    facts.extend(rollout.switched_ms.map(|at| ("switched", format!("{} UTC", ago::utc(at)))));
    let took = duration::show_ms(rollout.requested_ms, rollout.ended_ms);
    facts.push(("ended", format!("{} UTC, after {took}", ago::utc(rollout.ended_ms))));
    if let Some(finding) = &rollout.finding {
        facts.push(("look at", evidence::look_next(finding, environment, &rollout.to)));
    }
    let mut lines =
        vec![colours.paint(Paint::Bold, &format!("rollout #{} of {environment}", rollout.number))];
    for (name, text) in facts {
        let text = if name == "outcome" { text } else { printable(&text) };
        // A command is copied: it stays in one line.
        let room = if name == "look at" { usize::MAX } else { columns.saturating_sub(FACT_INDENT) };
        for (at, line) in wrap(&text, room).into_iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            lines.push(format!("  {name:<9} {line}"));
        }
    }
    if !rollout.last_lines.is_empty() {
        lines.push("  last log lines".to_owned());
        lines.extend(rollout.last_lines.iter().map(|line| format!("  | {}", printable(line))));
    }
    lines.join("\n")
}

fn outcome(rollout: &RolloutInfo, colours: Colours) -> String {
    let paint = match Exit::of_outcome(&rollout.outcome) {
        Exit::Done => Paint::Good,
        Exit::Superseded => Paint::Dim,
        Exit::Failed
        | Exit::Usage
        | Exit::Findings
        | Exit::Denied
        | Exit::RolledBack
        | Exit::Unknown
        | Exit::Interrupted
        | Exit::OfCommand(_) => Paint::Bad,
    };
    colours.paint(paint, &rollout.outcome)
}

/// Why a rollout ended stands below it, where the terminal has no room beside it.
fn table(
    history: &[RolloutInfo],
    retained: &[ReleaseInfo],
    now_ms: u64,
    columns: usize,
    colours: Colours,
) -> String {
    let mut table = Table::default();
    for rollout in history {
        let mark = if retained.iter().any(|release| release.name == rollout.to) { "*" } else { "" };
        table.row([
            format!("#{}", rollout.number),
            format!("{}{mark}", rollout.to),
            rollout.kind.clone(),
            rollout.strategy.clone(),
            outcome(rollout, colours),
            ago::ago(rollout.ended_ms, now_ms),
            duration::show_ms(rollout.requested_ms, rollout.ended_ms),
            rollout.requested_by.clone(),
        ]);
    }
    let mut lines = Vec::new();
    for (row, rollout) in table.render_full().into_iter().zip(history) {
        let what = || match (&rollout.title, &rollout.reason) {
            (Some(title), Some(reason)) => Some(format!("{title}: {reason}")),
            (title, reason) => title.clone().or(reason.clone()),
        };
        let why = rollout.cause.clone().or_else(what).map(|text| printable(&text)).unwrap_or_default();
        let line = format!("{row}  {why}");
        if width(&line) <= columns || why.is_empty() {
            lines.push(line.trim_end().to_owned());
        } else {
            lines.push(row.trim_end().to_owned());
            lines.extend(wrap(&why, columns.saturating_sub(4)).into_iter().map(|line| format!("    {line}")));
        }
    }
    lines.join("\n")
}

/// What changed below all environments is looked for where something went wrong in one.
fn of_fairway(upgrades: &[UpgradeInfo], now_ms: u64, colours: Colours) -> String {
    let mut table = Table::default();
    for upgrade in upgrades {
        let paint = if upgrade.outcome == "done" { Paint::Good } else { Paint::Bad };
        table.row([
            "fairway".to_owned(),
            format!("{} → {}", upgrade.from, upgrade.to),
            "upgrade".to_owned(),
            colours.paint(paint, &upgrade.outcome),
            ago::ago(upgrade.ended_ms, now_ms),
            upgrade.by.clone(),
        ]);
    }
    let lines = table.render_full().into_iter().zip(upgrades).map(|(row, upgrade)| {
        let cause = upgrade.cause.as_deref().map(printable).unwrap_or_default();
        format!("{row}  {cause}").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgrades_of_fairway_say_from_where_to_where_by_whom_and_what_came_of_it() {
        let upgrade = |outcome: &str, cause: Option<&str>| UpgradeInfo {
            from: "0.1.0".to_owned(),
            to: "0.2.0".to_owned(),
            by: "ann".to_owned(),
            ended_ms: 1_000,
            outcome: outcome.to_owned(),
            cause: cause.map(str::to_owned),
        };
        let upgrades = [upgrade("done", None), upgrade("came back", Some("it ended before it served"))];
        let expected = "\
fairway  0.1.0 → 0.2.0  upgrade  done       1m 00s ago  ann
fairway  0.1.0 → 0.2.0  upgrade  came back  1m 00s ago  ann  it ended before it served";
        assert_eq!(of_fairway(&upgrades, 61_000, Colours::Off), expected);
    }

    const CAUSE: &str = "errors of api: 12 errors in 40 requests of the new version, 2 in 900 of stable, at a share \
                         of 5 %: evidence 312 (turned back at 200)";

    fn called_off() -> RolloutInfo {
        RolloutInfo {
            number: 7,
            kind: "deploy".to_owned(),
            to: "r12".to_owned(),
            from: Some("r11".to_owned()),
            strategy: "canary".to_owned(),
            requested_by: "ann".to_owned(),
            requested_ms: 1_000,
            switched_ms: None,
            ended_ms: 61_000,
            outcome: "rolled back".to_owned(),
            cause: Some(CAUSE.to_owned()),
            finding: Some(evidence::tests::finding(fairway_api::About::Errors, "api")),
            last_lines: Vec::new(),
            reason: None,
            title: Some("Add gifts".to_owned()),
        }
    }

    #[test]
    fn the_figures_that_called_a_rollout_off_stand_below_it_when_there_is_no_room() {
        let narrow = table(&[called_off()], &[], 121_000, 72, Colours::Off);
        let expected = "\
#7  r12  deploy  canary  rolled back  1m 00s ago  1m 00s  ann
    errors of api: 12 errors in 40 requests of the new version, 2 in 900
    of stable, at a share of 5 %: evidence 312 (turned back at 200)";
        assert_eq!(narrow, expected);
        let piped = table(&[called_off()], &[], 121_000, usize::MAX, Colours::Off);
        assert!(piped.ends_with(CAUSE) && piped.lines().count() == 1, "{piped}");
    }

    #[test]
    fn one_rollout_in_full_says_why_and_where_to_look() {
        let expected = "\
rollout #7 of production
  outcome   rolled back
  because   errors of api: 12 errors in 40 requests of the
            new version, 2 in 900 of stable, at a share of
            5 %: evidence 312 (turned back at 200)
  what      deploy of r12 from r11, canary
  title     Add gifts
  by        ann
  began     1970-01-01 00:00:01 UTC
  ended     1970-01-01 00:01:01 UTC, after 1m 00s
  look at   fairway logs api -e production --release r12 --grep '(?i)error|panic|exception'";
        assert_eq!(describe(&called_off(), "production", 60, Colours::Off), expected);
    }
}
