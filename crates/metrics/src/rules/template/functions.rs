//! The functions a template can call: Go's own and those of Prometheus.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::eval::Runner;
use super::value::Value;
use super::{number, printf};
use crate::labels::Labels;
use crate::rules::{clock, span};

pub(super) struct Function {
    pub name: &'static str,
    /// Fewest and most.
    pub args: (usize, usize),
    pub run: fn(&mut Runner<'_, '_>, &[Value]) -> Result<Value, String>,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

const ANY: usize = usize::MAX;

/// Larger compiled expressions are refused, as in label matchers.
const REGEX_BYTES_MAX: usize = 1 << 20;

const fn function(
    name: &'static str,
    args: (usize, usize),
    run: fn(&mut Runner<'_, '_>, &[Value]) -> Result<Value, String>,
) -> Function {
    Function { name, args, run }
}

static FUNCTIONS: &[Function] = &[
    function("and", (1, ANY), |_, args| Ok(last(args))),
    function("or", (1, ANY), |_, args| Ok(last(args))),
    function("not", (1, 1), |_, args| Ok(Value::Bool(!args[0].holds()))),
    function("eq", (2, ANY), |_, args| {
        for other in &args[1..] {
            if equal(&args[0], other)? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
    function("ne", (2, 2), |_, args| Ok(Value::Bool(!equal(&args[0], &args[1])?))),
    function("lt", (2, 2), |_, args| Ok(Value::Bool(order(args)? == Some(Ordering::Less)))),
    function("le", (2, 2), |_, args| {
        Ok(Value::Bool(matches!(order(args)?, Some(Ordering::Less | Ordering::Equal))))
    }),
    function("gt", (2, 2), |_, args| Ok(Value::Bool(order(args)? == Some(Ordering::Greater)))),
    function("ge", (2, 2), |_, args| {
        Ok(Value::Bool(matches!(order(args)?, Some(Ordering::Greater | Ordering::Equal))))
    }),
    function("len", (1, 1), |_, args| {
        let length = match &args[0] {
            Value::Text(text) => text.len(),
            Value::Labels(labels) => labels.len(),
            Value::List(list) => list.len(),
            Value::Map(map) => map.len(),
            other @ (Value::Nil
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Sample(..)
            | Value::Root(_)) => return Err(format!("len of type {}", other.kind())),
        };
        Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
    }),
    function("index", (1, ANY), |_, args| {
        args[1..].iter().try_fold(args[0].clone(), |value, key| index(&value, key))
    }),
    function("slice", (1, 3), |_, args| slice(args)),
    function("print", (0, ANY), |_, args| Ok(Value::text(print(args)))),
    function("println", (0, ANY), |_, args| {
        let words: Vec<String> = args.iter().map(Value::show).collect();
        Ok(Value::text(words.join(" ") + "\n"))
    }),
    function("printf", (1, ANY), |_, args| Ok(Value::text(printf::format(text(&args[0])?, &args[1..])))),
    function("html", (0, ANY), |_, args| Ok(Value::text(escape_html(&print(args))))),
    function("js", (0, ANY), |_, args| Ok(Value::text(escape_script(&print(args))))),
    function("urlquery", (0, ANY), |_, args| Ok(Value::text(escape_query(&print(args))))),
    function("query", (1, 1), |runner, args| {
        let mut found = (runner.ask)(text(&args[0])?)?;
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Value::List(found.into_iter().map(|found| Value::Sample(found.labels, found.value)).collect()))
    }),
    function("first", (1, 1), |_, args| {
        list(&args[0])?.first().cloned().ok_or_else(|| "first() called on vector with no elements".to_owned())
    }),
    function("label", (2, 2), |_, args| {
        Ok(Value::text(sample(&args[1])?.0.get(text(&args[0])?).unwrap_or_default()))
    }),
    function("value", (1, 1), |_, args| Ok(Value::Float(sample(&args[0])?.1))),
    function("strvalue", (1, 1), |_, args| {
        Ok(Value::text(sample(&args[0])?.0.get("__value__").unwrap_or_default()))
    }),
    function("sortByLabel", (2, 2), |_, args| {
        let name = text(&args[0])?;
        let key =
            |value: &Value| sample(value).ok().and_then(|(labels, _)| labels.get(name).map(str::to_owned));
        let mut list = list(&args[1])?.to_vec();
        list.sort_by_key(key);
        Ok(Value::List(list.into()))
    }),
    function("args", (0, ANY), |_, args| {
        let named = args.iter().enumerate().map(|(number, value)| (format!("arg{number}"), value.clone()));
        Ok(Value::Map(Arc::new(named.collect::<BTreeMap<_, _>>())))
    }),
    function("reReplaceAll", (3, 3), |_, args| {
        let pattern = regex(text(&args[0])?)?;
        Ok(Value::text(pattern.replace_all(text(&args[2])?, text(&args[1])?).into_owned()))
    }),
    function("match", (2, 2), |_, args| Ok(Value::Bool(regex(text(&args[0])?)?.is_match(text(&args[1])?)))),
    function("safeHtml", (1, 1), |_, args| Ok(Value::text(text(&args[0])?))),
    function("title", (1, 1), |_, args| Ok(Value::text(title(text(&args[0])?)))),
    function("toUpper", (1, 1), |_, args| Ok(Value::text(text(&args[0])?.to_uppercase()))),
    function("toLower", (1, 1), |_, args| Ok(Value::text(text(&args[0])?.to_lowercase()))),
    function("stripPort", (1, 1), |_, args| Ok(Value::text(strip_port(text(&args[0])?)))),
    function("stripDomain", (1, 1), |_, args| Ok(Value::text(strip_domain(text(&args[0])?)))),
    function("humanize", (1, 1), |_, args| Ok(Value::text(humanize(args[0].number()?)))),
    function("humanize1024", (1, 1), |_, args| Ok(Value::text(humanize_1024(args[0].number()?)))),
    function("humanizeDuration", (1, 1), |_, args| Ok(Value::text(humanize_seconds(args[0].number()?)))),
    function("humanizePercentage", (1, 1), |_, args| {
        Ok(Value::text(number::significant(args[0].number()? * 100.0, 4) + "%"))
    }),
    function("humanizeTimestamp", (1, 1), |_, args| {
        let seconds = args[0].number()?;
        Ok(Value::text(clock::spoken(seconds).unwrap_or_else(|| number::significant(seconds, 4))))
    }),
    function("toTime", (1, 1), |_, args| {
        let seconds = args[0].number()?;
        clock::spoken(seconds).map(Value::text).ok_or_else(|| "timestamp out of range".to_owned())
    }),
    function("now", (0, 0), |runner, _| Ok(Value::Float(runner.scene.at_ms as f64 / 1000.0))),
    function("parseDuration", (1, 1), |_, args| {
        Ok(Value::Float(span::parse(text(&args[0])?)?.as_secs_f64()))
    }),
    function("graphLink", (1, 1), |_, args| Ok(Value::text(link(text(&args[0])?, 0)))),
    function("tableLink", (1, 1), |_, args| Ok(Value::text(link(text(&args[0])?, 1)))),
    function("externalURL", (0, 0), |runner, _| Ok(Value::text(runner.scene.external_url))),
    function("pathPrefix", (0, 0), |runner, _| {
        let url = runner.scene.external_url;
        let path = url.split_once("://").map_or(url, |(_, rest)| rest).find('/');
        let start = path.map(|path| url.find("://").map_or(0, |scheme| scheme + 3) + path);
        Ok(Value::text(start.map_or("", |start| &url[start..])))
    }),
];

fn last(args: &[Value]) -> Value {
    args.last().cloned().unwrap_or(Value::Nil)
}

fn text(value: &Value) -> Result<&str, String> {
    if let Value::Text(text) = value { Ok(text) } else { Err(mismatch(value, "string")) }
}

fn list(value: &Value) -> Result<&[Value], String> {
    if let Value::List(list) = value { Ok(list) } else { Err(mismatch(value, "template.queryResult")) }
}

fn sample(value: &Value) -> Result<(&Labels, f64), String> {
    if let Value::Sample(labels, value) = value {
        Ok((labels, *value))
    } else {
        Err(mismatch(value, "*template.sample"))
    }
}

fn mismatch(value: &Value, wanted: &str) -> String {
    format!("wrong type for value; expected {wanted}; got {}", value.kind())
}

fn regex(pattern: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build().map_err(|error| error.to_string())
}

fn incomparable(a: &Value, b: &Value) -> String {
    format!("incompatible types for comparison: {} and {}", a.kind(), b.kind())
}

fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Nil, Value::Nil) => Ok(true),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Nil, _) | (_, Value::Nil) => Ok(false),
        _ => Ok(compare(a, b)? == Some(Ordering::Equal)),
    }
}

