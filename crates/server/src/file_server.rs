//! The static file role: one release of a site over HTTP, on loopback, behind the proxy.
//!
//! What may be served is known before the first request ([`site`]): names with the digests of their content. A request
//! is judged against that alone ([`answer`]), so that there is no path, however it is written, that leads elsewhere.

mod answer;
mod body;
mod hashed;
mod kind;
mod negotiate;
mod path;
mod serve;
pub(crate) mod shelf;
pub(crate) mod site;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use serve::Server;
use site::{Document, Site};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Serves until told to stop: the site that a document says, or all files of a directory.
///
/// # Errors
/// When there is no such site or the port is taken.
pub async fn serve(source: PathBuf, port: u16, spa: bool) -> std::io::Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    raise_open_files();
    let server = tokio::task::spawn_blocking(move || {
        if source.is_dir() {
            let document = Document::of_directory(&source, spa)?;
            return Server::new(Site::new(document), None);
        }
        let site = Site::new(Document::read(&source)?);
        let shelf = shelf::Shelf::beside(&source).filter(|_| site.serving.old_assets);
        Server::new(site, shelf)
    });
    let server = Arc::new(server.await.map_err(std::io::Error::other)??);
    // Only now: who can connect gets answers.
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    serve::run(listener, server, async move {
        stop.recv().await;
    })
    .await;
    Ok(())
}

/// A download has a connection and a file; the usual 1,024 are gone with five hundred of them. Where it is refused, what
/// the service was given has to do.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests;
