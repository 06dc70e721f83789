//! The static file role: a directory of an artifact over HTTP, on loopback, behind the proxy.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use tower_http::services::{ServeDir, ServeFile};

/// Serves until told to stop.
///
/// # Errors
/// When the directory is not there or the port is taken.
pub async fn serve(dir: PathBuf, port: u16, spa: bool) -> std::io::Result<()> {
    if !dir.is_dir() {
        let message = format!("{} is not a directory", dir.display());
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, message));
    }
    let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    let router = router(&dir, spa);
    let stop = async {
        let signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        if let Ok(mut signal) = signal {
            signal.recv().await;
        }
    };
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

fn router(dir: &Path, spa: bool) -> Router {
    let files = ServeDir::new(dir).append_index_html_on_directories(true);
    let router = if spa {
        // Whatever is not a file is a place in the application, which finds its way by itself.
        Router::new().fallback_service(files.fallback(ServeFile::new(dir.join("index.html"))))
    } else {
        Router::new().fallback_service(files)
    };
    router.layer(from_fn(rules))
}

async fn rules(request: Request<Body>, next: Next) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if path.split('/').any(|segment| segment.starts_with('.') && segment != ".well-known") {
        return Ok(StatusCode::NOT_FOUND.into_response());
    }
    let mut response = next.run(request).await;
    if response.status().is_success() && !response.headers().contains_key(header::CACHE_CONTROL) {
        response.headers_mut().insert(header::CACHE_CONTROL, caching(&path));
    }
    Ok(response)
}

/// A name with a content hash never changes its content; anything else is asked for again.
fn caching(path: &str) -> HeaderValue {
    let name = path.rsplit('/').next().unwrap_or_default();
    if is_hashed(name) {
        HeaderValue::from_static("public, max-age=31536000, immutable")
    } else {
        HeaderValue::from_static("no-cache")
    }
}

/// `index-DiwrgTda.js`, `app.3f2a9c1b.css`: eight or more letters and digits, a digit or a capital among them, between
/// the name and its ending, as the common bundlers write them.
fn is_hashed(name: &str) -> bool {
    let Some((stem, _)) = name.rsplit_once('.') else { return false };
    let Some((_, hash)) = stem.rsplit_once(['-', '.']) else { return false };
    hash.len() >= 8
        && hash.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && hash.chars().any(|c| c.is_ascii_digit() || c.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::is_hashed;

    #[test]
    fn only_names_with_a_hash_are_cached_for_long() {
        for hashed in ["index-DiwrgTda.js", "app.3f2a9c1b.css", "logo-a1b2c3d4e5.svg"] {
            assert!(is_hashed(hashed), "{hashed}");
        }
        for plain in ["index.html", "app.js", "bootstrap.bundle.js", "jquery-3.7.1.js", "README"] {
            assert!(!is_hashed(plain), "{plain}");
        }
    }
}
