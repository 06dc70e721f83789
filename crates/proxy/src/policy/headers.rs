//! Changes to the header fields of answers.

use crate::codec::has_token;
use crate::snapshot::HeaderChange;

#[derive(Debug)]
pub(crate) struct Change {
    /// In lower case.
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A complete line.
    Set(Vec<u8>),
    Default(Vec<u8>),
    Remove,
}

impl Change {
    pub(crate) fn of(change: &HeaderChange) -> Self {
        let line = |name: &str, value: &str| format!("{name}: {value}\r\n").into_bytes();
        let (name, kind) = match change {
            HeaderChange::Set { name, value } => (name, Kind::Set(line(name, value))),
            HeaderChange::Default { name, value } => (name, Kind::Default(line(name, value))),
            HeaderChange::Remove { name } => (name, Kind::Remove),
        };
        Self { name: name.to_ascii_lowercase(), kind }
    }

    pub(crate) fn remove(name: &str) -> Self {
        Self { name: name.to_owned(), kind: Kind::Remove }
    }

    /// Whether the field of the service stays away.
    pub(crate) fn drops(&self, name: &str) -> bool {
        match self.kind {
            Kind::Set(_) | Kind::Remove => self.name.eq_ignore_ascii_case(name),
            Kind::Default(_) => false,
        }
    }

    /// Whether it always says that answers depend on how the client likes them compressed.
    pub(crate) fn varies_by_encoding(&self) -> bool {
        let Kind::Set(line) = &self.kind else { return false };
        let value = line.strip_suffix(b"\r\n").and_then(|line| line.splitn(2, |b| *b == b':').nth(1));
        self.name == "vary"
            && value.is_some_and(|value| has_token(value, "accept-encoding") || has_token(value, "*"))
    }

    /// The line to add; `has` says whether the service sent a field of that name.
    pub(crate) fn line(&self, has: impl FnOnce(&str) -> bool) -> &[u8] {
        match &self.kind {
            Kind::Set(line) => line,
            Kind::Default(line) if !has(&self.name) => line,
            Kind::Default(_) | Kind::Remove => b"",
        }
    }
}

/// What an answer of our own says itself, and knows better: no cache is to keep a refusal for as long as a page.
const OURS: &[&str] = &[
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "location",
    "retry-after",
];

/// Lines that we add, without those that the route sets otherwise or takes away. Cookies are no one field: ours is not
/// that of the service, which is meant.
pub(crate) fn kept<'a>(added: &'a [u8], changes: &'a [Change]) -> impl Iterator<Item = &'a [u8]> {
    let is_dropped = |line: &[u8]| {
        let name = name_of(line);
        !name.eq_ignore_ascii_case("set-cookie") && changes.iter().any(|change| change.drops(name))
    };
    // Without changes they are one piece.
    let (whole, lines) = if changes.is_empty() { (added, &b""[..]) } else { (&b""[..], added) };
    std::iter::once(whole).chain(lines.split_inclusive(|b| *b == b'\n').filter(move |line| !is_dropped(line)))
}

/// Whether one of the lines is of this name.
pub(crate) fn holds(lines: &[u8], name: &str) -> bool {
    lines.split_inclusive(|b| *b == b'\n').any(|line| name_of(line).eq_ignore_ascii_case(name))
}

fn name_of(line: &[u8]) -> &str {
    std::str::from_utf8(line.split(|b| *b == b':').next().unwrap_or_default()).unwrap_or_default()
}

/// The lines for an answer of our own; `added` are there already.
pub(crate) fn lines(added: &[u8], changes: &[Change]) -> Vec<u8> {
    let is_ours = |change: &&Change| OURS.contains(&change.name.as_str());
    // What such an answer says itself, like where to go, stays whatever the route does to others.
    let mut out = Vec::with_capacity(added.len());
    for line in added.split_inclusive(|b| *b == b'\n') {
        let name = name_of(line);
        let mut others = changes.iter().filter(|change| !is_ours(change));
        if !others.any(|change| change.drops(name)) {
            out.extend_from_slice(line);
        }
    }
    for change in changes.iter().filter(|change| !is_ours(change)) {
        out.extend_from_slice(change.line(|name| holds(added, name)));
    }
    out
}
