//! Environments laid over the file and over each other, by `extends`.

use fairway_engine::id::EnvironmentName;

use crate::code;
use crate::diagnostic::{Diagnostic, Findings};
use crate::span::Source;
use crate::suggest::{listed, nearest};
use crate::tree::{Entry, Layer, Table};

/// The environment of a project that declares none.
pub(crate) const IMPLICIT: &str = "dev";

/// One environment's file: everything merged, and whose layer is whose.
pub(crate) struct Merged {
    pub(crate) table: Table,
    /// The chain of environments from the one that extends nothing to the environment itself; `Layer(n)` is the n-th,
    /// counted from 1.
    pub(crate) layers: Vec<EnvironmentName>,
}

/// The environments of a file, not yet merged: a file of a megabyte is merged and read one at a time.
pub(crate) struct Overlays<'a> {
    base: Table,
    chains: Vec<(EnvironmentName, Vec<(&'a str, &'a Table)>)>,
}

/// Every environment whose name and chain are sound; the others are told.
pub(crate) fn overlays<'a>(root: &'a Table, source: &Source, findings: &mut Findings) -> Overlays<'a> {
    let mut base = root.clone();
    base.entries.remove("env");
    let overlays = root.get("env").and_then(|node| node.value.as_table());
    let Some(overlays) = overlays.filter(|overlays| !overlays.entries.is_empty()) else {
        let name = EnvironmentName::new(IMPLICIT).expect("\"dev\" is a name");
        return Overlays { base, chains: vec![(name, Vec::new())] };
    };
    let sound = |(name, entry): (&'a String, &'a Entry)| {
        // A bad name and an environment that is no table were told by the first pass.
        let own = EnvironmentName::new(name).ok()?;
        entry.node.value.as_table()?;
        Some((own, chain(name, overlays, source, findings)?))
    };
    Overlays { base, chains: overlays.entries.iter().filter_map(sound).collect() }
}

impl Overlays<'_> {
    pub(crate) fn merged(&self) -> impl Iterator<Item = (&EnvironmentName, Merged)> {
        self.chains.iter().map(|(name, chain)| {
            let mut merged = Merged { table: self.base.clone(), layers: Vec::new() };
            for (link, overlay) in chain.iter().rev() {
                let Ok(link) = EnvironmentName::new(link) else { continue };
                merged.layers.push(link);
                let mut overlay = (*overlay).clone();
                overlay.entries.remove("extends");
                // The first pass lets no more than ENVIRONMENTS_MAX through.
                let layer = Layer(u16::try_from(merged.layers.len()).unwrap_or(u16::MAX));
                merged.table.overlay(&overlay, layer);
            }
            (name, merged)
        })
    }
}

/// From the environment itself to the one that extends nothing.
fn chain<'a>(
    name: &'a str,
    overlays: &'a Table,
    source: &Source,
    findings: &mut Findings,
) -> Option<Vec<(&'a str, &'a Table)>> {
    let mut chain: Vec<(&str, &Table)> = Vec::new();
    let mut next = name;
    loop {
        let table = overlays.get(next)?.value.as_table()?;
        chain.push((next, table));
        let Some(node) = table.get("extends") else { return Some(chain) };
        let parent = node.value.as_text()?;
        if let Some(start) = chain.iter().position(|(link, _)| *link == parent) {
            findings.push(cycle(&chain[start..], source));
            return None;
        }
        let Some((parent, _)) = overlays.entries.get_key_value(parent) else {
            let message =
                format!("there is no environment {:?}", parent.chars().take(60).collect::<String>());
            let hint = match nearest(parent, overlays.keys()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("the environments are {}", listed(overlays.keys())),
            };
            findings.push(
                Diagnostic::error(code::UNKNOWN_ENVIRONMENT, message).at(source.span(node.at)).hint(hint),
            );
            return None;
        };
        next = parent;
    }
}

/// Each cycle is told once, from its first name in the alphabet, whichever environment it was seen from.
fn cycle(links: &[(&str, &Table)], source: &Source) -> Diagnostic {
    let mut links = links.to_vec();
    let first = links.iter().enumerate().min_by_key(|(_, (name, _))| *name).map_or(0, |(index, _)| index);
    links.rotate_left(first);
    let names: Vec<&str> = links.iter().chain(&links[..1]).map(|(name, _)| *name).collect();
    let mut diagnostic =
        Diagnostic::error(code::CYCLE, format!("extends leads in a circle: {}", names.join(" → ")))
            .hint("one of them must not extend another");
    if let Some(node) = links[0].1.get("extends") {
        diagnostic = diagnostic.at(source.span(node.at));
    }
    diagnostic
}
