//! Prometheus' `.test` format: <https://github.com/prometheus/prometheus/tree/main/promql/promqltest>.

use std::sync::LazyLock;

use fairway_metrics::labels::Labels;
use fairway_metrics::promql::{parse_duration_ns, parse_selector};
use fairway_metrics::sample::stale;
use fairway_metrics::select::Test;
use regex::Regex;

/// A command and the line it begins at, from 1.
#[derive(Debug)]
pub struct Command {
    pub line: usize,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    Clear,
    Load {
        step_ms: i64,
        with_native: bool,
        series: Vec<Description>,
    },
    Eval(Box<Case>),
    /// What cannot be read, and why: it fails alone.
    Broken {
        text: String,
        why: String,
    },
}

/// `name{label="value"} 1 2 3`
#[derive(Debug)]
pub struct Description {
    pub labels: Labels,
    pub points: Vec<Point>,
}

#[derive(Clone, Copy, Debug)]
pub enum Point {
    None,
    Value(f64),
    Native,
}

#[derive(Debug)]
pub struct Case {
    pub query: String,
    pub when: When,
    pub expected: Expected,
    /// The expected points' times, where a range vector is expected.
    pub range_vector: Option<(i64, i64, i64)>,
    pub ordered: bool,
    pub fails: Option<Wording>,
    pub warns: Vec<Wording>,
    pub infos: Vec<Wording>,
    pub no_warn: bool,
    pub no_info: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum When {
    At(i64),
    Range { start_ms: i64, end_ms: i64, step_ms: i64 },
}

#[derive(Debug)]
pub enum Expected {
    Scalar(f64),
    Text(String),
    Series(Vec<Description>),
}

#[derive(Debug)]
pub enum Wording {
    Any,
    Exactly(String),
    Like(Regex),
}

impl Wording {
    pub fn fits(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(wanted) => wanted == text,
            Self::Like(pattern) => pattern.is_match(text),
        }
    }
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern of this file")
}

static LOAD: LazyLock<Regex> = LazyLock::new(|| pattern(r"^load(?:_(with_nhcb))?\s+(.+?)$"));
static INSTANT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^eval(?:_(fail|warn|ordered|info))?\s+instant\s+(?:at\s+(.+?))?\s+(.+)$"));
static RANGE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^eval(?:_(fail|warn|info))?\s+range\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+?)\s+(.+)$")
});
static EXPECT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^expect\s+(ordered|fail|warn|no_warn|info|no_info)(?:\s+(regex|msg):(.+))?$"));
static EXPECT_RANGE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^expect range vector\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+)$"));
static ITEM: LazyLock<Regex> = LazyLock::new(|| {
    const NUMBER: &str = r"(?:(?i:inf|nan)|(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)";
    pattern(&format!(r"^(?:(_)|(stale)|([+-]?{NUMBER})([+-]{NUMBER})?)(?:x([0-9]+))?$"))
});

/// Reads a whole file.
pub fn read(text: &str) -> Vec<Command> {
    // A comment ends a block as an empty line does.
    let lines: Vec<&str> =
        text.lines().map(str::trim).map(|line| if line.starts_with('#') { "" } else { line }).collect();
    let mut commands = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        let line = lines[index];
        let at = index + 1;
        index += 1;
        if line.is_empty() {
            continue;
        }
        let mut block = Vec::new();
        if line != "clear" {
            while let Some(next) = lines.get(index).filter(|line| !line.is_empty()) {
                block.push(*next);
                index += 1;
            }
        }
        let what = command(line, &block).unwrap_or_else(|why| What::Broken { text: line.to_owned(), why });
        commands.push(Command { line: at, what });
    }
    commands
}

