//! What is wrong with a file: where, why, and what to do about it.

use std::collections::BTreeSet;

use crate::code;
use crate::span::Span;

/// No more than this many problems are told at once: beyond it nobody reads on, and a garbage file would print
/// one for each of its lines.
pub const DIAGNOSTICS_MAX: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable, for scripts and for the reference: `config/unknown-key`.
    pub code: &'static str,
    pub severity: Severity,
    pub message: String,
    pub span: Option<Span>,
    /// Other places that belong to the problem, each with what it is.
    pub related: Vec<(Span, String)>,
    pub hint: Option<String>,
}

impl Diagnostic {
    #[must_use]
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            span: None,
            related: Vec::new(),
            hint: None,
        }
    }

    #[must_use]
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    #[must_use]
    pub fn related(mut self, span: Span, what: impl Into<String>) -> Self {
        self.related.push((span, what.into()));
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn hint_if(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }
}

/// Problems as they are found. The same problem seen from two environments is told once.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Diagnostic>,
    seen: BTreeSet<(&'static str, Option<Span>, String)>,
    dropped: usize,
}

impl Findings {
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        // Without a span two findings are the same when the words are; with one, the place and the code decide.
        let words = if diagnostic.span.is_some() { String::new() } else { diagnostic.message.clone() };
        if self.list.len() >= DIAGNOSTICS_MAX {
            self.dropped += 1;
        } else if self.seen.insert((diagnostic.code, diagnostic.span.clone(), words)) {
            self.list.push(diagnostic);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    /// A hint for those of the findings after the first `count` that have none of their own.
    pub(crate) fn hint_since(&mut self, count: usize, hint: impl Fn() -> String) {
        for diagnostic in self.list.iter_mut().skip(count).filter(|d| d.hint.is_none()) {
            diagnostic.hint = Some(hint());
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.list.iter().any(|d| d.severity == Severity::Error)
    }

    pub(crate) fn more(&mut self) {
        self.dropped += 1;
    }

    /// True when one more would not be told.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= DIAGNOSTICS_MAX
    }

    pub(crate) fn has(&self, code: &str) -> bool {
        self.list.iter().any(|d| d.code == code)
    }

    /// In the order of the file, those without a place last.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|d| {
            let at = d.span.as_ref();
            (at.is_none(), at.map(|span| span.bytes.start))
        });
        if self.dropped > 0 {
            self.list.push(
                Diagnostic::error(code::MORE, format!("more than {DIAGNOSTICS_MAX} problems"))
                    .hint("fix these and validate again"),
            );
        }
        self.list
    }
}
