//! `fairway server upgrade`: another program in the place of the one that runs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fairway_api::client::{Client, Endpoint};
use fairway_api::{ApiError, ProxyStatus, ServerInfo, UpgradeReport, UpgradeRequest, Upgraded};
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::problem::{Outcome, Problem, ask};

/// The checks and the hand-over have bounds of their own, which come to less than two minutes.
const BEGUN_WITHIN: Duration = Duration::from_secs(150);

/// The new server has a minute to come up, and the one before as long to come back.
const BACK_WITHIN: Duration = Duration::from_secs(130);

const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The program to go on with [default: the one that runs this command]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let binary = program(args.binary.as_deref())?;
    cx.block_on(async {
        let client = cx.client()?;
        if let Endpoint::Tcp { .. } = client.endpoint() {
            return Err(Problem::usage(
                "upgrade/elsewhere",
                "a server is upgraded on its own machine",
                "run this there; without --server it finds the server's socket",
            ));
        }
        let before = ask(client.status()).await?.server;
        cx.out.step(&format!("trying {}", binary.display()));
        let request = UpgradeRequest { binary: binary.display().to_string() };
        let begun = tokio::time::timeout(BEGUN_WITHIN, client.upgrade(&request)).await;
        let report = match begun {
            Ok(report) => report.map_err(|error| of_upgrade(error, &before))?,
            Err(_) => return Err(not_known(format!("no answer in {} s", BEGUN_WITHIN.as_secs()))),
        };
        let replaced = Instant::now();
        cx.out.step("the proxy has handed over; the server goes over");
        let server = new_server(&client, &before, &report).await?;
        let away = replaced.elapsed();
        if let Some(Upgraded { failed: Some(why), .. }) = &server.upgraded {
            return Err(went_back(why, &report, &server));
        }
        cx.out.data(told(&before, &server, &report, away));
        if before.binary != server.binary {
            cx.out.warning(&starts_the_other(&before, &server));
        }
        cx.out.result(
            Exit::Done,
            &json!({ "from": report.from, "to": report.to, "proxy": report.proxy, "server": server }),
        );
        Ok(Exit::Done)
    })
}

/// As the server will know it: it works in another directory.
fn program(named: Option<&Path>) -> Result<PathBuf, Problem> {
    let (path, hint) = match named {
        Some(path) => (path.to_owned(), "`--binary` is the path of a Fairway program"),
        None => (
            std::env::current_exe()
                .map_err(|source| Problem::Read { path: PathBuf::from("/proc/self/exe"), source })?,
            "the file of this command is gone; name one with --binary",
        ),
    };
    path.canonicalize().map_err(|source| {
        let found = ApiError::new("upgrade/no-program", format!("{} cannot be read", path.display()));
        Problem::Refused(Box::new(found.cause(source.to_string()).cause("nothing was changed").hint(hint)))
    })
}

fn of_upgrade(error: fairway_api::client::ClientError, before: &ServerInfo) -> Problem {
    let problem = Problem::of_change(error, None);
    if let Problem::Refused(refused) = &problem
        && refused.code == "api/unknown-path"
    {
        return Problem::Failed {
            code: "upgrade/too-old",
            what: format!("the server that runs ({}) cannot be upgraded in place yet", before.version),
            causes: vec!["nothing was changed".to_owned()],
            lines: Vec::new(),
            hint: Some("end it and start the new one: what it runs goes on meanwhile".to_owned()),
            exit: Exit::Failed,
        };
    }
    problem
}

