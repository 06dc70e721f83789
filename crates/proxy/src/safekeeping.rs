//! Listening sockets in safekeeping.
//!
//! A socket lives as long as somebody holds it, and with it the connections that wait to be accepted. So whoever starts
//! proxies also holds the sockets of the one that runs: when that one dies, the next is started with them
//! ([`RunOptions::sockets`](crate::RunOptions)), and who connects in between waits for a moment instead of being
//! refused. The idea is systemd's (`FDSTORE=1`, `sd_notify(3)`), which holds them for services of its own only.
//!
//! Over `sockets.sock` in the state directory the proxy sends all that it listens on, and again whenever that changes:
//! one message each time ([`passing`]). A proxy that ends in good order sends none before.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::accept::accept;
use crate::passing;

pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("sockets.sock")
}

/// What is listened on now.
pub(crate) type Shown = watch::Receiver<Arc<Vec<TcpListener>>>;

/// Shows the sockets to whoever asks, until it is aborted.
pub(crate) async fn serve(listener: UnixListener, shown: Shown) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    // Only the newest: one server has the directory at a time, and it connects anew when it has lost the control socket.
    let mut keeper = JoinSet::new();
    loop {
        let stream = accept(&listener).await;
        keeper.shutdown().await;
        keeper.spawn(show(stream, shown.clone()));
    }
}

async fn show(mut stream: UnixStream, mut shown: Shown) -> io::Result<()> {
    loop {
        let sockets = Arc::clone(&shown.borrow_and_update());
        stream.async_io(Interest::WRITABLE, || passing::send(&stream, &*sockets)).await?;
        tokio::select! {
            changed = shown.changed() => changed.map_err(io::Error::other)?,
            () = end_of(&mut stream) => return Ok(()),
        }
    }
}

/// A keeper says nothing of which more than its end is of interest.
async fn end_of(stream: &mut UnixStream) {
    while let Ok(1..) = stream.read(&mut [0; 64]).await {}
}

/// Holds what a proxy listens on.
#[derive(Debug)]
pub struct Keeper(UnixStream);

impl Keeper {
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When no proxy runs in the directory, or one that shows nothing.
    pub fn connect(state_dir: &Path) -> io::Result<Self> {
        let stream = crate::control::connect_path(&path(state_dir))?;
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream).map(Self)
    }

    /// Everything that the proxy listens on, once that is known or has changed.
    ///
    /// # Errors
    /// When the proxy is gone.
    pub async fn next(&mut self) -> io::Result<Vec<TcpListener>> {
        self.0.async_io(Interest::READABLE, || passing::receive(&self.0)).await
    }
}
