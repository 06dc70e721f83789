//! `cargo xtask tidy`

mod bounds;
mod docs;
mod edges;
mod events;
mod licences;
mod manifests;
mod reference;
mod spdx;
mod text;

use std::path::PathBuf;

use crate::checks::Count;
use crate::fault::{Done, Fault};
use crate::workspace;

/// Check what compilers do not: edges between crates, licences, links, generated files
///
/// Edges between crates as ARCHITECTURE.md allows them; licences, sources and duplicates of every
/// dependency; files that grew too long; work left undone; links in documents; the generated
/// reference; the example projects. Takes seconds.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Write docs/reference anew instead of comparing it
    #[arg(long)]
    write: bool,
}

pub fn run(arguments: &Arguments) -> Done {
    if arguments.write {
        return reference::write(&workspace::build()?);
    }
    all(workspace::build).close()
}

/// Every check. `build` gives the `fairway` binary of this tree, which the last ones ask.
pub fn all(build: impl FnOnce() -> Done<PathBuf>) -> Count {
    let mut count = Count::default();
    let metadata = workspace::metadata();
    let metadata = || metadata.as_ref().map_err(Fault::again);
    count.check("edges between crates are those of ARCHITECTURE.md", || Ok(edges::check(metadata()?)));
    count.check("engine and simulator never reach a runtime", || Ok(edges::check_pure(metadata()?)));
    count.check("licences of all dependencies are allowed", || Ok(licences::check(metadata()?)));
    count.check("dependencies come from the registry alone", || Ok(licences::check_sources(metadata()?)));
    count.check("no dependency is there twice", || Ok(licences::check_duplicates(metadata()?)));
    count.check("every crate has the workspace's licence and lints", || Ok(manifests::check(metadata()?)));
    let files = text::read_all();
    let files = || files.as_ref().map_err(Fault::again);
    count.check("no file is too long", || Ok(text::check_length(files()?)));
    count.check("nothing is left undone", || Ok(text::check_undone(files()?)));
    count.check("no path of one machine", || Ok(text::check_paths(files()?)));
    count.check("text ends in one newline, without trailing space", || Ok(text::check_whitespace(files()?)));
    count.check("links in documents lead somewhere", || Ok(docs::check(files()?)));
    let fairway = build();
    let fairway = || fairway.as_ref().map_err(Fault::again);
    count.check("docs/reference is what the code says", || reference::check(fairway()?));
    count.check("example projects validate", || reference::check_examples(fairway()?));
    count
}
