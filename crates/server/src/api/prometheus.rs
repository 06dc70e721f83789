//! Prometheus' HTTP API, remote write and OTLP: what Grafana asks, and what others send in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use bytes::Bytes;
use fairway_metrics::httpapi::{
    self, BuildInfo, Context, FORM_BYTES_MAX, RuleGroup, Rules, Status, Target, Targets,
};
use fairway_metrics::labels::Labels;
use fairway_metrics::promql::Stop;
use fairway_metrics::remote::otlp::{self, Otlp};
use fairway_metrics::remote::{self, ReceiveLimits, ReceivedSeries, Stored};
use fairway_metrics::sample::Sample;
use fairway_metrics::store::Appended;
use tokio::sync::Semaphore;

use super::App;
use crate::watching::Watching;

/// Questions under way. Each may hold the samples of a large query; a dashboard asks some twenty, one after the other
/// in a browser's six connections.
const QUESTIONS_MAX: usize = 8;

/// A dashboard opens with all of its questions at once: those that are over [`QUESTIONS_MAX`] wait this long.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// A form is a query of some kilobytes.
const FORM_WITHIN: Duration = Duration::from_secs(10);

/// A longer evaluation keeps a core from what the machine is there for. Prometheus' own limit is two minutes.
const EVALUATION_MAX: Duration = Duration::from_secs(30);

/// Requests that bring samples, at a time: each is held in memory, unpacked.
const WRITES_MAX: usize = 4;

/// As it comes over the network; unpacked it may be larger, by the limits of `metrics`.
const WRITE_BYTES_MAX: usize = 16 << 20;

/// How far ahead of now a sample may be, as for remote write: clocks of two machines differ.
const AHEAD_MS_MAX: i64 = 10 * 60 * 1000;

/// After a full disk or a full store, in seconds: what senders do by themselves without being told.
const RETRY_AFTER_S: u64 = 5;

#[derive(Clone, Debug)]
struct Asked {
    app: App,
    questions: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    status: Arc<Status>,
}

/// Where samples may be sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    Taken,
    /// Whoever can reach the listener is not known, and may read only.
    Refused,
}

pub fn router<S: Clone + Send + Sync + 'static>(app: App, writes: Writes) -> Router<S> {
    let asked = Asked {
        questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        writes: Arc::new(Semaphore::new(WRITES_MAX)),
        status: Arc::new(status(&app)),
        app,
    };
    let router = Router::new()
        .route("/api/v1/{*rest}", any(question))
        .route("/federate", any(question))
        .route("/-/healthy", any(question))
        .route("/-/ready", any(question));
    let router = match writes {
        Writes::Refused => {
            router.route("/api/v1/write", post(not_taken)).route("/api/v1/otlp/v1/metrics", post(not_taken))
        }
        Writes::Taken => router
            .route("/api/v1/write", post(write))
            .route("/api/v1/otlp/v1/metrics", post(write_otlp))
            .layer(DefaultBodyLimit::max(WRITE_BYTES_MAX)),
    };
    router.with_state(asked)
}

fn status(app: &App) -> Status {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Status {
        build: BuildInfo { revision: env!("CARGO_PKG_VERSION").to_owned(), ..BuildInfo::default() },
        started_ms: i64::try_from(app.pump.shared.clock.started_at().0).unwrap_or(0),
        hostname: hostname.trim().to_owned(),
        working_directory: app.state_dir.display().to_string(),
        retention: Watching::retention(),
        config_yaml: String::new(),
        flags: BTreeMap::new(),
    }
}

struct Views<'a> {
    groups: &'a [RuleGroup],
    watching: &'a Watching,
}

impl Rules for Views<'_> {
    fn groups(&self) -> Vec<RuleGroup> {
        self.groups.to_vec()
    }
}

impl Targets for Views<'_> {
    fn active(&self) -> Vec<Target> {
        self.watching.scraped()
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn plain(status: StatusCode, body: impl Into<String>) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], body.into()).into_response()
}

/// Prometheus' words for "not now".
fn unavailable(why: &str) -> Response {
    let body = serde_json::json!({ "status": "error", "errorType": "unavailable", "error": why });
    let json = [(CONTENT_TYPE, "application/json")];
    (StatusCode::SERVICE_UNAVAILABLE, json, body.to_string()).into_response()
}

async fn question(State(asked): State<Asked>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let is_form = text(&head.headers, CONTENT_TYPE).starts_with("application/x-www-form-urlencoded");
    let form = if head.method == Method::POST && is_form {
        // Before it takes a turn: who sends slowly must not keep others from asking.
        match tokio::time::timeout(FORM_WITHIN, to_bytes(body, FORM_BYTES_MAX)).await {
            Ok(Ok(form)) => form,
            Ok(Err(_)) => return plain(StatusCode::PAYLOAD_TOO_LARGE, "http: request body too large"),
            Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the form does not come"),
        }
    } else {
        Bytes::new()
    };
    let turn = tokio::time::timeout(TURN_WITHIN, Arc::clone(&asked.questions).acquire_owned()).await;
    let Ok(Ok(turn)) = turn else { return unavailable("too many questions at once") };
    let answered = tokio::task::spawn_blocking(move || {
        // Held until the end of the evaluation, also when whoever asked has gone.
        let _turn = turn;
        let watching = &asked.app.watching;
        let groups = watching.alerting.groups();
        let views = Views { groups: &groups, watching };
        let begun = Instant::now();
        let stop_after = |wanted: Option<Duration>| {
            let most = wanted.map_or(EVALUATION_MAX, |wanted| wanted.min(EVALUATION_MAX));
            Some(Stop(Arc::new(move || begun.elapsed() > most)))
        };
        let context = Context {
            source: &*watching.store,
            engine: &watching.promql,
            stop_after: &stop_after,
            rules: &views,
            targets: &views,
            status: &asked.status,
            external_labels: &Labels::default(),
            now_ms: watching.now_ms(),
            ready: true,
        };
        let request = httpapi::Request {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            form: &form,
            accept: text(&head.headers, ACCEPT),
        };
        httpapi::answer(&context, &request)
    });
    match answered.await {
        Ok(answer) => {
            let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, [(CONTENT_TYPE, answer.content_type)], answer.body).into_response()
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer failed: {error}")),
    }
}

