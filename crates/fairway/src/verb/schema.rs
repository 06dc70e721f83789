//! `fairway schema`

use crate::context::Context;
use crate::exit::Exit;
use crate::problem::{Outcome, Problem};

/// Print the JSON schema of fairway.toml, for editors
///
/// Editors with a TOML language server complete and check the file with it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway schema > fairway.schema.json\n  fairway schema --reference > fairway.toml.md"
)]
pub struct Args {
    /// The reference of all keys as Markdown instead
    #[arg(long)]
    reference: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let text = if args.reference {
        fairway_config::reference_markdown()
    } else {
        let schema = serde_json::to_string_pretty(&fairway_config::json_schema());
        schema.map_err(|error| Problem::failed("schema/json", error.to_string(), "please report this"))?
            + "\n"
    };
    cx.out.raw(text.as_bytes());
    Ok(Exit::Done)
}
