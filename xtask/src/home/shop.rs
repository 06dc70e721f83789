//! `examples/shop` in its versions, in one directory, as a developer has it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::http;
use crate::fault::{Context, Done, Fault};
use crate::workspace;

/// The environment that we deploy to. It is short-tempered: a demo cannot watch a release for two minutes.
const ENVIRONMENT: &str = r#"
[env.demo]
listen = "LISTEN"
service.web.replicas = 2
service.api.replicas = 2

[env.demo.deploy]
bake = "BAKE"
"#;

#[derive(Debug)]
pub struct Shop {
    directory: PathBuf,
    address: SocketAddr,
    bake: String,
    /// Further lines of the environment's file, from `[env.demo.deploy]` on.
    more: String,
}

impl Shop {
    /// Nothing is written before the first [`Shop::check_out`].
    pub fn new(directory: PathBuf, address: SocketAddr, bake: &str) -> Shop {
        Shop { directory, address, bake: bake.to_owned(), more: String::new() }
    }

    /// From the next [`Shop::check_out`] on: more lines for `[env.demo.deploy]`, and tables of their own after them.
    pub fn settings(&mut self, more: &str) {
        more.clone_into(&mut self.more);
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes a version over the one before, as `git checkout` would.
    pub fn check_out(&self, version: &str) -> Done {
        let make = workspace::root().join("examples").join("shop").join("make-version");
        let output = Command::new(make).arg(version).arg(&self.directory).output().context("make-version")?;
        if !output.status.success() {
            return Err(Fault::new(format!(
                "make-version: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        let file = self.directory.join("fairway.toml");
        let mut text = std::fs::read_to_string(&file).context("the shop's fairway.toml")?;
        text.push_str(&self.environment());
        std::fs::write(&file, text).context("the shop's fairway.toml")
    }

    /// What [`Shop::check_out`] adds to the shop's fairway.toml.
    pub fn environment(&self) -> String {
        let base = ENVIRONMENT.replace("LISTEN", &self.address.to_string()).replace("BAKE", &self.bake);
        format!("{base}{}", self.more)
    }

    /// The version that answers, from the header that every answer of the shop has.
    pub fn version(&self) -> Done<String> {
        let answer = http::get(self.address, "/")?;
        Ok(answer.header("x-shop-version").context("the shop does not say its version")?.to_owned())
    }

    /// Orders that reached the shop more than once.
    pub fn doubled(&self) -> Done<u64> {
        let list = self.ask("/api/receipts/duplicates")?;
        let orders = list["duplicates"].as_array().context("the list of duplicates")?;
        Ok(orders.len() as u64)
    }

    /// Orders that the shop has stored.
    pub fn stored(&self) -> Done<u64> {
        self.ask("/api/orders/count")?["orders"].as_u64().context("the number of orders")
    }

    fn ask(&self, path: &str) -> Done<Value> {
        let answer = http::get(self.address, path)?;
        if answer.status != 200 {
            return Err(Fault::new(format!("{path} answered {}: {}", answer.status, answer.body)));
        }
        serde_json::from_str(&answer.body).context(path)
    }
}
