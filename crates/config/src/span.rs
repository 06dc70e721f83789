//! A place in a file: what every value keeps and every diagnostic points at.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A place in a file. `line` and `column` count from 1; columns count characters, `bytes` counts bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub file: Arc<str>,
    pub line: u32,
    pub column: u32,
    pub bytes: ByteRange,
}

/// `start..end` in bytes. A type of its own because `Range` has no order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    pub start: usize,
    pub end: usize,
}

impl From<Range<usize>> for ByteRange {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end.max(range.start) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// The text of a file with an index of its lines.
#[derive(Clone, Debug)]
pub struct Source {
    file: Arc<str>,
    text: Arc<str>,
    line_starts: Arc<[usize]>,
}

impl Source {
    #[must_use]
    pub fn new(file: &str, text: &str) -> Self {
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect::<Vec<_>>();
        Self { file: file.into(), text: text.into(), line_starts: line_starts.into() }
    }

    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The place of a byte range. A range outside the text is clamped to it.
    #[must_use]
    pub fn span(&self, range: impl Into<ByteRange>) -> Span {
        let range = range.into();
        let start = self.floor(range.start);
        let end = self.floor(range.end).max(start);
        let line = self.line_starts.partition_point(|&at| at <= start);
        let line_start = self.line_starts[line - 1];
        let column = self.text[line_start..start].chars().count() + 1;
        Span {
            file: Arc::clone(&self.file),
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
            bytes: ByteRange { start, end },
        }
    }

    /// A line without its end, counted from 1; empty when there is none.
    #[must_use]
    pub fn line(&self, line: u32) -> &str {
        let at = line as usize;
        let Some(&start) = at.checked_sub(1).and_then(|index| self.line_starts.get(index)) else {
            return "";
        };
        let end = self.line_starts.get(at).map_or(self.text.len(), |next| next - 1);
        self.text[start..end].trim_end_matches('\r')
    }

    fn floor(&self, at: usize) -> usize {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_ranges_are_clamped() {
        let source = Source::new("f", "a = 1\r\nß = 22\n");
        let span = source.span(source.text().find("22").unwrap()..source.text().len() - 1);
        assert_eq!((span.line, span.column), (2, 5));
        assert_eq!(source.line(1), "a = 1");
        assert_eq!(source.line(3), "");
        assert_eq!(source.line(99), "");
        assert_eq!(source.span(8..999).line, 2, "inside the first character of line 2");
        assert_eq!(source.span(999..1000).line, 3);
    }
}
