//! `/federate`: the last sample of each series, for another Prometheus to scrape.

use std::collections::BTreeMap;

use super::context::Context;
use super::request::{Params, Request};
use super::route::Response;
use crate::exposition::Format;
use crate::exposition::write::{is_old_name, push_name, underscored, write_series};
use crate::labels::{Labels, NAME};
use crate::sample::{Sample, is_stale};
use crate::select::SelectError;

pub(super) fn federate(context: &Context<'_>, request: &Request<'_>) -> Response {
    let params = Params::of(request);
    if let Some(error) = &params.error {
        return Response::plain(400, format!("error parsing form values: {error}\n"));
    }
    let sets = match params.matchers() {
        Ok(sets) => sets,
        Err(why) => return Response::plain(400, format!("{why}\n")),
    };
    let mut last: BTreeMap<Labels, Sample> = BTreeMap::new();
    let from_ms = context.now_ms.saturating_sub(context.engine.lookback_ms);
    for matchers in sets {
        match context.source.select(&matchers, from_ms, context.now_ms, context.engine.limits.samples_max) {
            Ok(series) => {
                let newest = |samples: Vec<Sample>| samples.last().copied().filter(|it| !is_stale(it.value));
                last.extend(series.into_iter().filter_map(|it| Some((it.labels, newest(it.samples)?))));
            }
            Err(error @ (SelectError::TooManySamples { .. } | SelectError::Storage { .. })) => {
                return Response::plain(500, format!("{error}\n"));
            }
        }
    }
    // Prometheus federates in the text format alone, whatever is preferred; names are as the asker can read them.
    let utf8 = request.accept.contains("escaping=allow-utf-8");
    let format = if utf8 { Format::TextUtf8 } else { Format::Text };
    let content_type = if utf8 {
        "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8"
    } else {
        format.content_type()
    };
    let body = write(&last, context.external_labels, format);
    Response { status: 200, content_type, body: body.into_bytes() }
}

fn write(last: &BTreeMap<Labels, Sample>, external: &Labels, format: Format) -> String {
    let mut series: Vec<(&Labels, &Sample)> =
        last.iter().filter(|(labels, _)| !labels.name().is_empty()).collect();
    // Stable: within a name, the order of the labels stays.
    series.sort_by(|a, b| a.0.name().cmp(b.0.name()));
    let mut out = String::new();
    let mut family = "";
    for (labels, sample) in series {
        let name = match format {
            Format::Text if !is_old_name(labels.name(), true) => underscored(labels.name(), true),
            Format::Text | Format::TextUtf8 | Format::OpenMetrics => labels.name().to_owned(),
        };
        if labels.name() != family {
            family = labels.name();
            out.push_str("# TYPE ");
            push_name(&mut out, &name);
            out.push_str(" untyped\n");
        }
        let mut pairs: Vec<(&str, &str)> = labels.iter().filter(|(name, _)| *name != NAME).collect();
        // An empty `instance` keeps the one who scrapes this from setting its own.
        let mut missing: BTreeMap<&str, &str> =
            [("instance", "")].into_iter().chain(external.iter()).collect();
        missing.retain(|name, _| labels.get(name).is_none());
        pairs.extend(missing);
        write_series(&mut out, &name, &pairs, sample.value, Some(sample.at_ms), format);
        out.push('\n');
    }
    out
}
