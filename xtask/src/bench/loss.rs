//! The zero-loss run: what every kind of client sees while everything is done to Fairway. The number that passes is 0.

use std::path::Path;

use super::figure::Figure;
use crate::e2e::loss::{COLUMNS, Voyage, sail};
use crate::fault::Done;
use crate::home::{Home, Show, now_ms};

/// The figures, and a table of every count.
pub fn measure(fairway: &Path) -> Done<(Vec<Figure>, String)> {
    let seed = now_ms();
    let mut home = Home::new(fairway, Show::OnStderr)?;
    let seen = sail(&mut home, fairway, &Voyage::long(), seed)?;
    let names = [
        "connections refused",
        "connections reset or closed unanswered",
        "answers cut off or garbled",
        "answers 5xx",
    ];
    let mut figures: Vec<(&str, u64)> =
        names.into_iter().zip(COLUMNS).map(|(name, (_, classes))| (name, seen.failed(classes))).collect();
    let of_a_kind: u64 = figures.iter().map(|(_, count)| count).sum();
    figures.push(("requests that failed otherwise", seen.failed_in_all() - of_a_kind));
    figures.push(("orders carried out twice", seen.doubled()));
    figures.push(("orders acknowledged and lost", seen.lost()));
    figures.push(("streams broken", seen.broken()));
    figures.push(("streams that ended before their drain", seen.early()));
    let findings = seen.findings();
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        home.keep();
    }
    // What is not among the figures: a load that was not offered, streams that no drain has met.
    let is_proof = findings.is_empty() || figures.iter().any(|(_, count)| *count > 0);
    let figures = figures.into_iter().enumerate().map(|(place, (name, count))| {
        let figure = Figure::new(format!("loss: {name}"), count as f64, "", 0.0).valid(is_proof);
        if place == 0 { figure.detail(format!("{}; seed {seed}", seen.line())) } else { figure }
    });
    Ok((figures.collect(), seen.table()))
}
