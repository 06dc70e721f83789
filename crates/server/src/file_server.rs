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
    let path = decoded(request.uri().path());
    if path.split('/').any(|segment| segment.starts_with('.') && segment != ".well-known") {
        return Ok(StatusCode::NOT_FOUND.into_response());
    }
    let mut response = next.run(request).await;
    if is_page_in_place_of_an_asset(&path, &response) {
        return Ok((StatusCode::NOT_FOUND, [(header::CACHE_CONTROL, "no-cache")]).into_response());
    }
    if response.status().is_success() && !response.headers().contains_key(header::CACHE_CONTROL) {
        response.headers_mut().insert(header::CACHE_CONTROL, caching(&path));
    }
    Ok(response)
}

/// As the file system will be asked: `/%2eenv` is `/.env`.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A page of the release before asks for a file that is no more. The application's start page in its place, under a
/// name that is cached for a year, would break that browser for a year.
fn is_page_in_place_of_an_asset(path: &str, response: &Response<Body>) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_page = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    response.status().is_success() && is_page && is_hashed(name) && !name.ends_with(".html")
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
    use std::io::{Read, Write};

    use super::*;

    /// Status and cache rule of one GET.
    async fn ask(dir: &Path, path: &str) -> (u16, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(axum::serve(listener, router(dir, true)).into_future());
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let answer = answer.await.unwrap();
        server.abort();
        let cache = answer.lines().find_map(|line| line.strip_prefix("cache-control: ")).unwrap_or_default();
        (answer[9..12].parse().unwrap(), cache.to_owned())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn hidden_files_stay_hidden_however_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("index.html"), "page").unwrap();
        std::fs::write(dir.path().join(".env"), "KEY=1").unwrap();
        for path in ["/.env", "/%2eenv", "/%2Eenv", "/a/../.env", "/%2e%2e/.env"] {
            assert_eq!(ask(dir.path(), path).await.0, 404, "{path}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_start_page_never_stands_in_for_an_asset_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("index.html"), "page").unwrap();
        std::fs::write(dir.path().join("index-NewHash1.js"), "code").unwrap();
        assert_eq!(ask(dir.path(), "/index-OldHash1.js").await, (404, "no-cache".to_owned()));
        let year = "public, max-age=31536000, immutable".to_owned();
        assert_eq!(ask(dir.path(), "/index-NewHash1.js").await, (200, year));
        assert_eq!(ask(dir.path(), "/orders/7").await, (200, "no-cache".to_owned()));
    }

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
