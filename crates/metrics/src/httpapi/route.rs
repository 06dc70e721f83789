//! From a path to what answers it.

use super::context::Context;
use super::envelope::{ApiError, Class, Data, respond};
use super::request::{Params, Request, unescaped};
use super::{federate, labels, query, rules, status, targets};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Response {
    pub(super) fn plain(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into().into_bytes() }
    }

    fn not_found() -> Self {
        Self::plain(404, "404 page not found\n")
    }
}

/// What may be done with an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Methods {
    Get,
    /// The parameters may come as a form.
    GetAndPost,
}

type Run<'a> = &'a dyn Fn(&Params) -> Result<Data, ApiError>;

type Endpoint = fn(&Context<'_>, &Params) -> Result<Data, ApiError>;

/// The endpoints of the API, after `/api/v1/`.
const ENDPOINTS: [(&str, Methods, Endpoint); 17] = [
    ("query", Methods::GetAndPost, query::instant),
    ("query_range", Methods::GetAndPost, query::range),
    ("query_exemplars", Methods::GetAndPost, query::exemplars),
    ("format_query", Methods::GetAndPost, query::format),
    ("labels", Methods::GetAndPost, labels::names),
    ("series", Methods::GetAndPost, labels::series),
    ("metadata", Methods::Get, targets::metadata),
    ("targets", Methods::Get, targets::list),
    ("targets/metadata", Methods::Get, targets::metadata_of_targets),
    ("scrape_pools", Methods::Get, targets::pools),
    ("alertmanagers", Methods::Get, status::alertmanagers),
    ("rules", Methods::Get, rules::rules),
    ("alerts", Methods::Get, rules::alerts),
    ("status/buildinfo", Methods::Get, status::build),
    ("status/runtimeinfo", Methods::Get, status::runtime),
    ("status/config", Methods::Get, status::config),
    ("status/flags", Methods::Get, status::flags),
];

/// The answer to a request of Prometheus' API, `/federate`, `/-/healthy` or `/-/ready`; 404 for all others.
#[must_use]
pub fn answer(context: &Context<'_>, request: &Request<'_>) -> Response {
    let get = matches!(request.method, "GET" | "HEAD");
    let post = request.method == "POST";
    match request.path {
        "/-/healthy" if get => return Response::plain(200, "Fairway is healthy.\n"),
        "/-/ready" if get && context.ready => return Response::plain(200, "Fairway is ready.\n"),
        "/-/ready" if get => return Response::plain(503, "Fairway is not ready yet.\n"),
        "/federate" if get && context.ready => return federate::federate(context, request),
        "/federate" if get => return Response::plain(503, "Fairway is not ready yet.\n"),
        "/-/healthy" | "/-/ready" | "/federate" => return Response::plain(405, "Method Not Allowed\n"),
        _ => {}
    }
    let Some(path) = request.path.strip_prefix("/api/v1/") else { return Response::not_found() };
    let name = path.strip_prefix("label/").and_then(|rest| rest.strip_suffix("/values"));
    let endpoint = ENDPOINTS.iter().find(|(known, ..)| *known == path);
    let (methods, run): (Methods, Run<'_>) = match (name, endpoint) {
        (Some(name), _) if !name.is_empty() && !name.contains('/') => (Methods::Get, &|params| {
            labels::values(context, params, &unescaped(name, false).unwrap_or_default())
        }),
        (_, Some((_, methods, run))) => (*methods, &|params| run(context, params)),
        (_, None) => return Response::not_found(),
    };
    if !(get || post && methods == Methods::GetAndPost) {
        return Response::plain(405, "Method Not Allowed\n");
    }
    if !context.ready {
        return respond(Err(ApiError::new(Class::Unavailable, "the metrics are not ready to be asked yet")));
    }
    respond(run(&Params::of(request)))
}
