//! The shim's role alone, as `fairway shim --dir DIR` has it.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    match words.as_slice() {
        [flag, dir] if flag == "--dir" => fairway_targets::shim::run(&PathBuf::from(dir)),
        _ => ExitCode::from(2),
    }
}
