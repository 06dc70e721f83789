//! Changes to the header fields of answers.

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

    /// The line to add; `has` says whether the service sent a field of that name.
    pub(crate) fn line(&self, has: impl FnOnce(&str) -> bool) -> &[u8] {
        match &self.kind {
            Kind::Set(line) => line,
            Kind::Default(line) if !has(&self.name) => line,
            Kind::Default(_) | Kind::Remove => b"",
        }
    }
}

/// The lines for an answer of our own, which has none of these fields.
pub(crate) fn lines(changes: &[Change], out: &mut Vec<u8>) {
    for change in changes {
        out.extend_from_slice(change.line(|_| false));
    }
}
