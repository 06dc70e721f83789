//! `fairway plan`

mod saved;

use std::path::PathBuf;

use fairway_api::{Plan, Risk};
use serde_json::json;

use crate::capture;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Colours, Paint, printable, width, wrap};
use crate::problem::{Outcome, ask};

pub use saved::Saved;

/// Show what a deploy would change, in order and with its risk
///
/// Builds and captures as a deploy does, because that is what tells a change; nothing that runs is touched. With
/// `--out` exactly this can be deployed later, unless another release serves by then.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway plan -e production\n  fairway plan -e production --out plan.json && fairway deploy -e production --plan plan.json\n  fairway plan -e production --exit-code || echo \"something would change\""
)]
pub struct Args {
    /// Write the plan to a file for `fairway deploy --plan`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Exit with 3 when something would change
    #[arg(long)]
    exit_code: bool,
    /// In place of the configured strategy
    #[arg(long, value_name = "STRATEGY", value_parser = ["rolling", "blue-green", "canary"])]
    strategy: Option<String>,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let file = cx.need_project_file()?;
    let project = file.load()?;
    let environment = cx.environment(&project)?;
    cx.block_on(async {
        let client = cx.client()?;
        let target = fairway_api::client::Target {
            project: project.name().as_str().to_owned(),
            environment: environment.name.as_str().to_owned(),
        };
        let mut request = capture::prepare(cx, &client, &file, &project, environment).await?;
        request.strategy.clone_from(&args.strategy);
        let plan = ask(client.plan(&target, &request)).await?;
        show(cx, &plan, &target.environment);
        if let Some(path) = &args.out {
            Saved::new(target, plan.clone(), request).write(path)?;
            cx.out.progress(format!(
                "written to {}; `fairway deploy --plan {}` does it",
                path.display(),
                path.display()
            ));
        }
        let exit = if args.exit_code && !plan.is_empty { Exit::Findings } else { Exit::Done };
        cx.out.result(exit, &json!(plan));
        Ok(exit)
    })
}

/// The steps on stdout, the warnings on stderr.
pub fn show(cx: &Context, plan: &Plan, environment: &str) {
    cx.out.data(describe(plan, environment, cx.out.data_width(), cx.out.colours()));
    warn(cx, &plan.warnings);
}

pub fn warn(cx: &Context, warnings: &[String]) {
    for warning in warnings {
        let word = cx.out.progress_colours().paint(Paint::Warn, "warning:");
        cx.out.progress(format!("{word} {}", printable(warning)));
    }
}

fn describe(plan: &Plan, environment: &str, columns: usize, colours: Colours) -> String {
    let against = match &plan.against {
        Some(release) => format!("{environment} serves {release}"),
        None => format!("{environment} serves nothing yet"),
    };
    if plan.is_empty {
        return format!("{against}; nothing would change");
    }
    let subjects = plan.steps.iter().map(|step| width(&step.subject)).max().unwrap_or(0);
    let indent = subjects + 5;
    let mut lines = vec![format!("{against}; this would go by {}", plan.strategy)];
    for step in &plan.steps {
        let mark = match step.mark.as_str() {
            "+" => colours.paint(Paint::Good, "+"),
            "~" => colours.paint(Paint::Warn, "~"),
            "-" => colours.paint(Paint::Bad, "-"),
            mark => colours.paint(Paint::Dim, mark),
        };
        let risk = match step.risk {
            Risk::None => String::new(),
            Risk::Low => colours.paint(Paint::Dim, " (low risk)"),
            Risk::High => colours.paint(Paint::Bad, " (high risk)"),
        };
        let mut head = format!("{mark}  {:<subjects$}  ", step.subject);
        for line in wrap(&format!("{}{risk}", printable(&step.text)), columns.saturating_sub(indent)) {
            lines.push(format!("{head}{line}"));
            head = " ".repeat(indent);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use fairway_api::PlanStep;

    use super::*;

    #[test]
    fn steps_are_shown_in_order_with_mark_and_risk() {
        let step = |mark: &str, subject: &str, text: &str, risk| PlanStep {
            mark: mark.to_owned(),
            subject: subject.to_owned(),
            text: text.to_owned(),
            risk,
        };
        let mut plan = Plan {
            against: Some("r11".to_owned()),
            strategy: "blue-green".to_owned(),
            steps: vec![
                step(">", "migration", "bin/migrate expand", Risk::High),
                step("~", "service api", "new files", Risk::Low),
                step("=", "service web", "unchanged", Risk::None),
            ],
            is_empty: false,
            warnings: Vec::new(),
        };
        let expected = "production serves r11; this would go by blue-green
>  migration    bin/migrate expand (high risk)
~  service api  new files (low risk)
=  service web  unchanged";
        assert_eq!(describe(&plan, "production", 80, Colours::Off), expected);
        let narrow = describe(&plan, "production", 30, Colours::Off);
        assert!(
            narrow.contains("bin/migrate\n                expand (high\n                risk)"),
            "{narrow}"
        );
        plan.is_empty = true;
        assert_eq!(
            describe(&plan, "production", 80, Colours::Off),
            "production serves r11; nothing would change"
        );
    }
}
