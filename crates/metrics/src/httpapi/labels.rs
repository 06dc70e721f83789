//! What series there are: `/api/v1/labels`, `/label/<name>/values`, `/series`.

use std::collections::BTreeSet;

use super::context::Context;
use super::envelope::{ApiError, Data};
use super::json::{put_labels, put_list, put_text};
use super::query::{select_failed, truncated};
use super::request::Params;
use super::text::{quoted, unescaped_name};
use super::time::Moment;
use crate::labels::Labels;
use crate::sample::TimestampMs;
use crate::select::{Matcher, SelectError};

/// What all three take.
struct Asked {
    limit: Option<usize>,
    from_ms: TimestampMs,
    to_ms: TimestampMs,
    sets: Vec<Vec<Matcher>>,
}

fn asked(params: &Params, bad_match: fn(String) -> ApiError) -> Result<Asked, ApiError> {
    let limit = params.limit()?;
    let from_ms = params.time("start", Moment::MIN)?.ms();
    let to_ms = params.time("end", Moment::MAX)?.ms();
    let sets = params.matchers().map_err(bad_match)?;
    Ok(Asked { limit, from_ms, to_ms, sets })
}

pub(super) fn names(context: &Context<'_>, params: &Params) -> Result<Data, ApiError> {
    let asked = asked(params, ApiError::bad_data)?;
    let found = asked.texts(|matchers| context.source.label_names(matchers, asked.from_ms, asked.to_ms))?;
    Ok(asked.data(found, |out, name| put_text(out, &name)))
}

pub(super) fn values(context: &Context<'_>, params: &Params, name: &str) -> Result<Data, ApiError> {
    let name = unescaped_name(name);
    if name.is_empty() || name.contains('\u{fffd}') {
        return Err(ApiError::bad_data(format!("invalid label name: {}", quoted(&name))));
    }
    let asked = asked(params, ApiError::bad_data)?;
    let found =
        asked.texts(|matchers| context.source.label_values(&name, matchers, asked.from_ms, asked.to_ms))?;
    Ok(asked.data(found, |out, value| put_text(out, &value)))
}

pub(super) fn series(context: &Context<'_>, params: &Params) -> Result<Data, ApiError> {
    if let Some(error) = &params.error {
        return Err(ApiError::bad_data(format!("error parsing form values: {error}")));
    }
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let asked = asked(params, |why| ApiError::parameter("match[]", why))?;
    let mut found: BTreeSet<Labels> = BTreeSet::new();
    for matchers in &asked.sets {
        let series = context.source.series(matchers, asked.from_ms, asked.to_ms);
        found.extend(series.map_err(|error| select_failed(&error))?);
    }
    Ok(asked.data(found, |out, labels| put_labels(out, &labels)))
}

impl Asked {
    /// Those of every set of matchers, once and sorted; without sets, those of all series.
    fn texts(
        &self,
        of: impl Fn(&[Matcher]) -> Result<Vec<String>, SelectError>,
    ) -> Result<BTreeSet<String>, ApiError> {
        let all: &[Vec<Matcher>] = &[Vec::new()];
        let sets = if self.sets.is_empty() { all } else { &self.sets };
        let mut found = BTreeSet::new();
        for matchers in sets {
            found.extend(of(matchers).map_err(|error| select_failed(&error))?);
        }
        Ok(found)
    }

    fn data<T>(&self, found: BTreeSet<T>, put: impl FnMut(&mut String, T)) -> Data {
        let limit = self.limit.unwrap_or(usize::MAX);
        let cut = found.len() > limit;
        let mut data = Data::default();
        put_list(&mut data.data, found.into_iter().take(limit), put);
        if cut {
            data.warnings.push(truncated());
        }
        data
    }
}
