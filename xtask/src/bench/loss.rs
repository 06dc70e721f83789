//! The zero-loss run: what every kind of client sees while everything is done to Fairway. The number that passes is 0.

use std::path::Path;

use fairway_load::FailureClass;

use super::figure::Figure;
use crate::e2e::loss::{Voyage, sail};
use crate::fault::Done;
use crate::home::{Home, Show, now_ms};

pub fn measure(fairway: &Path) -> Done<Vec<Figure>> {
    let seed = now_ms();
    let voyage = Voyage::long();
    let mut home = Home::new(fairway, Show::OnStderr)?;
    let seen = sail(&mut home, fairway, &voyage, seed)?;
    let failed = |classes: &[FailureClass]| classes.iter().map(|class| seen.failed(*class)).sum::<u64>();
    let named: &[(&str, &[FailureClass])] = &[
        ("connections refused", &[FailureClass::Connect]),
        ("connections reset or closed without an answer", &[FailureClass::Reset, FailureClass::Closed]),
        ("answers cut off or garbled", &[FailureClass::Truncated, FailureClass::Malformed]),
        ("answers 5xx", &[FailureClass::ServerError]),
    ];
    let mut figures: Vec<(String, u64)> =
        named.iter().map(|(name, classes)| ((*name).to_owned(), failed(classes))).collect();
    let of_a_kind: u64 = figures.iter().map(|(_, count)| count).sum();
    figures.push(("requests that failed otherwise".to_owned(), seen.report.total.failed - of_a_kind));
    figures.push(("orders carried out twice".to_owned(), seen.doubled.len() as u64));
    figures.push(("orders acknowledged and lost".to_owned(), seen.lost()));
    figures.push(("streams broken".to_owned(), seen.streams.broken()));
    figures.push(("kinds of stream that ended before their drain".to_owned(), seen.early()));
    let findings = seen.findings();
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        home.keep();
    }
    // What is not among the figures: a load that was not offered, streams that no drain has met.
    let is_proof = findings.is_empty() || figures.iter().any(|(_, count)| *count > 0);
    Ok(figures
        .into_iter()
        .enumerate()
        .map(|(place, (name, count))| {
            let figure = Figure::new(format!("loss: {name}"), count as f64, "", 0.0).valid(is_proof);
            if place == 0 { figure.detail(format!("{}; seed {seed}", seen.line())) } else { figure }
        })
        .collect())
}
