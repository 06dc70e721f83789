//! `after` must lead somewhere: services that wait for each other would never start.

use std::collections::{BTreeMap, BTreeSet};

use fairway_engine::id::ServiceName;

use crate::code;
use crate::diagnostic::Diagnostic;
use crate::reader::Context;
use crate::service::Service;

/// Tells one cycle of each group of services that wait for each other.
pub(crate) fn check(cx: &Context<'_>, services: &BTreeMap<ServiceName, Service>) {
    let mut done: BTreeSet<&ServiceName> = BTreeSet::new();
    for start in services.keys() {
        let mut path: Vec<&ServiceName> = Vec::new();
        // Depth-first with its own stack, so that no file can exhaust that of the thread.
        let mut stack: Vec<(&ServiceName, bool)> = vec![(start, false)];
        while let Some((name, leaving)) = stack.pop() {
            if leaving {
                path.pop();
                done.insert(name);
                continue;
            }
            if let Some(begin) = path.iter().position(|on_path| *on_path == name) {
                tell(cx, &path[begin..], services);
                // Everything on the path is part of a cycle or leads into one: tell it once.
                done.extend(path.iter().copied());
                break;
            }
            if done.contains(name) {
                continue;
            }
            path.push(name);
            stack.push((name, true));
            if let Some(service) = services.get(name) {
                stack.extend(service.after.iter().rev().map(|next| (next, false)));
            }
        }
    }
}

fn tell(cx: &Context<'_>, cycle: &[&ServiceName], services: &BTreeMap<ServiceName, Service>) {
    let mut names = cycle.to_vec();
    let first = names.iter().enumerate().min_by_key(|(_, name)| **name).map_or(0, |(index, _)| index);
    names.rotate_left(first);
    names.push(names[0]);
    let shown: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let message = if cycle.len() == 1 {
        format!("{} waits for itself: {}", names[0], shown.join(" → "))
    } else {
        format!("services wait for each other: {}", shown.join(" → "))
    };
    let edge = |pair: &[&ServiceName]| services.get(pair[0])?.after_at.get(pair[1]).cloned();
    let mut places = names.windows(2).filter_map(|pair| Some((edge(pair)?, pair[1])));
    let mut diagnostic = Diagnostic::error(code::CYCLE, message)
        .hint("take one of them out of after; none of them could start first");
    if let Some((at, _)) = places.next() {
        diagnostic = diagnostic.at(at);
    }
    for (at, name) in places {
        diagnostic = diagnostic.related(at, format!("and this waits for {name}"));
    }
    cx.push(diagnostic);
}