fn command(line: &str, block: &[&str]) -> Result<What, String> {
    if line == "clear" {
        return Ok(What::Clear);
    }
    if let Some(parts) = LOAD.captures(line) {
        let series = block.iter().map(|line| describe(line)).collect::<Result<_, _>>()?;
        let step_ms = duration_ms(&parts[2])?;
        return Ok(What::Load { step_ms, with_native: parts.get(1).is_some(), series });
    }
    let (mode, query, when) = if let Some(parts) = INSTANT.captures(line) {
        let at_ms = parts.get(2).map_or(Ok(0), |at| duration_ms(at.as_str()))?;
        (parts.get(1), parts[3].to_owned(), When::At(at_ms))
    } else if let Some(parts) = RANGE.captures(line) {
        let when = When::Range {
            start_ms: duration_ms(&parts[2])?,
            end_ms: duration_ms(&parts[3])?,
            step_ms: duration_ms(&parts[4])?,
        };
        (parts.get(1), parts[5].to_owned(), when)
    } else {
        return Err(format!("no command: {line}"));
    };
    let mut case = Case {
        query,
        when,
        expected: Expected::Series(Vec::new()),
        range_vector: None,
        ordered: false,
        fails: None,
        warns: Vec::new(),
        infos: Vec::new(),
        no_warn: false,
        no_info: false,
    };
    match mode.map(|mode| mode.as_str()) {
        Some("fail") => case.fails = Some(Wording::Any),
        Some("warn") => case.warns.push(Wording::Any),
        Some("info") => case.infos.push(Wording::Any),
        Some("ordered") => case.ordered = true,
        Some(_) | None => {}
    }
    for line in block {
        expectation(&mut case, line)?;
    }
    Ok(What::Eval(Box::new(case)))
}

fn expectation(case: &mut Case, line: &str) -> Result<(), String> {
    let compile = |text: &str| Regex::new(text.trim()).map_err(|error| error.to_string());
    if let Some(text) = line.strip_prefix("expected_fail_message") {
        case.fails = Some(Wording::Exactly(text.trim().to_owned()));
    } else if let Some(text) = line.strip_prefix("expected_fail_regexp") {
        case.fails = Some(Wording::Like(compile(text)?));
    } else if let Some(parts) = EXPECT_RANGE.captures(line) {
        case.range_vector = Some((duration_ms(&parts[1])?, duration_ms(&parts[2])?, duration_ms(&parts[3])?));
    } else if let Some(text) = line.strip_prefix("expect string") {
        let text = text.trim();
        let inner = text.get(1..text.len().saturating_sub(1)).ok_or("no string")?;
        let text = if text.starts_with('`') { inner.to_owned() } else { inner.replace("\\\"", "\"") };
        case.expected = Expected::Text(text);
    } else if line.split(' ').next() == Some("expect") {
        let parts = EXPECT.captures(line).ok_or_else(|| format!("no expectation: {line}"))?;
        let wording = match (parts.get(2).map(|kind| kind.as_str()), parts.get(3)) {
            (Some("msg"), Some(text)) => Wording::Exactly(text.as_str().trim().to_owned()),
            (Some(_), Some(text)) => Wording::Like(compile(text.as_str())?),
            _ => Wording::Any,
        };
        match &parts[1] {
            "ordered" => case.ordered = true,
            "fail" => case.fails = Some(wording),
            "warn" => case.warns.push(wording),
            "info" => case.infos.push(wording),
            "no_warn" => case.no_warn = true,
            _ => case.no_info = true,
        }
    } else if let Ok(value) = number(line) {
        case.expected = Expected::Scalar(value);
    } else {
        let described = describe(line)?;
        match &mut case.expected {
            Expected::Series(list) => list.push(described),
            Expected::Scalar(_) | Expected::Text(_) => {
                return Err(format!("a series after a scalar: {line}"));
            }
        }
    }
    Ok(())
}

fn number(text: &str) -> Result<f64, std::num::ParseFloatError> {
    text.replace('_', "").parse()
}

