//! Lines for whoever reads the server's standard error.

use std::fmt::Arguments;
use std::io::Write;

/// As `eprintln!`, which panics where it cannot write: on a full disk, or when whoever read the pipe is gone. A
/// control plane must not die of its own complaint.
pub fn warn(what: Arguments<'_>) {
    drop(writeln!(std::io::stderr(), "fairway: {what}"));
}
