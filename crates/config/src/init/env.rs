//! Variables of other tools: which are values, which are secrets, and which name another service.

use super::draft::{DraftRuns, DraftService, DraftValue, Mapped, Notes};
use crate::value::name;

/// Where a variable stands in its file.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) file: &'a str,
    pub(super) line: u32,
    /// The key of the source: `services.api.environment`.
    pub(super) key: &'a str,
}

/// Puts one variable into a service.
pub(super) fn add(service: &mut DraftService, variable: &str, text: &str, at: At<'_>, notes: &mut Notes) {
    let key = format!("{}.{variable}", at.key);
    if let Err(why) = name::variable(variable) {
        return notes.unmapped(at.file, at.line, key, why);
    }
    if variable == "PORT"
        && let Ok(port @ 1..) = text.parse()
    {
        service.port.get_or_insert(port);
        return notes.mapped(at.file, at.line, key, format!("service.{}.port", service.name));
    }
    let to = format!("service.{}.env.{variable}", service.name);
    if name::looks_secret(variable, text) {
        let secret = variable.to_ascii_lowercase();
        let why = format!("a secret is not copied into the file: fairway secret set {secret} -e dev");
        notes.unmapped(at.file, at.line, format!("{key} (its value)"), why);
        service.env.insert(variable.to_owned(), DraftValue::Secret(secret));
        return;
    }
    notes.mapped(at.file, at.line, key, to);
    service.env.insert(variable.to_owned(), DraftValue::Text(text.to_owned()));
}

/// Values that name another service become references, when all services are known. `theirs` is what the source calls
/// each of ours.
pub(super) fn refer(services: &mut [DraftService], theirs: &[(String, String)], notes: &mut Notes) {
    let known: Vec<(String, String, bool, bool)> = services
        .iter()
        .map(|service| {
            let theirs =
                theirs.iter().find(|(_, ours)| *ours == service.name).map_or(&service.name, |(t, _)| t);
            let backing = matches!(service.runs, DraftRuns::Uses(_));
            (theirs.clone(), service.name.clone(), backing, service.port.is_some())
        })
        .collect();
    for service in services {
        let name = service.name.clone();
        service.env.retain(|variable, value| {
            let DraftValue::Text(text) = value else { return true };
            let key = format!("service.{name}.env.{variable}");
            if let Some((_, ours, _, _)) =
                known.iter().find(|(theirs, _, backing, _)| *backing && theirs == text)
            {
                let why = format!("the address of {ours} comes as one URL: {{ ref = \"{ours}.url\" }}");
                // It was taken over as text before all services were known.
                let taken = notes.mapped.iter().position(|mapped| mapped.to == key);
                if let Some(Mapped { file, line, key, .. }) = taken.map(|at| notes.mapped.remove(at)) {
                    notes.unmapped(&file, line, key, why);
                }
                return false;
            }
            if let Some((host, rest)) = url_host(text)
                && let Some((_, ours, backing, listens)) = known.iter().find(|(theirs, ..)| theirs == host)
                && (*backing || (*listens && rest.trim_matches('/').is_empty()))
            {
                *value = DraftValue::Ref(format!("{ours}.url"));
            }
            true
        });
    }
}

/// Host and path of a URL.
fn url_host(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once("://")?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit('@').next()?;
    Some((host.split(':').next()?, path))
}

/// `${NAME:-default}` and `$NAME` of compose. The names that have no default are returned beside the text.
pub(super) fn interpolate(text: &str) -> (String, Vec<String>) {
    let mut out = String::new();
    let mut open = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inside) = rest.strip_prefix('{').and_then(|after| after.split_once('}')) {
            let (expression, after) = inside;
            let name_end =
                expression.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(expression.len());
            let (name, operator) = expression.split_at(name_end);
            match operator.strip_prefix(":-").or_else(|| operator.strip_prefix('-')) {
                Some(default) => out.push_str(default),
                None => open.push(name.to_owned()),
            }
            rest = after;
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            if end == 0 {
                out.push('$');
            } else {
                open.push(rest[..end].to_owned());
            }
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    (out, open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_taken_and_what_has_none_is_named() {
        assert_eq!(interpolate("a$$b"), ("a$b".to_owned(), vec![]));
        assert_eq!(interpolate("${A:-x}/${B-y}"), ("x/y".to_owned(), vec![]));
        assert_eq!(interpolate("${A}-$B-$"), ("--$".to_owned(), vec!["A".to_owned(), "B".to_owned()]));
        assert_eq!(interpolate("${A").1, Vec::<String>::new());
        assert_eq!(interpolate("${A:?no}").1, ["A"]);
    }
}
