//! From a request to what is answered: which file, which part of it, under which headers. Nothing in here waits or
//! reads the disk.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use axum::http::response::Builder;
use axum::http::{HeaderMap, Method, Response, StatusCode, header};

use super::hashed::may_be_hashed;
use super::kind;
use super::negotiate::{self, Condition, ENCODINGS, Part};
use super::path::{Refused, Wanted};
use super::site::{File, Site};

/// Where supervisors may ask whether the site can be read. No file can have this path: it is a hidden one.
pub(super) const HEALTH_PATH: &str = "/.fairway/health";

/// What a path stands for on a site.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    File {
        path: Cow<'a, str>,
        why: Why,
    },
    /// To the same path with a slash, without which relative links in the page would lead beside it.
    Directory {
        location: String,
    },
    /// Not in this release. Its name says its content, so that another release's is as good.
    Asset {
        path: &'a str,
    },
    Nothing,
}

/// Why a file is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Asked,
    /// A place in the application, which finds its way by itself.
    Visit,
}

/// As `try_files $uri $uri/index.html $uri.html /index.html` of nginx, the last one for visits alone.
pub(super) fn find<'a>(site: &'a Site, wanted: &'a Wanted, headers: &HeaderMap) -> Found<'a> {
    let (path, slash) = match wanted {
        Wanted::Hidden => return Found::Nothing,
        Wanted::NoFile => return fallback(site, None, headers),
        Wanted::Name { path, slash } => (path.as_str(), *slash),
    };
    let Some(real) = site.follow(path) else { return Found::Nothing };
    let there = |path: Cow<'a, str>| {
        let followed = match site.follow(&path)? {
            Cow::Owned(followed) => Some(followed),
            Cow::Borrowed(_) => None,
        };
        let path = followed.map_or(path, Cow::Owned);
        site.get(&path).is_some().then_some(path)
    };
    let asked = |path| Found::File { path, why: Why::Asked };
    if !slash && site.get(&real).is_some() {
        return asked(real);
    }
    let index = if real.is_empty() { "index.html".to_owned() } else { format!("{real}/index.html") };
    if let Some(index) = there(Cow::Owned(index)) {
        return if slash { asked(index) } else { Found::Directory { location: with_slash(path) } };
    }
    if !slash && let Some(page) = there(Cow::Owned(format!("{real}.html"))) {
        return asked(page);
    }
    if !slash && site.serving.old_assets && may_be_hashed(path) {
        return Found::Asset { path };
    }
    fallback(site, Some(path), headers)
}

fn fallback<'a>(site: &'a Site, path: Option<&str>, headers: &HeaderMap) -> Found<'a> {
    let is_part =
        path.is_some_and(|path| kind::is_part_of_a_page(path) || (has_ending(path) && may_be_hashed(path)));
    let is_visit = site.spa && !is_part && negotiate::is_visit(headers, path.and_then(kind::ending));
    let start = site.follow("index.html").filter(|path| site.get(path).is_some());
    match start {
        Some(path) if is_visit => Found::File { path, why: Why::Visit },
        Some(_) | None => Found::Nothing,
    }
}

fn has_ending(path: &str) -> bool {
    kind::ending(path).is_some()
}

/// Relative, so that it holds under a prefix that was taken off before the request came here, and never leads to
/// another host, as `//there/` would.
fn with_slash(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    let mut location = "./".to_owned();
    escape(name, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte), &mut location);
    location.push('/');
    location
}

