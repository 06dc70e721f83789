//! Limits: by cgroup for the whole instance where possible, else by resource limits, else not, and said so.

use fairway_engine::service::Limits;

use crate::cgroup::Cgroup;
use crate::event::Limit;
use crate::wire::{Enforcement, LimitReport};

/// What to hand to each process, and what to report.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) rlimits: Vec<(u32, u64)>,
    pub(crate) reports: Vec<LimitReport>,
}

/// The period of `cpu.max`, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

pub(crate) fn plan(limits: &Limits, cgroup: Result<&Cgroup, &str>) -> Plan {
    let mut plan = Plan::default();
    let by_cgroup = |controller: &str, file: &str, value: String| match cgroup {
        Ok(cgroup) => cgroup.limit(controller, file, &value),
        Err(why) => Err(why.to_owned()),
    };
    if let Some(cpu_millis) = limits.cpu_millis {
        let quota_us = u64::from(cpu_millis) * CPU_PERIOD_US / 1000;
        let by = match by_cgroup("cpu", "cpu.max", format!("{quota_us} {CPU_PERIOD_US}")) {
            Ok(()) => Enforcement::Cgroup,
            Err(why) => Enforcement::Nothing { why },
        };
        plan.reports.push(LimitReport { limit: Limit::Cpu, by });
    }
    if let Some(bytes) = limits.memory_bytes {
        let by = match by_cgroup("memory", "memory.max", bytes.to_string()) {
            Ok(()) => {
                if let Ok(cgroup) = cgroup {
                    // One process killed and the rest left running is a state nobody tested.
                    let _ = cgroup.limit("memory", "memory.oom.group", "1");
                    let _ = cgroup.limit("memory", "memory.swap.max", "0");
                }
                Enforcement::Cgroup
            }
            // RLIMIT_AS would count address space that runtimes reserve and never touch: Node and Java would not
            // even start. RLIMIT_DATA counts private writable memory only.
            Err(why) => {
                plan.rlimits.push((libc::RLIMIT_DATA, bytes));
                Enforcement::Rlimit { note: format!("for each process alone, thread stacks included: {why}") }
            }
        };
        plan.reports.push(LimitReport { limit: Limit::Memory, by });
    }
    if let Some(files) = limits.open_files {
        let by = match open_files_max() {
            Some(max) if files > max => Enforcement::Nothing {
                why: format!(
                    "Fairway itself may have {max} open files and is not root, so it cannot grant {files}"
                ),
            },
            _ => {
                plan.rlimits.push((libc::RLIMIT_NOFILE, files));
                Enforcement::Rlimit { note: "for each process alone".into() }
            }
        };
        plan.reports.push(LimitReport { limit: Limit::OpenFiles, by });
    }
    if let Some(processes) = limits.processes {
        let by = match by_cgroup("pids", "pids.max", processes.to_string()) {
            Ok(()) => Enforcement::Cgroup,
            // RLIMIT_NPROC counts every process of the user, other instances included, and does not bind root: it
            // would stop an innocent neighbour and let the culprit go.
            Err(why) => Enforcement::Nothing { why },
        };
        plan.reports.push(LimitReport { limit: Limit::Processes, by });
    }
    plan
}

/// None when there is no bound: root may raise it up to the kernel's.
fn open_files_max() -> Option<u64> {
    let kernel =
        std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    if rustix::process::geteuid().is_root() {
        return kernel;
    }
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_cgroup_each_limit_says_what_became_of_it() {
        let limits = Limits {
            cpu_millis: Some(500),
            memory_bytes: Some(1 << 30),
            open_files: Some(64),
            processes: Some(8),
            log: None,
        };
        let plan = plan(&limits, Err("cgroup v2 is not mounted"));
        assert_eq!(plan.rlimits, [(libc::RLIMIT_DATA, 1 << 30), (libc::RLIMIT_NOFILE, 64)]);
        let nothing = || Enforcement::Nothing { why: "cgroup v2 is not mounted".into() };
        let by: Vec<_> = plan.reports.iter().map(|report| (report.limit, report.by.clone())).collect();
        assert_eq!(by[0], (Limit::Cpu, nothing()));
        assert!(matches!(by[1], (Limit::Memory, Enforcement::Rlimit { .. })));
        assert!(matches!(by[2], (Limit::OpenFiles, Enforcement::Rlimit { .. })));
        assert_eq!(by[3], (Limit::Processes, nothing()));
    }

    #[test]
    fn more_open_files_than_can_be_granted_is_not_attempted() {
        let limits = Limits { open_files: Some(u64::MAX), ..Limits::default() };
        let plan = plan(&limits, Err(""));
        assert!(plan.rlimits.is_empty());
        assert!(matches!(plan.reports[0].by, Enforcement::Nothing { .. }));
    }
}
