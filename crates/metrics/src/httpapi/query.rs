//! `/api/v1/query`, `/query_range` and what belongs to them.

use std::time::Duration;

use super::context::Context;
use super::envelope::{ANSWER_BYTES_MAX, ApiError, Class, Data};
use super::json::{put_key, put_labels, put_list, put_point, put_seconds, put_text};
use super::request::Params;
use super::time::{Moment, parse_duration, parse_time};
use crate::exposition::number;
use crate::promql::{Answer, Engine, EvalError, Query, Value, parse};
use crate::select::SelectError;

const NS_PER_MS: i64 = 1_000_000;

/// Points per series of a range query.
const POINTS_MAX: i128 = 11_000;

pub(super) fn instant(context: &Context<'_>, params: &Params) -> Result<Data, ApiError> {
    let limit = params.limit()?;
    let at = params.time("time", Moment::of_ms(context.now_ms))?;
    let engine = engine(context, params)?;
    let query = query(params)?;
    let answer = engine.instant(context.source, &query, at.ms()).map_err(|error| failed(&error))?;
    Ok(data(answer, limit))
}

pub(super) fn range(context: &Context<'_>, params: &Params) -> Result<Data, ApiError> {
    let limit = params.limit()?;
    let start = parse_time(params.get("start")).map_err(|why| ApiError::parameter("start", why))?;
    let end = parse_time(params.get("end")).map_err(|why| ApiError::parameter("end", why))?;
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step_ns = parse_duration(params.get("step")).map_err(|why| ApiError::parameter("step", why))?;
    // Below a millisecond no step moves at all: samples have no finer times.
    if step_ns < NS_PER_MS {
        return Err(ApiError::parameter("step", EvalError::NoStep { step_ms: step_ns / NS_PER_MS }));
    }
    if (end.0 - start.0) / i128::from(step_ns) > POINTS_MAX {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution \
             (?step=XX)",
        ));
    }
    let engine = engine(context, params)?;
    let query = query(params)?;
    let answer = engine.range(context.source, &query, start.ms(), end.ms(), step_ns / NS_PER_MS);
    let answer = answer.map_err(|error| {
        let of_query = matches!(error, EvalError::NotForRange { .. });
        if of_query { ApiError::parameter("query", error) } else { failed(&error) }
    })?;
    Ok(data(answer, limit))
}

/// Exemplars are not kept: there are none, whatever is asked.
pub(super) fn exemplars(_: &Context<'_>, params: &Params) -> Result<Data, ApiError> {
    let start = params.time("start", Moment::MIN)?;
    let end = params.time("end", Moment::MAX)?;
    if end < start {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    parse(params.get("query")).map_err(|error| ApiError::bad_data(error.to_string()))?;
    Ok(Data::new("[]".to_owned()))
}

/// Checks a query and gives it back as it was written.
pub(super) fn format(_: &Context<'_>, params: &Params) -> Result<Data, ApiError> {
    let query = query(params)?;
    let mut out = String::new();
    put_text(&mut out, query.text().trim());
    Ok(Data::new(out))
}

fn query(params: &Params) -> Result<Query, ApiError> {
    parse(params.get("query")).map_err(|error| ApiError::parameter("query", error))
}

/// The engine with what this request asks of it.
fn engine(context: &Context<'_>, params: &Params) -> Result<Engine, ApiError> {
    let timeout = match params.get("timeout") {
        "" => None,
        text => {
            let ns = parse_duration(text).map_err(|why| ApiError::parameter("timeout", why))?;
            Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(0)))
        }
    };
    let lookback_ms = match params.get("lookback_delta") {
        "" => 0,
        text => {
            let bad = |why| ApiError::bad_data(format!("error parsing lookback delta duration: {why}"));
            parse_duration(text).map_err(bad)? / NS_PER_MS
        }
    };
    let mut engine = context.engine.clone();
    if lookback_ms > 0 {
        engine.lookback_ms = lookback_ms;
    }
    engine.stop = (context.stop_after)(timeout).or(engine.stop);
    Ok(engine)
}

fn failed(error: &EvalError) -> ApiError {
    let class = if matches!(error, EvalError::Stopped) {
        Class::Timeout
    } else if matches!(error, EvalError::Select(SelectError::Storage { .. })) {
        Class::Internal
    } else {
        Class::Execution
    };
    ApiError::new(class, error.to_string())
}

pub(super) fn select_failed(error: &SelectError) -> ApiError {
    ApiError::new(Class::Execution, error.to_string())
}

/// The note on an answer that was cut.
pub(super) fn truncated() -> String {
    "results truncated due to limit".to_owned()
}

fn data(answer: Answer, limit: Option<usize>) -> Data {
    let Answer { value, mut warnings, infos } = answer;
    let limit = limit.unwrap_or(usize::MAX);
    let mut out = String::from("{");
    put_key(&mut out, "resultType");
    let (kind, count) = match &value {
        Value::Scalar(_) => ("\"scalar\"", 0),
        Value::Text { .. } => ("\"string\"", 0),
        Value::Vector(elements) => ("\"vector\"", elements.len()),
        Value::Matrix(series) => ("\"matrix\"", series.len()),
    };
    out.push_str(kind);
    put_key(&mut out, "result");
    match value {
        Value::Scalar(sample) => {
            // No exponent here, however large: another function of Prometheus writes it.
            out.push('[');
            put_number_of_seconds(&mut out, sample.at_ms);
            out.push_str(&format!(",\"{}\"]", number::plain(sample.value)));
        }
        Value::Text { at_ms, text } => {
            out.push('[');
            put_number_of_seconds(&mut out, at_ms);
            out.push(',');
            put_text(&mut out, &text);
            out.push(']');
        }
        Value::Vector(elements) => put_list(&mut out, elements.iter().take(limit), |out, element| {
            out.push_str("{\"metric\":");
            put_labels(out, &element.labels);
            out.push_str(",\"value\":");
            put_point(out, element.sample);
            out.push('}');
        }),
        Value::Matrix(series) => put_list(&mut out, series.iter().take(limit), |out, series| {
            // The rest of what will be refused need not be written.
            if out.len() > ANSWER_BYTES_MAX {
                return;
            }
            out.push_str("{\"metric\":");
            put_labels(out, &series.labels);
            out.push_str(",\"values\":");
            put_list(out, &series.samples, |out, sample| put_point(out, *sample));
            out.push('}');
        }),
    }
    out.push('}');
    if count > limit {
        warnings.push(truncated());
        warnings.sort();
    }
    Data { data: out, warnings, infos }
}

/// As a JSON number: without the zeros at its end.
fn put_number_of_seconds(out: &mut String, at_ms: i64) {
    let mut seconds = String::new();
    put_seconds(&mut seconds, at_ms);
    let trimmed = if seconds.contains('.') { seconds.trim_end_matches('0') } else { &seconds };
    out.push_str(trimmed);
}
