//! Environments laid over the file and over each other, by `extends`.

use std::collections::BTreeMap;

use fairway_engine::id::EnvironmentName;

use crate::code;
use crate::diagnostic::{Diagnostic, Findings};
use crate::span::Source;
use crate::suggest::{listed, nearest};
use crate::tree::{Layer, Table};

/// The environment of a project that declares none.
pub(crate) const IMPLICIT: &str = "dev";

/// One environment's file: everything merged, and whose layer is whose.
pub(crate) struct Merged {
    pub(crate) table: Table,
    /// The chain of environments from the one that extends nothing to the environment itself; `Layer(n)` is the n-th,
    /// counted from 1.
    pub(crate) layers: Vec<EnvironmentName>,
}

/// Every environment whose name and chain are sound; the others are told.
pub(crate) fn merge(
    root: &Table,
    source: &Source,
    findings: &mut Findings,
) -> BTreeMap<EnvironmentName, Merged> {
    let mut base = root.clone();
    let overlays = base.entries.remove("env");
    let overlays = overlays.as_ref().and_then(|entry| entry.node.value.as_table());
    let Some(overlays) = overlays.filter(|overlays| !overlays.entries.is_empty()) else {
        let name = EnvironmentName::new(IMPLICIT).expect("\"dev\" is a name");
        return BTreeMap::from([(name, Merged { table: base, layers: Vec::new() })]);
    };
    let mut merged = BTreeMap::new();
    for (name, entry) in overlays.entries.iter().take(crate::keys::ENVIRONMENTS_MAX) {
        // A bad name and an environment that is no table were told by the first pass.
        let Ok(own) = EnvironmentName::new(name) else { continue };
        if entry.node.value.as_table().is_none() {
            continue;
        }
        let Some(chain) = chain(name, overlays, source, findings) else { continue };
        let mut table = base.clone();
        let mut layers = Vec::new();
        for (link, overlay) in chain.iter().rev() {
            let Ok(link) = EnvironmentName::new(link) else { continue };
            layers.push(link);
            let mut overlay = (*overlay).clone();
            overlay.entries.remove("extends");
            // At most ENVIRONMENTS_MAX layers.
            table.overlay(&overlay, Layer(u16::try_from(layers.len()).unwrap_or(u16::MAX)));
        }
        merged.insert(own, Merged { table, layers });
    }
    merged
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
