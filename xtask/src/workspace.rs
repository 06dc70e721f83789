//! Where things are in this repository, and what cargo and git know about it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::fault::{Context, Done, Fault};
use crate::shell;

/// The repository's root: cargo sets the manifest directory for `cargo run` and `cargo test`.
pub fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map(Path::to_path_buf).unwrap_or(manifest)
}

pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Set by the `cargo run` that started us; inherited, it would name the wrong package.
    command.env_remove("CARGO_MANIFEST_DIR");
    command
}

/// `cargo metadata` for the platform that Fairway runs on.
pub fn metadata() -> Done<Value> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        return Err(Fault::new(format!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata")
}

/// Where cargo puts what it builds.
pub fn target_dir() -> Done<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => Ok(root().join(directory)),
        None => Ok(PathBuf::from(
            metadata()?["target_directory"].as_str().context("cargo metadata names no target directory")?,
        )),
    }
}

/// Builds everything in the profile and with the features of the tests, so that nothing is built twice. Answers with
/// the `fairway` binary.
pub fn build() -> Done<PathBuf> {
    shell::run(cargo().args(["build", "--workspace", "--all-targets"]))?;
    Ok(target_dir()?.join("debug").join("fairway"))
}

/// The binary as people get it.
pub fn build_release() -> Done<PathBuf> {
    shell::run(cargo().args(["build", "--release", "--package", "fairway"]))?;
    Ok(target_dir()?.join("release").join("fairway"))
}

/// A binary that somebody named, absolute because we work in other directories.
pub fn binary(path: PathBuf) -> Done<PathBuf> {
    path.canonicalize().context(path.display())
}

/// Every file that git knows or would add, relative to the root.
pub fn files() -> Done<Vec<PathBuf>> {
    let output = Command::new("git")
        .current_dir(root())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        return Err(Fault::new(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    let mut files: Vec<PathBuf> = output
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned()))
        // Deleted and not yet committed.
        .filter(|path| root().join(path).is_file())
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}
