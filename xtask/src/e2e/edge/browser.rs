//! Clients of every kind: a program in Node that does as it is told, one order after the other.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::fault::{Context, Done, Fault};

const PROGRAM: &str = include_str!("browser.js");

#[derive(Debug)]
pub struct Browser {
    child: Child,
    orders: ChildStdin,
    told: BufReader<ChildStdout>,
}

/// An answer, or how it failed to come.
#[derive(Debug)]
pub struct Told(Value);

impl Browser {
    pub fn start(directory: &Path) -> Done<Browser> {
        let program = directory.join("browser.js");
        std::fs::write(&program, PROGRAM).context("browser.js")?;
        let mut child = Command::new("node")
            .arg(&program)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("node")?;
        let (orders, told) = (child.stdin.take(), child.stdout.take());
        let (orders, told) = orders.zip(told).context("node has no pipes")?;
        Ok(Browser { child, orders, told: BufReader::new(told) })
    }

    /// Carries an order out; what came of it, good or not.
    pub fn told(&mut self, verb: &str, mut order: Value) -> Done<Told> {
        order["verb"] = json!(verb);
        writeln!(self.orders, "{order}").context("the clients")?;
        let mut line = String::new();
        self.told.read_line(&mut line).context("the clients")?;
        Ok(Told(serde_json::from_str(&line).context(format!("the clients' answer to {order}"))?))
    }

    /// The same, and it must have come to something.
    pub fn must(&mut self, verb: &str, order: Value) -> Done<Told> {
        let what = format!("{verb} {order}");
        let told = self.told(verb, order)?;
        match told.error() {
            Some(error) => Err(Fault::new(format!("{what}: {error}"))),
            None => Ok(told),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Told {
    pub fn error(&self) -> Option<&str> {
        self.0["error"].as_str()
    }

    pub fn status(&self) -> u64 {
        self.0["status"].as_u64().unwrap_or(0)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.0["headers"][name].as_str()
    }

    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.0["trailers"][name].as_str()
    }

    /// Another of the things that the clients tell.
    pub fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }

    pub fn is_null(&self, name: &str) -> bool {
        self.0[name].is_null()
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.0[name].as_u64()
    }

    pub fn list(&self, name: &str) -> Vec<&str> {
        self.0[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    pub fn counts(&self, name: &str) -> Vec<String> {
        self.0[name].as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
    }

    /// What stays open: a connection, a load, a stream.
    pub fn handle(&self) -> Value {
        self.0["handle"].clone()
    }

    pub fn body(&self) -> String {
        self.text("body").to_owned()
    }

    /// What the service says that it was asked.
    pub fn asked(&self) -> Value {
        serde_json::from_str(&self.body()).unwrap_or_default()
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}
