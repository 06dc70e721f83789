//! One line of output as it is stored: a JSON object with `ts`, `stream` and either the application's own fields or
//! `msg`.

use std::fmt;

use fairway_engine::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::stamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
    /// What the shim itself has to say about the output: lines that were dropped, restarts.
    Fairway,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Fairway => "fairway",
        })
    }
}

/// Where a piece stands in a line that was longer than the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Whole,
    /// The n-th piece, counted from 1.
    Part {
        number: u32,
        last: bool,
    },
}

/// Appends the stored form of one line, newline included.
pub(crate) fn encode(out: &mut Vec<u8>, at: Timestamp, stream: Stream, line: &[u8], piece: Piece) {
    let mut fields = match piece {
        Piece::Whole => object(line).unwrap_or_else(|| text(line)),
        Piece::Part { number, last } => {
            let mut fields = text(line);
            fields.insert("part".into(), number.into());
            if last {
                fields.insert("last".into(), true.into());
            }
            fields
        }
    };
    // The application's own values stay readable under another name.
    for reserved in ["ts", "stream"] {
        if let Some(value) = fields.remove(reserved) {
            fields.insert(format!("app_{reserved}"), value);
        }
    }
    out.extend_from_slice(format!(r#"{{"ts":"{}","stream":"{stream}""#, stamp::format(at)).as_bytes());
    let rest = serde_json::to_vec(&fields).unwrap_or_default();
    if fields.is_empty() {
        out.push(b'}');
    } else {
        out.push(b',');
        out.extend_from_slice(rest.get(1..).unwrap_or(b"}"));
    }
    out.push(b'\n');
}

fn object(line: &[u8]) -> Option<Map<String, Value>> {
    // Most lines are not JSON: one look at the first byte spares the parser.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let mut fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
    // pino and bunyan write levels as numbers.
    if let Some(level) = fields.get("level").and_then(Value::as_u64) {
        let name = match level {
            10 => "trace",
            20 => "debug",
            30 => "info",
            40 => "warn",
            50 => "error",
            60 => "fatal",
            _ => return Some(fields),
        };
        fields.insert("level".into(), name.into());
    }
    Some(fields)
}

fn text(line: &[u8]) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("msg".into(), String::from_utf8_lossy(line).into_owned().into());
    fields
}

/// A stored line, read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub ts: Timestamp,
    pub stream: Stream,
    /// Everything besides `ts` and `stream`.
    pub fields: Map<String, Value>,
}

impl Line {
    /// None for what this crate did not write, such as the torn last line of a machine that lost power.
    pub(crate) fn decode(line: &[u8]) -> Option<Self> {
        let mut fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
        let ts = stamp::parse(fields.remove("ts")?.as_str()?)?;
        let stream = serde_json::from_value(fields.remove("stream")?).ok()?;
        Some(Self { ts, stream, fields })
    }

    #[must_use]
    pub fn level(&self) -> Option<&str> {
        self.fields.get("level").and_then(Value::as_str)
    }

    /// What a person reads: the message, or all the fields where there is none.
    #[must_use]
    pub fn text(&self) -> String {
        let message = ["msg", "message", "event"].iter().find_map(|name| self.fields.get(*name)?.as_str());
        match message {
            Some(message) => message.to_owned(),
            None => Value::Object(self.fields.clone()).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &[u8], piece: Piece, expect: &str) {
        let mut out = Vec::new();
        encode(&mut out, Timestamp(0), Stream::Stdout, line, piece);
        let expect = format!("{{\"ts\":\"1970-01-01T00:00:00.000Z\",\"stream\":\"stdout\"{expect}}}\n");
        assert_eq!(String::from_utf8(out.clone()).unwrap(), expect);
        assert_eq!(Line::decode(&out).unwrap().ts, Timestamp(0));
    }

    #[test]
    fn plain_text_is_wrapped_and_objects_keep_their_fields() {
        check(b"hello", Piece::Whole, r#","msg":"hello""#);
        check(b"", Piece::Whole, r#","msg":"""#);
        check(b"{}", Piece::Whole, "");
        check(br#"{"level":30,"msg":"up","port":1}"#, Piece::Whole, r#","level":"info","msg":"up","port":1"#);
        check(br#"{"ts":5,"stream":"s"}"#, Piece::Whole, r#","app_stream":"s","app_ts":5"#);
    }

    #[test]
    fn what_only_looks_like_json_is_text() {
        check(b"[1,2]", Piece::Whole, r#","msg":"[1,2]""#);
        check(br#"{"a":1} trailing"#, Piece::Whole, r#","msg":"{\"a\":1} trailing""#);
        let bomb = [b"{\"a\":".repeat(500), b"1".to_vec(), b"}".repeat(500)].concat();
        let mut out = Vec::new();
        encode(&mut out, Timestamp(0), Stream::Stderr, &bomb, Piece::Whole);
        assert!(Line::decode(&out).unwrap().text().starts_with("{\"a\":"));
    }

    #[test]
    fn bytes_that_are_not_utf8_and_pieces_are_marked() {
        check(b"a\xffb", Piece::Whole, ",\"msg\":\"a\u{fffd}b\"");
        check(b"{}", Piece::Part { number: 2, last: true }, r#","last":true,"msg":"{}","part":2"#);
    }
}
