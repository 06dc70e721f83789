//! The functions of PromQL: their arguments, their results, and which of them are experimental.

use super::ast::Type;
use super::date::Moment;

/// What a call computes.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// Of each value by itself.
    Math(fn(f64) -> f64),
    /// Of each value as seconds since 1970; without an argument, of the evaluation's time.
    Date(fn(Moment) -> f64),
    /// Of the samples of each window of a range vector.
    Window(Windowed),
    Other(Other),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windowed {
    AbsentOverTime,
    AvgOverTime,
    Changes,
    CountOverTime,
    Delta,
    Deriv,
    DoubleExponentialSmoothing,
    FirstOverTime,
    Idelta,
    Increase,
    Irate,
    LastOverTime,
    MadOverTime,
    MaxOverTime,
    MinOverTime,
    PredictLinear,
    PresentOverTime,
    QuantileOverTime,
    Rate,
    Resets,
    StddevOverTime,
    StdvarOverTime,
    SumOverTime,
    TsOfFirstOverTime,
    TsOfLastOverTime,
    TsOfMaxOverTime,
    TsOfMinOverTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    Absent,
    Clamp,
    ClampMax,
    ClampMin,
    End,
    HistogramAvg,
    HistogramCount,
    HistogramFraction,
    HistogramQuantile,
    HistogramQuantiles,
    HistogramStddev,
    HistogramStdvar,
    HistogramSum,
    Info,
    LabelJoin,
    LabelReplace,
    MaxOf,
    MinOf,
    Pi,
    Range,
    Round,
    Scalar,
    Sort,
    SortByLabel,
    SortByLabelDesc,
    SortDesc,
    Start,
    StartTimestamp,
    Step,
    Time,
    Timestamp,
    Vector,
}

/// How many arguments may follow the declared ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    None,
    /// The last declared one may be missing, and up to so many of its kind be given.
    UpTo(usize),
    /// The last declared one may be missing, or be there any number of times.
    Any,
}

#[derive(Debug)]
pub struct Function {
    pub body: Body,
    pub name: &'static str,
    pub args: &'static [Type],
    pub extra: Extra,
    pub returns: Type,
    /// Refused unless the reader was told to take it.
    pub experimental: bool,
}

impl Function {
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        let index = FUNCTIONS.binary_search_by(|known| known.name.cmp(name)).ok()?;
        FUNCTIONS.get(index)
    }

    #[must_use]
    pub fn is(&self, other: Other) -> bool {
        matches!(self.body, Body::Other(own) if own == other)
    }

    /// Its value changes from step to step even when its arguments do not, so that it is evaluated at each.
    #[must_use]
    pub fn looks_at_the_clock(&self) -> bool {
        matches!(
            self.body,
            Body::Date(_)
                | Body::Window(Windowed::PredictLinear)
                | Body::Other(Other::Time | Other::Timestamp | Other::StartTimestamp)
        )
    }
}

fn degrees(radians: f64) -> f64 {
    radians * 180.0 / std::f64::consts::PI
}

fn radians(degrees: f64) -> f64 {
    degrees * std::f64::consts::PI / 180.0
}

fn sign(value: f64) -> f64 {
    if value < 0.0 {
        -1.0
    } else if value > 0.0 {
        1.0
    } else {
        value
    }
}

const V: Type = Type::InstantVector;
const M: Type = Type::RangeVector;
const S: Type = Type::Scalar;
const T: Type = Type::String;

const fn function(
    body: Body,
    name: &'static str,
    args: &'static [Type],
    extra: Extra,
    returns: Type,
    experimental: bool,
) -> Function {
    Function { body, name, args, extra, returns, experimental }
}

