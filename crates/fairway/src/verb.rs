//! One verb, one file: what it takes, whose comments are its help, and one function.

pub mod abort;
pub mod alert;
pub mod approve;
pub mod certificate;
pub mod check;
pub mod completions;
pub mod config;
pub mod deploy;
pub mod doctor;
pub mod down;
pub mod exec;
pub mod export;
pub mod file_server;
pub mod gc;
pub mod history;
pub mod init;
pub mod logs;
pub mod maintenance;
pub mod migrate;
pub mod monitor;
pub mod pause;
pub mod plan;
pub mod promote;
pub mod proxy;
pub mod purge;
pub mod reference;
pub mod reject;
pub mod restart;
pub mod resume;
pub mod retry;
pub mod rollback;
pub mod run;
pub mod scale;
pub mod schema;
pub mod secret;
pub mod seed;
pub mod server;
pub mod shim;
pub mod slo;
pub mod smoke;
pub mod status;
pub mod up;
pub mod validate;
pub mod watch;

use fairway_api::client::{Client, Target};
use fairway_api::{Accepted, Command};
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::problem::{Outcome, Problem};

/// Puts a command on the record.
async fn send(
    cx: &Context,
    client: &Client,
    target: &Target,
    command: &Command,
) -> Result<Accepted, Problem> {
    let sent = client.command(target, command).await;
    let accepted = sent.map_err(|error| Problem::of_change(error, Some(&target.environment)))?;
    cx.out.event("accepted", &accepted);
    Ok(accepted)
}

/// A command whose answer is all there is to say.
fn say(cx: &Context, command: &Command) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let accepted = send(cx, &client, &target, command).await?;
        cx.out.data(&accepted.summary);
        cx.out.result(Exit::Done, &json!(accepted));
        Ok(Exit::Done)
    })
}
