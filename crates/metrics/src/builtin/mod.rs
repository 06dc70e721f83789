//! What everybody gets without asking: alerts and dashboards.
//!
//! Where each alert comes from. The names of projects are those whose operations this was built to take over.
//!
//! | asked for by | as | rule |
//! |---|---|---|
//! | matrix, sma | high error rate, > 5 % for 5 min | `HighErrorRate` |
//! | matrix | 95th percentile > 2 s | `HighLatency` |
//! | mss | slow responses | `SlowResponses` |
//! | matrix, sma, mss | memory > 90 % | `HighMemory` (a copy), `MachineMemoryHigh` |
//! | matrix, sma, mss | CPU > 80 % | `HighCpu` (a copy), `MachineCpuHigh` |
//! | matrix | restart loops | `RestartLoop` |
//! | mss, sma | service down | `ServiceDown`, `ServiceDegraded`, `ProbeFailed` |
//! | mss, sma | database unreachable, connection failures | `DatabaseUnreachable` |
//! | matrix, sma | slow queries, high query times | `SlowDatabaseQueries` |
//! | mss | disk full | `DiskFull`, `DiskFullSoon` |
//! | matrix | disk > 85 % | `DiskHigh` |
//! | mss | certificate expiry | `CertificateExpires`, `CertificateExpiresNow`, `CertificateFails` |
//! | matrix | rate limit approaching | `RateLimitNear` |
//! | mss, sma | deployment completed | `DeploymentDone`, `DeploymentUndone` |
//! | mss, flakeguard | backup successful, backups verified | `BackupDone`, `BackupMissing` |
//! | flakeguard, omnitide | alerting on performance and resources, without figures | those above, `MetricsUnreadable` |

pub mod dashboards;

use crate::rules::{RuleFile, RuleKind};

/// The rule file as it is.
pub const ALERTS: &str = include_str!("alerts.yml");

/// What the file is called where rules are shown.
pub const ALERTS_FILE: &str = "fairway.yml";

/// The built-in rules without the alerts of these names.
///
/// # Errors
/// The names that are no built-in alert's: most likely a slip, and the alert that was meant would still fire.
pub fn alerts(without: &[String]) -> Result<RuleFile, Vec<String>> {
    let file = RuleFile::parse(ALERTS_FILE, ALERTS).expect("a test reads it");
    let names: Vec<&str> = file
        .groups
        .iter()
        .flat_map(|group| &group.rules)
        .filter(|rule| matches!(rule.kind, RuleKind::Alert { .. }))
        .map(|rule| rule.name())
        .collect();
    let unknown: Vec<String> =
        without.iter().filter(|name| !names.contains(&name.as_str())).cloned().collect();
    if unknown.is_empty() { Ok(file.without(without)) } else { Err(unknown) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alert_says_how_bad_it_is_and_what_to_do() {
        let file = alerts(&[]).unwrap();
        let mut severities = std::collections::BTreeMap::new();
        for rule in file.groups.iter().flat_map(|group| &group.rules) {
            let RuleKind::Alert { name, annotations, .. } = &rule.kind else { continue };
            for wanted in ["summary", "description", "command", "next"] {
                assert!(annotations.contains_key(wanted), "{name} has no {wanted}");
            }
            let command = annotations["command"].text();
            assert!(command.starts_with("fairway "), "{name}: {command}");
            let severity = rule.labels["severity"].text();
            assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
            *severities.entry(severity).or_insert(0) += 1;
        }
        assert_eq!(severities.values().sum::<i32>(), 25, "{severities:?}");
    }

    #[test]
    fn alerts_can_be_switched_off_by_name_and_slips_are_told() {
        let without = alerts(&["HighCpu".to_owned(), "BackupDone".to_owned()]).unwrap();
        assert!(!without.text.contains("alert: HighCpu") && without.text.contains("alert: HighMemory"));
        let read = RuleFile::parse("again", &without.text).unwrap();
        assert_eq!(read.groups.iter().map(|group| group.rules.len()).sum::<usize>(), 26);
        assert_eq!(alerts(&["HighCPU".to_owned()]).unwrap_err(), ["HighCPU"]);
    }
}