fn order(args: &[Value]) -> Result<Option<Ordering>, String> {
    compare(&args[0], &args[1])
}

fn compare(a: &Value, b: &Value) -> Result<Option<Ordering>, String> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(Some(a.cmp(b))),
        (Value::Text(a), Value::Text(b)) => Ok(Some(a.cmp(b))),
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            Ok(a.number()?.partial_cmp(&b.number()?))
        }
        _ => Err(incomparable(a, b)),
    }
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::Labels(_) | Value::Map(_), Value::Text(name)) => value.field(name),
        (Value::Labels(_) | Value::Map(_), other) => {
            Err(format!("value has type {}; should be string", other.kind()))
        }
        (Value::List(list), Value::Int(number)) => {
            let found = usize::try_from(*number).ok().and_then(|number| list.get(number));
            found.cloned().ok_or_else(|| format!("index out of range: {number}"))
        }
        (Value::Text(text), Value::Int(number)) => {
            let found = usize::try_from(*number).ok().and_then(|number| text.as_bytes().get(number));
            found
                .map(|byte| Value::Int(i64::from(*byte)))
                .ok_or_else(|| format!("index out of range: {number}"))
        }
        _ => Err(format!("can't index item of type {}", value.kind())),
    }
}

fn slice(args: &[Value]) -> Result<Value, String> {
    let whole = text(&args[0])?;
    let bound = |index: usize, default: usize| match args.get(index) {
        None => Ok(default),
        Some(Value::Int(number)) => usize::try_from(*number)
            .ok()
            .filter(|number| *number <= whole.len())
            .ok_or_else(|| format!("index out of range: {number}")),
        Some(other) => Err(format!("cannot index slice/array with type {}", other.kind())),
    };
    let (from, to) = (bound(1, 0)?, bound(2, whole.len())?);
    whole.get(from..to).map(Value::text).ok_or_else(|| format!("invalid slice index: {from} > {to}"))
}

