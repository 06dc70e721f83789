//! The words of a query. Every rule and every error text is that of Prometheus 3.

use super::ast::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    End,
    Comma,
    Colon,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    /// `=`, only in braces.
    Assign,
    EqualRegex,
    NotRegex,
    /// `+` to `atan2`, and the comparisons.
    Operator,
    At,
    String,
    Number,
    Duration,
    /// With a colon in it: no function and no label has such a name.
    MetricIdentifier,
    Identifier,
    Aggregator,
    Keyword,
    /// `start`, `end`, `step`, `range`, `max_of`, `min_of`.
    Preprocessor,
}

#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    pub start: usize,
}

impl Token<'_> {
    #[must_use]
    pub fn span(&self) -> Span {
        Span { start: self.start, end: self.start + self.text.len() }
    }

    /// Keywords are read without regard to case.
    #[must_use]
    pub fn is(&self, word: &str) -> bool {
        self.text.eq_ignore_ascii_case(word)
    }

    /// How an error names it.
    #[must_use]
    pub fn describe(&self) -> String {
        match self.kind {
            Kind::End => "end of input".to_owned(),
            Kind::Identifier => format!("identifier {}", quote(self.text)),
            Kind::MetricIdentifier => format!("metric identifier {}", quote(self.text)),
            Kind::String => format!("string {}", shorten(self.text)),
            // `inf` and `nan` are words, but numbers all the same.
            Kind::Number => format!("number {}", shorten(self.text)),
            Kind::Duration => format!("duration {}", shorten(self.text)),
            Kind::Aggregator => format!("<aggr:{}>", self.text),
            Kind::Operator | Kind::At | Kind::EqualRegex | Kind::NotRegex => format!("<op:{}>", self.text),
            Kind::Keyword => format!("<{}>", self.text),
            Kind::Comma
            | Kind::Colon
            | Kind::LeftParen
            | Kind::RightParen
            | Kind::LeftBrace
            | Kind::RightBrace
            | Kind::LeftBracket
            | Kind::RightBracket
            | Kind::Assign
            | Kind::Preprocessor => shorten(self.text),
        }
    }
}

fn shorten(text: &str) -> String {
    if text.len() > 10 {
        let cut: String = text.chars().take(10).collect();
        format!("{}...", quote(&cut))
    } else {
        quote(text)
    }
}

/// In double quotes, escaped as Go's `%q` escapes.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            char if (char as u32) < 0x20 || char == '\u{7f}' => {
                out.push_str(&format!("\\x{:02x}", char as u32));
            }
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

