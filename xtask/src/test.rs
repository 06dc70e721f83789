//! `cargo xtask test`

mod closing;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use crate::checks::Count;
use crate::fault::{Context, Done};
use crate::{e2e, setup, shell, sim, tidy, workspace};

/// Set up what is missing, then check and test everything
///
/// Formatting, clippy, all tests of the workspace, the example shop's own tests, simulated stories, whole processes
/// under kills and load, and `tidy`. Needs no input, no cache and no service; ends with one line: how many passed and
/// failed.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub fn run(_: &Arguments) -> Done {
    let started = Instant::now();
    setup::ensure(&[setup::NODE, setup::PYTHON])?;
    setup::wish(setup::POSTGRES);
    setup::wish(setup::OPENSSL);
    let mut peers = setup::peers::variables();
    peers.extend(setup::peers::edge::variables());
    let mut count = Count::default();

    step("formatting");
    count.check("rustfmt", || finding(workspace::cargo().args(["fmt", "--all", "--check"])));

    step("clippy");
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    count.check("clippy", || finding(workspace::cargo().args(clippy)));

    step("build");
    let fairway = workspace::build()?;

    step("tests of the workspace");
    if has_nextest() {
        let nextest = ["nextest", "run", "--locked", "--workspace", "--all-targets", "--no-fail-fast"];
        count.add(tests(workspace::cargo().args(nextest).args(["--no-tests", "warn"]).envs(peers))?);
    } else {
        let test = ["test", "--locked", "--workspace", "--all-targets", "--no-fail-fast"];
        count.add(tests(workspace::cargo().args(test).envs(peers))?);
    }

    step("examples in documentation");
    count.add(tests(workspace::cargo().args(["test", "--locked", "--workspace", "--doc"]))?);

    step("the example shop's own tests");
    count.add(tests(
        Command::new(Path::new(".").join("test.sh")).current_dir(workspace::root().join("examples/shop")),
    )?);

    step("simulated world");
    count.add(sim::short());

    step("whole processes");
    count.add(e2e::short(&fairway));

    step("tidy");
    count.add(tidy::all(|| Ok(fairway)));

    step("result");
    println!("took {:.0} s", started.elapsed().as_secs_f64());
    count.close()
}

fn step(name: &str) {
    println!("\n── {name}");
}

fn has_nextest() -> bool {
    let version = workspace::cargo()
        .args(["nextest", "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// A program that is a check as a whole; what it has to say goes to the terminal as it comes.
fn finding(command: &mut Command) -> Done<Vec<String>> {
    shell::announce(command);
    let status = command.stdin(Stdio::null()).status().context(shell::shown(command))?;
    Ok(if status.success() {
        Vec::new()
    } else {
        vec![format!("{} ended with {status}", shell::shown(command))]
    })
}

/// A test runner: its own closing lines say how much passed and failed.
fn tests(command: &mut Command) -> Done<Count> {
    let count = Mutex::new(Count::default());
    let ok = shell::watched(command, &|line| {
        if let Some(closing) = closing::read(line) {
            count.lock().expect("nothing panics while it holds the count").add(closing);
        }
    })?;
    let mut count = count.into_inner().expect("nothing panics while it holds the count");
    // It did not come as far as counting: a test that does not compile, a runner that was killed.
    if !ok && count.failed == 0 {
        count.failed = 1;
    }
    Ok(count)
}