fn samples(series: &[ReceivedSeries]) -> Vec<(Labels, Sample)> {
    let of = |one: &ReceivedSeries| {
        let labels = one.labels.clone();
        one.samples.clone().into_iter().map(move |sample| (labels.clone(), sample))
    };
    series.iter().flat_map(of).collect()
}

fn remote_answer(answer: remote::Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = plain(status, answer.body);
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn refusal(appended: &Appended) -> String {
    let Appended { out_of_order, too_old, conflicting, too_many_series, labels_refused, .. } = appended;
    format!(
        "{} samples were not taken: {out_of_order} out of order, {too_old} too old, {conflicting} with another value, \
         {too_many_series} of series that would be too many, {labels_refused} with labels that cannot be",
        appended.rejected()
    )
}

/// As a Prometheus whose receiver is switched off: senders give up with this status, and show the words.
async fn not_taken() -> Response {
    let why = "samples are not taken here; `fairway server run --listen ADDRESS --take-samples` takes them";
    plain(StatusCode::NOT_FOUND, why)
}

async fn write(State(asked): State<Asked>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(_turn) = asked.writes.try_acquire() else { return busy() };
    let watching = &asked.app.watching;
    let of_request = Arc::clone(watching);
    let decoded = tokio::task::spawn_blocking(move || {
        let (kind, encoding) = (text(&headers, CONTENT_TYPE), text(&headers, CONTENT_ENCODING));
        of_request.receive(kind, encoding, &body)
    });
    let received = match decoded.await {
        Ok(Ok(received)) => received,
        Ok(Err(refused)) => return remote_answer(refused.answer()),
        Err(error) => return plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let stored = match watching.take_in(samples(&received.series)).await {
        Ok(appended) if appended.rejected() == 0 => Stored::All,
        Ok(appended) => Stored::Some {
            written: usize::try_from(appended.accepted).unwrap_or(usize::MAX),
            why: refusal(&appended),
        },
        Err(why) => Stored::None { why, retry_after_seconds: Some(RETRY_AFTER_S) },
    };
    remote_answer(received.answer(&stored))
}

/// A sample of the future would hide all that comes until then, as the series has a newer one.
fn refuse_ahead(mut received: Otlp, now_ms: i64) -> Otlp {
    let latest_ms = now_ms.saturating_add(AHEAD_MS_MAX);
    for series in &mut received.series {
        let before = series.samples.len();
        series.samples.retain(|sample| sample.at_ms <= latest_ms);
        let ahead = before - series.samples.len();
        if ahead > 0 {
            received.points_refused += ahead;
            received.problem.get_or_insert_with(|| format!("a point of {} is too far ahead", series.labels));
        }
    }
    received
}

async fn write_otlp(State(asked): State<Asked>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(_turn) = asked.writes.try_acquire() else { return busy() };
    let decoded = tokio::task::spawn_blocking(move || {
        let (kind, encoding) = (text(&headers, CONTENT_TYPE), text(&headers, CONTENT_ENCODING));
        otlp::decode(kind, encoding, &body, &ReceiveLimits::default())
    });
    let received = match decoded.await {
        Ok(Ok(received)) => refuse_ahead(received, asked.app.watching.now_ms()),
        Ok(Err(refused)) => return remote_answer(refused.answer()),
        Err(error) => return plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    match asked.app.watching.take_in(samples(&received.series)).await {
        Ok(appended) => {
            let refused = usize::try_from(appended.rejected()).unwrap_or(usize::MAX);
            let body = received.response(refused);
            ([(CONTENT_TYPE, "application/x-protobuf")], body).into_response()
        }
        Err(_) => busy(),
    }
}

fn busy() -> Response {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "not now; send it again");
    response.headers_mut().insert(axum::http::header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_of_the_future_is_refused_and_the_others_of_its_series_are_not() {
        let at = |at_ms| Sample { at_ms, value: 1.0 };
        let series = ReceivedSeries {
            labels: Labels::new([("__name__", "queue")]),
            samples: vec![at(1_000), at(1_000 + AHEAD_MS_MAX), at(1_001 + AHEAD_MS_MAX), at(i64::MAX)],
        };
        let received = Otlp { series: vec![series], ..Otlp::default() };
        let kept = refuse_ahead(received, 1_000);
        assert_eq!((kept.series[0].samples.len(), kept.points_refused), (2, 2));
        assert!(kept.problem.unwrap().contains("queue"));
    }
}
