//! A Prometheus that ends in the middle of a canary which it answers for, beside everything else: Fairway waits a minute
//! before it says that it waits.

use std::path::PathBuf;

use serde_json::Value;

use super::programs::Program;
use super::{World, until};
use crate::fault::{Context, Done};
use crate::home::{free_address, get};

/// Answers by itself.
const CONFIG: &str = "global: { scrape_interval: 1s }\n";

const PAGE: &str = "index.html";

pub struct Leaving {
    directory: PathBuf,
    prometheus: Program,
    listen: std::net::SocketAddr,
}

impl Leaving {
    /// A project of one service without visitors, of which the gate is all the evidence.
    pub fn begin(world: &World) -> Done<Self> {
        let prometheus =
            world.programs.prometheus(&world.home.path().join("leaving"), &[("prometheus.yml", CONFIG)])?;
        let directory = world.home.path().join("pages");
        std::fs::create_dir_all(&directory).context("a project")?;
        let listen = free_address()?;
        let file = format!(
            "version = 1\nproject = \"pages\"\n\n[service.web]\nstatic = \".\"\nroute = \"/\"\n\n\
             [env.demo]\nlisten = \"{listen}\"\n\n[env.demo.deploy]\nbake = \"0s\"\nsequential = false\n\
             strategy = \"canary\"\nsteps = [{{ weight = 50, hold = \"8s\" }}]\n\
             gates = [{{ query = \"vector(1)\", min = 1 }}]\n\n\
             [env.demo.metrics]\nprometheus = \"{}\"\n",
            prometheus.url()
        );
        std::fs::write(directory.join("fairway.toml"), file).context("a project")?;
        let mut leaving = Self { directory, prometheus, listen };
        leaving.deploy(world, "one", &[])?;
        leaving.deploy(world, "two", &["--detach"])?;
        until(&world.home, &leaving.directory, |rollout| rollout["phase"] == "shifting")?;
        leaving.prometheus.end();
        Ok(leaving)
    }

    fn deploy(&self, world: &World, page: &str, more: &[&str]) -> Done {
        std::fs::write(self.directory.join(PAGE), page).context("a page")?;
        world.home.must(&self.directory, &[&["deploy", "-e", "demo"], more].concat())?;
        Ok(())
    }

    pub fn end(&mut self, world: &World) -> Done<Vec<String>> {
        let paused = until(&world.home, &self.directory, |rollout| {
            rollout["waiting"].as_str().is_some_and(|text| text.contains("paused"))
        })?;
        let mut findings = Vec::new();
        let waiting = paused["waiting"].as_str().unwrap_or_default();
        let address = self.prometheus.address().to_string();
        if !waiting.contains("vector(1)") || !waiting.contains(&address) {
            findings.push(format!("it does not say which source of which gate is gone: {waiting}"));
        }
        let listed = world.home.ask(&self.directory, &["alert", "list", "-e", "demo"])?;
        if !listed["problems"].to_string().contains(&address) {
            findings.push(format!("the list of alerts does not say that nobody answers: {listed}"));
        }
        self.prometheus.start()?;
        world.home.must(&self.directory, &["resume", "-e", "demo"])?;
        until(&world.home, &self.directory, Value::is_null)?;
        let page = get(self.listen, &format!("/{PAGE}"))?.body;
        if page != "two" {
            findings.push(format!("it did not go on when Prometheus was back: {page}"));
        }
        Ok(findings)
    }
}
