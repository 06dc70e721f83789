//! `GET …/events?after=N&follow=true`: the record from a number on, then as it grows.

use std::path::PathBuf;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use fairway_api::ApiError;
use fairway_engine::id::EnvironmentKey;
use fairway_store::LogReader;
use serde::Deserialize;
use tokio::sync::{broadcast, mpsc};

use super::{App, Failure, key, line, lines};
use crate::describe::to_api;
use crate::pump::Pump;
use crate::record::from_record;
use crate::warn::warn;

/// Events on their way to one reader; a slow one makes the reading wait, not the pump.
const READ_AHEAD: usize = 64;

/// A line without content each so often tells both sides that the other is there.
const SIGN_OF_LIFE: std::time::Duration = std::time::Duration::from_secs(15);

#[derive(Debug, Deserialize)]
pub struct Wanted {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    follow: bool,
}

type Line = Result<bytes::Bytes, std::io::Error>;

pub async fn events(
    State(app): State<App>,
    Path((project, environment)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Failure> {
    let key = key(&project, &environment)?;
    let (lines_in, lines_out) = mpsc::channel::<Line>(READ_AHEAD);
    // Subscribed before the log is read, so that nothing falls between the two.
    let follow = wanted.follow.then(|| app.pump.follow());
    tokio::spawn(pour(app.pump.clone(), app.log_path.clone(), key, wanted.after, follow, lines_in));
    Ok(lines(tokio_stream::wrappers::ReceiverStream::new(lines_out)))
}

async fn pour(
    pump: Pump,
    log: PathBuf,
    key: EnvironmentKey,
    mut after: u64,
    mut follow: Option<broadcast::Receiver<std::sync::Arc<crate::pump::Recorded>>>,
    out: mpsc::Sender<Line>,
) {
    loop {
        match read(&log, &key, after, &out).await {
            Ok(Some(last)) => after = last,
            // The reader went away.
            Ok(None) => return,
            // Broken off, not ended: a reader that saw an end would believe that this was all.
            Err(error) => {
                warn(format_args!("events of {key} cannot be read: {error}"));
                drop(out.send(Err(std::io::Error::other(error.to_string()))).await);
                return;
            }
        }
        let Some(live) = &mut follow else { return };
        loop {
            match tokio::time::timeout(SIGN_OF_LIFE, live.recv()).await {
                Err(_) => {
                    if out.send(Ok(bytes::Bytes::from_static(b"\n"))).await.is_err() {
                        return;
                    }
                }
                Ok(Ok(recorded)) if recorded.seq <= after => {}
                Ok(Ok(recorded)) => {
                    after = recorded.seq;
                    if recorded.event.environment == key
                        && out.send(line(&to_api(recorded.seq, &recorded.event))).await.is_err()
                    {
                        return;
                    }
                }
                // Too slow: the log has it all.
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => {
                    *live = pump.follow();
                    break;
                }
                Ok(Err(broadcast::error::RecvError::Closed)) => return,
            }
        }
    }
}

/// Sends what is on the record; the answer is the last number read.
async fn read(
    log: &std::path::Path,
    key: &EnvironmentKey,
    after: u64,
    out: &mpsc::Sender<Line>,
) -> Result<Option<u64>, ApiError> {
    let (log, key, out) = (log.to_owned(), key.clone(), out.clone());
    tokio::task::spawn_blocking(move || {
        let fail = |error: String| ApiError::new("log/unreadable", "the log cannot be read").cause(error);
        let log = LogReader::open(&log).map_err(|e| fail(e.to_string()))?;
        let mut last = after;
        let environment = key.to_string();
        for record in log.read_from(after.saturating_add(1)) {
            let record = record.map_err(|e| fail(e.to_string()))?;
            last = record.seq;
            if record.environment.as_deref() != Some(environment.as_str()) {
                continue;
            }
            let event = from_record(&record).map_err(|e| fail(e.to_string()))?;
            if out.blocking_send(line(&to_api(record.seq, &event))).is_err() {
                return Ok(None);
            }
        }
        Ok(Some(last))
    })
    .await
    .unwrap_or_else(|error| Err(ApiError::new("server/panic", error.to_string())))
}

#[cfg(test)]
mod tests {
    use fairway_engine::time::Timestamp;
    use fairway_engine::{Command, State};
    use fairway_store::{Log, Snapshots};

    use super::*;
    use crate::clock::Clock;
    use crate::testing::{command_of, deploy, release};

    /// More than a follower may be behind before it has to read the log.
    const TOGGLES: u64 = 400;

    fn seq(line: &[u8]) -> Option<u64> {
        let line = line.strip_suffix(b"\n")?;
        (!line.is_empty()).then(|| serde_json::from_slice::<fairway_api::Event>(line).unwrap().seq)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_follower_that_falls_behind_misses_nothing_and_hears_nothing_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(fairway_store::database::DATABASE_FILE);
        let snapshots = Snapshots::open(&dir.path().join("snapshots")).unwrap();
        let (effects, _kept) = mpsc::unbounded_channel();
        let clock = Clock::start(Timestamp(0));
        let (pump, thread) =
            crate::pump::start(Log::open(&path).unwrap(), snapshots, State::default(), 0, clock, effects)
                .unwrap();
        let dev = crate::testing::key("dev");
        pump.command(deploy(&dev, release("127.0.0.1:8080"))).await.unwrap();

        let (lines_in, mut lines_out) = mpsc::channel(READ_AHEAD);
        let follow = Some(pump.follow());
        let pouring = tokio::spawn(pour(pump.clone(), path, dev.clone(), 0, follow, lines_in));
        // Nobody reads meanwhile: first the lines pile up, then the follower lags.
        for _ in 0..TOGGLES {
            let message = "back at nine".to_owned();
            for command in [Command::MaintenanceOn { message }, Command::MaintenanceOff] {
                pump.command(command_of(&dev, command)).await.unwrap();
            }
        }
        let last = pump.shared.seq();
        assert!(last > 1_100, "{last} events are too few to fall behind");
        let mut heard = Vec::new();
        while heard.last() != Some(&last) {
            let line = tokio::time::timeout(std::time::Duration::from_secs(20), lines_out.recv()).await;
            heard.extend(seq(&line.expect("the stream goes on").unwrap().unwrap()));
        }
        assert_eq!(heard, (1..=last).collect::<Vec<_>>());

        pump.command(command_of(&dev, Command::Down)).await.unwrap();
        let next = lines_out.recv().await.unwrap().unwrap();
        assert_eq!(seq(&next), Some(last + 1), "and then it follows again");
        pouring.abort();
        pump.stop().await;
        thread.join().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_read_breaks_the_stream_off() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(&dir.path().join("snapshots")).unwrap();
        let path = dir.path().join(fairway_store::database::DATABASE_FILE);
        let (effects, _kept) = mpsc::unbounded_channel();
        let clock = Clock::start(Timestamp(0));
        let (pump, thread) =
            crate::pump::start(Log::open(&path).unwrap(), snapshots, State::default(), 0, clock, effects)
                .unwrap();
        let (lines_in, mut lines_out) = mpsc::channel(READ_AHEAD);
        pour(pump.clone(), dir.path().join("none"), crate::testing::key("dev"), u64::MAX, None, lines_in)
            .await;
        assert!(lines_out.recv().await.expect("an error is not an end").is_err());
        pump.stop().await;
        thread.join().unwrap().unwrap();
    }
}
