//! `fairway scale`

use fairway_api::{Command, EnvironmentStatus};

use crate::context::Context;
use crate::problem::Outcome;
use crate::settle::{Progress, settle};

/// Run more or fewer copies of a service
///
/// New copies get traffic when they are ready; those that go are drained first. It outlives deploys: the number in
/// fairway.toml does not hold until `auto` takes this back; status and deploy say so. Where copies follow the load, the
/// number holds for an hour, and `auto` lets the load decide again at once.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway scale api 4 -e production\n  fairway scale api auto -e production"
)]
pub struct Args {
    /// Which service
    service: String,
    /// How many copies; or auto: as fairway.toml says
    #[arg(value_name = "N", value_parser = wanted)]
    wanted: Wanted,
    /// Do not wait until they are ready
    #[arg(long)]
    detach: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Copies(u32),
    /// What the load asks for, or fairway.toml.
    Auto,
}

fn wanted(text: &str) -> Result<Wanted, String> {
    if text == "auto" {
        return Ok(Wanted::Auto);
    }
    text.parse().map(Wanted::Copies).map_err(|_| format!("{text:?} is neither a number of copies nor auto"))
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let service = args.service.clone();
    let replicas = match args.wanted {
        Wanted::Copies(replicas) => replicas,
        // How many it will be may be known only when the load has been looked at.
        Wanted::Auto => return super::say(cx, &Command::Autoscale { service }),
    };
    let command = Command::Scale { service, replicas };
    if args.detach {
        return super::say(cx, &command);
    }
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let accepted = super::send(cx, &client, &target, &command).await?;
        settle(cx, &client, &target, &accepted, |status| look(status, &args.service, replicas)).await
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
        return Progress::Done(match replicas {
            0 => format!("{name} runs no copies"),
            1 => format!("{name} runs 1 copy, which is ready"),
            _ => format!("{name} runs {replicas} copies, all ready"),
        });
    }
    let leaving = if leaving > 0 { format!(", {leaving} leaving") } else { String::new() };
    Progress::Waiting(format!("{name}: {} of {replicas} ready{leaving}", service.ready))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::tests::environment;

    #[test]
    fn a_number_or_auto_is_wanted() {
        assert_eq!(wanted("4"), Ok(Wanted::Copies(4)));
        assert_eq!(wanted("auto"), Ok(Wanted::Auto));
        assert!(wanted("-1").is_err() && wanted("many").is_err());
    }

    #[test]
    fn it_is_done_when_all_are_ready_and_none_is_leaving() {
        let mut status = environment();
        assert!(
            matches!(look(&status, "api", 1), Progress::Done(text) if text == "api runs 1 copy, which is ready")
        );
        status.services[0].instances[0].state = "draining".to_owned();
        assert!(
            matches!(look(&status, "api", 1), Progress::Waiting(text) if text == "api: 1 of 1 ready, 1 leaving")
        );
        assert!(matches!(look(&status, "api", 3), Progress::Failed(_)), "another scale won");
        assert!(matches!(look(&status, "web", 1), Progress::Failed(_)));
    }
}
