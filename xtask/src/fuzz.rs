//! `cargo xtask fuzz`

use std::path::{Path, PathBuf};

use crate::fault::{Context, Done, Fault};
use crate::{shell, workspace};

/// Look for bytes that break what reads strangers' bytes
///
/// Needs `cargo install cargo-fuzz` and a C++ compiler. What it finds stays in the package's `artifacts`, and what it has
/// learned in its `corpus`; neither is committed. Begins with what is in `seeds`, which is.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only these targets, instead of all
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each is tried
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u64,
}

/// Those of the workspace that read what others wrote.
const CRATES: [&str; 3] = ["proxy", "metrics", "config"];

/// Our readers have bounds of their own: whoever needs more has none.
const MEMORY_MIB_MAX: usize = 1024;
/// An input is of some KiB at most. The longest takes milliseconds, and a machine that does other work some more.
const INPUT_S_MAX: usize = 10;

pub fn run(arguments: &Arguments) -> Done {
    let mut found = 0;
    for name in CRATES {
        let package = workspace::root().join("crates").join(name).join("fuzz");
        for target in targets(&package)? {
            if arguments.targets.is_empty() || arguments.targets.contains(&target) {
                found += 1;
                fuzz(&package, &target, arguments.seconds)?;
            }
        }
    }
    match found {
        0 => Err(Fault::new("there is no such target")),
        _ => Ok(()),
    }
}

fn targets(package: &Path) -> Done<Vec<String>> {
    let files = std::fs::read_dir(package.join("fuzz_targets")).context(package.display())?;
    let names = files.flatten().filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

fn fuzz(package: &Path, target: &str, seconds: u64) -> Done {
    let corpus = package.join("corpus").join(target);
    std::fs::create_dir_all(&corpus).context(corpus.display())?;
    let seeds: Option<PathBuf> = Some(package.join("seeds").join(target)).filter(|seeds| seeds.is_dir());
    let mut command = workspace::cargo();
    // The sanitizer's options are for nightly compilers; the one in use knows them too when it is told that it may.
    command.env("RUSTC_BOOTSTRAP", "1");
    command.args(["fuzz", "run", target, "--fuzz-dir"]).arg(package);
    command.arg("--target-dir").arg(workspace::target_dir()?.join("fuzz")).arg(&corpus).args(seeds);
    command.arg("--").arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}")).arg(format!("-timeout={INPUT_S_MAX}"));
    shell::run(&mut command)
}