/// A character as Go's `%q` shows a rune.
fn quote_char(char: char) -> String {
    match char {
        '\'' => "'\\''".to_owned(),
        '"' => "'\"'".to_owned(),
        char => {
            let quoted = quote(&char.to_string());
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}

#[derive(Debug)]
pub struct LexError {
    pub span: Span,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Statement,
    Braces,
    /// After `[`.
    Brackets {
        /// The colon was read.
        colon: bool,
        /// So was a number: from there on, what may stand outside of brackets is read as there.
        number: bool,
    },
}

#[derive(Debug)]
pub struct Lexer<'a> {
    input: &'a str,
    at: usize,
    inside: Inside,
    parens: usize,
}

const AGGREGATORS: [&str; 14] = [
    "sum",
    "avg",
    "count",
    "min",
    "max",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "count_values",
    "quantile",
    "limitk",
    "limit_ratio",
];

const KEYWORDS: [&str; 13] = [
    "offset",
    "smoothed",
    "anchored",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "fill",
    "fill_left",
    "fill_right",
    "bool",
];

const PREPROCESSORS: [&str; 6] = ["start", "end", "step", "range", "max_of", "min_of"];

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_alpha(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphabetic()
}

fn is_alphanumeric(byte: u8) -> bool {
    is_alpha(byte) || byte.is_ascii_digit()
}

impl<'a> Lexer<'a> {
    #[must_use]
    pub fn new(input: &'a str) -> Self {
        Self { input, at: 0, inside: Inside::Statement, parens: 0 }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.input.as_bytes().get(self.at + ahead).copied()
    }

    fn char(&self) -> Option<char> {
        self.input.get(self.at..).and_then(|rest| rest.chars().next())
    }

    fn error(&self, start: usize, message: impl Into<String>) -> LexError {
        LexError { span: Span { start, end: self.input.len() }, message: message.into() }
    }

    fn token(&mut self, kind: Kind, length: usize) -> Token<'a> {
        let start = self.at;
        self.at += length;
        Token { kind, text: &self.input[start..self.at], start }
    }

    /// The next word; comments and spaces are skipped.
    ///
    /// # Errors
    /// At what no query can have there.
    pub fn next(&mut self) -> Result<Token<'a>, LexError> {
        loop {
            match self.byte(0) {
                Some(byte) if is_space(byte) => self.at += 1,
                Some(b'#') if !matches!(self.inside, Inside::Brackets { number: false, .. }) => {
                    while self.byte(0).is_some_and(|byte| byte != b'\n' && byte != b'\r') {
                        self.at += 1;
                    }
                }
                Some(_) | None => break,
            }
        }
        match self.inside {
            Inside::Statement => self.statement(),
            Inside::Braces => self.braces(),
            Inside::Brackets { colon, number } => self.brackets(colon, number),
        }
    }

    fn statement(&mut self) -> Result<Token<'a>, LexError> {
        let start = self.at;
        let Some(byte) = self.byte(0) else {
            if self.parens > 0 {
                return Err(self.error(start, "unclosed left parenthesis"));
            }
            return Ok(self.token(Kind::End, 0));
        };
        Ok(match byte {
            b',' => self.token(Kind::Comma, 1),
            b'*' | b'/' | b'%' | b'+' | b'-' | b'^' => self.token(Kind::Operator, 1),
            b'=' => match self.byte(1) {
                Some(b'=') => self.token(Kind::Operator, 2),
                Some(b'~') => return Err(self.error(start, "unexpected character after '=': '~'")),
                Some(_) | None => self.token(Kind::Assign, 1),
            },
            b'!' => match self.byte(1) {
                Some(b'=') => self.token(Kind::Operator, 2),
                Some(_) | None => {
                    self.at += 1;
                    let found = self.char().map_or_else(|| "'\u{fffd}'".to_owned(), quote_char);
                    return Err(self.error(start, format!("unexpected character after '!': {found}")));
                }
            },
            b'<' | b'>' => {
                let long = matches!(self.byte(1), Some(b'=' | b'/'));
                self.token(Kind::Operator, if long { 2 } else { 1 })
            }
            b'(' => {
                self.parens += 1;
                self.token(Kind::LeftParen, 1)
            }
            b')' => {
                if self.parens == 0 {
                    return Err(self.error(start + 1, "unexpected right parenthesis ')'"));
                }
                self.parens -= 1;
                self.token(Kind::RightParen, 1)
            }
            b'{' => {
                self.inside = Inside::Braces;
                self.token(Kind::LeftBrace, 1)
            }
            b'[' => {
                self.inside = Inside::Brackets { colon: false, number: false };
                self.token(Kind::LeftBracket, 1)
            }
            b']' => return Err(self.error(start, "unexpected right bracket ']'")),
            b'@' => self.token(Kind::At, 1),
            b'"' | b'\'' | b'`' => self.string()?,
            b'.' if self.byte(1).is_some_and(|byte| byte.is_ascii_digit()) => self.number()?,
            byte if byte.is_ascii_digit() => self.number()?,
            byte if is_alpha(byte) || byte == b':' => self.word(),
            _ => {
                let found = self.char().map_or_else(String::new, quote_char);
                return Err(self.error(start, format!("unexpected character: {found}")));
            }
        })
    }

    fn word(&mut self) -> Token<'a> {
        let rest = &self.input.as_bytes()[self.at..];
        let length = rest.iter().take_while(|byte| is_alphanumeric(**byte) || **byte == b':').count();
        let word = self.input[self.at..self.at + length].to_ascii_lowercase();
        let kind = match word.as_str() {
            "inf" | "nan" => Kind::Number,
            "and" | "or" | "unless" | "atan2" => Kind::Operator,
            "fill" | "fill_left" | "fill_right" => {
                // So that metrics of these names can be asked for as ever.
                let called = rest[length..].iter().find(|byte| !is_space(**byte)) == Some(&b'(');
                if called { Kind::Keyword } else { Kind::Identifier }
            }
            word if AGGREGATORS.contains(&word) => Kind::Aggregator,
            word if KEYWORDS.contains(&word) => Kind::Keyword,
            word if PREPROCESSORS.contains(&word) => Kind::Preprocessor,
            word if word.contains(':') => Kind::MetricIdentifier,
            _ => Kind::Identifier,
        };
        self.token(kind, length)
    }

    fn braces(&mut self) -> Result<Token<'a>, LexError> {
        let start = self.at;
        let Some(byte) = self.byte(0) else {
            return Err(self.error(start, "unexpected end of input inside braces"));
        };
        Ok(match byte {
            b',' => self.token(Kind::Comma, 1),
            b'"' | b'\'' | b'`' => self.string()?,
            b'=' if self.byte(1) == Some(b'~') => self.token(Kind::EqualRegex, 2),
            b'=' => self.token(Kind::Assign, 1),
            b'!' => match self.byte(1) {
                Some(b'~') => self.token(Kind::NotRegex, 2),
                Some(b'=') => self.token(Kind::Operator, 2),
                Some(_) | None => {
                    self.at += 1;
                    let found = self.char().map_or_else(|| "'\u{fffd}'".to_owned(), quote_char);
                    return Err(
                        self.error(start, format!("unexpected character after '!' inside braces: {found}"))
                    );
                }
            },
            b'{' => return Err(self.error(start, "unexpected left brace '{'")),
            b'}' => {
                self.inside = Inside::Statement;
                self.token(Kind::RightBrace, 1)
            }
            byte if is_alpha(byte) => {
                let rest = &self.input.as_bytes()[self.at..];
                let length = rest.iter().take_while(|byte| is_alphanumeric(**byte)).count();
                self.token(Kind::Identifier, length)
            }
            _ => {
                let found = self.char().map_or_else(String::new, quote_char);
                return Err(self.error(start, format!("unexpected character inside braces: {found}")));
            }
        })
    }

    fn brackets(&mut self, colon: bool, number: bool) -> Result<Token<'a>, LexError> {
        let start = self.at;
        let Some(byte) = self.byte(0) else {
            let message = match (number, self.parens) {
                (true, 0) => "unclosed left bracket",
                (true, _) => "unclosed left parenthesis",
                (false, _) => "unexpected end of input in duration expression",
            };
            return Err(self.error(start, message));
        };
        Ok(match byte {
            b']' => {
                self.inside = Inside::Statement;
                self.token(Kind::RightBracket, 1)
            }
            b':' if colon && number => return Err(self.error(start, "unexpected colon ':'")),
            b':' if colon => {
                return Err(self.error(start + 1, "unexpected repeated colon in duration expression"));
            }
            b':' => {
                self.inside = Inside::Brackets { colon: true, number };
                self.token(Kind::Colon, 1)
            }
            b'[' => return Err(self.error(start, "unexpected left bracket '['")),
            b'(' => {
                self.parens += 1;
                self.token(Kind::LeftParen, 1)
            }
            b')' => {
                if self.parens == 0 {
                    return Err(self.error(start + 1, "unexpected right parenthesis ')'"));
                }
                self.parens -= 1;
                self.token(Kind::RightParen, 1)
            }
            b'*' | b'/' | b'%' | b'+' | b'-' | b'^' => self.token(Kind::Operator, 1),
            b',' => self.token(Kind::Comma, 1),
            byte if byte.is_ascii_digit()
                || (byte == b'.' && self.byte(1).is_some_and(|byte| byte.is_ascii_digit())) =>
            {
                self.inside = Inside::Brackets { colon, number: true };
                self.number()?
            }
            byte if number && !is_alpha(byte) => self.statement()?,
            _ => {
                let rest = &self.input.as_bytes()[self.at..];
                let length = rest.iter().take_while(|byte| is_alpha(**byte)).count();
                let word = self.input[self.at..self.at + length].to_ascii_lowercase();
                if !["step", "range", "max_of", "min_of"].contains(&word.as_str()) && number {
                    let found = self.char().map_or_else(String::new, quote_char);
                    return Err(self.error(start, format!("unexpected character: {found}, expected ':'")));
                }
                if !["step", "range", "max_of", "min_of"].contains(&word.as_str()) {
                    let found = self.char().map_or_else(String::new, quote_char);
                    return Err(
                        self.error(start, format!("unexpected character in duration expression: {found}"))
                    );
                }
                self.token(Kind::Preprocessor, length)
            }
        })
    }

    fn string(&mut self) -> Result<Token<'a>, LexError> {
        let bytes = &self.input.as_bytes()[self.at..];
        let open = bytes[0];
        let mut length = 1;
        loop {
            match bytes.get(length) {
                None if open == b'`' => return Err(self.error(self.at, "unterminated raw string")),
                Some(b'\n') if open != b'`' => return Err(self.error(self.at, "unterminated quoted string")),
                None => return Err(self.error(self.at, "unterminated quoted string")),
                Some(b'\\') if open != b'`' => {
                    length += self.escape(length, open)?;
                }
                Some(byte) => {
                    length += 1;
                    if *byte == open {
                        return Ok(self.token(Kind::String, length));
                    }
                }
            }
        }
    }

    /// Checks the escape sequence at `offset` from here and says how long it is.
    fn escape(&self, offset: usize, open: u8) -> Result<usize, LexError> {
        let rest = &self.input[self.at + offset..];
        let fail = |message: String| Err(self.error(self.at, message));
        let Some(char) = rest[1..].chars().next() else {
            return fail("escape sequence not terminated".to_owned());
        };
        let (skip, digits, base, max) = match char {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => return Ok(2),
            char if char == open as char => return Ok(2),
            '0'..='7' => (1, 3, 8, 255),
            'x' => (2, 2, 16, 255),
            'u' => (2, 4, 16, 0x0010_ffff),
            'U' => (2, 8, 16, 0x0010_ffff),
            char => {
                return fail(format!("unknown escape sequence U+{:04X} '{char}'", char as u32));
            }
        };
        let mut value: u64 = 0;
        for index in 0..digits {
            let Some(char) = rest.get(skip + index..).and_then(|rest| rest.chars().next()) else {
                return fail("escape sequence not terminated".to_owned());
            };
            let Some(digit) = char.to_digit(base) else {
                return fail(format!("illegal character U+{:04X} '{char}' in escape sequence", char as u32));
            };
            value = value * u64::from(base) + u64::from(digit);
        }
        if value > max || (0xd800..0xe000).contains(&value) {
            return fail("escape sequence is an invalid Unicode code point".to_owned());
        }
        Ok(skip + digits)
    }

    fn number(&mut self) -> Result<Token<'a>, LexError> {
        let bytes = &self.input.as_bytes()[self.at..];
        let (length, whole) = scan_number(bytes);
        if whole {
            return Ok(self.token(Kind::Number, length));
        }
        let (length, whole) = scan_duration(bytes, length);
        if whole {
            return Ok(self.token(Kind::Duration, length));
        }
        let mut end = (self.at + length).min(self.input.len());
        while !self.input.is_char_boundary(end) {
            end += 1;
        }
        let read = quote(&self.input[self.at..end]);
        Err(self.error(self.at, format!("bad number or duration syntax: {read}")))
    }
}