pub fn duration_ms(text: &str) -> Result<i64, String> {
    parse_duration_ns(text).map(|ns| ns / 1_000_000)
}

pub fn describe(line: &str) -> Result<Description, String> {
    let end = metric_end(line);
    let (metric, points) = line.split_at(end);
    // Times at which samples began: as little kept as native histograms, and noted in their stead.
    if let Some(metric) =
        metric.trim().strip_suffix("@st").or_else(|| points.starts_with("@st").then_some(metric))
    {
        return Ok(Description { labels: metric_labels(metric)?, points: vec![Point::Native; 200] });
    }
    let mut list = Vec::new();
    for item in items(points) {
        expand(&item, &mut list)?;
    }
    Ok(Description { labels: metric_labels(metric.trim())?, points: list })
}

/// Where the metric ends: at a space outside of braces and quotes.
fn metric_end(line: &str) -> usize {
    let (mut braces, mut quote) = (0, None);
    let mut escaped = false;
    for (index, char) in line.char_indices() {
        match (char, quote) {
            _ if escaped => escaped = false,
            ('\\', Some('"' | '\'')) => escaped = true,
            (char, Some(open)) if char == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'' | '`', None) => quote = Some(char),
            ('{', None) => braces += 1,
            ('}', None) => {
                braces -= 1;
                if braces == 0 {
                    return index + 1;
                }
            }
            (char, None) if char.is_whitespace() && braces == 0 => {
                // A space may stand before the braces.
                let rest = line[index..].trim_start();
                if !rest.starts_with('{') || rest.starts_with("{{") {
                    return index;
                }
            }
            _ => {}
        }
    }
    line.len()
}

pub fn metric_labels(metric: &str) -> Result<Labels, String> {
    if metric
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|inner| inner.trim().is_empty())
    {
        return Ok(Labels::default());
    }
    let matchers = parse_selector(metric).map_err(|error| format!("{metric}: {error}"))?;
    let pairs = matchers.into_iter().filter_map(|matcher| match matcher.test {
        Test::Equal(value) => Some((matcher.label, value)),
        Test::NotEqual(_) | Test::Regex(_) | Test::NotRegex(_) => None,
    });
    Ok(Labels::new(pairs))
}

/// Splits at spaces outside of `{{ }}`.
fn items(points: &str) -> Vec<String> {
    let mut list = Vec::new();
    let mut item = String::new();
    let mut depth = 0_usize;
    for char in points.chars() {
        match char {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            char if char.is_whitespace() && depth == 0 => {
                if !item.is_empty() {
                    list.push(std::mem::take(&mut item));
                }
                continue;
            }
            _ => {}
        }
        item.push(char);
    }
    if !item.is_empty() {
        list.push(item);
    }
    list
}

fn expand(item: &str, list: &mut Vec<Point>) -> Result<(), String> {
    if item.contains("{{") {
        let times = item.rsplit_once("}}x").map_or(Ok(0), |(_, times)| times.parse::<usize>());
        let times = times.map_err(|error| format!("{item}: {error}"))?;
        list.extend(std::iter::repeat_n(Point::Native, times + 1));
        return Ok(());
    }
    let parts = ITEM.captures(item).ok_or_else(|| format!("no point: {item}"))?;
    let times: Option<usize> = parts.get(5).map(|times| times.as_str().parse().unwrap_or_default());
    if parts.get(1).is_some() {
        list.extend(std::iter::repeat_n(Point::None, times.unwrap_or(1)));
        return Ok(());
    }
    let mut value = match parts.get(3) {
        Some(value) => number(value.as_str()).map_err(|error| format!("{item}: {error}"))?,
        None => stale(),
    };
    let increment = parts.get(4).map(|step| number(step.as_str()).unwrap_or_default());
    for _ in 0..=times.unwrap_or(0) {
        list.push(Point::Value(value));
        if let Some(increment) = increment {
            value += increment;
        }
    }
    Ok(())
}
