//! Runs the commands of a `.test` file.

use fairway_metrics::labels::Labels;
use fairway_metrics::promql::{Answer, Dialect, Engine, Names, Value, parse_as};
use fairway_metrics::sample::{Sample, is_stale};
use fairway_metrics::select::{Querier, Series};

use super::memory::Memory;
use super::script::{Case, Command, Description, Expected, Point, What, When, Wording};

/// What became of a case.
#[derive(Debug)]
pub struct Outcome {
    pub line: usize,
    pub query: String,
    pub result: Result<(), String>,
    /// It reads or expects native histograms.
    pub native: bool,
}

#[derive(Debug, Default)]
struct Data {
    floats: Memory,
    /// Series of native histograms, with zeros in their places.
    natives: Memory,
}

/// Evaluates as Prometheus' own runner does: all experiments on, names removed at the end.
pub fn engine() -> Engine {
    Engine { names: Names::Delayed, ..Engine::default() }
}

pub fn run(commands: &[Command]) -> Vec<Outcome> {
    let mut data = Data::default();
    let mut outcomes = Vec::new();
    for Command { line, what } in commands {
        match what {
            What::Clear => data = Data::default(),
            What::Load { step_ms, with_native, series } => {
                series.iter().for_each(|described| data.load(described, *step_ms, *with_native));
            }
            What::Broken { text, why } => outcomes.push(Outcome {
                line: *line,
                query: text.clone(),
                result: Err(why.clone()),
                native: false,
            }),
            What::Eval(case) => outcomes.push(Outcome {
                line: *line,
                query: case.query.clone(),
                result: check(case, &data.floats),
                native: data.is_native(case),
            }),
        }
    }
    outcomes
}

impl Data {
    fn load(&mut self, described: &Description, step_ms: i64, with_native: bool) {
        for (index, point) in described.points.iter().enumerate() {
            let at_ms = step_ms * index as i64;
            match point {
                Point::None => {}
                Point::Value(value) => {
                    self.floats.put(&described.labels, at_ms, *value);
                    let name = described.labels.name();
                    let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
                    if let (true, Some(base)) = (with_native, base) {
                        let labels = described.labels.with("__name__", base).with("le", "");
                        self.natives.put(&labels, at_ms, 0.0);
                    }
                }
                Point::Native => self.natives.put(&described.labels, at_ms, 0.0),
            }
        }
    }

    fn is_native(&self, case: &Case) -> bool {
        let expected = match &case.expected {
            Expected::Series(list) => list
                .iter()
                .flat_map(|described| &described.points)
                .any(|point| matches!(point, Point::Native)),
            Expected::Scalar(_) | Expected::Text(_) => false,
        };
        expected || {
            let asked = Asked { inner: &self.natives, found: false.into() };
            let _ = answer(case, &asked);
            asked.found.get()
        }
    }
}

/// Notes whether any series was asked for that there is.
struct Asked<'a> {
    inner: &'a Memory,
    found: std::cell::Cell<bool>,
}

impl Querier for Asked<'_> {
    fn select(
        &self,
        matchers: &[fairway_metrics::select::Matcher],
        from_ms: i64,
        to_ms: i64,
        samples_max: usize,
    ) -> Result<Vec<Series>, fairway_metrics::select::SelectError> {
        let found = self.inner.select(matchers, from_ms, to_ms, samples_max)?;
        self.found.set(self.found.get() || !found.is_empty());
        Ok(found)
    }

    fn series(
        &self,
        matchers: &[fairway_metrics::select::Matcher],
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<Labels>, fairway_metrics::select::SelectError> {
        self.inner.series(matchers, from_ms, to_ms)
    }
}

fn answer(case: &Case, querier: &dyn Querier) -> Result<Answer, String> {
    let query = parse_as(&case.query, Dialect::Experimental).map_err(|error| error.to_string())?;
    match case.when {
        When::At(at_ms) => {
            let at_ms = case.range_vector.map_or(at_ms, |(_, end_ms, _)| end_ms);
            engine().instant(querier, &query, at_ms).map_err(|error| error.to_string())
        }
        When::Range { start_ms, end_ms, step_ms } => {
            engine().range(querier, &query, start_ms, end_ms, step_ms).map_err(|error| error.to_string())
        }
    }
}

fn check(case: &Case, memory: &Memory) -> Result<(), String> {
    let answer = match (answer(case, memory), &case.fails) {
        (Err(error), Some(wording)) if wording.fits(&error) => return Ok(()),
        (Err(error), Some(wording)) => {
            return Err(format!("expected an error like {wording:?}, got: {error}"));
        }
        (Err(error), None) => return Err(error),
        (Ok(_), Some(_)) => return Err("expected an error".to_owned()),
        (Ok(answer), None) => answer,
    };
    notes("warnings", &case.warns, case.no_warn, &answer.warnings)?;
    notes("infos", &case.infos, case.no_info, &answer.infos)?;
    match (case.when, case.range_vector) {
        (When::Range { start_ms, step_ms, .. }, _) => matrix(case, &answer.value, start_ms, step_ms),
        (When::At(_), Some((start_ms, _, step_ms))) => matrix(case, &answer.value, start_ms, step_ms),
        (When::At(at_ms), None) => {
            instant(case, &answer.value)?;
            steady(case, &answer.value, at_ms, memory)
        }
    }
}

