//! What the kernel says of the machine and of the processes of a session, from `/proc`.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Of all processes of one session, which is one copy of a service: its shim began it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_s: f64,
    pub resident_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Process {
    pid: u32,
    session: u32,
    usage: Usage,
}

/// All processes of one moment.
#[derive(Debug, Default)]
pub struct Sessions {
    /// The session's first process (the shim) left out: it is Fairway's, not the service's.
    usage: BTreeMap<u32, Usage>,
    of_process: BTreeMap<u32, u32>,
}

impl Sessions {
    /// Reads a file for each process of the machine: nothing for a thread on which others wait.
    #[must_use]
    pub fn read() -> Self {
        let mut sessions = Self::default();
        for process in processes() {
            sessions.of_process.insert(process.pid, process.session);
            if process.pid != process.session {
                let sum = sessions.usage.entry(process.session).or_default();
                sum.cpu_s += process.usage.cpu_s;
                sum.resident_bytes += process.usage.resident_bytes;
            }
        }
        sessions
    }

    /// Of the session that a process belongs to; none when there was no such process.
    #[must_use]
    pub fn usage_of(&self, pid: u32) -> Option<Usage> {
        self.usage.get(self.of_process.get(&pid)?).copied()
    }
}

fn processes() -> impl Iterator<Item = Process> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(process)
}

fn process(pid: u32) -> Option<Process> {
    parse_stat(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Children that ended and were waited for count with their parent, so that a sum over a session never falls because
/// one of its processes ended.
fn parse_stat(pid: u32, stat: &str) -> Option<Process> {
    // The name, in brackets, may hold anything; after it come the fields from the third on.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
    let ticks = field(14)? + field(15)? + field(16)? + field(17)?;
    Some(Process {
        pid,
        session: u32::try_from(field(6)?).ok()?,
        usage: Usage { cpu_s: ticks as f64 / TICKS_PER_S, resident_bytes: field(24)? * page_bytes() },
    })
}

/// Linux tells user space about CPU time in this unit, whatever it counts in.
const TICKS_PER_S: f64 = 100.0;

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// Seconds since boot by CPU and mode.
    pub cpu_s: Vec<(String, &'static str, f64)>,
    pub memory_total_bytes: u64,
    pub memory_available_bytes: u64,
    pub load_1m: f64,
}

const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

#[must_use]
pub fn host() -> Host {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    parse_host(&read("/proc/stat"), &read("/proc/meminfo"), &read("/proc/loadavg"))
}

fn parse_host(stat: &str, meminfo: &str, loadavg: &str) -> Host {
    let mut cpu_s = Vec::new();
    for line in stat.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(cpu) = words.next().and_then(|word| word.strip_prefix("cpu")) else { continue };
        if cpu.is_empty() {
            continue;
        }
        for (mode, ticks) in MODES.into_iter().zip(words) {
            cpu_s.push((cpu.to_owned(), mode, ticks.parse::<f64>().unwrap_or(0.0) / TICKS_PER_S));
        }
    }
    let memory = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    Host {
        cpu_s,
        memory_total_bytes: memory("MemTotal"),
        memory_available_bytes: memory("MemAvailable"),
        load_1m: loadavg.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// What tells it from another one.
    pub device: u64,
    pub size_bytes: u64,
    /// What an ordinary user may still fill.
    pub available_bytes: u64,
}

/// The one that holds `path`.
#[must_use]
pub fn filesystem(path: &Path) -> Option<Filesystem> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(Filesystem {
        device: std::fs::metadata(path).ok()?.dev(),
        size_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        available_bytes: found.f_bavail.saturating_mul(found.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 5 0 -1 0 0 0 0 0 100 50 25 25 20 0 1 0 9 4096 10 0";
        let process = parse_stat(7, stat).unwrap();
        assert_eq!(process.session, 5);
        assert_eq!(process.usage, Usage { cpu_s: 2.0, resident_bytes: 10 * page_bytes() });
    }

    #[test]
    fn garbage_is_no_process() {
        for text in ["", "7", "7 (a) S", "7 (a) S x y z", "7 (a) S 1 7 99999999999999999999"] {
            assert!(parse_stat(7, text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_machine_is_read_as_the_kernel_writes_it() {
        let host = parse_host(
            "cpu  9 9\ncpu0 100 0 50 1000 0 0 0 0 0 0\nintr 5\n",
            "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\n",
            "0.52 0.1 0.0 1/100 7\n",
        );
        assert_eq!((host.memory_total_bytes, host.memory_available_bytes), (1_024_000, 256_000));
        assert_eq!(host.load_1m, 0.52);
        assert_eq!(host.cpu_s.first(), Some(&("0".to_owned(), "user", 1.0)));
        assert_eq!(host.cpu_s.len(), 8);
    }

    #[test]
    fn this_process_is_found_in_its_session() {
        let own = std::process::id();
        assert!(process(own).unwrap().usage.resident_bytes > 100_000);
        let is_first = process(own).unwrap().session == own;
        assert!(Sessions::read().usage_of(own).is_some() || is_first);
        assert!(filesystem(Path::new("/")).is_some_and(|found| found.size_bytes > found.available_bytes));
    }
}
