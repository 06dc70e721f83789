//! Diagnostics as text for people: the source line, carets under the place, the hint.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::code;
use crate::diagnostic::{Diagnostic, Severity};
use crate::span::{Source, Span};

/// A source line is cut to a window of this many characters around the place: a file of one long line must not
/// flood the terminal.
const LINE_SHOWN_MAX: usize = 110;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    #[default]
    Off,
    Ansi,
}

struct Paint(Colour);

impl Paint {
    fn wrap(&self, code: &str, text: &str) -> String {
        match self.0 {
            Colour::Off => text.to_owned(),
            Colour::Ansi => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    fn severity(&self, severity: Severity, text: &str) -> String {
        let code = match severity {
            Severity::Error => "1;31",
            Severity::Warning => "1;33",
        };
        self.wrap(code, text)
    }

    fn frame(&self, text: &str) -> String {
        self.wrap("1;34", text)
    }
}

/// All diagnostics, one blank line between them. `source` is the file that the spans point into.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], source: &Source, colour: Colour) -> String {
    let paint = Paint(colour);
    // Their lines would put the secret on the terminal and into the log of whatever called, whatever else is wrong there.
    let secret = diagnostics.iter().filter(|one| one.code == code::PLAIN_SECRET);
    let quiet: BTreeSet<u32> = secret.filter_map(|one| Some(one.span.as_ref()?.line)).collect();
    let shown: Vec<String> =
        diagnostics.iter().map(|diagnostic| one(diagnostic, source, &paint, &quiet)).collect();
    shown.join("\n")
}

fn one(diagnostic: &Diagnostic, source: &Source, paint: &Paint, quiet: &BTreeSet<u32>) -> String {
    let gutter = diagnostic
        .span
        .iter()
        .chain(diagnostic.related.iter().map(|(span, _)| span))
        .map(|span| span.line.to_string().len())
        .max()
        .unwrap_or(1);
    let mut text = String::new();
    let head = format!("{}[{}]", diagnostic.severity.as_str(), diagnostic.code);
    let _ = writeln!(
        text,
        "{}: {}",
        paint.severity(diagnostic.severity, &head),
        printable(&diagnostic.message, usize::MAX)
    );
    let own = diagnostic.span.iter().map(|span| (span, ""));
    let related = diagnostic.related.iter().map(|(span, what)| (span, what.as_str()));
    for (index, (span, what)) in own.chain(related).enumerate() {
        if quiet.contains(&span.line) {
            let space = if what.is_empty() { "" } else { ": " };
            let _ = writeln!(text, "{}{} {span}{space}{what}", " ".repeat(gutter), paint.frame("-->"));
            continue;
        }
        place(&mut text, span, what, source, gutter, paint, |carets| {
            if index == 0 { paint.severity(diagnostic.severity, carets) } else { paint.frame(carets) }
        });
    }
    if let Some(hint) = &diagnostic.hint {
        let _ = writeln!(
            text,
            "{}{} {}",
            " ".repeat(gutter + 1),
            paint.frame("= hint:"),
            printable(hint, usize::MAX)
        );
    }
    text
}

fn place(
    text: &mut String,
    span: &Span,
    what: &str,
    source: &Source,
    gutter: usize,
    paint: &Paint,
    colour: impl Fn(&str) -> String,
) {
    let pad = " ".repeat(gutter);
    let _ = writeln!(text, "{pad}{} {}", paint.frame("-->"), printable(&span.to_string(), usize::MAX));
    if &*span.file != source.file() {
        return;
    }
    let line = source.line(span.line);
    let column = span.column as usize - 1;
    let length = source.text()[span.bytes.start..span.bytes.end]
        .lines()
        .next()
        .map_or(1, |first| first.chars().count())
        .max(1);
    // Shows some of what stands before the place, and as much as possible after it.
    let skip = if column + length.min(20) > LINE_SHOWN_MAX { column.saturating_sub(30) } else { 0 };
    let lead = if skip > 0 { "…" } else { "" };
    let shown: String = line.chars().skip(skip).collect();
    let shown = printable(&shown, LINE_SHOWN_MAX);
    let before = column - skip + lead.chars().count();
    let carets = "^".repeat(length.min(LINE_SHOWN_MAX.saturating_sub(before)).max(1));
    let _ = writeln!(text, "{pad} {}", paint.frame("|"));
    let number = format!("{:>gutter$}", span.line);
    let _ = writeln!(text, "{} {} {lead}{}", paint.frame(&number), paint.frame("|"), shown.trim_end());
    let label = if what.is_empty() { carets } else { format!("{carets} {}", printable(what, usize::MAX)) };
    let _ = writeln!(text, "{pad} {} {}{}", paint.frame("|"), " ".repeat(before), colour(&label));
}

/// Text that cannot steer the terminal: control characters become one visible character each, so that columns stay.
fn printable(text: &str, length_max: usize) -> String {
    text.chars()
        .take(length_max)
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() || is_bidi_control(c) => '·',
            c => c,
        })
        .collect()
}

/// Characters that reorder what is shown, so that a reader would see another file than the one parsed
/// ("Trojan Source", CVE-2021-42574).
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, needle: &str, colour: Colour) -> String {
        let source = Source::new("fairway.toml", text);
        let start = text.find(needle).unwrap();
        let diagnostic = Diagnostic::error("config/test", "wrong")
            .at(source.span(start..start + needle.len()))
            .hint("do better");
        render(&[diagnostic], &source, colour)
    }

    #[test]
    fn carets_stand_under_the_place() {
        let expected = "error[config/test]: wrong\n --> fairway.toml:2:5\n  |\n2 | b = oops\n  |     ^^^^\n  = hint: do better\n";
        assert_eq!(shown("a = 1\nb = oops\n", "oops", Colour::Off), expected);
    }

    #[test]
    fn a_very_long_line_is_cut_around_the_place() {
        let text = format!("a = \"{}oops{}\"", "x".repeat(5000), "y".repeat(5000));
        let shown = shown(&text, "oops", Colour::Off);
        assert!(shown.len() < 1000, "{shown}");
        let lines: Vec<&str> = shown.lines().collect();
        let at = |line: &str, needle: &str| {
            line.chars().count() - line[line.find(needle).unwrap()..].chars().count()
        };
        assert_eq!(at(lines[3], "oops"), at(lines[4], "^^^^"));
    }

    #[test]
    fn control_characters_of_the_file_never_reach_the_terminal() {
        let shown = shown("a = \"\u{1b}[2J\u{202e}\" # oops", "oops", Colour::Off);
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'), "{shown:?}");
    }

    #[test]
    fn colour_is_only_there_when_asked_for() {
        assert!(!shown("a = oops", "oops", Colour::Off).contains('\u{1b}'));
        assert!(shown("a = oops", "oops", Colour::Ansi).contains("\u{1b}[1;31merror"));
    }
}
