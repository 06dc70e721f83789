//! `fairway exec`

use std::io::{Read, Write};
use std::pin::Pin;
use std::task::{Context as Poller, Poll};

use bytes::Bytes;
use fairway_api::client::Body;
use fairway_api::{ExecFrame, ExecRequest};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::exit::Exit;
use crate::problem::{Outcome, Problem};

/// Chunks of standard input on their way: reading stops while the command does not read.
const CHUNKS_MAX: usize = 16;
const CHUNK_BYTES: usize = 32 * 1024;

/// Run a command inside a running copy of a service
///
/// With its files, variables and limits. Standard input is passed on, and so is the exit code.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway exec api -e staging -- ps aux\n  fairway exec api.r12.3 -e production -- cat /proc/self/limits"
)]
pub struct Args {
    /// A service (any ready copy of it) or a copy such as api.r12.3
    target: String,
    /// The command
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let request = ExecRequest { target: args.target.clone(), command: args.command.clone() };
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let change = |error| Problem::of_change(error, Some(&target.environment));
        let mut frames = client.exec(&target, &request, stdin()).await.map_err(change)?;
        loop {
            match frames.next().await.map_err(change)? {
                Some(frame @ (ExecFrame::Stdout { .. } | ExecFrame::Stderr { .. })) if cx.out.is_json() => {
                    cx.out.event("output", &frame);
                }
                Some(ExecFrame::Stdout { data }) => cx.out.raw(data.as_bytes()),
                Some(ExecFrame::Stderr { data }) => {
                    // Nobody reads it any more: the command goes on all the same.
                    let _ = std::io::stderr().write_all(data.as_bytes());
                }
                Some(ExecFrame::Exit { code, detail }) => {
                    let exit = match u8::try_from(code) {
                        Ok(0) => Exit::Done,
                        Ok(code) => Exit::OfCommand(code),
                        Err(_) => Exit::Failed,
                    };
                    if exit != Exit::Done {
                        cx.out.progress(&detail);
                    }
                    cx.out.result(exit, &json!({ "code": code, "detail": detail }));
                    return Ok(exit);
                }
                None => {
                    return Err(Problem::Failed {
                        code: "exec/cut",
                        what: "the command's end was not told".to_owned(),
                        causes: vec!["the server or the copy went away".to_owned()],
                        lines: Vec::new(),
                        hint: Some(format!("fairway status -e {}", target.environment)),
                        exit: Exit::Unknown,
                    });
                }
            }
        }
    })
}

/// Standard input as it comes. A thread reads it, because reading a terminal cannot be waited for otherwise.
fn stdin() -> Body {
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(CHUNKS_MAX);
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let chunk = match std::io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(Bytes::copy_from_slice(&buffer[..length])),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = chunk.is_err();
            if sender.blocking_send(chunk).is_err() || failed {
                return;
            }
        }
    });
    Stdin { receiver }.boxed()
}

struct Stdin {
    receiver: mpsc::Receiver<std::io::Result<Bytes>>,
}

impl http_body::Body for Stdin {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        poller: &mut Poller<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.receiver.poll_recv(poller).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}
