//! Who runs where: the proxy has a core for itself, everything else is on another one.

use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::fault::{Context, Done, Fault};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Proxy,
    /// Origin, clients, and whatever measures.
    World,
}

/// Pins this thread, and with it everything that it starts from now on.
pub fn pin(part: Part) -> Done {
    let mut set = CpuSet::new();
    set.set(number(part)?);
    sched_setaffinity(None, &set).context("a core")
}

/// Of the cores that this process was given, before anything was pinned: the first is the proxy's.
fn number(part: Part) -> Done<usize> {
    static ALLOWED: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    let allowed = ALLOWED.get_or_init(|| {
        let set = sched_getaffinity(None).unwrap_or_default();
        (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).take(2).collect()
    });
    match (part, allowed[..].first_chunk()) {
        (Part::Proxy, Some([first, _])) => Ok(*first),
        (Part::World, Some([_, second])) => Ok(*second),
        (_, None) => Err(Fault::new("two cores are needed: one for the proxy, one for all others")),
    }
}

/// Comes before everything else that the machine does, as long as it is held.
#[derive(Debug)]
pub struct First(());

/// The kernel shares time out among sessions first (`sched(7)`, autogroup), and then within each.
const AUTOGROUP: &str = "/proc/self/autogroup";

/// What else the machine does should be measured as little as possible. Without the right to go first everything is
/// measured as it is.
pub fn go_first() -> First {
    let _ = setpriority_process(None, -20);
    let _ = std::fs::write(AUTOGROUP, "-20");
    First(())
}

impl Drop for First {
    fn drop(&mut self) {
        let _ = setpriority_process(None, 0);
        let _ = std::fs::write(AUTOGROUP, "0");
    }
}

/// Whether there are as many as it takes.
pub fn check() -> Done {
    number(Part::World).map(drop)
}
