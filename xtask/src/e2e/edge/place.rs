//! A home with a project that tells what it was asked, and clients for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::browser::{Browser, Told};
use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Ran, free_address};

const SERVICE: &str = include_str!("service.js");

/// Longer than anything that is waited for; longer is a hang.
const SOON: Duration = Duration::from_secs(30);

const LOOK_EVERY: Duration = Duration::from_millis(50);

pub struct Place<'h> {
    pub home: &'h mut Home,
    pub browser: Browser,
    pub directory: PathBuf,
    pub http: SocketAddr,
    pub https: SocketAddr,
}

impl Place<'_> {
    pub fn new(home: &mut Home) -> Done<Place<'_>> {
        home.start_server()?;
        let directory = home.path().join("told");
        std::fs::create_dir_all(&directory).context("the project")?;
        std::fs::write(directory.join("service.js"), SERVICE).context("service.js")?;
        let browser = Browser::start(home.path())?;
        Ok(Place { browser, directory, http: free_address()?, https: free_address()?, home })
    }

    /// The project: `top` at the top of the file, `service` in the one that there is, `dev` in its environment.
    pub fn write(&self, top: &str, service: &str, dev: &str) -> Done {
        let text = format!(
            "version = 1\nproject = \"told\"\n{top}\n[service.web]\ncommand = [\"node\", \"service.js\"]\nport = 4000\n\
             route = \"/\"\nstop.drain = \"3s\"\n{service}\n[env.dev]\nlisten = \"{}\"\ndeploy.bake = \"0s\"\ndeploy.keep_warm = \"1s\"\n{dev}\n",
            self.http
        )
        .replace("HTTPS", &self.https.to_string());
        std::fs::write(self.directory.join("fairway.toml"), text).context("fairway.toml")
    }

    pub fn fairway(&self, arguments: &[&str]) -> Done<Ran> {
        self.home.run(&self.directory, arguments)
    }

    pub fn deploy(&self) -> Done<Ran> {
        self.home.must(&self.directory, &["deploy", "-e", "dev"])
    }

    pub fn rollback(&self) -> Done<Ran> {
        self.home.must(&self.directory, &["rollback", "-e", "dev"])
    }

    pub fn status(&self) -> Done<String> {
        Ok(self.home.must(&self.directory, &["status", "-e", "dev"])?.stdout)
    }

    /// A request without TLS.
    pub fn plain(&mut self, path: &str, more: Value) -> Done<Told> {
        let order = json!({ "port": self.http.port(), "host": "127.0.0.1", "path": path });
        self.browser.told("request", with(order, more))
    }

    /// The address over TLS, as a client asks for it that takes any certificate.
    pub fn secure(&self, more: Value) -> Value {
        with(json!({ "port": self.https.port(), "host": "localhost", "tls": true }), more)
    }

    pub fn over_tls(&mut self, path: &str, more: Value) -> Done<Told> {
        let order = self.secure(with(json!({ "path": path }), more));
        self.browser.told("request", order)
    }

    /// The load of `browser.js` on the address with TLS.
    pub fn load(&mut self, rate_per_s: u32, more: Value) -> Done<Value> {
        let order = self.secure(with(json!({ "path": "/", "rate_per_s": rate_per_s }), more));
        Ok(self.browser.must("load", order)?.handle())
    }

    /// Ends it, and tells what failed.
    pub fn end_load(&mut self, load: Value) -> Done<(Told, Vec<String>)> {
        let told = self.browser.must("end", json!({ "handle": load, "within_ms": 30_000 }))?;
        let mut findings: Vec<String> =
            told.list("failed").into_iter().map(|one| format!("failed under load: {one}")).collect();
        if told.number("ok").unwrap_or(0) < 20 {
            findings.push(format!("hardly any request was made: nothing is proved: {told}"));
        }
        Ok((told, findings))
    }

    /// Asks until it is as wanted, and gives what was told then.
    pub fn until<T: std::fmt::Debug>(
        &mut self,
        what: &str,
        mut ask: impl FnMut(&mut Self) -> Done<T>,
        is_wanted: impl Fn(&T) -> bool,
    ) -> Done<T> {
        let started = Instant::now();
        loop {
            let got = ask(self)?;
            if is_wanted(&got) {
                return Ok(got);
            }
            if started.elapsed() > SOON {
                return Err(Fault::new(format!("{what}: it did not come to that, but to {got:?}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// `order` with what `more` says otherwise.
pub fn with(mut order: Value, more: Value) -> Value {
    if let (Value::Object(order), Value::Object(more)) = (&mut order, more) {
        order.extend(more);
    }
    order
}

/// What differs from what it should be, in words.
pub fn expect<T: PartialEq + std::fmt::Debug>(findings: &mut Vec<String>, what: &str, got: T, wanted: T) {
    if got != wanted {
        findings.push(format!("{what}: {got:?} instead of {wanted:?}"));
    }
}

/// What a text lacks.
pub fn expect_in(findings: &mut Vec<String>, what: &str, text: &str, words: &[&str]) {
    for word in words.iter().filter(|word| !text.contains(**word)) {
        findings.push(format!("{what} does not say {word:?}: {}", text.trim_end()));
    }
}
