//! Connections: accepted, served, and drained without losing a request.

use std::convert::Infallible;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::answer::{self, Answer, Found, HEALTH_PATH, Send};
use super::body::FileBody;
use super::path;
use super::shelf::Shelf;
use super::site::Site;
use crate::warn::warn;

/// A connection without a request is kept for this long: well over the four seconds after which the proxy closes one
/// that it does not use, so that it is always the proxy who closes.
const IDLE_MAX: Duration = Duration::from_secs(75);

/// The same while draining. The proxy has let go of them before the signal; a moment longer than its four seconds is
/// for one that had not heard.
const IDLE_DRAINING_MAX: Duration = Duration::from_secs(5);

/// The largest head, and how much of an answer waits for a slow connection.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Of the body of a request that files have no use for. A connection that is closed with unread bytes is reset, and the
/// answer is lost with it; beyond this, it is the sender's loss.
const UNWANTED_BYTES_MAX: usize = 16 << 20;
const UNWANTED_WAIT_MAX: Duration = Duration::from_secs(10);

/// Without a descriptor or memory for one more connection: until one of the others ends.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// One release of a site, and what lies beside it.
#[derive(Debug)]
pub(super) struct Server {
    site: Site,
    /// Held open: the files of this release, even when another directory takes their place.
    root: OwnedFd,
    shelf: Option<Mutex<Shelf>>,
}

impl Server {
    /// # Errors
    /// When the directory is not there.
    pub(super) fn new(site: Site, shelf: Option<Shelf>) -> io::Result<Self> {
        let root = open_root(&site)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", site.root.display())))?;
        Ok(Self { site, root, shelf: shelf.map(Mutex::new) })
    }

    async fn respond(self: &Arc<Self>, request: Request<()>) -> Response<FileBody> {
        let (request, ()) = request.into_parts();
        let (method, headers) = (&request.method, &request.headers);
        if *method != Method::GET && *method != Method::HEAD {
            return self.send(answer::method_not_allowed(method), None, method).await;
        }
        if request.uri.path() == HEALTH_PATH {
            let (status, words) = match rustix::fs::stat(&self.site.root) {
                Ok(_) => (StatusCode::OK, "ok\n"),
                Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the files are gone\n"),
            };
            return self.send(answer::plain(status, method, words), None, method).await;
        }
        let wanted = match path::parse(request.uri.path()) {
            Ok(wanted) => wanted,
            Err(why) => return self.send(answer::refused(why, method), None, method).await,
        };
        let site = &self.site;
        let answer = match answer::find(site, &wanted, headers) {
            Found::File { path, why } => answer::file(site, &path, why, method, headers),
            Found::Directory { location } => Some(answer::redirect(&location, request.uri.query(), method)),
            Found::Asset { path } => {
                for other in self.others().await {
                    let Some(answer) = answer::file(&other, path, answer::Why::Asked, method, headers) else {
                        continue;
                    };
                    // Its tree may be gone by now; another release may have the same.
                    let Ok(root) = open_root(&other) else { continue };
                    return self.send(answer, Some(root), method).await;
                }
                None
            }
            Found::Nothing => None,
        };
        let answer = answer.unwrap_or_else(|| answer::not_found(site, method, headers));
        self.send(answer, None, method).await
    }

    async fn others(self: &Arc<Self>) -> Vec<Arc<Site>> {
        if self.shelf.is_none() {
            return Vec::new();
        }
        let server = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let shelf = server.shelf.as_ref()?;
            Some(shelf.lock().unwrap_or_else(PoisonError::into_inner).sites())
        });
        read.await.ok().flatten().unwrap_or_default()
    }

    /// With the file that belongs to it, below `root` or this release's own.
    async fn send(&self, answer: Answer, root: Option<OwnedFd>, method: &Method) -> Response<FileBody> {
        let Answer { head, send } = answer;
        let body = match send {
            Send::Nothing => FileBody::empty(),
            Send::Text(text) => FileBody::text(text),
            Send::File { path, bytes, range } => {
                let opened = match &root {
                    Some(root) => open(root, &path, bytes).await,
                    None => open(&self.root, &path, bytes).await,
                };
                match opened {
                    Ok(file) => FileBody::part(file, range),
                    Err(error) => return failed(&path, &error, method),
                }
            }
        };
        head.map(|()| body)
    }
}

