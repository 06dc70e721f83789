//! `fairway secret`

use std::io::{self, IsTerminal, Read};

use fairway_api::SecretValue;
use fairway_api::client::Client;
use serde_json::json;

use crate::ago;
use crate::confirm;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Table;
use crate::problem::{Outcome, Problem, ask};

/// A key or a certificate chain; more is a file in the wrong place.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Secrets of an environment: set, list, unset
///
/// Values go in and never come out: not here, not in logs, not in the record. A running release keeps the version it
/// was made with; the next deploy takes the newest.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway secret set stripe_key -e production\n  pass show stripe | fairway secret set stripe_key -e production --stdin\n  fairway secret list -e production"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Give a secret a value; asked for without echo
    Set {
        /// Which one
        name: String,
        /// Read the value from standard input; one newline at its end is left out
        #[arg(long)]
        stdin: bool,
    },
    /// Names and versions
    List,
    /// Remove a secret; a release that needs it cannot be deployed after that
    Unset {
        /// Which one
        name: String,
    },
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    match &args.what {
        What::Set { name, stdin } => set(cx, name, *stdin),
        What::List => list(cx),
        What::Unset { name } => unset(cx, name),
    }
}

fn set(cx: &Context, name: &str, stdin: bool) -> Outcome {
    check_name(name)?;
    let client = cx.client()?;
    let value = if stdin { from_stdin()? } else { asked(cx, name)? };
    cx.block_on(async {
        let target = cx.target(&client).await?;
        let set = client.set_secret(&target, name, &SecretValue { value }).await;
        let info = set.map_err(|error| Problem::of_change(error, Some(&target.environment)))?;
        let environment = &target.environment;
        cx.out.data(format!(
            "{} has version {} in {environment}; the next deploy takes it",
            info.name, info.version
        ));
        cx.out.result(Exit::Done, &json!(info));
        Ok(Exit::Done)
    })
}

fn list(cx: &Context) -> Outcome {
    cx.block_on(async {
        let client: Client = cx.client()?;
        let target = cx.target(&client).await?;
        let secrets = ask(client.secrets(&target)).await?;
        let mut table = Table::default();
        for secret in &secrets {
            table.row([
                secret.name.clone(),
                format!("version {}", secret.version),
                ago::utc(secret.created_ms),
            ]);
        }
        if table.is_empty() {
            cx.out.progress(format!("{} has no secrets", target.environment));
        } else {
            cx.out.data(table.render());
        }
        cx.out.result(Exit::Done, &json!(secrets));
        Ok(Exit::Done)
    })
}

fn unset(cx: &Context, name: &str) -> Outcome {
    check_name(name)?;
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let unset = client.unset_secret(&target, name).await;
        unset.map_err(|error| Problem::of_change(error, Some(&target.environment)))?;
        cx.out.data(format!("{name} is removed from {}", target.environment));
        cx.out.result(Exit::Done, &json!({ "name": name }));
        Ok(Exit::Done)
    })
}

/// The name becomes part of a path of the API.
fn check_name(name: &str) -> Result<(), Problem> {
    let is_fine =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if is_fine {
        return Ok(());
    }
    Err(Problem::usage(
        "secret/name",
        format!("{name:?} is not a name of a secret"),
        "letters, digits, '_', '-' and '.', such as stripe_key",
    ))
}

fn from_stdin() -> Result<String, Problem> {
    let failed = |source| Problem::Read { path: "standard input".into(), source };
    let mut bytes = Vec::new();
    io::stdin().lock().take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    value(bytes)
}

fn value(bytes: Vec<u8>) -> Result<String, Problem> {
    let wrong = |why: &str| Problem::usage("secret/value", format!("the value {why}"), "nothing was changed");
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(wrong("has more than 64 KiB"));
    }
    let mut value = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 text"))?;
    if value.ends_with('\n') {
        value.pop();
        if value.ends_with('\r') {
            value.pop();
        }
    }
    if value.is_empty() { Err(wrong("is empty")) } else { Ok(value) }
}

fn asked(cx: &Context, name: &str) -> Result<String, Problem> {
    if cx.out.is_json() || !io::stdin().is_terminal() {
        return Err(Problem::usage(
            "secret/no-terminal",
            "there is no terminal to ask for the value on",
            "give it on standard input: fairway secret set NAME --stdin",
        ));
    }
    let typed = confirm::hidden(&format!("{name}: "))
        .map_err(|source| Problem::Read { path: "the terminal".into(), source })?;
    value(typed.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_not_part_of_a_value() {
        assert_eq!(value(b"abc\n".to_vec()).unwrap(), "abc");
        assert_eq!(value(b"abc\r\n".to_vec()).unwrap(), "abc");
        assert_eq!(value(b"a\nb\n\n".to_vec()).unwrap(), "a\nb\n");
        for bad in [b"".to_vec(), b"\n".to_vec(), vec![0xff], vec![b'x'; 70_000]] {
            assert_eq!(value(bad).unwrap_err().exit(), Exit::Usage);
        }
    }

    #[test]
    fn a_name_cannot_lead_elsewhere() {
        assert!(check_name("stripe_key").is_ok());
        for bad in ["", "a/b", "a b", "../x", "a?b"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
