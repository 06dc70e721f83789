//! New lines as they come, over rotations and new instances.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::line::Line;
use super::query::{LINES_MAX, LogEntry, LogError, LogQuery, LogSource, last_lines, merge};
use super::writer::{file_name, file_numbers};
use crate::key::Layout;

/// How often followed files are looked at. Only while somebody follows; a person does not see a tenth of a second.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

/// Read at once from a file that grew.
const READ_BYTES_MAX: u64 = 1 << 20;

/// The lines of `query` that are there, then new ones as they come, until nobody receives any more. New instances
/// that match are followed from their first line; `until` is not looked at.
///
/// # Errors
/// As [`read`].
pub async fn follow(state_dir: &Path, query: LogQuery, to: mpsc::Sender<LogEntry>) -> Result<(), LogError> {
    let (following, past) = aside(
        Following {
            state_dir: state_dir.to_path_buf(),
            query: LogQuery { until: None, ..query },
            tails: BTreeMap::new(),
        },
        Following::past,
    )
    .await?;
    let mut following = following;
    let mut entries = past;
    loop {
        for entry in entries {
            if to.send(entry).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            () = to.closed() => return Ok(()),
            () = tokio::time::sleep(FOLLOW_EVERY) => {}
        }
        (following, entries) = aside(following, Following::news).await?;
    }
}

/// Reads files on a thread that may block.
async fn aside(
    mut following: Following,
    read: fn(&mut Following) -> Result<Vec<LogEntry>, LogError>,
) -> Result<(Following, Vec<LogEntry>), LogError> {
    let path = following.state_dir.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let entries = read(&mut following)?;
        Ok((following, entries))
    });
    reading.await.map_err(|error| LogError::Io { path, error: io::Error::other(error) })?
}

#[derive(Debug)]
struct Following {
    state_dir: PathBuf,
    query: LogQuery,
    tails: BTreeMap<LogSource, Tail>,
}

impl Following {
    /// The places are taken first and the past is read up to them: nothing is lost, nothing is told twice.
    fn past(&mut self) -> Result<Vec<LogEntry>, LogError> {
        let limit = self.query.limit.min(LINES_MAX);
        let mut past = Vec::new();
        for (source, dir) in self.sources()? {
            let failed = |error| LogError::Io { path: dir.clone(), error };
            let tail = Tail::at_end(dir.clone()).map_err(failed)?;
            let place = Some((tail.number, tail.offset));
            let lines = last_lines(&dir, &self.query, limit, place).map_err(failed)?;
            past.extend(lines.into_iter().map(|line| LogEntry { source: source.clone(), line }));
            merge(&mut past, limit);
            self.tails.insert(source, tail);
        }
        Ok(past)
    }

    /// One chunk an instance: a flood from one does not hold the others back.
    fn news(&mut self) -> Result<Vec<LogEntry>, LogError> {
        for (source, dir) in self.sources()? {
            self.tails.entry(source).or_insert_with(|| Tail::at_start(dir));
        }
        let mut news = Vec::new();
        for (source, tail) in &mut self.tails {
            let lines = tail.read().map_err(|error| LogError::Io { path: tail.dir.clone(), error })?;
            let lines = lines.into_iter().flatten().filter(|line| self.query.takes(line));
            news.extend(lines.map(|line| LogEntry { source: source.clone(), line }));
        }
        merge(&mut news, usize::MAX);
        Ok(news)
    }

    fn sources(&self) -> Result<Vec<(LogSource, PathBuf)>, LogError> {
        let sources = self.query.sources(&Layout::new(&self.state_dir));
        sources.map_err(|error| LogError::Io { path: self.state_dir.clone(), error })
    }
}

/// A place in an instance's files.
#[derive(Debug)]
struct Tail {
    dir: PathBuf,
    number: u64,
    offset: u64,
}

impl Tail {
    fn at_start(dir: PathBuf) -> Self {
        Self { dir, number: 0, offset: 0 }
    }

    /// Behind the last whole line there is.
    fn at_end(dir: PathBuf) -> io::Result<Self> {
        let numbers = match file_numbers(&dir) {
            Ok(numbers) => numbers,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let Some(number) = numbers.last().copied() else { return Ok(Self::at_start(dir)) };
        let text = match fs::read(dir.join(file_name(number))) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let offset = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
        Ok(Self { dir, number, offset })
    }

    /// The next whole lines; none when there is nothing new.
    fn read(&mut self) -> io::Result<Option<Vec<Line>>> {
        let numbers = match file_numbers(&self.dir) {
            Ok(numbers) => numbers,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !numbers.contains(&self.number) {
            // Rotated away under a slow reader, or not begun: on to the oldest that there is.
            let Some(next) = numbers.iter().copied().find(|number| *number > self.number) else {
                return Ok(None);
            };
            (self.number, self.offset) = (next, 0);
        }
        let is_last = numbers.last() == Some(&self.number);
        let mut text = Vec::new();
        match fs::File::open(self.dir.join(file_name(self.number))) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(self.offset))?;
                file.take(READ_BYTES_MAX).read_to_end(&mut text)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole == 0 {
            if is_last {
                return Ok(None);
            }
            // The shim had begun the next one before this was read, so nothing more comes here.
            let next = numbers.iter().copied().find(|number| *number > self.number).unwrap_or(self.number);
            (self.number, self.offset) = (next, 0);
            return Ok(Some(Vec::new()));
        }
        self.offset += whole as u64;
        Ok(Some(text[..whole].split(|byte| *byte == b'\n').filter_map(Line::decode).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::tests::{put, query, writer};
    use super::*;

    #[tokio::test]
    async fn following_misses_no_line_over_rotations_and_new_instances() {
        let dir = tempfile::tempdir().unwrap();
        let mut api = writer(dir.path(), "api.r1.1");
        for n in 0..300 {
            put(&mut api, n, &format!("line {n}"));
        }
        let (to, mut from) = mpsc::channel(10);
        let path = dir.path().to_path_buf();
        let following =
            tokio::spawn(async move { follow(&path, LogQuery { limit: 5, ..query() }, to).await });
        let mut next = async || from.recv().await.unwrap().line.text();
        for n in 295..300 {
            assert_eq!(next().await, format!("line {n}"));
        }
        for n in 300..900 {
            put(&mut api, n, &format!("line {n}"));
        }
        for n in 300..900 {
            assert_eq!(next().await, format!("line {n}"));
        }
        put(&mut writer(dir.path(), "api.r2.1"), 1000, "newcomer");
        assert_eq!(next().await, "newcomer");
        drop(from);
        following.await.unwrap().unwrap();
    }
}
