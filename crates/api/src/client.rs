//! The HTTP client of the API. One connection a request: commands are rare and streams are long.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};

use crate::{
    Accepted, AlertList, ApiError, CertificateStatus, ChannelInfo, ChannelTest, CheckResult, Command,
    DeployRequest, EnvironmentStatus, Event, ExecFrame, ExecRequest, Exported, GcReport, JobInfo, JobRequest,
    LogLine, LogQuery, Plan, PurgeReport, PurgeRequest, RolloutInfo, SecretInfo, SecretValue, SilenceInfo,
    SilenceRequest, SloInfo, Status, UpgradeReport, UpgradeRequest,
};

/// A line of a stream longer than this is not one of ours: log lines are cut at 64 KiB before they are stored.
const LINE_LEN_MAX: usize = 1 << 20;
/// An answer that is not a stream: the largest is a status with some hundred instances.
const ANSWER_LEN_MAX: usize = 16 << 20;
/// To a server on the same machine; a longer silence means that nobody is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub type Body = BoxBody<Bytes, std::io::Error>;

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Unix(PathBuf),
    Tcp { address: String, token: Option<String> },
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "{}", path.display()),
            Endpoint::Tcp { address, .. } => write!(f, "http://{address}"),
        }
    }
}

#[derive(Debug, Error)]
pub enum ClientError {
    #[error("no Fairway server answers at {endpoint}")]
    NotRunning { endpoint: Endpoint, source: std::io::Error },
    /// The server said no.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The connection ended before the answer: the outcome is not known.
    #[error("the connection to the server ended before it answered")]
    Interrupted { source: hyper::Error },
    #[error("the server answered something that is not Fairway's API: {what}")]
    Protocol { what: String },
}

/// A project and one of its environments, as they stand in paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub project: String,
    pub environment: String,
}

impl Target {
    fn path(&self, rest: &str) -> String {
        format!("/v1/projects/{}/environments/{}/{rest}", self.project, self.environment)
    }
}

#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
}

impl Client {
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    pub async fn environment(&self, target: &Target) -> Result<EnvironmentStatus, ClientError> {
        self.get(&target.path("status")).await
    }

    pub async fn plan(&self, target: &Target, request: &DeployRequest) -> Result<Plan, ClientError> {
        self.send(Method::POST, &target.path("plan"), request).await
    }

    pub async fn deploy(&self, target: &Target, request: &DeployRequest) -> Result<Accepted, ClientError> {
        self.send(Method::POST, &target.path("deploy"), request).await
    }

    pub async fn command(&self, target: &Target, command: &Command) -> Result<Accepted, ClientError> {
        self.send(Method::POST, &target.path("commands"), command).await
    }

    /// Empties the caches before an environment.
    pub async fn purge(&self, target: &Target, request: &PurgeRequest) -> Result<PurgeReport, ClientError> {
        self.send(Method::POST, &target.path("purge"), request).await
    }

    pub async fn history(&self, target: &Target) -> Result<Vec<RolloutInfo>, ClientError> {
        self.get(&target.path("history")).await
    }

    pub async fn run_job(&self, target: &Target, request: &JobRequest) -> Result<Accepted, ClientError> {
        self.send(Method::POST, &target.path("jobs"), request).await
    }

    pub async fn job(&self, target: &Target, number: u32) -> Result<JobInfo, ClientError> {
        self.get(&target.path(&format!("jobs/{number}"))).await
    }

    pub async fn check(&self, target: &Target) -> Result<Vec<CheckResult>, ClientError> {
        self.get(&target.path("check")).await
    }

    pub async fn secrets(&self, target: &Target) -> Result<Vec<SecretInfo>, ClientError> {
        self.get(&target.path("secrets")).await
    }

    pub async fn set_secret(
        &self,
        target: &Target,
        name: &str,
        value: &SecretValue,
    ) -> Result<SecretInfo, ClientError> {
        self.send(Method::PUT, &target.path(&format!("secrets/{name}")), value).await
    }

