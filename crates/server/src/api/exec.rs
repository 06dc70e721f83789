//! `POST …/exec`: a command beside a running instance; its input is the request body, its output comes as frames.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use fairway_api::{ApiError, ExecFrame, ExecRequest};
use fairway_engine::id::{EnvironmentKey, InstanceId, ServiceName};
use fairway_engine::{Environment, Refusal};
use fairway_targets::exec::ExecOutput;
use fairway_targets::exit::Exit;
use fairway_targets::key::InstanceKey;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::{App, Failure, key, line, lines};
use crate::error::Refused;

/// Frames on their way to a slow terminal; the command then waits.
const FRAMES_MAX: usize = 64;

const EXEC_HINT: &str =
    "the command runs as the copy does, on the server; with `-- sh -c '…'` a shell reads it";

pub async fn exec(
    State(app): State<App>,
    Path((project, environment)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let environment = key(&project, &environment)?;
    let request = parse(&headers)?;
    let instance = target(&app, &environment, &request.target)?;
    let key = InstanceKey { environment, instance };
    let session = app
        .drivers
        .supervisor
        .exec(&key, request.command)
        .await
        .map_err(|error| Failure(ApiError::new("exec/failed", error.to_string()).hint(EXEC_HINT)))?;
    let stdin = session.stdin;
    tokio::spawn(async move {
        let mut input = body.into_data_stream();
        while let Some(Ok(chunk)) = input.next().await {
            if stdin.send(chunk.to_vec()).await.is_err() {
                return;
            }
        }
    });
    let (frames_in, frames) = mpsc::channel(FRAMES_MAX);
    let mut output = session.output;
    tokio::spawn(async move {
        while let Some(one) = output.recv().await {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let frame = match one {
                ExecOutput::Stdout(bytes) => ExecFrame::Stdout { data: text(bytes) },
                ExecOutput::Stderr(bytes) => ExecFrame::Stderr { data: text(bytes) },
                ExecOutput::Exited(exit) => ExecFrame::Exit { code: code(&exit), detail: exit.to_string() },
            };
            if frames_in.send(line(&frame)).await.is_err() {
                return;
            }
        }
    });
    Ok(lines(tokio_stream::wrappers::ReceiverStream::new(frames)))
}

fn parse(headers: &HeaderMap) -> Result<ExecRequest, Failure> {
    let bad = |why: &str| {
        Failure(ApiError::new("exec/invalid", format!("the request is not valid: {why}")).exit(2))
    };
    let header = headers.get("fairway-exec").ok_or_else(|| bad("no fairway-exec header"))?;
    let text = percent_decode(header.as_bytes()).ok_or_else(|| bad("it is not percent-encoded UTF-8"))?;
    let request: ExecRequest = serde_json::from_str(&text).map_err(|error| bad(&error.to_string()))?;
    if request.command.is_empty() {
        return Err(bad("no command"));
    }
    Ok(request)
}

fn percent_decode(bytes: &[u8]) -> Option<String> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            decoded.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            decoded.push(first);
            rest = tail;
        }
    }
    String::from_utf8(decoded).ok()
}

/// An instance by its name, or any ready copy of a service.
fn target(app: &App, environment: &EnvironmentKey, name: &str) -> Result<InstanceId, Failure> {
    app.pump.shared.read(|state| {
        let Some(env) = state.environments.get(environment) else {
            return Err(
                Refused::from(Refusal::UnknownEnvironment { environment: environment.clone() }).into()
            );
        };
        find(env, name).ok_or_else(|| {
            let running: Vec<String> = env.instances.keys().map(ToString::to_string).collect();
            Failure(
                ApiError::new(
                    "exec/no-instance",
                    format!("{name} is neither a running instance nor a service with one"),
                )
                .hint(format!("running: {}", running.join(", ")))
                .exit(2),
            )
        })
    })
}

fn find(env: &Environment, name: &str) -> Option<InstanceId> {
    if let Ok(instance) = name.parse::<InstanceId>() {
        return env.instances.contains_key(&instance).then_some(instance);
    }
    let service = ServiceName::new(name).ok()?;
    let own = |instance: &&fairway_engine::Instance| instance.id.service == service && instance.is_ready();
    let serving = env.instances.values().filter(own).find(|instance| Some(instance.id.release) == env.stable);
    serving.or_else(|| env.instances.values().find(own)).map(|instance| instance.id.clone())
}

/// As a shell says it: 128 and the signal's number.
fn code(exit: &Exit) -> i32 {
    match exit {
        Exit::Code(code) => *code,
        Exit::Signal(signal) => 128 + signal,
        Exit::OutOfMemory => 137,
        Exit::Unknown { .. } => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::percent_decode;

    #[test]
    fn what_is_cut_off_is_refused() {
        assert_eq!(percent_decode(b"a%20b").as_deref(), Some("a b"));
        assert_eq!(percent_decode(b"a%2"), None);
        assert_eq!(percent_decode(b"%zz"), None);
    }
}
