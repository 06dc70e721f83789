//! From text to pieces.

use super::functions::{self, Function};

/// Nested blocks and parentheses; both the reader and the runner recurse.
const DEPTH_MAX: usize = 32;
/// A template is written by hand.
const BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Debug)]
pub(super) enum Piece {
    Text(String),
    Show(Pipeline),
    If { test: Pipeline, then: Vec<Piece>, otherwise: Vec<Piece> },
    With { value: Pipeline, then: Vec<Piece>, otherwise: Vec<Piece> },
    Range { list: Pipeline, each: Vec<Piece>, otherwise: Vec<Piece> },
    Break,
    Continue,
}

impl Piece {
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    /// Names with their `$`; two only in `range`.
    pub names: Vec<String>,
    pub set: Set,
    pub commands: Vec<Command>,
    /// As it is written, for messages.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    Nothing,
    Declare,
    Assign,
}

#[derive(Clone, Debug)]
pub(super) struct Command {
    pub words: Vec<Word>,
    pub text: String,
}

#[derive(Clone, Debug)]
pub(super) enum Word {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Function(&'static Function),
    /// What the path starts at, and the fields from there.
    Path(Start, Vec<String>),
}

#[derive(Clone, Debug)]
pub(super) enum Start {
    Dot,
    /// With the `$`; `$` alone is the root.
    Variable(String),
    Paren(Box<Pipeline>),
}

pub(super) fn parse(text: &str) -> Result<Vec<Piece>, String> {
    if text.len() > BYTES_MAX {
        return Err(format!("template: longer than {BYTES_MAX} bytes"));
    }
    let known = ["$", "$labels", "$externalLabels", "$externalURL", "$value"];
    let mut reader =
        Reader { text, at: 0, variables: known.map(str::to_owned).to_vec(), depth: 0, loops: 0, trim: false };
    let (body, end) = reader.body()?;
    match end {
        End::File => Ok(body),
        End::Block => Err(reader.fails("unexpected {{end}}")),
        End::Else(_) => Err(reader.fails("unexpected {{else}}")),
    }
}

/// What ended a list of pieces.
enum End {
    File,
    Block,
    /// With the `if`, `with` or nothing that follows the `else`.
    Else(Option<String>),
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Those that may be used here, in the order of their declaration.
    variables: Vec<String>,
    depth: usize,
    loops: usize,
    /// The action before asked for the blanks that follow to go.
    trim: bool,
}

impl Reader<'_> {
    fn fails(&self, why: &str) -> String {
        let line = self.text.as_bytes()[..self.at].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{line}: {why}")
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_blanks(&mut self) -> bool {
        let blanks = self.rest().len() - self.rest().trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.at += blanks;
        blanks > 0
    }

    /// Pieces up to an `end`, an `else` or the end of the text.
    fn body(&mut self) -> Result<(Vec<Piece>, End), String> {
        let mut pieces = Vec::new();
        loop {
            let (mut plain, found) = match self.rest().find("{{") {
                Some(found) => (self.rest()[..found].to_owned(), true),
                None => (self.rest().to_owned(), false),
            };
            self.at += plain.len();
            if std::mem::take(&mut self.trim) {
                plain = plain.trim_start_matches([' ', '\t', '\r', '\n']).to_owned();
            }
            if found {
                self.at += 2;
                if self.rest().starts_with('-') && self.rest()[1..].starts_with([' ', '\t', '\r', '\n']) {
                    self.at += 1;
                    plain = plain.trim_end_matches([' ', '\t', '\r', '\n']).to_owned();
                }
            }
            if !plain.is_empty() {
                pieces.push(Piece::Text(plain));
            }
            if !found {
                return Ok((pieces, End::File));
            }
            if let Some(end) = self.action(&mut pieces)? {
                return Ok((pieces, end));
            }
        }
    }

    /// One `{{ … }}`, the braces before it already read.
    fn action(&mut self, pieces: &mut Vec<Piece>) -> Result<Option<End>, String> {
        self.skip_blanks();
        if self.rest().starts_with("/*") {
            let Some(length) = self.rest().find("*/") else { return Err(self.fails("unclosed comment")) };
            self.at += length + 2;
            return if self.close()? {
                Ok(None)
            } else {
                Err(self.fails("comment ends before closing delimiter"))
            };
        }
        let word = self.word();
        match &*word {
            "if" => pieces.push(self.block(Kind::If)?),
            "with" => pieces.push(self.block(Kind::With)?),
            "range" => pieces.push(self.block(Kind::Range)?),
            "end" => {
                self.must_close("end")?;
                return Ok(Some(End::Block));
            }
            "else" => {
                self.skip_blanks();
                let next = self.word();
                if matches!(&*next, "if" | "with") {
                    return Ok(Some(End::Else(Some(next))));
                }
                self.at -= next.len();
                self.must_close("else")?;
                return Ok(Some(End::Else(None)));
            }
            "break" | "continue" => {
                if self.loops == 0 {
                    return Err(self.fails(&format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                self.must_close(&word)?;
                pieces.push(if word == "break" { Piece::Break } else { Piece::Continue });
            }
            "define" | "block" | "template" => {
                return Err(self.fails(&format!("{{{{{word}}}}} is not supported here")));
            }
            _ => {
                self.at -= word.len();
                let pipeline = self.pipeline("command", false)?;
                self.must_close("command")?;
                pieces.push(Piece::Show(pipeline));
            }
        }
        Ok(None)
    }

    /// The letters and digits that come next.
    fn word(&mut self) -> String {
        let rest = self.rest();
        let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let word = rest[..length].to_owned();
        self.at += length;
        word
    }

    /// Whether the action ends here; eats its end.
    fn close(&mut self) -> Result<bool, String> {
        self.skip_blanks();
        // Whoever read the last word may have read the blanks too.
        let blanks = self.text[..self.at].ends_with([' ', '\t', '\r', '\n']);
        if blanks && self.rest().starts_with("-}}") {
            self.at += 3;
            self.trim = true;
            return Ok(true);
        }
        if self.rest().starts_with("}}") {
            self.at += 2;
            return Ok(true);
        }
        if self.rest().is_empty() { Err(self.fails("unclosed action")) } else { Ok(false) }
    }

    fn must_close(&mut self, within: &str) -> Result<(), String> {
        if self.close()? {
            return Ok(());
        }
        let c = self.peek().unwrap_or(' ');
        Err(self.fails(&format!("unexpected {c:?} in {within}")))
    }

    fn block(&mut self, kind: Kind) -> Result<Piece, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.fails(&format!("blocks are nested more than {DEPTH_MAX} deep")));
        }
        let outside = self.variables.len();
        let pipeline = self.pipeline(kind.name(), kind == Kind::Range)?;
        self.must_close(kind.name())?;
        self.loops += usize::from(kind == Kind::Range);
        let inside = self.variables.len();
        let (then, end) = self.body()?;
        self.variables.truncate(inside);
        self.loops -= usize::from(kind == Kind::Range);
        let otherwise = match end {
            End::File => return Err(self.fails("unexpected EOF")),
            End::Block => Vec::new(),
            End::Else(Some(word)) => {
                if kind == Kind::Range {
                    return Err(self.fails(&format!("unexpected {{{{else {word}}}}}")));
                }
                // The inner block eats the one `end` of both.
                vec![self.block(if word == "if" { Kind::If } else { Kind::With })?]
            }
            End::Else(None) => {
                let (otherwise, end) = self.body()?;
                match end {
                    End::Block => otherwise,
                    End::File => return Err(self.fails("unexpected EOF")),
                    End::Else(_) => return Err(self.fails("expected end; found {{else}}")),
                }
            }
        };
        self.variables.truncate(outside);
        self.depth -= 1;
        Ok(match kind {
            Kind::If => Piece::If { test: pipeline, then, otherwise },
            Kind::With => Piece::With { value: pipeline, then, otherwise },
            Kind::Range => Piece::Range { list: pipeline, each: then, otherwise },
        })
    }

    /// Up to, and without, what ends it.
    fn pipeline(&mut self, within: &str, two_names: bool) -> Result<Pipeline, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.fails(&format!("more than {DEPTH_MAX} levels deep")));
        }
        self.skip_blanks();
        let begin = self.at;
        let (names, set) = self.declaration(two_names)?;
        let mut commands = Vec::new();
        loop {
            let from = self.at;
            let words = self.words()?;
            let ends = self.peek();
            if words.is_empty() {
                return Err(self.fails(&match ends {
                    None => "unclosed action".to_owned(),
                    Some('|') => format!("missing value for {within}"),
                    Some('}' | ')' | '-') if commands.is_empty() => format!("missing value for {within}"),
                    Some(_) => format!("unexpected {:?} in {within}", ends.unwrap_or(' ')),
                }));
            }
            self.check_command(&words, commands.is_empty())?;
            let text = self.text[from..self.at].trim().to_owned();
            commands.push(Command { words, text });
            if ends != Some('|') {
                break;
            }
            self.at += 1;
        }
        if set == Set::Declare {
            self.variables.extend(names.iter().cloned());
        }
        self.depth -= 1;
        let text = self.text[begin..self.at].trim().to_owned();
        Ok(Pipeline { names, set, commands, text })
    }

    fn check_command(&self, words: &[Word], first: bool) -> Result<(), String> {
        let callable = matches!(words.first(), Some(Word::Function(_)));
        if !first && !callable {
            return Err(self.fails("non executable command in pipeline stage"));
        }
        if words.len() > 1 && !callable {
            return Err(self.fails("can't give argument to non-function"));
        }
        if matches!(words, [Word::Nil]) {
            return Err(self.fails("nil is not a command"));
        }
        Ok(())
    }

    /// `$x :=`, `$x =`, `$i, $x :=`.
    fn declaration(&mut self, two_names: bool) -> Result<(Vec<String>, Set), String> {
        let begin = self.at;
        let mut names = Vec::new();
        while self.peek() == Some('$') {
            self.at += 1;
            names.push(format!("${}", self.word()));
            self.skip_blanks();
            if self.rest().starts_with(":=") {
                self.at += 2;
                return Ok((names, Set::Declare));
            }
            if self.rest().starts_with('=') {
                self.at += 1;
                if let Some(name) = names.iter().find(|name| !self.variables.contains(name)) {
                    return Err(self.fails(&format!("undefined variable {name:?}")));
                }
                return Ok((names, Set::Assign));
            }
            if self.peek() != Some(',') {
                break;
            }
            if !two_names || names.len() > 1 {
                return Err(self.fails("too many declarations"));
            }
            self.at += 1;
            self.skip_blanks();
        }
        self.at = begin;
        Ok((Vec::new(), Set::Nothing))
    }

    /// The words of one command.
    fn words(&mut self) -> Result<Vec<Word>, String> {
        let mut words = Vec::new();
        loop {
            let blanks = self.skip_blanks();
            let rest = self.rest();
            let ends = rest.is_empty()
                || rest.starts_with("}}")
                || rest.starts_with(['|', ')'])
                || (blanks && rest.starts_with("-}}"));
            if ends {
                return Ok(words);
            }
            if !words.is_empty() && !blanks {
                let c = self.peek().unwrap_or(' ');
                return Err(self.fails(&format!("unexpected {c:?} in operand")));
            }
            words.push(self.one()?);
        }
    }

    fn one(&mut self) -> Result<Word, String> {
        let Some(c) = self.peek() else { return Err(self.fails("unclosed action")) };
        match c {
            '"' => self.quoted(),
            '`' => {
                let Some(length) = self.rest()[1..].find('`') else {
                    return Err(self.fails("unterminated raw quoted string"));
                };
                let text = self.rest()[1..=length].to_owned();
                self.at += length + 2;
                Ok(Word::Text(text))
            }
            '\'' => self.character(),
            '(' => {
                self.at += 1;
                let inner = self.pipeline("parenthesized pipeline", false)?;
                self.skip_blanks();
                if self.peek() != Some(')') {
                    return Err(self.fails("unclosed left paren"));
                }
                self.at += 1;
                Ok(Word::Path(Start::Paren(Box::new(inner)), self.fields()))
            }
            '$' => {
                self.at += 1;
                let name = format!("${}", self.word());
                if !self.variables.contains(&name) {
                    return Err(self.fails(&format!("undefined variable {name:?}")));
                }
                Ok(Word::Path(Start::Variable(name), self.fields()))
            }
            '.' if !self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let fields = self.fields();
                if fields.is_empty() {
                    self.at += 1;
                }
                Ok(Word::Path(Start::Dot, fields))
            }
            c if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => self.number(),
            c if c.is_alphabetic() || c == '_' => {
                let word = self.word();
                match &*word {
                    "true" => Ok(Word::Bool(true)),
                    "false" => Ok(Word::Bool(false)),
                    "nil" => Ok(Word::Nil),
                    name => functions::find(name)
                        .map(Word::Function)
                        .ok_or_else(|| self.fails(&format!("function {name:?} not defined"))),
                }
            }
            c => Err(self.fails(&format!("unexpected {c:?} in command"))),
        }
    }

    /// `.a.b`, without blanks.
    fn fields(&mut self) -> Vec<String> {
        let mut fields = Vec::new();
        while self.rest().starts_with('.')
            && self.rest()[1..].starts_with(|c: char| c.is_alphabetic() || c == '_')
        {
            self.at += 1;
            fields.push(self.word());
        }
        fields
    }

    fn quoted(&mut self) -> Result<Word, String> {
        let mut out = String::new();
        let mut chars = self.rest()[1..].char_indices();
        while let Some((index, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += index + 2;
                    return Ok(Word::Text(out));
                }
                '\n' => break,
                '\\' => match chars.next().map(|(_, escaped)| escaped) {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('r') => out.push('\r'),
                    Some(escaped @ ('"' | '\\' | '\'')) => out.push(escaped),
                    Some(kind @ ('x' | 'u' | 'U')) => {
                        let length = if kind == 'x' {
                            2
                        } else if kind == 'u' {
                            4
                        } else {
                            8
                        };
                        let digits: String = chars.by_ref().take(length).map(|(_, digit)| digit).collect();
                        let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == length);
                        let Some(c) = code.and_then(char::from_u32) else {
                            return Err(self.fails("invalid syntax"));
                        };
                        out.push(c);
                    }
                    Some(_) => return Err(self.fails("invalid syntax")),
                    None => break,
                },
                c => out.push(c),
            }
        }
        Err(self.fails("unterminated quoted string"))
    }

    fn character(&mut self) -> Result<Word, String> {
        let mut chars = self.rest().chars();
        match (chars.nth(1), chars.next(), chars.next()) {
            (Some(c), Some('\''), _) if c != '\\' && c != '\'' => {
                self.at += 2 + c.len_utf8();
                Ok(Word::Int(i64::from(u32::from(c))))
            }
            (Some('\\'), Some(c), Some('\'')) => {
                let code = match c {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '\\' | '\'' => c,
                    _ => return Err(self.fails("malformed character constant")),
                };
                self.at += 4;
                Ok(Word::Int(i64::from(u32::from(code))))
            }
            _ => Err(self.fails("malformed character constant")),
        }
    }

    fn number(&mut self) -> Result<Word, String> {
        let rest = self.rest();
        let mut length = 0;
        let mut last = ' ';
        for c in rest.chars() {
            let sign = matches!(c, '+' | '-') && (length == 0 || matches!(last, 'e' | 'E'));
            if !(sign || c.is_ascii_alphanumeric() || matches!(c, '.' | '_')) {
                break;
            }
            length += 1;
            last = c;
        }
        let written = &rest[..length];
        let digits = written.replace('_', "");
        let (sign, bare) =
            digits.strip_prefix('-').map_or((1, digits.trim_start_matches('+')), |bare| (-1, bare));
        let whole = match bare.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("0x") => i64::from_str_radix(&bare[2..], 16).ok(),
            Some("0b") => i64::from_str_radix(&bare[2..], 2).ok(),
            Some("0o") => i64::from_str_radix(&bare[2..], 8).ok(),
            Some(_) | None => bare.parse().ok(),
        };
        // Letters would make Rust read `inf` and `nan`, which Go does not know as constants.
        let float = bare
            .chars()
            .all(|c| !c.is_alphabetic() || matches!(c, 'e' | 'E'))
            .then(|| digits.parse::<f64>().ok());
        let word = match (whole, float.flatten()) {
            (Some(whole), _) => Word::Int(whole * sign),
            // Go takes `1e3` as a whole number where it is one.
            (None, Some(float)) if !bare.contains('.') && float.abs() < 9e15 && float.fract() == 0.0 => {
                Word::Int(float as i64)
            }
            (None, Some(float)) => Word::Float(float),
            (None, None) => return Err(self.fails(&format!("bad number syntax: {written:?}"))),
        };
        self.at += length;
        Ok(word)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    If,
    With,
    Range,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::If => "if",
            Self::With => "with",
            Self::Range => "range",
        }
    }
}
