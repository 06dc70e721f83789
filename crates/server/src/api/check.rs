//! `GET …/check`: everything asked once, now: proxy, instances, public routes.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use fairway_api::CheckResult;
use fairway_engine::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Answer, App, key};
use crate::error::Refused;
use crate::routes::ProxyState;

/// A person waits for the answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The proxy writes one file before it confirms.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

pub async fn check(
    State(app): State<App>,
    Path((project, environment)): Path<(String, String)>,
) -> Answer<Vec<CheckResult>> {
    let key = key(&project, &environment)?;
    let look = || app.pump.shared.read(|state| state.environments.get(&key).cloned());
    let mut found = look();
    // A table that was decided a moment ago is on its way.
    let until = tokio::time::Instant::now() + CONFIRM_TIMEOUT;
    while found.as_ref().is_some_and(|env| !env.routes.is_applied() && env.routes.refused.is_none())
        && tokio::time::Instant::now() < until
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
        found = look();
    }
    let Some(env) = found else {
        return Err(Refused::from(Refusal::UnknownEnvironment { environment: key }).into());
    };
    let mut results = Vec::new();
    results.push(match app.routes.proxy() {
        ProxyState::Serving { client, generation, behind } => {
            let answer = probe(async { client.ping().await.map_err(std::io::Error::other) }).await;
            match (answer, behind) {
                (Ok(()), None) => {
                    ok("proxy", format!("pid {} answers, snapshot {generation}", client.hello().pid))
                }
                (Ok(()), Some(why)) | (Err(why), _) => bad("proxy", why),
            }
        }
        ProxyState::Connected { why, .. } | ProxyState::Unreachable { why } => bad("proxy", why),
    });
    results.push(match &env.routes.refused {
        Some(why) => bad("route table", why.clone()),
        None if env.routes.is_applied() => ok("route table", format!("{} in force", env.routes.generation)),
        None => bad("route table", format!("{} not confirmed", env.routes.generation)),
    });
    for instance in env.instances.values() {
        let what = instance.id.to_string();
        let state = instance.state.name();
        results.push(match (&instance.address, instance.is_ready()) {
            (Some(address), true) => match probe(TcpStream::connect(&**address)).await {
                Ok(_) => ok(&what, format!("ready, accepts connections at {address}")),
                Err(why) => bad(&what, format!("said to be ready, but {address}: {why}")),
            },
            (None, true) => ok(&what, "ready".to_owned()),
            (_, false) => CheckResult { what, ok: !instance.is_live(), detail: state.to_owned() },
        });
    }
    if let Some(listen) = &env.routes.table.listen {
        for (service, route) in &env.routes.table.services {
            let Some(public) = &route.route else { continue };
            let host = public.host.as_ref().or(listen.host.as_ref()).map_or("localhost", String::as_str);
            let what = format!("{service} at {}", public.path);
            let address = listen.address.replace("0.0.0.0", "127.0.0.1");
            results.push(match probe(get(&address, host, &public.path)).await {
                Ok(status) => CheckResult {
                    what,
                    ok: status < 500,
                    detail: format!("{status} through {}", listen.address),
                },
                Err(why) => bad(&what, format!("{}: {why}", listen.address)),
            });
        }
    }
    Ok(Json(results))
}

fn ok(what: &str, detail: String) -> CheckResult {
    CheckResult { what: what.to_owned(), ok: true, detail }
}

fn bad(what: &str, detail: String) -> CheckResult {
    CheckResult { what: what.to_owned(), ok: false, detail }
}

async fn probe<T>(ask: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(PROBE_TIMEOUT, ask).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer in {PROBE_TIMEOUT:?}")),
    }
}

/// Status of one GET.
async fn get(address: &str, host: &str, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nUser-Agent: fairway-check\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    std::str::from_utf8(&head[9..])
        .ok()
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}
