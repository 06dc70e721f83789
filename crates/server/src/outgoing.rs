//! The one HTTP client for everything that Fairway asks of others: scrapes, a Prometheus elsewhere, messages to
//! channels.
//!
//! Every request has an end (a time and a size), redirects are not followed (a secret in an address must not travel to
//! wherever an answer points), and an error names the host and the cause, never the path: webhook addresses are
//! secrets. Connections are kept and used again.

use std::io::Read;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::Method;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;

mod address;
#[cfg(test)]
pub(crate) mod peer;
#[cfg(test)]
mod tests;

use address::Address;

/// A machine that does not take a connection within this time is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// For the whole exchange, where the caller has no wish of its own.
const WITHIN: Duration = Duration::from_secs(15);

/// Where the caller has no wish of its own: an answer to a message is a line.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Longer than a scrape interval, so that a target keeps its connection.
const IDLE_KEPT: Duration = Duration::from_secs(90);

/// Scrapes of one target do not overlap; a burst of queries may open more, which are closed again.
const IDLE_PER_HOST_MAX: usize = 2;

const USER_AGENT: &str = concat!("fairway/", env!("CARGO_PKG_VERSION"));

/// Whose certificates are believed.
#[derive(Clone, Debug, Default)]
pub enum Roots {
    /// The machine's (`SSL_CERT_FILE` and `SSL_CERT_DIR` are respected).
    #[default]
    System,
    These(Vec<CertificateDer<'static>>),
}

type Connect<C> = Client<C, Full<Bytes>>;

/// Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Outgoing {
    plain: Connect<HttpConnector>,
    /// Made when it is first needed: reading the machine's certificates takes milliseconds and a megabyte.
    secure: Arc<OnceLock<Result<Connect<HttpsConnector<HttpConnector>>, String>>>,
    roots: Roots,
}

/// Use [`Request::get`] or [`Request::post`], and change what should be different.
#[derive(Clone)]
pub struct Request {
    pub method: Method,
    /// `http://` or `https://`; `user:password@` becomes basic authentication.
    pub url: String,
    pub headers: Vec<(HeaderName, String)>,
    pub body: Bytes,
    /// For everything from the name lookup to the last byte.
    pub within: Duration,
    /// Of the answer's body, decompressed.
    pub answer_bytes_max: usize,
    /// Whether the answer may come compressed.
    pub gzip: bool,
}

/// The address may be a secret, and so may headers and body.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Request({} to {})", self.method, address::host_of(&self.url))
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    /// 100 to 599. An error status is an answer, too.
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutgoingError {
    #[error("not an address that can be asked: {why}")]
    Address { why: String },
    #[error("{host}: no connection: {why}")]
    Connect { host: String, why: String },
    #[error("{host}: no answer within {} s", within.as_secs_f32())]
    Timeout { host: String, within: Duration },
    #[error("{host}: the connection broke: {why}")]
    Broken { host: String, why: String },
    #[error("{host}: the answer has more than {limit} bytes")]
    TooLarge { host: String, limit: usize },
    #[error("{host}: the answer is no valid gzip: {why}")]
    Gzip { host: String, why: String },
    #[error("no TLS on this machine: {why}")]
    NoRoots { why: String },
}

impl OutgoingError {
    /// Whether the other side may have taken the request although no answer came.
    #[must_use]
    pub fn perhaps_taken(&self) -> bool {
        match self {
            Self::Address { .. } | Self::Connect { .. } | Self::NoRoots { .. } => false,
            Self::Timeout { .. } | Self::Broken { .. } | Self::TooLarge { .. } | Self::Gzip { .. } => true,
        }
    }
}

impl Request {
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            url: url.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            within: WITHIN,
            answer_bytes_max: ANSWER_BYTES_MAX,
            gzip: true,
        }
    }

    #[must_use]
    pub fn post(url: impl Into<String>, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::POST,
            headers: vec![(header::CONTENT_TYPE, content_type.to_owned())],
            body: body.into(),
            ..Self::get(url)
        }
    }
}

impl Answer {
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The pause that the other side asked for, in the form of seconds.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.header(&header::RETRY_AFTER)?.trim().parse().ok().map(Duration::from_secs)
    }

    /// The beginning of the body as one line, for an error message.
    #[must_use]
    pub fn excerpt(&self) -> String {
        /// A sentence or two; error pages are long.
        const CHARS_MAX: usize = 200;
        // A character has at most four bytes, and a space may stand for many.
        let start = self.body.get(..CHARS_MAX * 16).unwrap_or(&self.body);
        let text = String::from_utf8_lossy(start);
        let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
        let line: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        line.join(" ").chars().take(CHARS_MAX).collect()
    }
}

