//! A place in a body, and what can be taken from there.

use std::borrow::Cow;

use super::Problem;

#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// More of a bad token tells no one anything.
const SHOWN_CHARS_MAX: usize = 60;

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// From 1. Counted only when someone asks: that is once, for an error. The line end that was just taken is of
    /// the line before it.
    pub(super) fn line_number(&self) -> usize {
        let before = &self.bytes[..self.at.min(self.bytes.len())];
        let before = before.strip_suffix(b"\n").unwrap_or(before);
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn bump(&mut self) {
        self.at += 1;
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(super) fn starts_with(&self, wanted: &[u8]) -> bool {
        self.rest().starts_with(wanted)
    }

    pub(super) fn eat_all(&mut self, wanted: &[u8]) -> bool {
        let found = self.starts_with(wanted);
        self.at += if found { wanted.len() } else { 0 };
        found
    }

    /// A word and the blank after it; the blank stays.
    pub(super) fn keyword(&mut self, word: &[u8]) -> bool {
        let rest = self.rest();
        let found = rest.starts_with(word) && matches!(rest.get(word.len()), Some(b' ' | b'\t'));
        self.at += if found { word.len() } else { 0 };
        found
    }

    pub(super) fn take_while(&mut self, keep: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let end = rest.iter().position(|byte| !keep(*byte)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// How many there were.
    pub(super) fn blanks(&mut self) -> usize {
        self.take_while(|byte| byte == b' ' || byte == b'\t').len()
    }

    /// The rest of the line; its end is taken too.
    pub(super) fn line(&mut self) -> &'a [u8] {
        let line = self.take_while(|byte| byte != b'\n');
        let _ = self.eat(b'\n');
        line
    }

    /// Like `line`, when the line has an end.
    pub(super) fn until_line_end(&mut self) -> Option<&'a [u8]> {
        let line = self.take_while(|byte| byte != b'\n');
        self.eat(b'\n').then_some(line)
    }

    /// A name of the old characters; with colons, it is a metric's.
    pub(super) fn name(&mut self, colons: bool) -> Option<&'a [u8]> {
        let first = self.peek()?;
        if first.is_ascii_digit() {
            return None;
        }
        let name =
            self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || (colons && byte == b':'));
        (!name.is_empty()).then_some(name)
    }

    /// What stands between quotes, escapes as they are. `None`, and nothing taken, when there is no such thing here.
    pub(super) fn quoted(&mut self, line_ends: bool) -> Option<&'a [u8]> {
        let inside = self.rest().strip_prefix(b"\"")?;
        let mut at = 0;
        loop {
            match inside.get(at)? {
                b'"' => break,
                b'\\' if *inside.get(at + 1)? == b'\n' => return None,
                b'\\' => at += 2,
                b'\n' if !line_ends => return None,
                _ => at += 1,
            }
        }
        self.at += at + 2;
        Some(&inside[..at])
    }

    pub(super) fn unexpected(&self, expected: &'static str) -> Problem {
        let rest = self.rest();
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let found = match rest.first() {
            None => "the end of the body".to_owned(),
            Some(b'\n') => "the end of the line".to_owned(),
            Some(_) => format!("{:?}", shown(&rest[..end.min(4 * SHOWN_CHARS_MAX)])),
        };
        Problem::Unexpected { expected, found }
    }
}

/// For a message.
pub(super) fn shown(raw: &[u8]) -> String {
    shortened(&String::from_utf8_lossy(&raw[..raw.len().min(4 * SHOWN_CHARS_MAX)]))
}

pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// `\\` and `\n` undone, and `\"` where `quotes`. Any other backslash is one.
pub(super) fn unescaped(raw: &str, quotes: bool) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    while let Some(char) = chars.next() {
        let meant = match (char, chars.peek()) {
            ('\\', Some('\\')) => '\\',
            ('\\', Some('n')) => '\n',
            ('\\', Some('"')) if quotes => '"',
            _ => {
                text.push(char);
                continue;
            }
        };
        chars.next();
        text.push(meant);
    }
    Cow::Owned(text)
}
