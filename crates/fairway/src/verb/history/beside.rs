//! What happened besides rollouts, one line each: caches that were emptied, and certificates.

use fairway_api::{CertificateNews, PurgeInfo};

use crate::ago;
use crate::duration;
use crate::output::{Colours, Paint, Table, printable};

/// Newest first, `limit` at most.
pub fn table(
    purges: &[PurgeInfo],
    certificates: &[CertificateNews],
    limit: usize,
    now_ms: u64,
    colours: Colours,
) -> String {
    let purges = purges.iter().map(|one| {
        (one.at_ms, ["purge".to_owned(), about(one), one.outcome.clone()], one.by.clone(), purged(one))
    });
    let certificates = certificates.iter().map(|one| {
        let what = ["certificate".to_owned(), printable(&one.names.join(", ")), one.outcome.clone()];
        (one.at_ms, what, one.by.clone(), certified(one))
    });
    let mut all: Vec<_> = purges.chain(certificates).collect();
    all.sort_by_key(|(at_ms, ..)| std::cmp::Reverse(*at_ms));
    all.truncate(limit);
    let mut table = Table::default();
    for (at_ms, [kind, what, outcome], by, _) in &all {
        let outcome = colours.paint(paint(outcome), outcome);
        table.row([kind.clone(), what.clone(), outcome, ago::ago(*at_ms, now_ms), printable(by)]);
    }
    let lines = table.render_full().into_iter().zip(&all);
    let lines = lines.map(|(row, (.., text))| format!("{row}  {text}").trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

fn paint(outcome: &str) -> Paint {
    match outcome {
        "failed" => Paint::Bad,
        "under way" | "tried again" => Paint::Warn,
        "superseded" => Paint::Dim,
        _ => Paint::Good,
    }
}

fn about(purge: &PurgeInfo) -> String {
    if let Some(rollout) = purge.rollout {
        return format!("after #{rollout}");
    }
    let paths = match purge.paths.as_slice() {
        [] => "everything".to_owned(),
        [path] => path.clone(),
        [path, more @ ..] => {
            format!("{path} and {} more", more.len().saturating_add(purge.paths_more as usize))
        }
    };
    printable(&match &purge.service {
        Some(service) => format!("{paths} of {service}"),
        None => paths,
    })
}

fn purged(purge: &PurgeInfo) -> String {
    let kept = match purge.answers {
        None => None,
        Some(1) => Some("1 kept answer is gone".to_owned()),
        Some(count) => Some(format!("{count} kept answers are gone")),
    };
    let hook = purge.release.as_ref().map(|release| match (purge.attempts, purge.outcome.as_str()) {
        (Some(attempts), "failed") => {
            let attempts =
                if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
            format!("the hook of {release} came to nothing in {attempts}")
        }
        (Some(_), _) => format!("the hook of {release} was carried out"),
        (None, "superseded") => format!("the hook of {release} was asked anew since"),
        (None, _) => format!("the hook of {release} is asked"),
    });
    let mut text = kept.into_iter().chain(hook).collect::<Vec<_>>().join("; ");
    if let Some(cause) = &purge.cause {
        let colon = if text.is_empty() { "" } else { ": " };
        text = format!("{text}{colon}{cause}");
    }
    printable(&text)
}

fn certified(one: &CertificateNews) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(one.cause.clone());
    parts.extend(one.source.as_ref().map(|source| format!("from {source}")));
    let serves = if one.cause.is_some() { "the one before ends" } else { "good until" };
    parts.extend(one.until_ms.map(|until| format!("{serves} {} UTC", ago::utc(until))));
    let failed = one.failing_since_ms.map(|since| duration::show_ms(since, one.at_ms));
    parts.extend(failed.map(|failed| format!("after {failed} without success")));
    printable(&parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purge(at_ms: u64, outcome: &str) -> PurgeInfo {
        PurgeInfo {
            at_ms,
            by: "ann".to_owned(),
            rollout: None,
            service: None,
            paths: Vec::new(),
            paths_more: 0,
            outcome: outcome.to_owned(),
            answers: Some(12),
            release: None,
            attempts: None,
            cause: None,
        }
    }

    fn news(at_ms: u64, outcome: &str) -> CertificateNews {
        CertificateNews {
            at_ms,
            names: vec!["a.example".to_owned()],
            outcome: outcome.to_owned(),
            source: Some("acme.example".to_owned()),
            by: "fairway".to_owned(),
            until_ms: Some(0),
            failing_since_ms: None,
            code: None,
            cause: None,
        }
    }

    #[test]
    fn who_asked_what_it_was_about_and_what_came_of_it_is_one_line_newest_first() {
        let release = Some("r4".to_owned());
        let purges = [
            PurgeInfo { release: release.clone(), attempts: Some(1), ..purge(5_000, "done") },
            PurgeInfo {
                by: "fairway".to_owned(),
                rollout: Some(7),
                answers: None,
                release: release.clone(),
                attempts: Some(3),
                cause: Some("no connection".to_owned()),
                ..purge(3_000, "failed")
            },
            PurgeInfo {
                service: Some("web".to_owned()),
                paths: vec!["/assets".to_owned(), "/\u{1b}[2J".to_owned()],
                paths_more: 1,
                answers: None,
                cause: Some("no answer in 10s".to_owned()),
                ..purge(1_000, "failed")
            },
        ];
        let certificates = [
            CertificateNews { by: "ann".to_owned(), failing_since_ms: Some(2_000), ..news(4_000, "issued") },
            CertificateNews {
                until_ms: None,
                cause: Some("a.example does not resolve: no record".to_owned()),
                ..news(2_000, "failed")
            },
        ];
        let expected = "\
purge        everything                     done    1m 00s ago  ann      12 kept answers are gone; the hook of r4 was carried out
certificate  a.example                      issued  1m 01s ago  ann      from acme.example; good until 1970-01-01 00:00:00 UTC; after 2.0s without success
purge        after #7                       failed  1m 02s ago  fairway  the hook of r4 came to nothing in 3 attempts: no connection
certificate  a.example                      failed  1m 03s ago  fairway  a.example does not resolve: no record; from acme.example
purge        /assets and 2 more of web      failed  1m 04s ago  ann      no answer in 10s";
        let shown = table(&purges, &certificates, 9, 65_000, Colours::Off);
        let squeezed = |text: &str| {
            let words = text.lines().map(|line| line.split("  ").filter(|one| !one.is_empty()).collect());
            words
                .map(|line: Vec<&str>| line.iter().map(|one| one.trim()).collect::<Vec<_>>().join("|"))
                .collect()
        };
        let (shown, expected): (Vec<String>, Vec<String>) = (squeezed(&shown), squeezed(expected));
        assert_eq!(shown, expected);
        assert_eq!(table(&purges, &certificates, 2, 65_000, Colours::Off).lines().count(), 2);
    }

    #[test]
    fn nothing_is_said_to_be_over_that_is_not() {
        let asked = PurgeInfo { release: Some("r4".to_owned()), ..purge(0, "under way") };
        let since = PurgeInfo { release: Some("r4".to_owned()), answers: None, ..purge(0, "superseded") };
        assert_eq!(purged(&asked), "12 kept answers are gone; the hook of r4 is asked");
        assert_eq!(purged(&since), "the hook of r4 was asked anew since");
    }
}
