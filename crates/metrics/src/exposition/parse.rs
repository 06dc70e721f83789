//! Reading an exposition, entry by entry.
//!
//! The grammar is that of Prometheus' own two lexers, to the blank: the text format takes blanks wherever a token may
//! start, OpenMetrics takes exactly one space where it takes any.

mod cursor;
mod labels;

use std::collections::BTreeMap;

use crate::exposition::format::Format;
use crate::exposition::metadata::{Metadata, MetricType};
use crate::exposition::number;
use crate::labels::{Labels, NAME};
use crate::sample::{NAN_BITS, TimestampMs};

use self::cursor::Cursor;

/// What a body may hold; whoever shows more is refused as a whole. None of them is one of Prometheus' defaults, which
/// has none: they keep one service from taking the memory of all.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Prometheus holds a body whole; so do we. 64 MiB is half a million series with long names.
    pub body_bytes_max: usize,
    /// Labels of one series, its name among them. What people write has at most 20 or so.
    pub labels_max: usize,
    pub name_bytes_max: usize,
    /// Of a label's value, and of a help text.
    pub value_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes_max: 64 << 20, labels_max: 64, name_bytes_max: 1 << 10, value_bytes_max: 16 << 10 }
    }
}

/// One line that says something.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Sample(Exposed),
    Type { family: String, kind: MetricType },
    Help { family: String, text: String },
    Unit { family: String, unit: String },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Exposed {
    /// The name among them; `le` and `quantile` in OpenMetrics' form, as in Prometheus 3.
    pub labels: Labels,
    /// Labels that are written with an empty value: no labels, and yet a word on the target's own of that name.
    pub emptied: Vec<String>,
    pub value: f64,
    /// Only when the line says it: then the scrape's own time does not count.
    pub at_ms: Option<TimestampMs>,
    pub exemplar: Option<Exemplar>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    pub labels: Labels,
    pub value: f64,
    pub at_ms: Option<TimestampMs>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    pub problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the body has {bytes} bytes, more than {limit}")]
    BodyTooLarge { bytes: usize, limit: usize },
    #[error("expected {expected}, got {found}")]
    Unexpected { expected: &'static str, found: String },
    #[error("the metric has no name")]
    NoName,
    #[error("the metric has two names")]
    TwoNames,
    #[error("label {name:?} is there twice")]
    LabelTwice { name: String },
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} is not valid UTF-8")]
    NotUtf8 { what: &'static str },
    #[error("{text:?} is no value")]
    BadValue { text: String },
    #[error("{text:?} is no timestamp")]
    BadTimestamp { text: String },
    #[error("invalid metric type {word:?}")]
    BadType { word: String },
    #[error("unit {unit:?} is not a suffix of metric {family:?}")]
    BadUnit { unit: String, family: String },
    #[error("{what} is longer than {limit} bytes")]
    TooLong { what: &'static str, limit: usize },
    #[error("the series has more than {limit} labels")]
    TooManyLabels { limit: usize },
    #[error("the body does not end with # EOF")]
    NoEof,
    #[error("there is more after # EOF")]
    AfterEof,
}

/// The entries of a body, in its order; the first error is the last item.
#[derive(Debug)]
pub struct Parser<'a> {
    cursor: Cursor<'a>,
    format: Format,
    limits: Limits,
    /// Of the last `# TYPE` line. Prometheus goes by it too, whatever family the sample is of.
    kind: MetricType,
    ended: bool,
}

impl<'a> Parser<'a> {
    #[must_use]
    pub fn new(body: &'a [u8], format: Format, limits: Limits) -> Self {
        Self { cursor: Cursor::new(body), format, limits, kind: MetricType::Unknown, ended: false }
    }

    fn openmetrics(&self) -> bool {
        self.format == Format::OpenMetrics
    }

    /// `None` at the end of the body.
    fn entry(&mut self) -> Result<Option<Entry>, Problem> {
        if self.cursor.len() > self.limits.body_bytes_max {
            let (bytes, limit) = (self.cursor.len(), self.limits.body_bytes_max);
            return Err(Problem::BodyTooLarge { bytes, limit });
        }
        if self.openmetrics() { self.openmetrics_entry() } else { self.text_entry() }
    }

    fn text_entry(&mut self) -> Result<Option<Entry>, Problem> {
        loop {
            self.cursor.blanks();
            match self.cursor.peek() {
                None => return Ok(None),
                Some(b'\n') => self.cursor.bump(),
                Some(b'#') => {
                    self.cursor.bump();
                    if let Some(entry) = self.text_comment()? {
                        return Ok(Some(entry));
                    }
                }
                Some(_) => return self.sample().map(Some),
            }
        }
    }

    /// After the `#`; `None` for what is a comment and no more.
    fn text_comment(&mut self) -> Result<Option<Entry>, Problem> {
        if self.cursor.blanks() == 0 {
            self.cursor.line();
            return Ok(None);
        }
        let is_help = match (self.cursor.keyword(b"HELP"), self.cursor.keyword(b"TYPE")) {
            (true, _) => true,
            (_, true) => false,
            (false, false) => {
                self.cursor.line();
                return Ok(None);
            }
        };
        self.cursor.blanks();
        let family = self.family()?;
        let rest = self.cursor.line();
        // One byte parts the name from the rest; all other blanks are of the rest.
        let rest = rest.get(1..).unwrap_or_default();
        if is_help {
            return Ok(Some(Entry::Help { family, text: self.help(rest)? }));
        }
        let word = String::from_utf8_lossy(rest);
        self.kind =
            MetricType::of_text(&word).ok_or_else(|| Problem::BadType { word: cursor::shortened(&word) })?;
        Ok(Some(Entry::Type { family, kind: self.kind }))
    }

    fn openmetrics_entry(&mut self) -> Result<Option<Entry>, Problem> {
        match self.cursor.peek() {
            None => return Err(Problem::NoEof),
            Some(b'#') => self.cursor.bump(),
            Some(_) => return self.sample().map(Some),
        }
        if !self.cursor.eat(b' ') {
            return Err(self.cursor.unexpected("a space after #"));
        }
        if self.cursor.eat_all(b"EOF") {
            let _ = self.cursor.eat(b'\n');
            return if self.cursor.peek().is_none() { Ok(None) } else { Err(Problem::AfterEof) };
        }
        let words: [&[u8]; 3] = [b"HELP ", b"TYPE ", b"UNIT "];
        let Some(word) = words.into_iter().find(|word| self.cursor.eat_all(word)) else {
            return Err(self.cursor.unexpected("HELP, TYPE, UNIT or EOF"));
        };
        let family = self.family()?;
        if !self.cursor.eat(b' ') {
            return Err(self.cursor.unexpected("a space and a text"));
        }
        let rest = self.cursor.until_line_end().ok_or(Problem::NoEof)?;
        match word {
            b"HELP " => Ok(Some(Entry::Help { family, text: self.help(rest)? })),
            b"TYPE " => {
                let word = String::from_utf8_lossy(rest);
                self.kind = MetricType::of_openmetrics(&word)
                    .ok_or_else(|| Problem::BadType { word: cursor::shortened(&word) })?;
                Ok(Some(Entry::Type { family, kind: self.kind }))
            }
            _ => {
                let unit = self.utf8(rest, "the unit")?.to_owned();
                let is_suffix = family.strip_suffix(&*unit).is_some_and(|rest| rest.ends_with('_'));
                if !unit.is_empty() && !is_suffix {
                    return Err(Problem::BadUnit { unit, family });
                }
                Ok(Some(Entry::Unit { family, unit }))
            }
        }
    }

    fn family(&mut self) -> Result<String, Problem> {
        if let Some(quoted) = self.cursor.quoted(true) {
            let raw = self.utf8_within(quoted, "the metric's name", self.limits.name_bytes_max)?;
            return Ok(cursor::unescaped(raw, true).into_owned());
        }
        let name = self.cursor.name(true).ok_or_else(|| self.cursor.unexpected("a metric's name"))?;
        Ok(self.utf8_within(name, "the metric's name", self.limits.name_bytes_max)?.to_owned())
    }

    fn help(&self, raw: &[u8]) -> Result<String, Problem> {
        let raw = self.utf8_within(raw, "the help text", self.limits.value_bytes_max)?;
        Ok(cursor::unescaped(raw, self.openmetrics()).into_owned())
    }

    /// A whole line with a value.
    fn sample(&mut self) -> Result<Entry, Problem> {
        let mut pairs = Vec::with_capacity(8);
        if let Some(name) = self.cursor.name(true) {
            pairs.push((
                NAME.into(),
                self.utf8_within(name, "the metric's name", self.limits.name_bytes_max)?.into(),
            ));
        }
        self.skip_blanks();
        if self.cursor.eat(b'{') {
            self.label_pairs(&mut pairs, labels::Of::Series)?;
        } else if pairs.is_empty() {
            return Err(self.cursor.unexpected("a metric's name, { or #"));
        }
        if !pairs.iter().any(|(name, _)| &**name == NAME) {
            return Err(Problem::NoName);
        }
        let value = self.value()?;
        let (at_ms, exemplar) =
            if self.openmetrics() { self.openmetrics_end()? } else { (self.text_end()?, None) };
        let emptied =
            pairs.iter().filter(|(_, value)| value.is_empty()).map(|(name, _)| name.to_string()).collect();
        Ok(Entry::Sample(Exposed { labels: Labels::new(pairs), emptied, value, at_ms, exemplar }))
    }

    fn value(&mut self) -> Result<f64, Problem> {
        if self.openmetrics() {
            if !self.cursor.eat(b' ') {
                return Err(self.cursor.unexpected("a space and a value"));
            }
        } else {
            self.cursor.blanks();
        }
        let openmetrics = self.openmetrics();
        let raw = self.cursor.take_while(|byte| match byte {
            b' ' | b'\n' => false,
            b'{' | b'\t' => openmetrics,
            _ => true,
        });
        if raw.is_empty() {
            return Err(self.cursor.unexpected("a value"));
        }
        let value = std::str::from_utf8(raw).ok().and_then(number::parse);
        let value = value.ok_or_else(|| Problem::BadValue { text: cursor::shown(raw) })?;
        Ok(if value.is_nan() { f64::from_bits(NAN_BITS) } else { value })
    }

    fn text_end(&mut self) -> Result<Option<TimestampMs>, Problem> {
        self.cursor.blanks();
        let digits = self.cursor.take_while(|byte| byte.is_ascii_digit());
        let at_ms = if digits.is_empty() {
            None
        } else {
            let parsed = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            Some(parsed.ok_or_else(|| Problem::BadTimestamp { text: cursor::shown(digits) })?)
        };
        self.cursor.blanks();
        match self.cursor.peek() {
            None => Ok(at_ms),
            Some(b'\n') => {
                self.cursor.bump();
                Ok(at_ms)
            }
            Some(_) => Err(self.cursor.unexpected("a timestamp or the end of the line")),
        }
    }

    fn openmetrics_end(&mut self) -> Result<(Option<TimestampMs>, Option<Exemplar>), Problem> {
        let at_ms = if self.cursor.starts_with(b" # {") { None } else { self.seconds()? };
        let exemplar = if self.cursor.eat_all(b" # {") {
            let mut pairs = Vec::new();
            self.label_pairs(&mut pairs, labels::Of::Exemplar)?;
            let value = self.value()?;
            Some(Exemplar { labels: Labels::new(pairs), value, at_ms: self.seconds()? })
        } else {
            None
        };
        match self.cursor.peek() {
            None => Err(Problem::NoEof),
            Some(b'\n') => {
                self.cursor.bump();
                Ok((at_ms, exemplar))
            }
            Some(_) => Err(self.cursor.unexpected("the end of the line")),
        }
    }

    /// A space and a time in seconds, if they are there.
    fn seconds(&mut self) -> Result<Option<TimestampMs>, Problem> {
        if self.cursor.peek() != Some(b' ') {
            return Ok(None);
        }
        self.cursor.bump();
        let raw = self.cursor.take_while(|byte| byte != b' ' && byte != b'\n');
        let bad = || Problem::BadTimestamp { text: cursor::shown(raw) };
        let seconds = std::str::from_utf8(raw).ok().and_then(number::parse).ok_or_else(bad)?;
        // Past this a number of milliseconds does not fit.
        if seconds.is_nan() || seconds.abs() >= 9e15 {
            return Err(bad());
        }
        #[allow(clippy::cast_possible_truncation)]
        Ok(Some((seconds * 1000.0) as TimestampMs))
    }

    fn skip_blanks(&mut self) {
        if !self.openmetrics() {
            self.cursor.blanks();
        }
    }

    fn utf8<'b>(&self, raw: &'b [u8], what: &'static str) -> Result<&'b str, Problem> {
        std::str::from_utf8(raw).map_err(|_| Problem::NotUtf8 { what })
    }

    fn utf8_within<'b>(&self, raw: &'b [u8], what: &'static str, limit: usize) -> Result<&'b str, Problem> {
        if raw.len() > limit {
            return Err(Problem::TooLong { what, limit });
        }
        self.utf8(raw, what)
    }
}

impl Iterator for Parser<'_> {
    type Item = Result<Entry, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.entry().transpose();
        if !matches!(item, Some(Ok(_))) {
            self.ended = true;
        }
        item.map(|item| item.map_err(|problem| ParseError { line: self.cursor.line_number(), problem }))
    }
}

/// A whole body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition {
    pub samples: Vec<Exposed>,
    /// By family.
    pub metadata: BTreeMap<String, Metadata>,
}

impl Exposition {
    /// Keeps what an entry that is no sample says of its family.
    pub(super) fn note(metadata: &mut BTreeMap<String, Metadata>, entry: Entry) -> Option<Exposed> {
        match entry {
            Entry::Sample(sample) => return Some(sample),
            Entry::Type { family, kind } => metadata.entry(family).or_default().kind = kind,
            Entry::Help { family, text } => metadata.entry(family).or_default().help = text,
            Entry::Unit { family, unit } => metadata.entry(family).or_default().unit = unit,
        }
        None
    }
}

/// The whole body at once.
///
/// # Errors
/// The first thing that Prometheus would refuse, or that is over a limit.
pub fn parse(body: &[u8], format: Format, limits: Limits) -> Result<Exposition, ParseError> {
    let mut exposition = Exposition::default();
    for entry in Parser::new(body, format, limits) {
        exposition.samples.extend(Exposition::note(&mut exposition.metadata, entry?));
    }
    Ok(exposition)
}

#[cfg(test)]
mod tests;
