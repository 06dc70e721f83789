//! JSON as Prometheus writes it, to the byte: its order of fields, its escapes, its numbers.

use std::fmt::Write as _;

use crate::exposition::number;
use crate::labels::Labels;
use crate::sample::{Sample, TimestampMs};

/// A text of an answer, with what HTML could take for markup escaped, as Go's encoder does it.
pub(super) fn put_text(out: &mut String, text: &str) {
    put_escaped(out, text, true);
}

fn put_escaped(out: &mut String, text: &str, html: bool) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' if !html => out.push(char),
            '\u{2028}' | '\u{2029}' if !html => out.push(char),
            '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            _ => out.push(char),
        }
    }
    out.push('"');
}

/// Labels are not escaped for HTML.
pub(super) fn put_labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (index, (name, value)) in labels.iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        put_escaped(out, name, false);
        out.push(':');
        put_escaped(out, value, false);
    }
    out.push('}');
}

/// Seconds, with milliseconds when there are some.
pub(super) fn put_seconds(out: &mut String, at_ms: TimestampMs) {
    let size = at_ms.unsigned_abs();
    out.push_str(if at_ms < 0 { "-" } else { "" });
    out.push_str(itoa::Buffer::new().format(size / 1000));
    let ms = size % 1000;
    if ms > 0 {
        out.push_str(if ms < 10 {
            ".00"
        } else if ms < 100 {
            ".0"
        } else {
            "."
        });
        out.push_str(itoa::Buffer::new().format(ms));
    }
}

/// `[1435781451.781,"1"]`.
pub(super) fn put_point(out: &mut String, sample: Sample) {
    out.push('[');
    put_seconds(out, sample.at_ms);
    out.push_str(",\"");
    number::push_json(out, sample.value);
    out.push_str("\"]");
}

/// `[…]`, each item by `put`.
pub(super) fn put_list<T>(
    out: &mut String,
    items: impl IntoIterator<Item = T>,
    mut put: impl FnMut(&mut String, T),
) {
    out.push('[');
    for (index, item) in items.into_iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        put(out, item);
    }
    out.push(']');
}

/// `"name":`, with a comma before it unless it is an object's first.
pub(super) fn put_key(out: &mut String, name: &str) {
    if !out.ends_with(['{', '[']) {
        out.push(',');
    }
    let _ = write!(out, "\"{name}\":");
}

/// `"name":"text"`.
pub(super) fn put_field(out: &mut String, name: &str, text: &str) {
    put_key(out, name);
    put_text(out, text);
}

/// `"name":0.5`.
pub(super) fn put_number(out: &mut String, name: &str, value: f64) {
    put_key(out, name);
    number::push_json(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_labels_are_escaped_as_go_escapes_them() {
        let mut out = String::new();
        put_text(&mut out, "a\"\\\n\r\t\u{1}<é>&\u{2028}");
        assert_eq!(out, r#""a\"\\\n\r\t\u0001\u003cé\u003e\u0026\u2028""#);
        out.clear();
        put_labels(&mut out, &Labels::new([("a", "<\u{1}>"), ("b.c", "&")]));
        assert_eq!(out, r#"{"a":"<\u0001>","b.c":"&"}"#);
    }

    #[test]
    fn points_are_written_as_prometheus_writes_them() {
        let check = |at_ms, value, wanted: &str| {
            let mut out = String::new();
            put_point(&mut out, Sample { at_ms, value });
            assert_eq!(out, wanted);
        };
        check(1_435_781_451_781, 1.0, r#"[1435781451.781,"1"]"#);
        check(0, 1e21, r#"[0,"1e+21"]"#);
        check(-1, 1e-7, r#"[-0.001,"1e-07"]"#);
        check(-1_500, f64::NEG_INFINITY, r#"[-1.500,"-Inf"]"#);
        check(1_007, -0.25, r#"[1.007,"-0.25"]"#);
        check(99_070, -0.0, r#"[99.070,"-0"]"#);
        check(i64::MIN, 3.0, r#"[-9223372036854775.808,"3"]"#);
    }
}
