//! Certificates from an authority: a real one (Pebble), on loopback.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::files::identity;
use super::place::{Place, expect, expect_in};
use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Ran, free_address};
use crate::setup::peers;

struct Pebble {
    program: PathBuf,
    directory: PathBuf,
    address: std::net::SocketAddr,
    process: Option<Child>,
}

impl Pebble {
    fn find(directory: PathBuf) -> Done<Option<Pebble>> {
        const NAME: &str = "FAIRWAY_PEBBLE";
        let fetched = || peers::variables().into_iter().find(|(name, _)| *name == NAME);
        let program = std::env::var_os(NAME).map(PathBuf::from).or_else(|| fetched().map(|(_, path)| path));
        let Some(program) = program.filter(|program| program.is_file()) else { return Ok(None) };
        std::fs::create_dir_all(&directory).context("pebble's directory")?;
        let (chain, key) = identity(&["localhost", "127.0.0.1"])?;
        std::fs::write(directory.join("chain.pem"), chain).context("pebble's certificate")?;
        std::fs::write(directory.join("key.pem"), key).context("pebble's key")?;
        Ok(Some(Pebble { program, directory, address: free_address()?, process: None }))
    }

    fn roots(&self) -> PathBuf {
        self.directory.join("chain.pem")
    }

    fn start(&mut self, place: &mut Place<'_>) -> Done {
        let names =
            place.browser.must("name server", json!({}))?.number("port").context("the name server")?;
        let config = json!({ "pebble": {
            "listenAddress": self.address.to_string(),
            "managementListenAddress": free_address()?.to_string(),
            "certificate": self.roots(),
            "privateKey": self.directory.join("key.pem"),
            "httpPort": place.http.port(),
            "tlsPort": place.https.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "retryAfter": { "authz": 1, "order": 1 },
            "profiles": { "default": { "description": "for tests", "validityPeriod": 7_776_000 } },
        }});
        let file = self.directory.join("pebble.json");
        std::fs::write(&file, config.to_string()).context("pebble.json")?;
        let log = std::fs::File::create(self.directory.join("log")).context("pebble's log")?;
        let process = Command::new(&self.program)
            .arg("-config")
            .arg(&file)
            .args(["-dnsserver", &format!("127.0.0.1:{names}")])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("pebble's log")?)
            .stderr(log)
            .spawn()
            .context("pebble")?;
        self.process = Some(process);
        let address = self.address;
        let ask = |_: &mut Place<'_>| Ok(std::net::TcpStream::connect(address).is_ok());
        place.until("pebble", ask, |is_up| *is_up).map(drop)
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.end();
    }
}

fn settings(pebble: &Pebble, host: &str, challenge: &str, contact: &str) -> String {
    format!(
        "host = \"{host}\"\n[env.dev.tls]\nlisten = \"HTTPS\"\n[env.dev.tls.acme]\n\
         directory = \"https://localhost:{}/dir\"\nroots = \"{}\"\npreflight = false\n\
         challenge = \"{challenge}\"\ncontact = \"{contact}\"\n",
        pebble.address.port(),
        pebble.roots().display()
    )
}

