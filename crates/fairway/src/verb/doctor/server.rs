//! The server and the proxy: alive, and of this version.

use std::time::Duration;

use fairway_api::{ProxyStatus, Status};

use super::{Finding, Level};
use crate::context::Context;
use crate::duration;
use crate::problem::Problem;

/// A server that does not answer in this time is stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Known {
    pub findings: Vec<Finding>,
    pub status: Option<Status>,
}

#[must_use]
pub fn look(cx: &Context) -> Known {
    let asked = cx.client().and_then(|client| {
        cx.block_on(async {
            match tokio::time::timeout(ANSWER_TIMEOUT, client.status()).await {
                Ok(answer) => answer.map(Some).map_err(Problem::of_query),
                Err(_) => Ok(None),
            }
        })
    });
    match asked {
        Ok(Some(status)) => Known { findings: tell(&status), status: Some(status) },
        Ok(None) => {
            let stuck = Finding::new(Level::Fail, "server", "it accepts connections and does not answer")
                .hint("the apps and the proxy run without it; end it, and start it again");
            Known { findings: vec![stuck], status: None }
        }
        Err(problem) => {
            let report = problem.report();
            let detail = report.first().map_or_else(|| problem.to_string(), |error| error.message.clone());
            let none = Finding::new(Level::Warn, "server", detail).hint(
                "`fairway up` for development, `fairway server run` or `fairway server install` otherwise",
            );
            Known { findings: vec![none], status: None }
        }
    }
}

fn tell(status: &Status) -> Vec<Finding> {
    let server = &status.server;
    let since = duration::show_ms(server.started_ms, server.now_ms);
    let detail = format!("{}, pid {}, for {since}", server.version, server.pid);
    let own = env!("CARGO_PKG_VERSION");
    let first = if server.version == own {
        Finding::new(Level::Ok, "server", detail)
    } else {
        Finding::new(Level::Warn, "server", format!("{detail}; this command is {own}"))
            .hint("fairway server upgrade")
    };
    let proxy = match &server.proxy {
        ProxyStatus::Serving { pid, generation, version } => {
            let detail = format!("{version}, pid {pid}, route table {generation}");
            match *version == server.version {
                true => Finding::new(Level::Ok, "proxy", detail),
                false => {
                    Finding::new(Level::Warn, "proxy", format!("{detail}; the server is {}", server.version))
                        .hint("fairway server upgrade")
                }
            }
        }
        ProxyStatus::Unreachable { why } => {
            Finding::new(Level::Warn, "proxy", format!("does not answer: {why}"))
                .hint("it may serve all the same; fairway check -e ENV")
        }
    };
    vec![first, proxy]
}