impl Outgoing {
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self { plain: pool().build(tcp()), secure: Arc::new(OnceLock::new()), roots }
    }

    #[must_use]
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// # Errors
    /// When no whole answer came within the bounds. A status that says no is no error.
    pub async fn get(&self, url: &str) -> Result<Answer, OutgoingError> {
        self.send(Request::get(url)).await
    }

    /// # Errors
    /// As [`Self::get`].
    pub async fn post(
        &self,
        url: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<Answer, OutgoingError> {
        self.send(Request::post(url, content_type, body)).await
    }

    /// # Errors
    /// As [`Self::get`].
    pub async fn send(&self, request: Request) -> Result<Answer, OutgoingError> {
        let address = Address::parse(&request.url)?;
        let within = request.within;
        let host = address.host.clone();
        tokio::time::timeout(within, self.exchange(request, address))
            .await
            .unwrap_or(Err(OutgoingError::Timeout { host, within }))
    }

    async fn exchange(&self, request: Request, address: Address) -> Result<Answer, OutgoingError> {
        let Address { uri, host, secure, authorization } = address;
        let unusable = |what: &str| OutgoingError::Address { why: format!("{host}: {what}") };
        let mut wanted = hyper::Request::new(Full::new(request.body));
        *wanted.method_mut() = request.method;
        *wanted.uri_mut() = uri;
        let headers = wanted.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if request.gzip {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let authorization = authorization.map(|value| (header::AUTHORIZATION, value));
        for (name, value) in authorization.into_iter().chain(request.headers) {
            let value = HeaderValue::from_str(&value);
            let mut value =
                value.map_err(|_| unusable("a header has characters that do not belong there"))?;
            value.set_sensitive(name == header::AUTHORIZATION);
            headers.insert(name, value);
        }
        let answer =
            if secure { self.secure()?.request(wanted).await } else { self.plain.request(wanted).await };
        let answer = answer.map_err(|error| {
            let (host, why) = (host.clone(), cause(&error));
            if error.is_connect() {
                OutgoingError::Connect { host, why }
            } else {
                OutgoingError::Broken { host, why }
            }
        })?;
        let (head, mut body) = answer.into_parts();
        let limit = request.answer_bytes_max;
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| OutgoingError::Broken { host: host.clone(), why: cause(&error) })?;
            let Ok(data) = frame.into_data() else { continue };
            if read.len() + data.len() > limit {
                return Err(OutgoingError::TooLarge { host, limit });
            }
            read.extend_from_slice(&data);
        }
        let mut headers = head.headers;
        let packed = headers.get(header::CONTENT_ENCODING).is_some_and(|value| value == "gzip");
        let body = if packed {
            headers.remove(header::CONTENT_ENCODING);
            headers.remove(header::CONTENT_LENGTH);
            unpack(&read, limit, &host)?
        } else {
            read.freeze()
        };
        Ok(Answer { status: head.status.as_u16(), headers, body })
    }

    fn secure(&self) -> Result<&Connect<HttpsConnector<HttpConnector>>, OutgoingError> {
        let secure = self.secure.get_or_init(|| {
            let tls = tls(&self.roots)?;
            let https = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls);
            Ok(pool().build(https.https_only().enable_http1().wrap_connector(tcp())))
        });
        secure.as_ref().map_err(|why| OutgoingError::NoRoots { why: why.clone() })
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_WITHIN));
    tcp
}

fn pool() -> hyper_util::client::legacy::Builder {
    let mut pool = Client::builder(TokioExecutor::new());
    pool.pool_timer(TokioTimer::new());
    pool.pool_idle_timeout(IDLE_KEPT).pool_max_idle_per_host(IDLE_PER_HOST_MAX);
    pool
}

fn tls(roots: &Roots) -> Result<rustls::ClientConfig, String> {
    let mut store = rustls::RootCertStore::empty();
    match roots {
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                let cause = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
                return Err(format!("it has no certificates to believe (package ca-certificates){cause}"));
            }
        }
        Roots::These(certificates) => {
            store.add_parsable_certificates(certificates.iter().cloned());
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| error.to_string())?;
    Ok(versions.with_root_certificates(store).with_no_client_auth())
}

/// `limit` holds for what comes out: a small answer can unpack to gigabytes.
fn unpack(packed: &[u8], limit: usize, host: &str) -> Result<Bytes, OutgoingError> {
    let mut unpacked = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = flate2::read::MultiGzDecoder::new(packed).take(most).read_to_end(&mut unpacked);
    read.map_err(|error| OutgoingError::Gzip { host: host.to_owned(), why: error.to_string() })?;
    if unpacked.len() > limit {
        return Err(OutgoingError::TooLarge { host: host.to_owned(), limit });
    }
    Ok(unpacked.into())
}

/// The innermost cause says what happened ("connection refused"); what is around it says where in the client.
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