/// Sorted by name, because it is searched by halves.
static FUNCTIONS: &[Function] = &[
    function(Body::Math(f64::abs), "abs", &[V], Extra::None, V, false),
    function(Body::Other(Other::Absent), "absent", &[V], Extra::None, V, false),
    function(Body::Window(Windowed::AbsentOverTime), "absent_over_time", &[M], Extra::None, V, false),
    function(Body::Math(f64::acos), "acos", &[V], Extra::None, V, false),
    function(Body::Math(f64::acosh), "acosh", &[V], Extra::None, V, false),
    function(Body::Math(f64::asin), "asin", &[V], Extra::None, V, false),
    function(Body::Math(f64::asinh), "asinh", &[V], Extra::None, V, false),
    function(Body::Math(f64::atan), "atan", &[V], Extra::None, V, false),
    function(Body::Math(f64::atanh), "atanh", &[V], Extra::None, V, false),
    function(Body::Window(Windowed::AvgOverTime), "avg_over_time", &[M], Extra::None, V, false),
    function(Body::Math(f64::ceil), "ceil", &[V], Extra::None, V, false),
    function(Body::Window(Windowed::Changes), "changes", &[M], Extra::None, V, false),
    function(Body::Other(Other::Clamp), "clamp", &[V, S, S], Extra::None, V, false),
    function(Body::Other(Other::ClampMax), "clamp_max", &[V, S], Extra::None, V, false),
    function(Body::Other(Other::ClampMin), "clamp_min", &[V, S], Extra::None, V, false),
    function(Body::Math(f64::cos), "cos", &[V], Extra::None, V, false),
    function(Body::Math(f64::cosh), "cosh", &[V], Extra::None, V, false),
    function(Body::Window(Windowed::CountOverTime), "count_over_time", &[M], Extra::None, V, false),
    function(Body::Date(Moment::day_of_month), "day_of_month", &[V], Extra::UpTo(1), V, false),
    function(Body::Date(Moment::day_of_week), "day_of_week", &[V], Extra::UpTo(1), V, false),
    function(Body::Date(Moment::day_of_year), "day_of_year", &[V], Extra::UpTo(1), V, false),
    function(Body::Date(Moment::days_in_month), "days_in_month", &[V], Extra::UpTo(1), V, false),
    function(Body::Math(degrees), "deg", &[V], Extra::None, V, false),
    function(Body::Window(Windowed::Delta), "delta", &[M], Extra::None, V, false),
    function(Body::Window(Windowed::Deriv), "deriv", &[M], Extra::None, V, false),
    function(
        Body::Window(Windowed::DoubleExponentialSmoothing),
        "double_exponential_smoothing",
        &[M, S, S],
        Extra::None,
        V,
        true,
    ),
    function(Body::Other(Other::End), "end", &[], Extra::None, S, true),
    function(Body::Math(f64::exp), "exp", &[V], Extra::None, V, false),
    function(Body::Window(Windowed::FirstOverTime), "first_over_time", &[M], Extra::None, V, false),
    function(Body::Math(f64::floor), "floor", &[V], Extra::None, V, false),
    function(Body::Other(Other::HistogramAvg), "histogram_avg", &[V], Extra::None, V, false),
    function(Body::Other(Other::HistogramCount), "histogram_count", &[V], Extra::None, V, false),
    function(Body::Other(Other::HistogramFraction), "histogram_fraction", &[S, S, V], Extra::None, V, false),
    function(Body::Other(Other::HistogramQuantile), "histogram_quantile", &[S, V], Extra::None, V, false),
    function(
        Body::Other(Other::HistogramQuantiles),
        "histogram_quantiles",
        &[V, T, S, S],
        Extra::UpTo(9),
        V,
        true,
    ),
    function(Body::Other(Other::HistogramStddev), "histogram_stddev", &[V], Extra::None, V, false),
    function(Body::Other(Other::HistogramStdvar), "histogram_stdvar", &[V], Extra::None, V, false),
    function(Body::Other(Other::HistogramSum), "histogram_sum", &[V], Extra::None, V, false),
    function(Body::Date(Moment::hour), "hour", &[V], Extra::UpTo(1), V, false),
    function(Body::Window(Windowed::Idelta), "idelta", &[M], Extra::None, V, false),
    function(Body::Window(Windowed::Increase), "increase", &[M], Extra::None, V, false),
    function(Body::Other(Other::Info), "info", &[V, V], Extra::UpTo(1), V, true),
    function(Body::Window(Windowed::Irate), "irate", &[M], Extra::None, V, false),
    function(Body::Other(Other::LabelJoin), "label_join", &[V, T, T, T], Extra::Any, V, false),
    function(Body::Other(Other::LabelReplace), "label_replace", &[V, T, T, T, T], Extra::None, V, false),
    function(Body::Window(Windowed::LastOverTime), "last_over_time", &[M], Extra::None, V, false),
    function(Body::Math(f64::ln), "ln", &[V], Extra::None, V, false),
    function(Body::Math(f64::log10), "log10", &[V], Extra::None, V, false),
    function(Body::Math(f64::log2), "log2", &[V], Extra::None, V, false),
    function(Body::Window(Windowed::MadOverTime), "mad_over_time", &[M], Extra::None, V, true),
    function(Body::Other(Other::MaxOf), "max_of", &[S, S], Extra::None, S, true),
    function(Body::Window(Windowed::MaxOverTime), "max_over_time", &[M], Extra::None, V, false),
    function(Body::Other(Other::MinOf), "min_of", &[S, S], Extra::None, S, true),
    function(Body::Window(Windowed::MinOverTime), "min_over_time", &[M], Extra::None, V, false),
    function(Body::Date(Moment::minute), "minute", &[V], Extra::UpTo(1), V, false),
    function(Body::Date(Moment::month), "month", &[V], Extra::UpTo(1), V, false),
    function(Body::Other(Other::Pi), "pi", &[], Extra::None, S, false),
    function(Body::Window(Windowed::PredictLinear), "predict_linear", &[M, S], Extra::None, V, false),
    function(Body::Window(Windowed::PresentOverTime), "present_over_time", &[M], Extra::None, V, false),
    function(Body::Window(Windowed::QuantileOverTime), "quantile_over_time", &[S, M], Extra::None, V, false),
    function(Body::Math(radians), "rad", &[V], Extra::None, V, false),
    function(Body::Other(Other::Range), "range", &[], Extra::None, S, true),
    function(Body::Window(Windowed::Rate), "rate", &[M], Extra::None, V, false),
    function(Body::Window(Windowed::Resets), "resets", &[M], Extra::None, V, false),
    function(Body::Other(Other::Round), "round", &[V, S], Extra::UpTo(1), V, false),
    function(Body::Other(Other::Scalar), "scalar", &[V], Extra::None, S, false),
    function(Body::Math(sign), "sgn", &[V], Extra::None, V, false),
    function(Body::Math(f64::sin), "sin", &[V], Extra::None, V, false),
    function(Body::Math(f64::sinh), "sinh", &[V], Extra::None, V, false),
    function(Body::Other(Other::Sort), "sort", &[V], Extra::None, V, false),
    function(Body::Other(Other::SortByLabel), "sort_by_label", &[V, T], Extra::Any, V, true),
    function(Body::Other(Other::SortByLabelDesc), "sort_by_label_desc", &[V, T], Extra::Any, V, true),
    function(Body::Other(Other::SortDesc), "sort_desc", &[V], Extra::None, V, false),
    function(Body::Math(f64::sqrt), "sqrt", &[V], Extra::None, V, false),
    function(Body::Other(Other::Start), "start", &[], Extra::None, S, true),
    function(Body::Other(Other::StartTimestamp), "start_timestamp", &[V], Extra::None, V, true),
    function(Body::Window(Windowed::StddevOverTime), "stddev_over_time", &[M], Extra::None, V, false),
    function(Body::Window(Windowed::StdvarOverTime), "stdvar_over_time", &[M], Extra::None, V, false),
    function(Body::Other(Other::Step), "step", &[], Extra::None, S, true),
    function(Body::Window(Windowed::SumOverTime), "sum_over_time", &[M], Extra::None, V, false),
    function(Body::Math(f64::tan), "tan", &[V], Extra::None, V, false),
    function(Body::Math(f64::tanh), "tanh", &[V], Extra::None, V, false),
    function(Body::Other(Other::Time), "time", &[], Extra::None, S, false),
    function(Body::Other(Other::Timestamp), "timestamp", &[V], Extra::None, V, false),
    function(Body::Window(Windowed::TsOfFirstOverTime), "ts_of_first_over_time", &[M], Extra::None, V, true),
    function(Body::Window(Windowed::TsOfLastOverTime), "ts_of_last_over_time", &[M], Extra::None, V, true),
    function(Body::Window(Windowed::TsOfMaxOverTime), "ts_of_max_over_time", &[M], Extra::None, V, true),
    function(Body::Window(Windowed::TsOfMinOverTime), "ts_of_min_over_time", &[M], Extra::None, V, true),
    function(Body::Other(Other::Vector), "vector", &[S], Extra::None, V, false),
    function(Body::Date(Moment::year), "year", &[V], Extra::UpTo(1), V, false),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_found_by_its_name() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        for known in FUNCTIONS {
            assert_eq!(Function::find(known.name).map(|found| found.name), Some(known.name));
        }
        assert!(Function::find("holt_winters").is_none() && Function::find("").is_none());
    }
}
