//! PromQL: parsing with limits, and evaluation over a [`crate::select::Querier`].
//!
//! ```text
//! parse(text) -> Result<Query, ParseError>
//! parse_as(text, Dialect::Experimental)                      experimental functions and modifiers too
//! parse_selector(text) -> Result<Vec<Matcher>, ParseError>   for match[] parameters
//! Engine::default().instant(&querier, &query, at_ms) -> Result<Answer, EvalError>
//! Engine::default().range(&querier, &query, start_ms, end_ms, step_ms) -> Result<Answer, EvalError>
//! Answer { value: Value::{Scalar, Text, Vector, Matrix}, warnings, infos }
//! ```
//!
//! The semantics, the error texts and the annotations are those of Prometheus 3. Samples are floats: native histograms
//! do not exist here, so that functions of them give empty vectors.

mod answer;
mod ast;
mod date;
mod eval;
mod functions;
mod lex;
mod literal;
mod parse;
mod regex_go;

pub use answer::{Answer, Element, EvalError, Value};
pub use ast::{Place, Span, Type};
pub use eval::{Engine, Limits, Names, Stop};
pub(crate) use lex::quote;
pub use literal::duration as parse_duration_ns;
pub use parse::{
    Dialect, NESTING_MAX, OPERATORS_MAX, ParseError, QUERY_BYTES_MAX, Query, parse, parse_as, parse_selector,
};
