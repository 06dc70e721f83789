//! Who answers PromQL: the store here, or a Prometheus elsewhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fairway_engine::monitoring::MetricsSource;
use fairway_metrics::promql::{self, Stop, Value};

use super::Watching;
use crate::outgoing::Request;

/// Here or of another Prometheus: its own default for a query is two minutes, but whoever waits here is a rollout, and a
/// query over all samples keeps a core from what the machine is there for.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// One value is asked for; a query that forgot to aggregate answers with some hundreds of series.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Why there is no value, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum NoValue {
    #[error("the query has no answer: no series matches")]
    Empty,
    #[error("the query's answer is not a number")]
    NotANumber,
    #[error("the query cannot be answered: {0}")]
    Query(String),
    #[error("{url} does not answer: {why}")]
    Gone { url: String, why: String },
}

/// Asks PromQL of whoever the environment says.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub watching: &'a Arc<Watching>,
    pub of: &'a MetricsSource,
}

impl Source<'_> {
    /// The value of the first sample, now.
    ///
    /// # Errors
    /// When there is none.
    pub async fn value(&self, promql: &str) -> Result<f64, NoValue> {
        let value = match self.of {
            MetricsSource::BuiltIn => self.here(promql).await?,
            MetricsSource::Prometheus { url } => self.elsewhere(url, promql).await?,
        };
        if value.is_finite() { Ok(value) } else { Err(NoValue::NotANumber) }
    }

    async fn here(&self, promql: &str) -> Result<f64, NoValue> {
        let query = promql::parse(promql).map_err(|error| NoValue::Query(error.to_string()))?;
        let (watching, at_ms) = (Arc::clone(self.watching), self.watching.now_ms());
        let asked = tokio::task::spawn_blocking(move || {
            within(&watching.promql, QUERY_TIMEOUT).instant(&*watching.store, &query, at_ms)
        });
        let answer = match asked.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(NoValue::Query(error.to_string())),
            Err(error) => return Err(NoValue::Query(error.to_string())),
        };
        match answer.value {
            Value::Scalar(sample) => Ok(sample.value),
            Value::Vector(elements) => elements.first().map(|first| first.sample.value).ok_or(NoValue::Empty),
            Value::Text { .. } | Value::Matrix(_) => Err(NoValue::NotANumber),
        }
    }

    async fn elsewhere(&self, url: &str, promql: &str) -> Result<f64, NoValue> {
        let gone = |why: String| NoValue::Gone { url: url.to_owned(), why };
        let form = format!("query={}", encoded(promql));
        let at = format!("{}/api/v1/query", url.trim_end_matches('/'));
        let request = Request {
            within: QUERY_TIMEOUT,
            answer_bytes_max: ANSWER_BYTES_MAX,
            ..Request::post(at, "application/x-www-form-urlencoded", form)
        };
        let answer = self.watching.outgoing.send(request).await.map_err(|error| gone(error.to_string()))?;
        let body: serde_json::Value = serde_json::from_slice(&answer.body)
            .map_err(|_| gone(format!("status {}, and no JSON", answer.status)))?;
        if body["status"] != "success" {
            let why = body["error"].as_str().unwrap_or("it does not say why").to_owned();
            return Err(if body["errorType"] == "bad_data" { NoValue::Query(why) } else { gone(why) });
        }
        let result = &body["data"]["result"];
        let value = match body["data"]["resultType"].as_str() {
            Some("scalar") => &result[1],
            Some("vector") if result.as_array().is_some_and(Vec::is_empty) => return Err(NoValue::Empty),
            Some("vector") => &result[0]["value"][1],
            Some(_) | None => return Err(NoValue::NotANumber),
        };
        value.as_str().and_then(|text| text.parse().ok()).ok_or(NoValue::NotANumber)
    }
}

/// An engine that gives up after this time, counted from now.
fn within(engine: &promql::Engine, time_max: Duration) -> promql::Engine {
    let begun = Instant::now();
    let stop = Stop(Arc::new(move || begun.elapsed() >= time_max));
    promql::Engine { stop: Some(stop), ..engine.clone() }
}

/// As a value of a form.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use fairway_metrics::store::{Options, Store};

    use super::*;

    #[test]
    fn a_query_that_takes_too_long_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap().store;
        let query = promql::parse("max_over_time(vector(1)[1h:1s])").unwrap();
        let asked = |time_max| within(&promql::Engine::default(), time_max).instant(&store, &query, 0);
        assert!(asked(QUERY_TIMEOUT).is_ok());
        let error = asked(Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("timed out"), "{error}");
    }

    #[test]
    fn a_query_survives_the_form() {
        assert_eq!(
            encoded("sum(rate(a{b=\"é\"}[1m])) > 0"),
            "sum%28rate%28a%7Bb%3D%22%C3%A9%22%7D%5B1m%5D%29%29%20%3E%200"
        );
    }
}
