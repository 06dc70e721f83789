//! `fairway scale`

use fairway_api::{Command, EnvironmentStatus};

use crate::context::Context;
use crate::problem::Outcome;
use crate::settle::{Progress, settle};

/// Run more or fewer copies of a service
///
/// New copies get traffic when they are ready; those that go are drained first. It holds until the next deploy, which
/// brings back what fairway.toml says.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fairway scale api 4 -e production")]
pub struct Args {
    /// Which service
    service: String,
    /// How many copies
    #[arg(value_name = "N")]
    replicas: u32,
    /// Do not wait until they are ready
    #[arg(long)]
    detach: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let command = Command::Scale { service: args.service.clone(), replicas: args.replicas };
    if args.detach {
        return super::say(cx, &command);
    }
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let accepted = super::send(cx, &client, &target, &command).await?;
        settle(cx, &client, &target, &accepted, |status| look(status, &args.service, args.replicas)).await
    })
}

fn look(status: &EnvironmentStatus, name: &str, replicas: u32) -> Progress {
    let Some(service) = status.services.iter().find(|service| service.name == name) else {
        return Progress::Failed(format!("{name} does not run any more"));
    };
    if service.wanted != replicas {
        return Progress::Failed(format!("somebody else has scaled {name} to {}", service.wanted));
    }
    let leaving = service
        .instances
        .iter()
        .filter(|instance| matches!(instance.state.as_str(), "draining" | "stopping"))
        .count();
    if service.ready == replicas && leaving == 0 {
        return Progress::Done(format!("{name} runs {replicas} copies, all ready"));
    }
    let leaving = if leaving > 0 { format!(", {leaving} leaving") } else { String::new() };
    Progress::Waiting(format!("{name}: {} of {replicas} ready{leaving}", service.ready))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::tests::environment;

    #[test]
    fn it_is_done_when_all_are_ready_and_none_is_leaving() {
        let mut status = environment();
        assert!(matches!(look(&status, "api", 1), Progress::Done(_)));
        status.services[0].instances[0].state = "draining".to_owned();
        assert!(
            matches!(look(&status, "api", 1), Progress::Waiting(text) if text == "api: 1 of 1 ready, 1 leaving")
        );
        assert!(matches!(look(&status, "api", 3), Progress::Failed(_)), "another scale won");
        assert!(matches!(look(&status, "web", 1), Progress::Failed(_)));
    }
}
