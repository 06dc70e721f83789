//! A server on loopback, asked over bare sockets: what it says is compared byte for byte.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairway_engine::service::StaticServing;
use tokio::sync::oneshot;

use super::*;

/// One site under `run`, on a thread of its own.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(source: &Path, change: impl FnOnce(&mut Document)) -> Self {
        let mut document = if source.is_dir() {
            Document::of_directory(source, true).unwrap()
        } else {
            Document::read(source).unwrap()
        };
        change(&mut document);
        let shelf = if source.is_dir() { None } else { shelf::Shelf::beside(source) };
        let server = Arc::new(Server::new(Site::new(document), shelf).unwrap());
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                serve::run(listener, server, async move { drop(stopped.await) }).await;
            });
        });
        Self { address: told.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// On a connection of its own.
    fn ask(&self, request: &str) -> Said {
        let mut stream = self.connect();
        let (line, headers) = request.split_once('\n').unwrap_or((request, ""));
        let headers = headers.lines().map(|line| format!("{}\r\n", line.trim())).collect::<String>();
        let head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Said::parse(&bytes)
    }

    fn stop(&mut self) {
        drop(self.stop.take());
    }

    fn join(&mut self) {
        self.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Said {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        Self { status: head[9..12].parse().unwrap(), head, body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap_or("")
    }
}

const YEAR: &str = "public, max-age=31536000, immutable";
const HOUR: &str = "public, max-age=3600";

/// A single-page application as Vite writes one, with what people put beside it.
fn site() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("dist");
    let files: &[(&str, &[u8])] = &[
        ("index.html", b"<!doctype html>start"),
        ("404.html", b"<!doctype html>nothing here"),
        ("about.html", b"about"),
        ("docs/index.html", b"docs"),
        ("docs/guide.html", b"guide"),
        ("a b/index.html", b"space"),
        ("empty/file.txt", b""),
        ("assets/index-DiwrgTda.js", b"console.log('a long script, long enough to be packed')"),
        ("assets/index-DiwrgTda.js.br", b"BR"),
        ("assets/index-DiwrgTda.js.gz", b"GZIP"),
        ("assets/index-BqXkLmPw.css", b"body{}"),
        ("sw.js", b"worker"),
        ("photo.jpg", b"0123456789"),
        ("app.tar", b"tar tar tar"),
        ("app.tar.gz", b"gz"),
        (".env", b"KEY=1"),
        (".git/config", b"[core]"),
        (".well-known/security.txt", b"Contact: x"),
    ];
    for (path, bytes) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    std::os::unix::fs::symlink("/etc", root.join("etc")).unwrap();
    std::os::unix::fs::symlink("../secret.txt", root.join("up.txt")).unwrap();
    std::os::unix::fs::symlink("docs", root.join("manual")).unwrap();
    fs::write(home.path().join("secret.txt"), "secret").unwrap();
    (home, root)
}

/// Request, status, headers that the answer must have (an empty value: must not have), body.
type Case = (&'static str, u16, &'static [(&'static str, &'static str)], Option<&'static str>);

const BROWSER: &str = "GET /orders/7\nAccept: text/html,application/xhtml+xml,*/*;q=0.8";

const CASES: &[Case] = &[
    // Files and what they are.
    (
        "GET /",
        200,
        &[
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-cache"),
            ("content-length", "20"),
            ("accept-ranges", "bytes"),
            ("last-modified", ""),
        ],
        Some("<!doctype html>start"),
    ),
    ("GET /index.html?x=1", 200, &[], Some("<!doctype html>start")),
    ("GET //index.html", 200, &[], Some("<!doctype html>start")),
    (
        "GET /sw.js",
        200,
        &[("content-type", "text/javascript; charset=utf-8"), ("cache-control", "no-cache")],
        Some("worker"),
    ),
    (
        "GET /photo.jpg",
        200,
        &[("content-type", "image/jpeg"), ("cache-control", HOUR), ("vary", "")],
        Some("0123456789"),
    ),
    ("GET /empty/file.txt", 200, &[("content-length", "0")], Some("")),
    ("HEAD /photo.jpg", 200, &[("content-length", "10"), ("content-type", "image/jpeg")], Some("")),
    ("GET /.well-known/security.txt", 200, &[], Some("Contact: x")),
    ("GET http://other/photo.jpg", 200, &[], Some("0123456789")),
    // Directories and pages without their ending.
    ("GET /docs", 301, &[("location", "./docs/"), ("cache-control", "no-cache")], None),
    ("GET /docs?a=b&c", 301, &[("location", "./docs/?a=b&c")], None),
    ("GET //docs", 301, &[("location", "./docs/")], None),
    ("GET /a%20b", 301, &[("location", "./a%20b/")], None),
    ("GET /docs/", 200, &[], Some("docs")),
    ("GET /docs/guide", 200, &[("content-type", "text/html; charset=utf-8")], Some("guide")),
    ("GET /about", 200, &[], Some("about")),
    ("GET /manual/", 200, &[], Some("docs")),
    ("GET /photo.jpg/", 404, &[], None),
    // Packed siblings.
    (
        "GET /assets/index-DiwrgTda.js\nAccept-Encoding: gzip, br",
        200,
        &[
            ("content-encoding", "br"),
            ("vary", "accept-encoding"),
            ("content-type", "text/javascript; charset=utf-8"),
            ("cache-control", YEAR),
        ],
        Some("BR"),
    ),
    (
        "GET /assets/index-DiwrgTda.js\nAccept-Encoding: gzip",
        200,
        &[("content-encoding", "gzip")],
        Some("GZIP"),
    ),
    (
        "GET /assets/index-DiwrgTda.js",
        200,
        &[("content-encoding", ""), ("vary", "accept-encoding"), ("cache-control", YEAR)],
        Some("console.log('a long script, long enough to be packed')"),
    ),
    (
        "GET /assets/index-DiwrgTda.js\nAccept-Encoding: br\nRange: bytes=0-0",
        206,
        &[("content-encoding", "br"), ("content-range", "bytes 0-0/2")],
        Some("B"),
    ),
    (
        "GET /assets/index-BqXkLmPw.css\nAccept-Encoding: br",
        200,
        &[("content-encoding", ""), ("vary", ""), ("cache-control", YEAR)],
        Some("body{}"),
    ),
    ("GET /app.tar\nAccept-Encoding: gzip", 200, &[("content-encoding", "")], Some("tar tar tar")),
    // Parts.
    (
        "GET /photo.jpg\nRange: bytes=2-4",
        206,
        &[("content-range", "bytes 2-4/10"), ("content-length", "3")],
        Some("234"),
    ),
    ("GET /photo.jpg\nRange: bytes=-3", 206, &[("content-range", "bytes 7-9/10")], Some("789")),
    ("GET /photo.jpg\nRange: bytes=0-1,4-5", 200, &[("content-range", "")], Some("0123456789")),
    ("GET /photo.jpg\nRange: bytes=10-", 416, &[("content-range", "bytes */10")], Some("")),
    ("HEAD /photo.jpg\nRange: bytes=2-4", 200, &[("content-length", "10")], Some("")),
    ("GET /photo.jpg\nRange: bytes=2-4\nIf-Range: \"other\"", 200, &[], Some("0123456789")),
    ("GET /photo.jpg\nIf-None-Match: *", 304, &[("cache-control", HOUR), ("content-type", "")], Some("")),
    ("GET /photo.jpg\nIf-Match: \"other\"", 412, &[], Some("")),
    ("GET /photo.jpg\nIf-Modified-Since: Sat, 21 Nov 2099 00:00:00 GMT", 200, &[], None),
    // Places of the application, and what is missing.
    (BROWSER, 200, &[("cache-control", "no-cache"), ("vary", "accept")], Some("<!doctype html>start")),
    ("GET /orders/7", 200, &[], Some("<!doctype html>start")),
    ("HEAD /orders/7", 200, &[("content-length", "20")], Some("")),
    ("GET /users/john.doe\nAccept: text/html", 200, &[], Some("<!doctype html>start")),
    ("GET /projects/a%2Fb", 200, &[], Some("<!doctype html>start")),
    ("GET /users/john.doe", 404, &[], None),
    ("GET /api/orders\nAccept: application/json", 404, &[], None),
    (
        "GET /missing.js\nAccept: text/html",
        404,
        &[("cache-control", "no-cache"), ("etag", "")],
        Some("<!doctype html>nothing here"),
    ),
    ("GET /assets/index-OldHash1.js\nAccept: text/html", 404, &[("cache-control", "no-cache")], None),
    ("GET /orders/7\nSec-Fetch-Dest: script", 404, &[], None),
    ("HEAD /missing.png", 404, &[("content-length", "27")], Some("")),
    ("GET /404.html", 200, &[], None),
    // Hidden, outside, and no path at all.
    ("GET /.env\nAccept: text/html", 404, &[], None),
    ("GET /%2eenv", 404, &[], None),
    ("GET /.git/config", 404, &[], None),
    ("GET /docs/%2E%2e/index.html", 400, &[("cache-control", "no-store")], None),
    ("GET /../secret.txt", 400, &[], None),
    ("GET /..%2fsecret.txt", 404, &[], None),
    ("GET /..%5csecret.txt", 404, &[], None),
    ("GET /up.txt", 404, &[], None),
    ("GET /etc/passwd\nAccept: image/png", 404, &[], None),
    ("GET /index.html%00.png", 400, &[], None),
    ("GET /100%", 400, &[], None),
    // Other methods.
    ("POST /", 405, &[("allow", "GET, HEAD"), ("cache-control", "no-store")], None),
    ("DELETE /index.html", 405, &[("allow", "GET, HEAD")], None),
    ("OPTIONS *", 405, &[("allow", "GET, HEAD")], None),
    ("GET /.fairway/health", 200, &[("cache-control", "no-store")], Some("ok\n")),
    ("HEAD /.fairway/health", 200, &[], Some("")),
];

#[test]
fn the_table_of_cases() {
    let (_home, root) = site();
    let mut site = Running::start(&root, |_| {});
    for (request, status, headers, body) in CASES {
        let said = site.ask(request);
        assert_eq!(said.status, *status, "{request}\n{}", said.head);
        for (name, value) in *headers {
            assert_eq!(said.header(name), *value, "{name} of {request}\n{}", said.head);
        }
        if let Some(body) = body {
            assert_eq!(String::from_utf8_lossy(&said.body), *body, "{request}");
        }
        if request.starts_with("GET") && *status != 304 {
            assert_eq!(
                said.header("content-length"),
                said.body.len().to_string(),
                "{request}\n{}",
                said.head
            );
        }
    }
    let long = site.ask(&format!("GET /{}", "a".repeat(5000)));
    assert_eq!(long.status, 414);
    site.join();
}

#[test]
fn an_etag_is_of_the_bytes_that_are_sent() {
    let (_home, root) = site();
    fs::write(root.join("copy.jpg"), "0123456789").unwrap();
    let mut site = Running::start(&root, |_| {});
    let etag = |request: &str| site.ask(request).header("etag").to_owned();
    let plain = etag("GET /photo.jpg");
    assert!(plain.starts_with('"') && plain.len() == 34, "{plain}");
    assert_eq!(plain, etag("GET /copy.jpg"));
    assert_eq!(plain, etag("HEAD /photo.jpg"));
    assert_eq!(plain, etag("GET /photo.jpg\nRange: bytes=0-1"));
    let script = "GET /assets/index-DiwrgTda.js";
    let packed = etag(&format!("{script}\nAccept-Encoding: br"));
    assert_ne!(packed, etag(script));
    let again = site.ask(&format!("{script}\nAccept-Encoding: br\nIf-None-Match: \"x\", W/{packed}"));
    assert_eq!((again.status, again.header("etag")), (304, &*packed));
    assert_eq!(again.header("vary"), "accept-encoding");
    // The plain one is another representation.
    assert_eq!(site.ask(&format!("{script}\nIf-None-Match: {packed}")).status, 200);
    let part = site.ask(&format!("GET /photo.jpg\nRange: bytes=0-1\nIf-Range: {plain}"));
    assert_eq!((part.status, &*part.body), (206, &b"01"[..]));
    site.join();
}

#[test]
fn without_spa_and_without_a_page_for_it_what_is_missing_is_a_word() {
    let (_home, root) = site();
    fs::remove_file(root.join("404.html")).unwrap();
    let mut site = Running::start(&root, |document| document.spa = false);
    let said = site.ask(BROWSER);
    assert_eq!((said.status, &*said.body), (404, &b"not found\n"[..]));
    // No list of what is in a directory.
    assert_eq!(site.ask("GET /assets/").status, 404);
    assert_eq!(site.ask("GET /assets").status, 404);
    site.join();
}

/// `expires 1y` for assets and `expires 1h` for pages, as an nginx.conf of today has it.
#[test]
fn the_times_are_the_users() {
    let (_home, root) = site();
    let hour = Duration::from_secs(3600);
    let mut site = Running::start(&root, |document| {
        let other = Duration::from_secs(365 * 24 * 3600);
        document.serving = StaticServing { pages: hour, other, ..StaticServing::default() };
    });
    let caching = |path: &str| site.ask(&format!("GET {path}")).header("cache-control").to_owned();
    assert_eq!(caching("/"), "public, max-age=3600");
    assert_eq!(caching("/orders/7"), "public, max-age=3600");
    assert_eq!(caching("/sw.js"), "public, max-age=3600");
    assert_eq!(caching("/photo.jpg"), "public, max-age=31536000");
    assert_eq!(caching("/assets/index-BqXkLmPw.css"), YEAR);
    site.join();
}

#[test]
fn a_file_that_was_changed_or_is_gone_is_an_error_and_never_another_file() {
    let (_home, root) = site();
    let mut site = Running::start(&root, |_| {});
    fs::write(root.join("photo.jpg"), "longer than it was").unwrap();
    assert_eq!(site.ask("GET /photo.jpg").status, 500);
    fs::remove_file(root.join("sw.js")).unwrap();
    assert_eq!(site.ask("GET /sw.js").status, 500);
    std::os::unix::fs::symlink("../secret.txt", root.join("sw.js")).unwrap();
    assert_eq!(site.ask("GET /sw.js").status, 500);
    fs::remove_file(root.join("sw.js")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("sw.js"), rustix::fs::FileType::Fifo, 0o644.into(), 0)
        .unwrap();
    assert_eq!(site.ask("GET /sw.js").status, 500);
    fs::rename(&root, root.with_extension("aside")).unwrap();
    assert_eq!(site.ask("GET /.fairway/health").status, 503);
    // It keeps what it holds open until it is stopped.
    assert_eq!(site.ask("GET /about").status, 200);
    site.join();
}

#[test]
fn a_download_that_shrinks_midway_is_cut() {
    let (_home, root) = site();
    fs::write(root.join("big.iso"), vec![7; 32 << 20]).unwrap();
    let mut site = Running::start(&root, |_| {});
    let mut stream = site.connect();
    stream.write_all(b"GET /big.iso HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0; 1024];
    stream.read_exact(&mut first).unwrap();
    fs::OpenOptions::new().write(true).open(root.join("big.iso")).unwrap().set_len(20 << 20).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < 32 << 20, "{}", rest.len());
    drop(stream);
    site.join();
}

#[test]
fn what_is_under_way_when_it_is_told_to_stop_is_answered_whole() {
    let (_home, root) = site();
    let content: Vec<u8> = (0..24 << 20).map(|n: u32| (n % 253) as u8).collect();
    fs::write(root.join("big.iso"), &content).unwrap();
    let mut site = Running::start(&root, |_| {});
    let mut download = site.connect();
    download.write_all(b"GET /big.iso HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    download.read_exact(&mut [0; 1]).unwrap();
    let mut kept = site.connect();
    kept.write_all(b"GET /about HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let first = read_answer(&mut kept);
    assert_eq!((first.status, first.header("connection")), (200, ""));
    let mut fresh = site.connect();
    site.stop();
    // On a connection that was idle, on one that never sent, and on one that comes too late to know.
    let mut late = site.connect();
    for stream in [&mut kept, &mut fresh, &mut late] {
        // The signal and the first of these requests race; whoever wins, each is answered.
        loop {
            stream.write_all(b"GET /about HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let said = read_answer(stream);
            assert_eq!((said.status, &*said.body), (200, &b"about"[..]));
            if said.header("connection") == "close" {
                break;
            }
        }
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "closed by the answer");
    }
    let mut bytes = vec![b'H'];
    let length = content.len();
    let mut buffer = vec![0; 1 << 20];
    while !bytes.windows(4).take(2000).any(|four| four == b"\r\n\r\n")
        || Said::parse(&bytes).body.len() < length
    {
        let read = download.read(&mut buffer).unwrap();
        assert!(read > 0, "cut after {} bytes", bytes.len());
        bytes.extend_from_slice(&buffer[..read]);
    }
    assert!(Said::parse(&bytes).body == content);
    drop(download);
    site.join();
}

/// One answer with a content-length, on a connection that stays.
fn read_answer(stream: &mut TcpStream) -> Said {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0; 1];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "closed without an answer: {bytes:?}");
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let mut said = Said::parse(&bytes);
    said.body = vec![0; said.header("content-length").parse().unwrap()];
    stream.read_exact(&mut said.body).unwrap();
    said
}

#[test]
fn a_body_that_nobody_wants_costs_nobody_the_answer() {
    let (_home, root) = site();
    let mut site = Running::start(&root, |_| {});
    let mut stream = site.connect();
    let body = vec![1; 4 << 20];
    let head = format!("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    assert_eq!(read_answer(&mut stream).status, 405);
    // And the connection is as good as before.
    stream.write_all(b"GET /about HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut stream).status, 200);
    // Who asks first need not send.
    let mut asking = site.connect();
    asking
        .write_all(b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n")
        .unwrap();
    let said = read_answer(&mut asking);
    assert_eq!((said.status, said.header("connection")), (405, "close"));
    drop((stream, asking));
    site.join();
}

#[test]
fn hundreds_of_slow_downloads_hold_little_and_harm_nobody() {
    let (_home, root) = site();
    fs::File::create(root.join("big.iso")).unwrap().set_len(64 << 20).unwrap();
    let mut site = Running::start(&root, |_| {});
    // What a process may open bounds this test, which holds both ends: 200 say the same as 1,000.
    let before = resident_bytes();
    let mut downloads: Vec<TcpStream> = (0..200).map(|_| site.connect()).collect();
    for stream in &mut downloads {
        stream.write_all(b"GET /big.iso HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 1]).unwrap();
    }
    assert_eq!(site.ask("GET /about").status, 200);
    let grown = resident_bytes().saturating_sub(before);
    // Other tests of this process run beside it; without a bound it would be gigabytes.
    assert!(grown < 256 << 20, "{grown}");
    drop(downloads);
    site.join();
}

fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Two releases on one shelf, as the launcher puts them there.
fn releases() -> (tempfile::TempDir, [PathBuf; 2], [PathBuf; 2]) {
    let home = tempfile::tempdir().unwrap();
    let mut documents = Vec::new();
    let mut roots = Vec::new();
    for (name, script) in [("r1", "assets/index-OldHash1.js"), ("r2", "assets/index-NewHash2.js")] {
        let root = home.path().join(name);
        fs::create_dir_all(root.join("assets")).unwrap();
        fs::write(root.join(script), name).unwrap();
        fs::write(root.join(format!("{script}.br")), "b").unwrap();
        fs::write(root.join("index.html"), name).unwrap();
        fs::write(root.join(format!("only-in-{name}.txt")), name).unwrap();
        let document = Document::of_directory(&root, true).unwrap().encode().unwrap();
        documents.push(shelf::put(&home.path().join("sites/shop.dev/web"), name, &document).unwrap());
        roots.push(root);
    }
    (home, documents.try_into().unwrap(), roots.try_into().unwrap())
}

#[test]
fn a_page_of_another_release_finds_its_assets_and_nothing_else() {
    let (_home, [old, new], [old_root, _]) = releases();
    let (mut one, mut two) = (Running::start(&old, |_| {}), Running::start(&new, |_| {}));
    for (site, script, body) in [(&two, "OldHash1", "r1"), (&one, "NewHash2", "r2")] {
        let path = format!("/assets/index-{script}.js");
        let said = site.ask(&format!("GET {path}"));
        assert_eq!((said.status, said.header("cache-control")), (200, YEAR));
        assert_eq!(said.body, body.as_bytes());
        let packed = site.ask(&format!("GET {path}\nAccept-Encoding: br"));
        assert_eq!((packed.header("content-encoding"), &*packed.body), ("br", &b"b"[..]));
        let etag = said.header("etag");
        assert_eq!(site.ask(&format!("GET {path}\nIf-None-Match: {etag}")).status, 304);
        assert_eq!(site.ask(&format!("GET {path}\nRange: bytes=1-1")).body, &body.as_bytes()[1..]);
    }
    assert_eq!(two.ask("GET /only-in-r1.txt").status, 404);
    assert_eq!(two.ask("GET /assets/index-Unknown3.js\nAccept: text/html").status, 404);
    assert_eq!(two.ask("GET /").body, b"r2");
    // Once the old tree is collected, its assets are gone.
    fs::remove_dir_all(old_root).unwrap();
    assert_eq!(two.ask("GET /assets/index-OldHash1.js").status, 404);
    one.join();
    two.join();
}

#[test]
fn who_does_not_want_old_assets_gets_none() {
    let (_home, [_, new], _) = releases();
    let mut site = Running::start(&new, |document| document.serving.old_assets = false);
    assert_eq!(site.ask("GET /assets/index-OldHash1.js\nAccept: text/html").status, 404);
    site.join();
}

#[test]
fn garbage_ends_its_own_connection_alone() {
    let (_home, root) = site();
    let mut site = Running::start(&root, |_| {});
    for garbage in
        [&b"\x00\x01\x02\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"GET\r\n\r\n", &[b'a'; 100_000], b""]
    {
        let mut stream = site.connect();
        let _ = stream.write_all(garbage);
        drop(stream.shutdown(std::net::Shutdown::Write));
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(site.ask("GET /about").status, 200);
    site.join();
}