pub fn certificates(home: &mut Home) -> Done<Vec<String>> {
    let mut place = Place::new(home)?;
    let Some(mut pebble) = Pebble::find(place.home.path().join("pebble"))? else {
        println!("note    no story with a real authority was told: FAIRWAY_PEBBLE names no program");
        return Ok(Vec::new());
    };
    let mut findings = Vec::new();

    // Nobody is there to be asked.
    place.write("", "", &settings(&pebble, "a.test", "http-01", "first@a.test"))?;
    place.deploy()?;
    let asked = |place: &mut Place<'_>| place.status();
    let said = place.until("why there is none", asked, |status| status.contains("tried again in"))?;
    expect_in(&mut findings, "the status", &said, &["a.test: none", "the authority cannot be asked"]);
    let plain = place.plain("/", json!({ "authority": "a.test" }))?;
    expect(&mut findings, "without TLS, before there is a certificate", plain.status(), 200);

    // It is there, and something was changed: no reason to wait.
    pebble.start(&mut place)?;
    place.write("", "", &settings(&pebble, "a.test", "http-01", "second@a.test"))?;
    place.deploy()?;
    let fingerprint = obtained(&mut place, "a.test", &mut findings)?;

    // Nobody can give another one now.
    pebble.end();
    let proxy = of_role(&place, "proxy")?;
    place.home.kill_server()?;
    kill(proxy)?;
    place.home.start_server()?;
    let ask = |place: &mut Place<'_>| place.over_tls("/", json!({ "host": "a.test" }));
    let told = place.until("TLS after kill -9", ask, |told| told.status() == 200)?;
    expect(&mut findings, "the certificate after kill -9", told.text("fingerprint"), &fingerprint);

    // Another host, proven the other way.
    pebble.start(&mut place)?;
    place.write("", "", &settings(&pebble, "b.test", "tls-alpn-01", "first@a.test"))?;
    place.deploy()?;
    let plain = place.plain("/", json!({ "authority": "b.test" }))?;
    if !matches!(plain.status(), 200 | 308) {
        findings.push(format!("without TLS, while the certificate is ordered: {plain}"));
    }
    obtained(&mut place, "b.test", &mut findings)?;

    // Each of these once, whatever was tried and whoever was killed meanwhile.
    let asked = |place: &mut Place<'_>| place.home.must(&place.directory, &["history", "-e", "dev"]);
    let is_told = |told: &Ran| told.stdout.contains("b.test");
    let history = place.until("the certificates in the history", asked, is_told)?.stdout;
    let lines: Vec<&str> = history.lines().filter(|line| line.starts_with("certificate ")).collect();
    let told = |host: &str, outcome: &str| {
        lines.iter().filter(|line| line.contains(host) && line.contains(outcome)).count()
    };
    expect(&mut findings, "the history: a.test has failed", told("a.test", " failed "), 1);
    expect(&mut findings, "the history: a.test was issued", told("a.test", " issued "), 1);
    expect(&mut findings, "the history: b.test was issued", told("b.test", " issued "), 1);
    expect_in(&mut findings, "the history", &history, &["the authority cannot be asked", "without success"]);
    Ok(findings)
}

/// Waits for the certificate, and gives its fingerprint.
fn obtained(place: &mut Place<'_>, host: &str, findings: &mut Vec<String>) -> Done<String> {
    let ask = |place: &mut Place<'_>| place.over_tls("/", json!({ "host": host, "http": 2 }));
    let told = place.until(&format!("a certificate for {host}"), ask, |told| told.status() == 200)?;
    expect(findings, host, told.text("names"), &format!("DNS:{host}"));
    expect_in(findings, "the issuer", told.text("issuer"), &["Pebble"]);
    let asked = |place: &mut Place<'_>| place.status();
    let valid = format!("{host}: good until");
    let status = place.until("the status", asked, |status| status.contains(&valid))?;
    expect_in(findings, "the status", &status, &["renewed from"]);
    let plain = place.plain("/x", json!({ "authority": host }))?;
    let there = format!("https://{host}:{}/x", place.https.port());
    expect(findings, host, (plain.status(), plain.header("location")), (308, Some(there.as_str())));
    Ok(told.text("fingerprint").to_owned())
}

/// The process of this home that runs `fairway ROLE`.
fn of_role(place: &Place<'_>, role: &str) -> Done<u32> {
    let runs = |pid: &u32| {
        let line =
            std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(role.as_bytes())
    };
    let found = place.home.processes().into_iter().find(runs);
    found.ok_or_else(|| Fault::new(format!("no {role} runs")))
}

fn kill(pid: u32) -> Done {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).context("a process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).context("kill")
}