    pub async fn unset_secret(&self, target: &Target, name: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, &target.path(&format!("secrets/{name}")), &()).await
    }

    pub async fn alerts(&self, target: &Target) -> Result<AlertList, ClientError> {
        self.get(&target.path("alerts")).await
    }

    pub async fn silences(&self, target: &Target) -> Result<Vec<SilenceInfo>, ClientError> {
        self.get(&target.path("alerts/silences")).await
    }

    pub async fn silence(
        &self,
        target: &Target,
        request: &SilenceRequest,
    ) -> Result<SilenceInfo, ClientError> {
        self.send(Method::POST, &target.path("alerts/silences"), request).await
    }

    pub async fn unsilence(&self, target: &Target, id: &str) -> Result<SilenceInfo, ClientError> {
        let path = target.path(&format!("alerts/silences/{}", percent_encode(id)));
        self.send(Method::DELETE, &path, &()).await
    }

    pub async fn channels(&self, target: &Target) -> Result<Vec<ChannelInfo>, ClientError> {
        self.get(&target.path("alerts/channels")).await
    }

    pub async fn test_channel(&self, target: &Target, name: &str) -> Result<ChannelTest, ClientError> {
        let path = target.path(&format!("alerts/channels/{}/test", percent_encode(name)));
        self.send(Method::POST, &path, &()).await
    }

    pub async fn slos(&self, target: &Target) -> Result<Vec<SloInfo>, ClientError> {
        self.get(&target.path("slo")).await
    }

    /// Tries a certificate that could not be had again at once.
    pub async fn retry_certificate(
        &self,
        target: &Target,
        name: &str,
    ) -> Result<CertificateStatus, ClientError> {
        self.send(Method::POST, &target.path(&format!("certificates/{name}/retry")), &()).await
    }

    /// `what`: `prometheus`, `grafana` or `alertmanager`.
    pub async fn export(&self, target: &Target, what: &str) -> Result<Exported, ClientError> {
        self.get(&target.path(&format!("export/{what}"))).await
    }

    pub async fn gc(&self, dry_run: bool) -> Result<GcReport, ClientError> {
        self.send(Method::POST, &format!("/v1/gc?dry_run={dry_run}"), &()).await
    }

    /// Puts another program in the server's and the proxy's place.
    pub async fn upgrade(&self, request: &UpgradeRequest) -> Result<UpgradeReport, ClientError> {
        self.send(Method::POST, "/v1/upgrade", request).await
    }

    /// Which of these blobs (64 hex digits) the server does not have.
    pub async fn missing_blobs(&self, digests: &[String]) -> Result<Vec<String>, ClientError> {
        self.send(Method::POST, "/v1/blobs/missing", digests).await
    }

    pub async fn put_blob(&self, digest: &str, body: Body) -> Result<(), ClientError> {
        let response = self.request(Method::PUT, &format!("/v1/blobs/{digest}"), None, body).await?;
        read_json(response).await
    }

    /// Events after `after`, then live ones when `follow`.
    pub async fn events(
        &self,
        target: &Target,
        after: u64,
        follow: bool,
    ) -> Result<Lines<Event>, ClientError> {
        self.stream(&target.path(&format!("events?after={after}&follow={follow}"))).await
    }

    pub async fn logs(&self, target: &Target, query: &LogQuery) -> Result<Lines<LogLine>, ClientError> {
        let mut path = target.path(&format!("logs?follow={}", query.follow));
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", percent_encode(&value)));
            }
        };
        add("service", query.service.clone());
        add("release", query.release.clone());
        add("instance", query.instance.clone());
        add("job", query.job.map(|job| job.to_string()));
        add("since_ms", query.since_ms.map(|since| since.to_string()));
        add("grep", query.grep.clone());
        add("limit", query.limit.map(|limit| limit.to_string()));
        self.stream(&path).await
    }

    /// Runs a command in an instance; `stdin` is read until its end.
    pub async fn exec(
        &self,
        target: &Target,
        request: &ExecRequest,
        stdin: Body,
    ) -> Result<Lines<ExecFrame>, ClientError> {
        let header =
            serde_json::to_string(request).map_err(|e| ClientError::Protocol { what: e.to_string() })?;
        let header = ("fairway-exec", percent_encode(&header));
        let response = self.request(Method::POST, &target.path("exec"), Some(header), stdin).await?;
        Ok(Lines::new(check(response).await?.into_body()))
    }

    /// Any path, as text: `/metrics`.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let response = self.request(Method::GET, path, None, empty()).await?;
        let bytes = read_all(check(response).await?.into_body()).await?;
        String::from_utf8(bytes).map_err(|e| ClientError::Protocol { what: e.to_string() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        read_json(self.request(Method::GET, path, None, empty()).await?).await
    }

    async fn send<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let json = serde_json::to_vec(body).map_err(|e| ClientError::Protocol { what: e.to_string() })?;
        let body = Full::new(Bytes::from(json)).map_err(|never| match never {}).boxed();
        read_json(self.request(method, path, None, body).await?).await
    }

    async fn stream<T: DeserializeOwned>(&self, path: &str) -> Result<Lines<T>, ClientError> {
        let response = self.request(Method::GET, path, None, empty()).await?;
        Ok(Lines::new(check(response).await?.into_body()))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        header: Option<(&str, String)>,
        body: Body,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "fairway")
            .header("content-type", "application/json");
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        if let Endpoint::Tcp { token: Some(token), .. } = &self.endpoint {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(body).map_err(|e| ClientError::Protocol { what: e.to_string() })?;
        match &self.endpoint {
            Endpoint::Unix(path) => {
                let stream = self.timed(connect_unix(path)).await?;
                exchange(TokioIo::new(stream), request).await
            }
            Endpoint::Tcp { address, .. } => {
                let stream = self.timed(TcpStream::connect(address)).await?;
                exchange(TokioIo::new(stream), request).await
            }
        }
    }

    async fn timed<S>(&self, connect: impl Future<Output = std::io::Result<S>>) -> Result<S, ClientError> {
        let not_running = |source| ClientError::NotRunning { endpoint: self.endpoint.clone(), source };
        tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(not_running)
    }
}