/// As Go's `Sprint`: a blank between two operands of which neither is a text.
fn print(args: &[Value]) -> String {
    let mut out = String::new();
    for (index, arg) in args.iter().enumerate() {
        let texts = matches!(arg, Value::Text(_)) || (index > 0 && matches!(args[index - 1], Value::Text(_)));
        let _ = write!(out, "{}{}", if index > 0 && !texts { " " } else { "" }, arg.show());
    }
    out
}

fn escape_html(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn escape_script(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

fn escape_query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn link(query: &str, tab: u8) -> String {
    format!("/graph?g0.expr={}&g0.tab={tab}", escape_query(query))
}

/// The first letter of each word in upper case.
fn title(text: &str) -> String {
    let mut out = String::new();
    let mut before = ' ';
    for c in text.chars() {
        let begins = !(before.is_alphanumeric() || matches!(before, '_' | '\''));
        if begins {
            out.extend(c.to_uppercase())
        } else {
            out.push(c)
        }
        before = c;
    }
    out
}

fn strip_port(address: &str) -> &str {
    if let Some(inner) = address.strip_prefix('[') {
        return inner.split_once("]:").map_or(address, |(host, _)| host);
    }
    match address.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        Some(_) | None => address,
    }
}

fn strip_domain(address: &str) -> String {
    let host = strip_port(address);
    if host.parse::<std::net::IpAddr>().is_ok() {
        return address.to_owned();
    }
    let port = address.strip_prefix(host).unwrap_or_default();
    format!("{}{port}", host.split('.').next().unwrap_or_default())
}

const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];

fn scaled(mut value: f64, units: &[&str], factor: f64, grows: bool) -> String {
    let mut unit = "";
    for next in units {
        if if grows { value.abs() >= 1.0 } else { value.abs() < factor } {
            break;
        }
        unit = next;
        value = if grows { value * factor } else { value / factor };
    }
    number::significant(value, 4) + unit
}

fn humanize(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return number::significant(value, 4);
    }
    if value.abs() >= 1.0 {
        return scaled(value, &["k", "M", "G", "T", "P", "E", "Z", "Y"], 1000.0, false);
    }
    scaled(value, &SMALL, 1000.0, true)
}

fn humanize_1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return number::significant(value, 4);
    }
    scaled(value, &["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"], 1024.0, false)
}

fn humanize_seconds(value: f64) -> String {
    if !value.is_finite() {
        return number::significant(value, 4);
    }
    if value == 0.0 {
        return "0s".to_owned();
    }
    if value.abs() < 1.0 {
        return scaled(value, &SMALL, 1000.0, true) + "s";
    }
    let sign = if value < 0.0 { "-" } else { "" };
    // A float that is too large becomes the largest number, not garbage.
    let whole = value.abs() as u64;
    let (seconds, minutes) = (whole % 60, whole / 60 % 60);
    let (hours, days) = (whole / 3600 % 24, whole / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", number::significant(value.abs(), 4)),
        (0, 0, _) => format!("{sign}{minutes}m {seconds}s"),
        (0, _, _) => format!("{sign}{hours}h {minutes}m {seconds}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {seconds}s"),
    }
}
