//! `fairway restart`

use std::collections::BTreeSet;

use fairway_api::{Command, EnvironmentStatus};

use crate::context::Context;
use crate::problem::{Outcome, ask};
use crate::settle::{Progress, settle};

/// Replace the copies of a service one by one, with nothing lost
///
/// Each new copy is ready before an old one is drained. When a new copy fails, the old ones stay.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fairway restart api -e production\n  fairway restart -e staging")]
pub struct Args {
    /// Which service [default: all]
    service: Option<String>,
    /// Do not wait for the end
    #[arg(long)]
    detach: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let command = Command::Restart { service: args.service.clone() };
    if args.detach {
        return super::say(cx, &command);
    }
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let before = ask(client.environment(&target)).await?;
        let old = copies(&before, args.service.as_deref());
        let accepted = super::send(cx, &client, &target, &command).await?;
        settle(cx, &client, &target, &accepted, |status| look(status, args.service.as_deref(), &old)).await
    })
}

/// The copies that a restart replaces: data services keep running.
fn copies(status: &EnvironmentStatus, service: Option<&str>) -> BTreeSet<String> {
    status
        .services
        .iter()
        .filter(|one| service.is_none_or(|name| name == one.name))
        .filter(|one| service.is_some() || matches!(one.kind.as_str(), "process" | "static"))
        .flat_map(|one| one.instances.iter().map(|instance| instance.id.clone()))
        .collect()
}

fn look(status: &EnvironmentStatus, service: Option<&str>, old: &BTreeSet<String>) -> Progress {
    let left = copies(status, service).intersection(old).count();
    let missing: u32 = status
        .services
        .iter()
        .filter(|one| service.is_none_or(|name| name == one.name))
        .map(|one| one.wanted.saturating_sub(one.ready))
        .sum();
    if left == 0 && missing == 0 {
        return Progress::Done(format!("{} restarted", service.unwrap_or("every service")));
    }
    let missing = match missing {
        0 => String::new(),
        1 => ", 1 new one not ready yet".to_owned(),
        many => format!(", {many} new ones not ready yet"),
    };
    let left = if left == 1 { "1 old copy left".to_owned() } else { format!("{left} old copies left") };
    Progress::Waiting(format!("{left}{missing}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::tests::environment;

    #[test]
    fn it_is_done_when_no_old_copy_is_left() {
        let status = environment();
        let old = copies(&status, Some("api"));
        assert_eq!(old.len(), 3);
        assert!(matches!(look(&status, Some("api"), &old), Progress::Waiting(_)));
        let one = BTreeSet::from([old.iter().next().unwrap().clone()]);
        let said = look(&status, Some("api"), &one);
        assert!(matches!(said, Progress::Waiting(text) if text.starts_with("1 old copy left")));
        let others = BTreeSet::from(["api.r10.1".to_owned()]);
        assert!(matches!(look(&status, Some("api"), &others), Progress::Done(_)));
    }
}
