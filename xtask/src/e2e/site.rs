//! A static site from release to release, as its visitors see it: pages that were loaded before a deploy go on working,
//! downloads come to their end, and no request is lost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairway_load::{Kind, Plan, Share};

use crate::checks::Count;
use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Show, free_address, get};

const ROUNDS: u32 = 4;

/// More than all buffers between the file and a visitor who has stopped reading.
const FILM_BYTES: usize = 32 << 20;

const READ_TIMEOUT: Duration = Duration::from_secs(30);

const FILE: &str = r#"version = 1
project = "site"

[service.web]
static = { dir = "dist", spa = true }
route = "/"

[env.dev]
listen = "LISTEN"
deploy.bake = "0s"
"#;

pub fn run(fairway: &Path) -> Count {
    let mut count = Count::default();
    count.check(&format!("a static site over {ROUNDS} deploys and a rollback, under load"), || {
        let mut home = Home::new(fairway, Show::Nothing)?;
        let findings = releases_under_load(&mut home).unwrap_or_else(|fault| vec![fault.to_string()]);
        if !findings.is_empty() {
            home.keep();
        }
        Ok(findings)
    });
    count
}

struct Site {
    directory: PathBuf,
    address: SocketAddr,
}

impl Site {
    /// The project with the files of one version, as a bundler would leave them: those of the one before are gone.
    fn write(&self, version: u32) -> Done {
        let dist = self.directory.join("dist");
        let assets = dist.join("assets");
        if version > 1 {
            std::fs::remove_dir_all(&assets).context("assets")?;
            std::fs::remove_file(dist.join(only_in(version - 1))).context("dist")?;
        }
        std::fs::create_dir_all(&assets).context("assets")?;
        let file = FILE.replace("LISTEN", &self.address.to_string());
        std::fs::write(self.directory.join("fairway.toml"), file).context("fairway.toml")?;
        let write = |path: &str, text: String| std::fs::write(dist.join(path), text).context(path);
        write("index.html", page(version))?;
        write("about.html", "about".to_owned())?;
        write(asset(version).trim_start_matches('/'), script(version))?;
        write(&only_in(version), version.to_string())?;
        if version == 1 {
            std::fs::write(dist.join("film.mp4"), film()).context("film.mp4")?;
        }
        Ok(())
    }
}

fn asset(version: u32) -> String {
    format!("/assets/index-Di{version}rgTd{version}.js")
}

fn only_in(version: u32) -> String {
    format!("only-in-{version}.txt")
}

fn script(version: u32) -> String {
    format!("console.log({version})")
}

fn page(version: u32) -> String {
    format!("<!doctype html><script src=\"{}\"></script>", asset(version))
}

fn film() -> Vec<u8> {
    // Of a prime period, so that a piece that is missing or doubled shows.
    (0..FILM_BYTES).map(|n| (n % 251) as u8).collect()
}

fn releases_under_load(home: &mut Home) -> Done<Vec<String>> {
    let site = Site { directory: home.path().join("site"), address: free_address()? };
    home.start_server()?;
    site.write(1)?;
    home.must(&site.directory, &["deploy", "-e", "dev"])?;

    let mut findings = Vec::new();
    let mut plan = Plan::new(site.address);
    plan.rate_per_s = 200.0;
    let paths: Vec<String> = vec!["/".into(), "/orders/7".into(), "/about".into(), asset(1)];
    plan.mix = vec![
        Share { kind: Kind::KeepAliveGet, weight: 1, paths: paths.clone() },
        Share { kind: Kind::FreshGet, weight: 1, paths },
    ];
    let load = fairway_load::start(plan).context("the load")?;
    let mut download = Download::start(site.address)?;
    for version in 2..=ROUNDS + 1 {
        load.mark(&format!("deploy of version {version}"));
        site.write(version)?;
        home.must(&site.directory, &["deploy", "-e", "dev"])?;
        findings.extend(seen(site.address, version, version)?);
        findings.extend(download.finish()?);
        download = Download::start(site.address)?;
    }
    load.mark("rollback");
    home.must(&site.directory, &["rollback", "-e", "dev"])?;
    findings.extend(seen(site.address, ROUNDS, ROUNDS + 1)?);
    findings.extend(download.finish()?);
    let report = load.stop();
    if report.total.failed > 0 {
        findings.push(format!("{} requests failed", report.total.failed));
        findings.extend(report.failures.iter().map(ToString::to_string));
    }
    if report.total.achieved_per_s < report.total.target_per_s / 2.0 {
        findings.push("not even half of the load could be offered: nothing is proved".to_owned());
    }
    Ok(findings)
}

/// What visitors find while `serving` serves and `newest` was deployed last.
fn seen(address: SocketAddr, serving: u32, newest: u32) -> Done<Vec<String>> {
    let mut findings = Vec::new();
    let start = get(address, "/")?;
    if start.body != page(serving) || start.header("cache-control") != Some("no-cache") {
        findings.push(format!("version {serving} should serve, and it is\n{}\n{}", start.head, start.body));
    }
    for version in 1..=newest {
        let answer = get(address, &asset(version))?;
        let is_kept = answer.header("cache-control").is_some_and(|rule| rule.contains("immutable"));
        if answer.status != 200 || answer.body != script(version) || !is_kept {
            findings.push(format!(
                "while {serving} serves, the script of version {version} is\n{}\n{}",
                answer.head, answer.body
            ));
        }
        let plain = get(address, &format!("/{}", only_in(version)))?;
        let expected = if version == serving { 200 } else { 404 };
        if plain.status != expected {
            findings.push(format!("while {serving} serves, {} is {}", only_in(version), plain.status));
        }
    }
    for (path, expected) in [("/assets/index-Unkn0wn1.js", 404), ("/.env", 404), ("/orders/7", 200)] {
        let answer = get(address, path)?;
        if answer.status != expected {
            findings.push(format!("{path} is {} instead of {expected}", answer.status));
        }
    }
    Ok(findings)
}

/// A visitor who has begun to load something large and takes his time.
struct Download {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Download {
    fn start(address: SocketAddr) -> Done<Download> {
        let mut stream = TcpStream::connect(address).context("the film")?;
        stream.set_read_timeout(Some(READ_TIMEOUT)).context("the film")?;
        let head = format!("GET /film.mp4 HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).context("the film")?;
        let mut first = vec![0; 1000];
        stream.read_exact(&mut first).context("the film")?;
        Ok(Download { stream, bytes: first })
    }

    fn finish(&mut self) -> Done<Vec<String>> {
        self.stream.read_to_end(&mut self.bytes).context("the rest of the film")?;
        let head = self.bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let body = &self.bytes[head.ok_or_else(|| Fault::new("the film has no head"))? + 4..];
        if body == film() {
            return Ok(Vec::new());
        }
        Ok(vec![format!("a download over a deploy has {} of {FILM_BYTES} bytes, or others", body.len())])
    }
}
