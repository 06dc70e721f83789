//! An error as people read it: code and message, the place in the source, causes, the last log lines, what to do.

use std::fmt::Write as _;

use fairway_api::{ApiError, SourceSpan};

use super::paint::{Colours, Paint, printable};
use super::wrap::wrap;

/// A source line is cut to a window of this many characters around the place.
const LINE_SHOWN_MAX: usize = 110;
/// As many log lines as help, and still leave the message on the screen.
const LOG_LINES_MAX: usize = 20;

/// `severity` is `error` or `warning`. Causes are broken at `columns`; commands are not, so that they can be copied.
#[must_use]
pub fn render(error: &ApiError, severity: &str, columns: usize, colours: Colours) -> String {
    let severe = if severity == "error" { Paint::Bad } else { Paint::Warn };
    let mut text = String::new();
    let head = format!("{severity}[{}]", error.code);
    let _ = writeln!(text, "{}: {}", colours.paint(severe, &head), printable_lines(&error.message));
    if let Some(span) = &error.span {
        place(&mut text, span, "", severe, colours);
    }
    for related in &error.related {
        place(&mut text, &related.span, &related.message, Paint::Bold, colours);
    }
    for cause in &error.causes {
        let lines = cause.lines().flat_map(|line| wrap(&printable(line), columns.saturating_sub(9)));
        let lines = lines.collect::<Vec<_>>().join("\n         ");
        let _ = writeln!(text, "  {} {lines}", colours.paint(Paint::Dim, "cause:"));
    }
    if !error.last_lines.is_empty() {
        let skip = error.last_lines.len().saturating_sub(LOG_LINES_MAX);
        let _ = writeln!(text, "  {}", colours.paint(Paint::Dim, "last log lines:"));
        for line in &error.last_lines[skip..] {
            let _ = writeln!(text, "  {} {}", colours.paint(Paint::Dim, "|"), printable(line));
        }
    }
    if let Some(hint) = &error.hint {
        let _ = writeln!(text, "{} {}", colours.paint(Paint::Bold, "hint:"), printable_lines(hint));
    }
    text
}

/// A message may have lines of its own; they are indented below its first.
fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n  ")
}

fn place(text: &mut String, span: &SourceSpan, label: &str, paint: Paint, colours: Colours) {
    let number = span.line.to_string();
    let pad = " ".repeat(number.len());
    let frame = |text: &str| colours.paint(Paint::Dim, text);
    let _ = writeln!(text, "{pad}{} {}:{}:{}", frame("-->"), printable(&span.file), span.line, span.column);
    // A line that holds a secret is not shown; its place is.
    if span.text.is_empty() {
        if !label.is_empty() {
            let _ = writeln!(text, "{pad} {} {}", frame("|"), printable(label));
        }
        return;
    }
    let column = (span.column as usize).saturating_sub(1);
    let length = (span.length as usize).max(1);
    let skip = if column + length.min(20) > LINE_SHOWN_MAX { column.saturating_sub(30) } else { 0 };
    let lead = if skip > 0 { "…" } else { "" };
    let shown: String = printable(&span.text).chars().skip(skip).take(LINE_SHOWN_MAX).collect();
    let before = column - skip + lead.chars().count();
    let carets = "^".repeat(length.min(LINE_SHOWN_MAX.saturating_sub(before)).max(1));
    let label = if label.is_empty() { carets } else { format!("{carets} {}", printable(label)) };
    let _ = writeln!(text, "{pad} {}", frame("|"));
    let _ = writeln!(text, "{} {} {lead}{}", frame(&number), frame("|"), shown.trim_end());
    let _ = writeln!(text, "{pad} {} {}{}", frame("|"), " ".repeat(before), colours.paint(paint, &label));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str, column: u32, length: u32) -> SourceSpan {
        SourceSpan { file: "fairway.toml".to_owned(), line: 12, column, text: text.to_owned(), length }
    }

    #[test]
    fn everything_that_is_known_is_shown_in_order() {
        let mut error = ApiError::new("rollout/failed", "rollout #7 failed")
            .cause("api.r12.3 failed: exit code 1")
            .lines(vec!["Traceback".to_owned(), "KeyError: 'PORT'\x1b[2J".to_owned()])
            .hint("fairway logs api -e production --release r12");
        error.span = Some(span("port = 4000", 8, 4));
        let expected = "error[rollout/failed]: rollout #7 failed
  --> fairway.toml:12:8
   |
12 | port = 4000
   |        ^^^^
  cause: api.r12.3 failed: exit code 1
  last log lines:
  | Traceback
  | KeyError: 'PORT'·[2J
hint: fairway logs api -e production --release r12
";
        assert_eq!(render(&error, "error", 80, Colours::Off), expected);
    }

    #[test]
    fn a_long_cause_is_broken_below_its_beginning() {
        let error = ApiError::new("x/y", "z").cause("errors of api: 12 errors in 40 requests");
        assert_eq!(
            render(&error, "error", 34, Colours::Off),
            "error[x/y]: z\n  cause: errors of api: 12 errors\n         in 40 requests\n"
        );
    }

    #[test]
    fn no_more_than_twenty_log_lines_are_shown_and_they_are_the_last() {
        let error = ApiError::new("x/y", "z").lines((0..50).map(|n| format!("line {n}")).collect());
        let shown = render(&error, "error", 80, Colours::Off);
        assert_eq!(shown.lines().filter(|line| line.starts_with("  | ")).count(), 20);
        assert!(shown.contains("line 49") && !shown.contains("line 29\n"));
    }

    #[test]
    fn carets_of_a_span_that_is_wrong_do_not_panic() {
        for (column, length) in [(0, 0), (1, u32::MAX), (u32::MAX, u32::MAX), (5000, 1)] {
            let mut error = ApiError::new("x/y", "z");
            error.span = Some(span(&"a".repeat(300), column, length));
            assert!(render(&error, "error", 80, Colours::Ansi).len() < 2000);
        }
    }
}