/// The server that says that this upgrade made it.
async fn new_server(
    client: &Client,
    before: &ServerInfo,
    report: &UpgradeReport,
) -> Result<ServerInfo, Problem> {
    let until = Instant::now() + BACK_WITHIN;
    loop {
        // A server on its way out cuts connections, and refuses none: it is asked until it answers for itself.
        if let Ok(Ok(status)) = tokio::time::timeout(BACK_WITHIN, client.status()).await {
            let server = status.server;
            if server.upgraded.as_ref().is_some_and(|upgraded| upgraded.id == report.id) {
                return Ok(server);
            }
            if server.pid != before.pid {
                return Err(not_known(format!(
                    "another server process answers, {} (pid {}): the one that was upgraded has ended, and something \
                     has started this one",
                    server.version, server.pid
                )));
            }
        }
        if Instant::now() > until {
            return Err(not_known(format!(
                "the new server does not answer after {} s",
                BACK_WITHIN.as_secs()
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn not_known(cause: String) -> Problem {
    Problem::Failed {
        code: "outcome/unknown",
        what: "it is not known whether the new version runs".to_owned(),
        causes: vec![cause, "the proxy and the services run without the server".to_owned()],
        lines: Vec::new(),
        hint: Some("`fairway status` shows what is so; start the server when it is away".to_owned()),
        exit: Exit::Unknown,
    }
}

fn went_back(why: &str, report: &UpgradeReport, server: &ServerInfo) -> Problem {
    let mut causes = vec![why.to_owned(), format!("the server is {} again, and goes on", server.version)];
    if report.proxy.is_some() {
        causes.push(format!("the proxy is the new one, {}, and serves", report.to));
    }
    Problem::Failed {
        code: "upgrade/server",
        what: "the new server did not start".to_owned(),
        causes,
        lines: Vec::new(),
        hint: Some("`fairway server upgrade` of the old version takes the proxy back".to_owned()),
        exit: Exit::Failed,
    }
}

fn told(before: &ServerInfo, after: &ServerInfo, report: &UpgradeReport, away: Duration) -> String {
    let proxy = match (&report.proxy, &after.proxy) {
        (Some(handover), _) => format!("the proxy handed its sockets over in {} ms", handover.took_ms),
        (None, ProxyStatus::Serving { .. }) => "a new proxy was started: none answered before".to_owned(),
        (None, ProxyStatus::Unreachable { why }) => format!("the proxy does not answer: {why}"),
    };
    let mut text = format!(
        "server and proxy run {} (before: {}); {proxy}, the server was away for {} ms",
        after.version,
        before.version,
        away.as_millis()
    );
    match after.older_shims {
        0 => {}
        1 => text.push_str("\n1 copy is held by a shim of the earlier program"),
        count => text.push_str(&format!("\n{count} copies are held by shims of the earlier program")),
    }
    if after.older_shims > 0 {
        text.push_str(
            ": they go on as they are, and are replaced as copies are replaced (`fairway restart`, the next deploy)",
        );
    }
    text
}

/// What starts the server at boot names a file, and we do not change files.
fn starts_the_other(before: &ServerInfo, after: &ServerInfo) -> ApiError {
    let before = before.binary.trim_end_matches(" (deleted)");
    let warning = ApiError::new(
        "upgrade/other-path",
        format!("the server ran {before}, and now runs {}", after.binary),
    );
    warning
        .cause(format!("whatever starts the server at the next boot still starts {before}"))
        .hint(format!("install -m 755 {} {before}", after.binary))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(version: &str, binary: &str, older_shims: u32) -> ServerInfo {
        ServerInfo {
            version: version.to_owned(),
            pid: 7,
            started_ms: 0,
            now_ms: 0,
            state_dir: "/s".to_owned(),
            seq: 1,
            proxy: ProxyStatus::Serving { pid: 8, generation: 1, version: version.to_owned() },
            binary: binary.to_owned(),
            upgraded: None,
            older_shims,
        }
    }

    fn report() -> UpgradeReport {
        let proxy = fairway_api::ProxyHandover { from_pid: 8, to_pid: 9, took_ms: 31 };
        UpgradeReport { id: "1".into(), from: "1.0.0".into(), to: "1.1.0".into(), proxy: Some(proxy) }
    }

    #[test]
    fn it_is_told_what_runs_and_what_still_does_not() {
        let (before, after) = (server("1.0.0", "/a", 0), server("1.1.0", "/b", 3));
        let text = told(&before, &after, &report(), Duration::from_millis(90));
        assert!(text.starts_with(
            "server and proxy run 1.1.0 (before: 1.0.0); the proxy handed its sockets over in 31 ms, the server was \
             away for 90 ms\n3 copies are held by shims of the earlier program: they go on"
        ));
        assert!(!told(&before, &before, &report(), Duration::ZERO).contains("shim"));
        assert_eq!(starts_the_other(&before, &after).hint.unwrap(), "install -m 755 /b /a");
    }

    #[test]
    fn a_server_that_came_back_is_a_failure_that_says_what_is_new() {
        let problem = went_back("it panicked", &report(), &server("1.0.0", "/a", 0));
        assert_eq!(problem.exit().code(), 1);
        let told = problem.report().remove(0);
        assert_eq!(
            told.causes,
            [
                "it panicked",
                "the server is 1.0.0 again, and goes on",
                "the proxy is the new one, 1.1.0, and serves"
            ]
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_told_before_the_server_is_asked() {
        let problem = program(Some(Path::new("/no/such/fairway"))).unwrap_err();
        assert_eq!((problem.exit().code(), problem.report()[0].code.as_str()), (1, "upgrade/no-program"));
        program(None).unwrap();
    }
}