/// Connects to a unix socket whose path may be longer than the 107 bytes that an address holds.
pub async fn connect_unix(path: &Path) -> std::io::Result<UnixStream> {
    use std::os::fd::AsRawFd;

    const SUN_PATH_MAX: usize = 107;
    if path.as_os_str().len() <= SUN_PATH_MAX {
        return UnixStream::connect(path).await;
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    // The descriptor stays open until the connection is there.
    let directory = std::fs::File::open(directory)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short).await
}

async fn exchange<S>(stream: TokioIo<S>, request: Request<Body>) -> Result<Response<Incoming>, ClientError>
where
    TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let interrupted = |source| ClientError::Interrupted { source };
    let (mut sender, connection) = http1::handshake(stream).await.map_err(interrupted)?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(interrupted)
}

#[must_use]
pub fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}

#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

async fn check(response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let bytes = read_all(response.into_body()).await?;
    match serde_json::from_slice::<ApiError>(&bytes) {
        Ok(error) => Err(ClientError::Api(error)),
        Err(_) => Err(ClientError::Protocol {
            what: format!(
                "{status}: {}",
                String::from_utf8_lossy(&bytes).chars().take(200).collect::<String>()
            ),
        }),
    }
}

async fn read_json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    let bytes = read_all(check(response).await?.into_body()).await?;
    let json: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
    serde_json::from_slice(json).map_err(|e| ClientError::Protocol { what: e.to_string() })
}

async fn read_all(mut body: Incoming) -> Result<Vec<u8>, ClientError> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| ClientError::Interrupted { source })?;
        if let Some(data) = frame.data_ref() {
            all.extend_from_slice(data);
        }
        if all.len() > ANSWER_LEN_MAX {
            return Err(ClientError::Protocol {
                what: format!("an answer of more than {ANSWER_LEN_MAX} bytes"),
            });
        }
    }
    Ok(all)
}

/// A stream of JSON lines.
#[derive(Debug)]
pub struct Lines<T> {
    body: Incoming,
    buffer: Vec<u8>,
    read: usize,
    of: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    fn new(body: Incoming) -> Self {
        Self { body, buffer: Vec::new(), read: 0, of: std::marker::PhantomData }
    }

    /// The next item; `None` at the end of the stream. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the connection breaks or a line is not what it should be.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer[self.read..].iter().position(|byte| *byte == b'\n') {
                let line = &self.buffer[self.read..self.read + end];
                let item = if line.is_empty() { None } else { Some(serde_json::from_slice(line)) };
                self.read += end + 1;
                if self.read == self.buffer.len() {
                    self.buffer.clear();
                    self.read = 0;
                }
                match item {
                    // An empty line is a sign of life.
                    None => continue,
                    Some(Ok(item)) => return Ok(Some(item)),
                    Some(Err(e)) => return Err(ClientError::Protocol { what: e.to_string() }),
                }
            }
            if self.buffer.len() - self.read > LINE_LEN_MAX {
                return Err(ClientError::Protocol {
                    what: format!("a line of more than {LINE_LEN_MAX} bytes"),
                });
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(source)) => return Err(ClientError::Interrupted { source }),
                Some(Ok(frame)) => {
                    if let Ok(mut data) = frame.into_data() {
                        self.buffer.drain(..self.read);
                        self.read = 0;
                        while data.has_remaining() {
                            let chunk = data.chunk();
                            let length = chunk.len();
                            self.buffer.extend_from_slice(chunk);
                            data.advance(length);
                        }
                    }
                }
            }
        }
    }
}

#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
