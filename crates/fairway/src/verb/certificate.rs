//! `fairway certificate`

use fairway_api::{CertificateState, CertificateStatus, Ending};
use serde_json::json;

use crate::ago;
use crate::context::Context;
use crate::duration;
use crate::exit::Exit;
use crate::output::{Colours, Paint, Table, printable};
use crate::problem::{Outcome, Problem, ask};

/// Certificates of an environment: list, retry
///
/// They are ordered, renewed and tried again by themselves; what they are and where they come from is in tls of
/// fairway.toml.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway certificate list -e production\n  fairway certificate retry shop.example -e production"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Every name: who has signed it, its end, when it is renewed, what has gone wrong; exit code 3 with --exit-code
    /// when one fails or ends
    List {
        /// Exit with 3 when a certificate is missing, fails, or ends before it is renewed
        #[arg(long)]
        exit_code: bool,
    },
    /// Try a name that has failed again now
    ///
    /// What makes it fail is best mended before: authorities count failures. Where the authority itself has said when
    /// it may be asked again, that holds.
    Retry {
        /// Which one, as in the list
        name: String,
    },
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    match &args.what {
        What::List { exit_code } => list(cx, *exit_code),
        What::Retry { name } => retry(cx, name),
    }
}

fn list(cx: &Context, exit_code: bool) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let certificates = ask(client.environment(&target)).await?.certificates;
        if certificates.is_empty() {
            cx.out.progress(format!(
                "{} wants no certificates; tls in fairway.toml makes it",
                target.environment
            ));
        } else {
            cx.out.data(table(&certificates, ago::now_ms(), cx.out.colours()));
        }
        let exit = if exit_code && certificates.iter().any(is_wanting) { Exit::Findings } else { Exit::Done };
        cx.out.result(exit, &json!(certificates));
        Ok(exit)
    })
}

fn retry(cx: &Context, name: &str) -> Outcome {
    check_name(name)?;
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let tried = client.retry_certificate(&target, name).await;
        let status = tried.map_err(|error| Problem::of_change(error, Some(&target.environment)))?;
        cx.out.data(format!("{} is tried again now", printable(&status.name)));
        cx.out.progress(format!("fairway certificate list -e {} shows how far it is", target.environment));
        cx.out.result(Exit::Done, &json!(status));
        Ok(Exit::Done)
    })
}

/// The name becomes part of a path of the API.
fn check_name(name: &str) -> Result<(), Problem> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '*');
    if !name.is_empty() && name.chars().all(is_plain) {
        return Ok(());
    }
    Err(Problem::usage(
        "certificate/name",
        format!("{name:?} is no host name"),
        "as in `fairway certificate list`, such as shop.example",
    ))
}

/// Whether somebody should look.
fn is_wanting(one: &CertificateStatus) -> bool {
    one.ending.is_some() || one.until_ms.is_none() || matches!(one.state, CertificateState::Failed { .. })
}

fn table(certificates: &[CertificateStatus], now_ms: u64, colours: Colours) -> String {
    let mut table = Table::default();
    let head = ["name", "from", "signed by", "ends", "next"];
    table.row(head.map(|head| colours.paint(Paint::Dim, head)));
    for one in certificates {
        let ends = match one.until_ms {
            None => colours.paint(Paint::Bad, "none"),
            Some(until) => {
                let text = format!("{} UTC", ago::utc(until));
                ending(one.ending).map_or(text.clone(), |paint| colours.paint(paint, &text))
            }
        };
        table.row([
            printable(&one.name),
            printable(&one.source),
            one.issuer.as_deref().map(printable).unwrap_or_default(),
            ends,
            next(one, now_ms, colours),
        ]);
        if let CertificateState::Failed { why, hint, .. } = &one.state {
            let none = String::new;
            table.row([none(), colours.paint(Paint::Bad, &printable(why)), none(), none(), none()]);
            if let Some(hint) = hint {
                let hint = colours.paint(Paint::Dim, &format!("hint: {}", printable(hint)));
                table.row([none(), hint, none(), none(), none()]);
            }
        }
    }
    table.render()
}

/// How its end is shown, where that is near.
pub fn ending(ending: Option<Ending>) -> Option<Paint> {
    ending.map(|ending| match ending {
        Ending::Soon => Paint::Warn,
        Ending::Now | Ending::Over => Paint::Bad,
    })
}

fn next(one: &CertificateStatus, now_ms: u64, colours: Colours) -> String {
    match &one.state {
        CertificateState::Valid { renew_ms, suggested } => {
            let by = if *suggested { ", as the authority asks" } else { "" };
            format!("renewed from {} UTC on{by}", ago::utc(*renew_ms))
        }
        CertificateState::Ordering { step } => printable(step),
        CertificateState::Failed { retry_ms, .. } => {
            let again = format!("retry at {} UTC", ago::utc(*retry_ms));
            let left = duration::show_ms(now_ms, *retry_ms);
            colours.paint(Paint::Warn, &format!("{again} (in {left})"))
        }
        CertificateState::Manual => "renewed by you".to_owned(),
        CertificateState::SelfSigned => "renewed by itself".to_owned(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn certificate(name: &str, state: CertificateState) -> CertificateStatus {
        CertificateStatus {
            name: name.to_owned(),
            source: "ca.example".to_owned(),
            issuer: Some("Acme E7".to_owned()),
            ending: None,
            until_ms: Some(86_400_000),
            state,
        }
    }

    fn failed() -> CertificateStatus {
        let state = CertificateState::Failed {
            why: "b.example does not resolve".to_owned(),
            hint: Some("create a record".to_owned()),
            retry_ms: 60_000,
        };
        CertificateStatus { until_ms: None, issuer: None, ..certificate("b.example", state) }
    }

    #[test]
    fn each_name_says_what_it_has_and_what_comes() {
        let good = CertificateState::Valid { renew_ms: 43_200_000, suggested: true };
        let shown = table(&[certificate("a.example", good), failed()], 0, Colours::Off);
        let lines: Vec<String> =
            shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "name from signed by ends next",
                "a.example ca.example Acme E7 1970-01-02 00:00:00 UTC renewed from 1970-01-01 12:00:00 UTC on, as the authority asks",
                "b.example ca.example none retry at 1970-01-01 00:01:00 UTC (in 1m 00s)",
                "b.example does not resolve",
                "hint: create a record",
            ]
        );
    }

    #[test]
    fn what_needs_somebody_is_a_finding() {
        let good = certificate("a", CertificateState::Manual);
        assert!(!is_wanting(&good) && is_wanting(&failed()));
        assert!(is_wanting(&CertificateStatus { ending: Some(Ending::Soon), ..good.clone() }));
        let none = CertificateState::Ordering { step: "waiting".to_owned() };
        assert!(is_wanting(&CertificateStatus { until_ms: None, ..certificate("a", none) }));
    }

    #[test]
    fn a_name_cannot_lead_elsewhere() {
        for good in ["shop.example", "*.shop.example", "::1", "127.0.0.1"] {
            check_name(good).unwrap();
        }
        for bad in ["", "a/b", "a?b", "a b", "%2e%2e"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
