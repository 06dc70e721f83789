//! Copies of a service that shows figures, as a Prometheus finds them by itself.

use std::time::Instant;

use serde_json::Value;

use super::programs::ask;
use super::{World, soon};
use crate::fault::{Context, Done};
use crate::home::get;

/// A service of the shop with figures of its own, two copies.
const STOCK: &str = "
[service.stock]
command = [\"python3\", \"stock.py\"]
port = 4100
replicas = 2
metrics = \"/metrics\"
ready = { http = \"/metrics\", within = \"10s\", every = \"50ms\" }
";

const PROGRAM: &str = r##"import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"# TYPE stock_items gauge\nstock_items{shelf=\"a\"} ITEMS\n"
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"]))
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"##;

const QUERY: &str = "stock_items{environment=\"shop/demo\",service=\"stock\",job=\"service\",shelf=\"a\"}";

/// Targets follow a deploy: those of the release before are gone, with their series.
pub fn by_itself(world: &mut World) -> Done<Vec<String>> {
    let first = show(world, 17)?;
    let began = Instant::now();
    let second = show(world, 23)?;
    println!("        a deploy and its figures in Prometheus took {:.1} s", began.elapsed().as_secs_f64());
    let mut findings = Vec::new();
    if first.iter().any(|copy| second.contains(copy)) {
        findings.push(format!("copies of both releases have one name: {first:?}, {second:?}"));
    }
    let answer = get(world.figures, "/api/v1/http_sd")?;
    let kind = answer.header("content-type").unwrap_or_default();
    let listed: Value = serde_json::from_str(&answer.body).context("the list of targets")?;
    let mut instances: Vec<String> =
        listed.as_array().into_iter().flatten().map(|group| text(&group["labels"]["instance"])).collect();
    instances.sort();
    if kind != "application/json" || instances != second {
        findings.push(format!("{second:?} run, and as {kind} there are listed {}", answer.body));
    }
    // What Prometheus was told it applies every five seconds; until then it asks copies that have ended.
    soon("a list of targets without those that were", || {
        let told = ask(world.prometheus.address(), "GET", "/api/v1/targets", &[("scrapePool", "service")])?;
        let targets = told.body["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        let is_right = targets.len() == second.len() && targets.iter().all(|target| target["health"] == "up");
        Ok(if is_right { Ok(()) } else { Err(told.body.to_string()) })
    })?;
    Ok(findings)
}

/// Deploys a stock with so many items, and answers with the names of the copies by which a Prometheus has them, as soon
/// as it has no others.
fn show(world: &mut World, items: u32) -> Done<Vec<String>> {
    // The copies of the release before run, and show figures, for as long as they are kept warm.
    let settings = world.elsewhere("keep_warm = \"1s\"") + STOCK;
    let items = items.to_string();
    let program = PROGRAM.replace("ITEMS", &items);
    std::fs::write(world.directory().join("stock.py"), program).context("the stock")?;
    world.deploy("v3", &settings)?;
    let prometheus = world.prometheus.address();
    soon("the figures of both copies", || {
        let told = ask(prometheus, "GET", "/api/v1/query", &[("query", QUERY)])?;
        let found = told.body["data"]["result"].as_array().cloned().unwrap_or_default();
        let are_new = found.iter().all(|series| series["value"][1] == items.as_str());
        if found.len() != 2 || !are_new {
            return Ok(Err(told.body.to_string()));
        }
        let mut copies: Vec<String> =
            found.iter().map(|series| text(&series["metric"]["instance"])).collect();
        copies.sort();
        Ok(Ok(copies))
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