fn notes(kind: &str, expected: &[Wording], none: bool, found: &[String]) -> Result<(), String> {
    if none && !found.is_empty() {
        return Err(format!("unexpected {kind}: {found:?}"));
    }
    for wording in expected {
        if !found.iter().any(|text| wording.fits(text)) {
            return Err(format!("expected {kind} like {wording:?}, got {found:?}"));
        }
    }
    for text in found {
        if !expected.is_empty() && !expected.iter().any(|wording| wording.fits(text)) {
            return Err(format!("unexpected in {kind}: {text}"));
        }
    }
    Ok(())
}

/// Prometheus' own comparison.
pub fn almost_equal(a: f64, b: f64, epsilon: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < epsilon * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < epsilon
}

const EPSILON: f64 = 1e-6;

fn instant(case: &Case, value: &Value) -> Result<(), String> {
    match (value, &case.expected) {
        (Value::Scalar(sample), Expected::Scalar(wanted)) if almost_equal(sample.value, *wanted, EPSILON) => {
            Ok(())
        }
        (Value::Text { text, .. }, Expected::Text(wanted)) if text == wanted => Ok(()),
        (Value::Vector(list), Expected::Series(wanted)) => {
            for (index, element) in list.iter().enumerate() {
                let place = wanted.iter().position(|described| described.labels == element.labels);
                let Some(place) = place else {
                    return Err(format!("unexpected {} {}", element.labels, element.sample.value));
                };
                if case.ordered && place != index {
                    return Err(format!("{} at place {index} instead of {place}", element.labels));
                }
                match wanted[place].points.first() {
                    Some(Point::Value(value)) if almost_equal(*value, element.sample.value, EPSILON) => {}
                    other => {
                        let (labels, value) = (&element.labels, element.sample.value);
                        return Err(format!("{labels}: expected {other:?}, got {value}"));
                    }
                }
            }
            match wanted
                .iter()
                .find(|described| !list.iter().any(|element| element.labels == described.labels))
            {
                Some(missing) => Err(format!("{} {:?} is missing", missing.labels, missing.points.first())),
                None => Ok(()),
            }
        }
        (value, wanted) => Err(format!("expected {wanted:?}, got {value:?}")),
    }
}

/// The same query as the middle of a range gives the same.
fn steady(case: &Case, value: &Value, at_ms: i64, memory: &Memory) -> Result<(), String> {
    const STEP_MS: i64 = 60_000;
    let ranged = ["range(", "step(", "start(", "end("].iter().any(|word| case.query.contains(word));
    let query = parse_as(&case.query, Dialect::Experimental).map_err(|error| error.to_string())?;
    if case.ordered || ranged || matches!(value, Value::Text { .. } | Value::Matrix(_)) {
        return Ok(());
    }
    let (start, end) = (at_ms - STEP_MS, at_ms + STEP_MS);
    let answer = engine().range(memory, &query, start, end, STEP_MS).map_err(|error| error.to_string());
    // What the neighbouring steps run into is not of this case.
    let Ok(Answer { value: Value::Matrix(series), .. }) = answer else { return Ok(()) };
    let middle: Vec<(Labels, f64)> = series
        .iter()
        .filter_map(|series| {
            let sample = series.samples.iter().find(|sample| sample.at_ms == at_ms)?;
            Some((series.labels.clone(), sample.value))
        })
        .collect();
    let mut wanted: Vec<(Labels, f64)> = match value {
        Value::Scalar(sample) => vec![(Labels::default(), sample.value)],
        Value::Vector(list) => {
            list.iter().map(|element| (element.labels.clone(), element.sample.value)).collect()
        }
        Value::Text { .. } | Value::Matrix(_) => Vec::new(),
    };
    wanted.sort_by(|a, b| a.0.cmp(&b.0));
    let same = middle.len() == wanted.len()
        && middle.iter().zip(&wanted).all(|(a, b)| a.0 == b.0 && almost_equal(a.1, b.1, EPSILON));
    if same { Ok(()) } else { Err(format!("as a range it gives {middle:?} instead of {wanted:?}")) }
}

fn matrix(case: &Case, value: &Value, start_ms: i64, step_ms: i64) -> Result<(), String> {
    let (Value::Matrix(found), Expected::Series(wanted)) = (value, &case.expected) else {
        return Err(format!("expected {:?}, got {value:?}", case.expected));
    };
    for Series { labels, samples } in found {
        let Some(described) = wanted.iter().find(|described| described.labels == *labels) else {
            return Err(format!("unexpected {labels} {samples:?}"));
        };
        let mut points = Vec::new();
        for (index, point) in described.points.iter().enumerate() {
            match point {
                Point::None => {}
                Point::Value(value) => {
                    points.push(Sample { at_ms: start_ms + step_ms * index as i64, value: *value });
                }
                Point::Native => return Err(format!("{labels}: a native histogram is expected")),
            }
        }
        let same = points.len() == samples.len()
            && points
                .iter()
                .zip(samples)
                .all(|(a, b)| a.at_ms == b.at_ms && almost_equal(a.value, b.value, EPSILON));
        if !same {
            return Err(format!("{labels}: expected {points:?}, got {samples:?}"));
        }
    }
    match wanted.iter().find(|described| !found.iter().any(|series| series.labels == described.labels)) {
        Some(missing) => Err(format!("{} is missing", missing.labels)),
        None => Ok(()),
    }
}
