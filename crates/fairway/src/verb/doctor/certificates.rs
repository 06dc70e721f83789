//! Certificates: there, and renewed in time.

use fairway_api::{CertificateState, CertificateStatus, Ending, EnvironmentStatus, Status};

use super::{Finding, Level};
use crate::ago;
use crate::duration;

/// Of the environments that the server has; `wanted`: of this one only.
#[must_use]
pub fn look(status: Option<&Status>, wanted: Option<&str>, now_ms: u64) -> Vec<Finding> {
    let environments = status.into_iter().flat_map(|status| &status.environments);
    environments
        .filter(|one| wanted.is_none_or(|wanted| wanted == one.environment))
        .flat_map(|one| one.certificates.iter().map(|certificate| tell(one, certificate, now_ms)))
        .collect()
}

fn tell(environment: &EnvironmentStatus, one: &CertificateStatus, now_ms: u64) -> Finding {
    let what = format!("certificate {}", one.name);
    let ends = match (one.until_ms, one.ending) {
        (None, _) => "there is none: the name cannot be asked over TLS".to_owned(),
        (Some(until), Some(Ending::Over)) => format!("has ended at {} UTC", ago::utc(until)),
        (Some(until), Some(Ending::Soon | Ending::Now)) => {
            format!("ends in {}", duration::show_ms(now_ms, until))
        }
        (Some(until), None) => format!("good until {} UTC", ago::utc(until)),
    };
    let environment = &environment.environment;
    let (why, hint) = match &one.state {
        CertificateState::Failed { why, hint, .. } => {
            let retry = format!("fairway certificate retry {} -e {environment}", one.name);
            let hint = hint.as_ref().map_or(retry.clone(), |hint| format!("{hint}; then {retry}"));
            (Some(format!("{ends}; {why}")), Some(hint))
        }
        CertificateState::Manual if one.ending.is_some() => {
            (None, Some(format!("replace {}; it is looked at every few seconds", one.source)))
        }
        CertificateState::Manual
        | CertificateState::SelfSigned
        | CertificateState::Valid { .. }
        | CertificateState::Ordering { .. } => (None, None),
    };
    let level = match (one.ending, &one.state) {
        (Some(Ending::Now | Ending::Over), _) => Level::Fail,
        (Some(Ending::Soon), _) | (None, CertificateState::Failed { .. }) => Level::Warn,
        (None, _) => Level::Ok,
    };
    let finding = Finding::new(level, what, why.unwrap_or(ends));
    match hint {
        Some(hint) => finding.hint(hint),
        None => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::tests::environment;
    use crate::verb::certificate::tests::certificate;

    fn check(one: CertificateStatus, level: Level, detail: &str, hint: &str) {
        let found = tell(&environment(), &one, 0);
        assert_eq!((found.level, found.detail.as_str()), (level, detail));
        assert_eq!(found.hint.unwrap_or_default(), hint);
    }

    #[test]
    fn a_certificate_that_ends_wakes_somebody_and_one_that_is_renewed_nobody() {
        let good = certificate("a.example", CertificateState::Valid { renew_ms: 1, suggested: false });
        check(good, Level::Ok, "good until 1970-01-02 00:00:00 UTC", "");
        let own = certificate("a.example", CertificateState::Manual);
        let own = |ending| CertificateStatus { ending: Some(ending), ..own.clone() };
        let replace = "replace ca.example; it is looked at every few seconds";
        check(own(Ending::Soon), Level::Warn, "ends in 1d 0h", replace);
        check(own(Ending::Now), Level::Fail, "ends in 1d 0h", replace);
        check(own(Ending::Over), Level::Fail, "has ended at 1970-01-02 00:00:00 UTC", replace);
        let (why, hint, retry_ms) = ("it is refused".to_owned(), None, 9);
        let failed = certificate("a.example", CertificateState::Failed { why, hint, retry_ms });
        let retry = "fairway certificate retry a.example -e production";
        check(failed.clone(), Level::Warn, "good until 1970-01-02 00:00:00 UTC; it is refused", retry);
        let none = CertificateStatus { until_ms: None, ..failed };
        let text = "there is none: the name cannot be asked over TLS; it is refused";
        check(none, Level::Warn, text, retry);
    }
}