fn failed(path: &str, error: &io::Error, method: &Method) -> Response<FileBody> {
    warn(format_args!("{path}: {error}"));
    let is_busy = matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM));
    let (status, words) = if is_busy {
        (StatusCode::SERVICE_UNAVAILABLE, "too many downloads at once\n")
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n")
    };
    let Answer { mut head, send } = answer::plain(status, method, words);
    if is_busy {
        head.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    head.map(|()| if send == Send::Nothing { FileBody::empty() } else { FileBody::text(words) })
}

fn open_root(site: &Site) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(&site.root, flags, Mode::empty())?)
}

/// The file at `path` below `root`, which must be the one that is known: a name of the site has no symlink in it.
async fn open(root: &OwnedFd, path: &str, bytes: u64) -> io::Result<File> {
    let file = match open_with(root, path, ResolveFlags::CACHED) {
        // Its directories are not in memory.
        Err(Errno::AGAIN | Errno::INVAL) => {
            let (root, path) = (root.try_clone()?, path.to_owned());
            let open = move || open_with(&root, &path, ResolveFlags::empty());
            tokio::task::spawn_blocking(open).await.map_err(io::Error::other)?
        }
        opened => opened,
    }?;
    let found = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile
        || u64::try_from(found.st_size) != Ok(bytes)
    {
        return Err(io::Error::other("it is not the file that was deployed"));
    }
    Ok(File::from(file))
}

fn open_with(root: &OwnedFd, path: &str, more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    // Whatever lies there by now: opening a pipe waits for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve | more) {
        // An old kernel, or a sandbox that does not know the call. That the path has no symlink is known from the tree.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(root, path, flags, Mode::empty()),
        opened => opened,
    }
}

/// Serves until `stop`, then until the last request has been answered.
pub(super) async fn run(listener: TcpListener, server: Arc<Server>, stop: impl Future<Output = ()>) {
    let (drain, draining) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            stream = accept(&listener) => {
                connections.spawn(connection(stream, Arc::clone(&server), draining.clone()));
            }
        }
    }
    drain.send_replace(true);
    // What was on its way when the signal came is still answered: a listener that is closed resets it.
    loop {
        tokio::select! {
            biased;
            stream = accept(&listener) => {
                connections.spawn(connection(stream, Arc::clone(&server), draining.clone()));
            }
            ended = connections.join_next() => {
                if ended.is_none() {
                    return;
                }
            }
        }
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(_) => sleep(ACCEPT_AGAIN).await,
        }
    }
}

async fn connection(stream: TcpStream, server: Arc<Server>, mut draining: watch::Receiver<bool>) {
    let told = draining.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, told) = (Arc::clone(&server), told.clone());
        async move { Ok::<_, Infallible>(exchange(&server, request, &told).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX).max_buf_size(BUFFER_BYTES_MAX);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = draining.wait_for(|draining| *draining) => {}
    }
    // A request may be on its way on a connection that looks idle: it is answered, and the answer closes. Only who
    // sends nothing for longer than the proxy keeps a connection is closed from here.
    if timeout_at(Instant::now() + IDLE_DRAINING_MAX, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

async fn exchange(
    server: &Arc<Server>,
    request: Request<Incoming>,
    draining: &watch::Receiver<bool>,
) -> Response<FileBody> {
    let (head, body) = request.into_parts();
    let is_read = body.is_end_stream() || {
        // Who asks before sending has the answer first.
        !head.headers.contains_key(header::EXPECT)
            && timeout(UNWANTED_WAIT_MAX, discard(body)).await.unwrap_or(false)
    };
    let mut response = server.respond(Request::from_parts(head, ())).await;
    if !is_read || *draining.borrow() {
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    response
}

/// Whether all of it came, and was not too much.
async fn discard(mut body: Incoming) -> bool {
    let mut left = UNWANTED_BYTES_MAX;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let bytes = frame.data_ref().map_or(0, bytes::Bytes::len);
        match left.checked_sub(bytes) {
            Some(less) => left = less,
            None => return false,
        }
    }
    true
}