/// How many bytes belong to a number, and whether they make one.
fn scan_number(bytes: &[u8]) -> (usize, bool) {
    let at = |index: usize| bytes.get(index).copied();
    let mut length = 0;
    let hexadecimal = at(0) == Some(b'0') && matches!(at(1), Some(b'x' | b'X'));
    let digit = |byte: u8| if hexadecimal { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() };
    if hexadecimal {
        length = 2;
        if at(length) == Some(b'_') {
            length += 1;
        }
    }
    if at(length) == Some(b'.') {
        length += 1;
    }
    if at(length).is_some_and(digit) {
        length += 1;
    }
    let (mut dot, mut exponent) = (false, false);
    while let Some(byte) = at(length) {
        match byte {
            byte if digit(byte) => length += 1,
            b'.' => {
                length += 1;
                if dot || hexadecimal {
                    return (length, false);
                }
                if matches!(at(length), Some(b'_' | b'.')) {
                    return (length + 1, false);
                }
                dot = true;
            }
            b'e' | b'E' => {
                length += 1;
                if exponent {
                    return (length, false);
                }
                exponent = true;
                if matches!(at(length), Some(b'+' | b'-')) {
                    length += 1;
                }
                match at(length) {
                    None => return (length, false),
                    Some(b'.' | b'_' | b'e' | b'E') => return (length + 1, false),
                    Some(_) => {}
                }
            }
            b'_' => {
                length += 1;
                match at(length) {
                    None => return (length, false),
                    Some(b'.' | b'_' | b'e' | b'E') => return (length + 1, false),
                    Some(_) => {}
                }
            }
            _ => break,
        }
    }
    (length, !at(length).is_some_and(is_alphanumeric))
}