fn escape(text: &str, stays: impl Fn(u8) -> bool, into: &mut String) {
    for byte in text.bytes() {
        if stays(byte) {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// A head, and the part of a file that follows it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Response<()>,
    /// What is sent of it is nothing for HEAD.
    pub(super) send: Send,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Send {
    Nothing,
    Text(&'static str),
    File {
        path: String,
        /// Of the whole file; another length on the disk is another file.
        bytes: u64,
        range: Range<u64>,
    },
}

/// A file of `site`, as `why` says.
pub(super) fn file(
    site: &Site,
    path: &str,
    why: Why,
    method: &Method,
    headers: &HeaderMap,
) -> Option<Answer> {
    let plain = site.get(path)?;
    let chosen = Chosen::new(site, path, plain, headers);
    let etag = &*chosen.file.etag;
    let mut head = Response::builder()
        .header(header::ETAG, etag)
        .header(header::CACHE_CONTROL, caching(site, path, plain));
    let vary: Vec<&str> = [(chosen.varies, "accept-encoding"), (why == Why::Visit, "accept")]
        .into_iter()
        .filter_map(|(holds, name)| holds.then_some(name))
        .collect();
    if !vary.is_empty() {
        head = head.header(header::VARY, vary.join(", "));
    }
    match negotiate::condition(headers, etag) {
        Condition::Holds => {}
        Condition::NotModified => return finish(head.status(StatusCode::NOT_MODIFIED), Send::Nothing),
        Condition::Failed => {
            let head = head.status(StatusCode::PRECONDITION_FAILED).header(header::CONTENT_LENGTH, 0);
            return finish(head, Send::Nothing);
        }
    }
    let bytes = chosen.file.bytes;
    // Defined for GET alone (RFC 9110, section 14.2).
    let part = if *method == Method::GET { negotiate::part(headers, etag, bytes) } else { Part::Whole };
    head = head.header(header::ACCEPT_RANGES, "bytes");
    let range = match part {
        Part::Whole => 0..bytes,
        Part::Of(range) => {
            let of = format!("bytes {}-{}/{bytes}", range.start, range.end.saturating_sub(1));
            head = head.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, of);
            range
        }
        Part::Unsatisfiable => {
            let head = head
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{bytes}"))
                .header(header::CONTENT_LENGTH, 0);
            return finish(head, Send::Nothing);
        }
    };
    head = head
        .header(header::CONTENT_TYPE, kind::content_type(path))
        .header(header::CONTENT_LENGTH, range.end - range.start);
    if let Some(encoding) = chosen.encoding {
        head = head.header(header::CONTENT_ENCODING, encoding);
    }
    let send = if *method == Method::HEAD {
        Send::Nothing
    } else {
        Send::File { path: chosen.path.into_owned(), bytes, range }
    };
    finish(head, send)
}

fn finish(head: Builder, send: Send) -> Option<Answer> {
    Some(Answer { head: built(head), send })
}

fn built(head: Builder) -> Response<()> {
    head.body(()).expect("every value is of visible ASCII: digits, our own words, or escaped")
}

/// Of a file and its packed siblings, the one that is sent.
struct Chosen<'a> {
    path: Cow<'a, str>,
    file: &'a File,
    encoding: Option<&'static str>,
    varies: bool,
}

impl<'a> Chosen<'a> {
    fn new(site: &'a Site, path: &'a str, plain: &'a File, headers: &HeaderMap) -> Self {
        let sibling = |ending: &str| {
            let path = format!("{path}{ending}");
            // One that is not smaller is not what it seems.
            site.get(&path).filter(|file| file.bytes < plain.bytes).map(|file| (path, file))
        };
        let itself = Self { path: Cow::Borrowed(path), file: plain, encoding: None, varies: false };
        if !kind::may_be_packed(path) || !ENCODINGS.iter().any(|(_, ending)| sibling(ending).is_some()) {
            return itself;
        }
        let best = negotiate::encoding(headers, |ending| sibling(ending).is_some());
        let packed = best.and_then(|index| {
            let (name, ending) = ENCODINGS[index];
            let (path, file) = sibling(ending)?;
            Some(Self { path: Cow::Owned(path), file, encoding: Some(name), varies: true })
        });
        packed.unwrap_or(Self { varies: true, ..itself })
    }
}

fn caching(site: &Site, path: &str, file: &File) -> String {
    let serving = &site.serving;
    if file.hashed {
        return keep(serving.hashed, ", immutable");
    }
    keep(if kind::belongs_to_a_page(path) { serving.pages } else { serving.other }, "")
}

fn keep(time: Duration, more: &str) -> String {
    match time.as_secs() {
        0 => "no-cache".to_owned(),
        seconds => format!("public, max-age={seconds}{more}"),
    }
}

/// The site's own page for what is not there, or a word.
pub(super) fn not_found(site: &Site, method: &Method, headers: &HeaderMap) -> Answer {
    const PAGE: &str = "404.html";
    let head = Response::builder().status(StatusCode::NOT_FOUND).header(header::CACHE_CONTROL, "no-cache");
    let Some(plain) = site.get(PAGE) else { return text(head, method, "not found\n") };
    let chosen = Chosen::new(site, PAGE, plain, headers);
    let bytes = chosen.file.bytes;
    let mut head =
        head.header(header::CONTENT_TYPE, kind::content_type(PAGE)).header(header::CONTENT_LENGTH, bytes);
    if chosen.varies {
        head = head.header(header::VARY, "accept-encoding");
    }
    if let Some(encoding) = chosen.encoding {
        head = head.header(header::CONTENT_ENCODING, encoding);
    }
    let send = if *method == Method::HEAD {
        Send::Nothing
    } else {
        Send::File { path: chosen.path.into_owned(), bytes, range: 0..bytes }
    };
    Answer { head: built(head), send }
}

pub(super) fn redirect(location: &str, query: Option<&str>, method: &Method) -> Answer {
    let mut location = location.to_owned();
    if let Some(query) = query {
        location.push('?');
        // As it came; but a header holds ASCII alone.
        escape(query, |byte| byte.is_ascii_graphic(), &mut location);
    }
    // The next release may have a file there: a permanent answer that is kept without asking would hide it.
    let head = Response::builder()
        .status(StatusCode::MOVED_PERMANENTLY)
        .header(header::CACHE_CONTROL, "no-cache")
        .header(header::LOCATION, location);
    text(head, method, "moved\n")
}

pub(super) fn refused(why: Refused, method: &Method) -> Answer {
    let (status, words) = match why {
        Refused::TooLong => (StatusCode::URI_TOO_LONG, "the path is too long\n"),
        Refused::Malformed => (StatusCode::BAD_REQUEST, "this is no path\n"),
    };
    plain(status, method, words)
}

pub(super) fn method_not_allowed(method: &Method) -> Answer {
    let head = Response::builder()
        .status(StatusCode::METHOD_NOT_ALLOWED)
        .header(header::ALLOW, "GET, HEAD")
        .header(header::CACHE_CONTROL, "no-store");
    text(head, method, "files can only be read\n")
}

/// Something about this server or this request, never to be kept.
pub(super) fn plain(status: StatusCode, method: &Method, words: &'static str) -> Answer {
    text(Response::builder().status(status).header(header::CACHE_CONTROL, "no-store"), method, words)
}

fn text(head: Builder, method: &Method, words: &'static str) -> Answer {
    let head = head
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .header(header::CONTENT_LENGTH, words.len());
    let send = if *method == Method::HEAD { Send::Nothing } else { Send::Text(words) };
    Answer { head: built(head), send }
}
