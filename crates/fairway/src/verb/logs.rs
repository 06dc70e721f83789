//! `fairway logs`

use std::collections::BTreeMap;
use std::time::Duration;

use fairway_api::client::{Client, Target};
use fairway_api::{LogLine, LogQuery};
use serde_json::json;

use crate::ago;
use crate::context::Context;
use crate::duration;
use crate::exit::Exit;
use crate::follow;
use crate::output::Paint;
use crate::problem::{Outcome, Problem, ask};

/// Lines shown when neither a number nor a time is asked for: a screen or two.
const LIMIT_DEFAULT: u32 = 200;

/// Show and search what services wrote, across releases and copies
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway logs api -e production -f\n  fairway logs -e production --since 10m --grep 'timeout|refused'\n  fairway logs api -e production --release r12"
)]
pub struct Args {
    /// Which service [default: all]
    service: Option<String>,
    /// Go on with new lines as they come
    #[arg(short = 'f', long)]
    follow: bool,
    /// Only lines that match this regular expression
    #[arg(long, value_name = "REGEX")]
    grep: Option<String>,
    /// Only of this release, such as r12
    #[arg(long, value_name = "RELEASE")]
    release: Option<String>,
    /// Only of this copy, such as api.r12.3
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<String>,
    /// Only of this job, such as 4 or j4
    #[arg(long, value_name = "JOB", value_parser = job_number)]
    job: Option<u32>,
    /// Only from this time on, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    since: Option<Duration>,
    /// The last so many lines [default: 200, with --since all]
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u32>,
}

fn job_number(text: &str) -> Result<u32, String> {
    text.trim_start_matches('j').parse().map_err(|_| format!("{text:?} is not a job such as j4"))
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let since_ms = args.since.map(|since| ago::now_ms().saturating_sub(since.as_millis() as u64));
        let query = LogQuery {
            service: args.service.clone(),
            release: args.release.clone(),
            instance: args.instance.clone(),
            job: args.job,
            since_ms,
            grep: args.grep.clone(),
            limit: args.limit.or_else(|| since_ms.is_none().then_some(LIMIT_DEFAULT)),
            follow: args.follow,
        };
        let mut printer = Printer::new(cx);
        tokio::select! {
            done = read(cx, &client, &target, query, &mut printer) => {
                let count = done?;
                if count == 0 {
                    cx.out.progress("no lines");
                }
                cx.out.result(Exit::Done, &json!({ "lines": count }));
                Ok(Exit::Done)
            }
            _ = tokio::signal::ctrl_c() => {
                cx.out.result(Exit::Interrupted, &json!(null));
                Ok(Exit::Interrupted)
            }
        }
    })
}

/// Prints lines until they end; with `follow`, over restarts of the server.
pub async fn read(
    cx: &Context,
    client: &Client,
    target: &Target,
    mut query: LogQuery,
    printer: &mut Printer<'_>,
) -> Result<u64, Problem> {
    let mut count = 0;
    loop {
        let mut lines = if count == 0 {
            ask(client.logs(target, &query)).await?
        } else {
            follow::patient(cx, || client.logs(target, &query)).await?
        };
        let mut was_cut = false;
        loop {
            match lines.next().await {
                Ok(Some(line)) => {
                    count += 1;
                    printer.print(&line);
                    // From here on, should the server go away.
                    query.since_ms = Some(line.at_ms + 1);
                    query.limit = None;
                }
                Ok(None) => break,
                Err(error) if !query.follow => return Err(Problem::of_query(error)),
                Err(_) => {
                    was_cut = true;
                    break;
                }
            }
        }
        if !query.follow || !was_cut {
            return Ok(count);
        }
    }
}

/// Lines with a name before each, in a colour of its own.
#[derive(Debug)]
pub struct Printer<'a> {
    cx: &'a Context,
    colours: BTreeMap<String, usize>,
    width: usize,
}

impl<'a> Printer<'a> {
    #[must_use]
    pub fn new(cx: &'a Context) -> Self {
        Self { cx, colours: BTreeMap::new(), width: 0 }
    }

    pub fn print(&mut self, line: &LogLine) {
        self.cx.out.event("log", line);
        if self.cx.out.is_json() {
            return;
        }
        let service = line.source.split('.').next().unwrap_or(&line.source).to_owned();
        let next = self.colours.len();
        let nth = *self.colours.entry(service).or_insert(next);
        self.width = self.width.max(line.source.chars().count());
        let colours = self.cx.out.colours();
        let name = colours.paint(Paint::Nth(nth), &format!("{:width$} |", line.source, width = self.width));
        let time = colours.paint(Paint::Dim, &ago::clock(line.at_ms));
        let message = line.message.trim_end_matches(['\r', '\n']);
        let fields = colours.paint(Paint::Dim, &fields(line));
        self.cx.out.data(format!("{time} {name} {message}{fields}"));
    }
}

/// ` status=200 path=/api`: what a structured line says beside its message. What stands in its own column is left out.
fn fields(line: &LogLine) -> String {
    const SHOWN_ELSEWHERE: &[&str] = &["message", "msg", "time", "timestamp", "ts", "at"];
    line.fields
        .iter()
        .filter(|(name, value)| {
            !SHOWN_ELSEWHERE.contains(&name.as_str()) && value.as_str() != Some(line.message.as_str())
        })
        .map(|(name, value)| match value.as_str() {
            Some(text) if !text.contains([' ', '"', '=']) => format!(" {name}={text}"),
            Some(_) | None => format!(" {name}={value}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_structured_line_stand_behind_its_message() {
        let mut line = LogLine {
            at_ms: 0,
            source: "api.r1.1".to_owned(),
            stream: "stdout".to_owned(),
            message: "request".to_owned(),
            fields: serde_json::Map::new(),
        };
        assert_eq!(fields(&line), "");
        line.fields.insert("message".to_owned(), json!("request"));
        line.fields.insert("event".to_owned(), json!("request"));
        line.fields.insert("path".to_owned(), json!("/api"));
        line.fields.insert("status".to_owned(), json!(200));
        line.fields.insert("user".to_owned(), json!("a b"));
        assert_eq!(fields(&line), " path=/api status=200 user=\"a b\"");
    }

    #[test]
    fn a_job_is_named_as_it_is_shown() {
        assert_eq!(job_number("j4"), Ok(4));
        assert_eq!(job_number("4"), Ok(4));
        assert!(job_number("api").is_err());
    }
}