/// Goes on from the digits before the first unit.
fn scan_duration(bytes: &[u8], digits: usize) -> (usize, bool) {
    let at = |index: usize| bytes.get(index).copied();
    let mut length = digits;
    if !matches!(at(length), Some(b's' | b'm' | b'h' | b'd' | b'w' | b'y')) {
        return (length, false);
    }
    length += 1;
    if at(length) == Some(b's') {
        length += 1;
    }
    while at(length).is_some_and(|byte| byte.is_ascii_digit()) {
        while at(length).is_some_and(|byte| byte.is_ascii_digit()) {
            length += 1;
        }
        if !matches!(at(length), Some(b's' | b'm' | b'h' | b'd' | b'w')) {
            return (length, false);
        }
        length += 1;
        if at(length) == Some(b's') {
            length += 1;
        }
    }
    if at(length).is_some_and(is_alphanumeric) { (length + 1, false) } else { (length, true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_go_quotes_it_and_read_again_as_it_was() {
        let text = "a\"\\\n\r\t\u{7}\u{8}\u{b}\u{c}\u{1}é\u{7f}";
        assert_eq!(quote(text), r#""a\"\\\n\r\t\a\b\v\f\x01é\x7f""#);
        assert_eq!(crate::promql::literal::unquote(&quote(text)), text);
    }
}
