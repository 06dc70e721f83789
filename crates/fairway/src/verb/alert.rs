//! `fairway alert`

mod matcher;
mod show;

use std::time::Duration;

use fairway_api::{Matcher, SilenceRequest};
use serde_json::json;

use crate::ago;
use crate::context::Context;
use crate::duration;
use crate::exit::Exit;
use crate::output::{Paint, printable};
use crate::problem::{Outcome, Problem, ask};

/// What fires, who is told, and keeping quiet for a while
///
/// Rules, routes and channels are in fairway.toml and come with a deploy; `fairway export` writes them for Prometheus
/// and Alertmanager.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway alert list -e production\n  fairway alert test ops -e production\n  fairway alert silence alertname=HighCpu service=api --for 2h --comment 'load test' -e production\n  fairway alert unsilence s3 -e production"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// What fires, or soon will; exit code 3 with --exit-code when something does
    List {
        /// Exit with 3 when an alert fires that nobody silenced
        #[arg(long)]
        exit_code: bool,
    },
    /// Send a message through a channel that says that it is a test
    Test {
        /// Which one
        channel: String,
    },
    /// Tell nobody of matching alerts for a while
    Silence {
        /// Labels that an alert must all have: alertname=HighCpu, severity!=critical, service=~"api|web"
        #[arg(required = true, value_name = "MATCHER", value_parser = matcher::parse)]
        matchers: Vec<Matcher>,
        /// How long
        #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
        time: Duration,
        /// Why, for whoever wonders about the silence
        #[arg(long, value_name = "TEXT")]
        comment: String,
    },
    /// Silences that hold, and those that ended lately
    Silences,
    /// End a silence now
    Unsilence {
        /// Its id, such as s3
        id: String,
    },
    /// Channels, and whether they work
    Channels,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    match &args.what {
        What::List { exit_code } => list(cx, *exit_code),
        What::Test { channel } => test(cx, channel),
        What::Silence { matchers, time, comment } => silence(cx, matchers, *time, comment),
        What::Silences => silences(cx),
        What::Unsilence { id } => unsilence(cx, id),
        What::Channels => channels(cx),
    }
}

fn list(cx: &Context, exit_code: bool) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let list = ask(client.alerts(&target)).await?;
        let now_ms = ago::now_ms();
        if list.alerts.is_empty() {
            cx.out.progress(format!("nothing fires in {}", target.environment));
        } else {
            cx.out.data(show::alerts(&list.alerts, now_ms, cx.out.colours()));
        }
        for problem in &list.problems {
            let mark = cx.out.progress_colours().paint(Paint::Warn, "not known");
            cx.out.progress(format!("{mark}: {}", printable(problem)));
        }
        let exit = if exit_code && show::is_loud(&list.alerts) { Exit::Findings } else { Exit::Done };
        cx.out.result(exit, &json!(list));
        Ok(exit)
    })
}

fn test(cx: &Context, channel: &str) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let sent = client.test_channel(&target, channel).await;
        let test = sent.map_err(|error| Problem::of_change(error, Some(&target.environment)))?;
        let answer = printable(&test.answer);
        if !test.is_taken {
            return Err(Problem::failed(
                "alert/not-taken",
                format!("{channel} did not take the test: {answer}"),
                "check its address and its secret; fairway secret set NAME, then deploy",
            ));
        }
        cx.out.data(format!("{channel} took the test: {answer}"));
        cx.out.result(Exit::Done, &json!(test));
        Ok(Exit::Done)
    })
}

fn silence(cx: &Context, matchers: &[Matcher], time: Duration, comment: &str) -> Outcome {
    let for_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let request = SilenceRequest { matchers: matchers.to_vec(), for_ms, comment: comment.to_owned() };
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let made = client.silence(&target, &request).await;
        let made = made.map_err(|error| Problem::of_change(error, Some(&target.environment)))?;
        cx.out.data(format!(
            "{} silences {} until {} UTC",
            made.id,
            made.matchers.join(" "),
            ago::utc(made.ends_ms)
        ));
        cx.out.progress(format!("fairway alert unsilence {} -e {} ends it", made.id, target.environment));
        cx.out.result(Exit::Done, &json!(made));
        Ok(Exit::Done)
    })
}

fn silences(cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let silences = ask(client.silences(&target)).await?;
        if silences.is_empty() {
            cx.out.progress(format!("nothing is silenced in {}", target.environment));
        } else {
            cx.out.data(show::silences(&silences, cx.out.colours()));
        }
        cx.out.result(Exit::Done, &json!(silences));
        Ok(Exit::Done)
    })
}

fn unsilence(cx: &Context, id: &str) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let ended = client.unsilence(&target, id).await;
        let ended = ended.map_err(|error| Problem::of_change(error, Some(&target.environment)))?;
        cx.out.data(format!("{} has ended: {} is told again", ended.id, ended.matchers.join(" ")));
        cx.out.result(Exit::Done, &json!(ended));
        Ok(Exit::Done)
    })
}

fn channels(cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let channels = ask(client.channels(&target)).await?;
        if channels.is_empty() {
            cx.out.progress(format!(
                "{} has no channels: alerts are shown, and nobody is told",
                target.environment
            ));
        } else {
            cx.out.data(show::channels(&channels, ago::now_ms(), cx.out.colours()));
        }
        cx.out.result(Exit::Done, &json!(channels));
        Ok(Exit::Done)
    })
}
