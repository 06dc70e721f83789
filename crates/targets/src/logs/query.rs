//! Reads what the shims wrote: the lines of several instances in the order of time, and new ones as they come.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fairway_engine::id::{EnvironmentKey, InstanceId, JobNumber, ReleaseNumber, ServiceName};
use fairway_engine::time::Timestamp;
use regex::Regex;
use thiserror::Error;

use super::line::Line;
use super::writer::{file_name, file_numbers};
use crate::key::{InstanceKey, JobKey, Layout};
use crate::wire::LOG_DIR;

/// The most lines one answer holds: what a terminal scrolls back, and a bound on memory (about 20 MB).
pub const LINES_MAX: usize = 50_000;

#[derive(Debug, Error)]
pub enum LogError {
    #[error("{pattern:?} is not a regular expression: {error}")]
    Pattern { pattern: String, error: Box<regex::Error> },
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// Whose output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogSource {
    Instance(InstanceId),
    Job(JobNumber),
}

impl std::fmt::Display for LogSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LogSource::Instance(instance) => instance.fmt(f),
            LogSource::Job(job) => job.fmt(f),
        }
    }
}

/// Which of an environment's instances and jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// Every instance, no job.
    #[default]
    Instances,
    /// Those of a service, of a release, or of one in the other.
    Of {
        service: Option<ServiceName>,
        release: Option<ReleaseNumber>,
    },
    Instance(InstanceId),
    Job(JobNumber),
}

impl Selection {
    fn takes(&self, source: &LogSource) -> bool {
        match (self, source) {
            (Selection::Instances, LogSource::Instance(_)) => true,
            (Selection::Of { service, release }, LogSource::Instance(instance)) => {
                service.as_ref().is_none_or(|service| *service == instance.service)
                    && release.is_none_or(|release| release == instance.release)
            }
            (Selection::Instance(wanted), LogSource::Instance(instance)) => wanted == instance,
            (Selection::Job(wanted), LogSource::Job(job)) => wanted == job,
            (Selection::Job(_), LogSource::Instance(_))
            | (Selection::Instances | Selection::Of { .. } | Selection::Instance(_), LogSource::Job(_)) => {
                false
            }
        }
    }
}

/// What a line must contain, in its text or any of its fields.
#[derive(Clone, Debug)]
pub enum Pattern {
    Substring(String),
    Regex(Regex),
}

impl Pattern {
    /// # Errors
    /// When it is no regular expression, or one too large to be run safely.
    pub fn regex(pattern: &str) -> Result<Self, LogError> {
        match Regex::new(pattern) {
            Ok(regex) => Ok(Pattern::Regex(regex)),
            Err(error) => Err(LogError::Pattern { pattern: pattern.to_owned(), error: Box::new(error) }),
        }
    }

    fn matches(&self, line: &Line) -> bool {
        let text = line.text();
        let all = || serde_json::Value::Object(line.fields.clone()).to_string();
        match self {
            Pattern::Substring(wanted) => text.contains(wanted.as_str()) || all().contains(wanted.as_str()),
            Pattern::Regex(regex) => regex.is_match(&text) || regex.is_match(&all()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct LogQuery {
    pub environment: EnvironmentKey,
    pub selection: Selection,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub grep: Option<Pattern>,
    /// The last so many that match; at most [`LINES_MAX`].
    pub limit: usize,
}

/// A line and whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    pub source: LogSource,
    pub line: Line,
}

impl LogQuery {
    /// The last `limit` lines of one instance.
    #[must_use]
    pub fn of_instance(key: &InstanceKey, limit: usize) -> Self {
        Self {
            environment: key.environment.clone(),
            selection: Selection::Instance(key.instance.clone()),
            since: None,
            until: None,
            grep: None,
            limit,
        }
    }

    pub(super) fn takes(&self, line: &Line) -> bool {
        self.since.is_none_or(|since| line.ts >= since)
            && self.until.is_none_or(|until| line.ts <= until)
            && self.grep.as_ref().is_none_or(|pattern| pattern.matches(line))
    }

    pub(super) fn sources(&self, layout: &Layout) -> io::Result<Vec<(LogSource, PathBuf)>> {
        let mut found = Vec::new();
        if let Selection::Job(job) = self.selection {
            let key = JobKey { environment: self.environment.clone(), job };
            found.push((LogSource::Job(job), layout.job(&key).join(LOG_DIR)));
            return Ok(found);
        }
        for key in layout.all_instances()? {
            let source = LogSource::Instance(key.instance.clone());
            if key.environment == self.environment && self.selection.takes(&source) {
                found.push((source, layout.instance(&key).join(LOG_DIR)));
            }
        }
        Ok(found)
    }
}

/// The last lines that match, oldest first, merged over all instances and rotated files. Blocking IO.
///
/// # Errors
/// When a directory cannot be read. A file that is rotated away meanwhile is not an error.
pub fn read(state_dir: &Path, query: &LogQuery) -> Result<Vec<LogEntry>, LogError> {
    let failed = |error| LogError::Io { path: state_dir.to_path_buf(), error };
    let limit = query.limit.min(LINES_MAX);
    let mut entries = Vec::new();
    for (source, dir) in query.sources(&Layout::new(state_dir)).map_err(failed)? {
        let lines =
            last_lines(&dir, query, limit, None).map_err(|error| LogError::Io { path: dir, error })?;
        entries.extend(lines.into_iter().map(|line| LogEntry { source: source.clone(), line }));
        // Bounded by the limit and one instance more, however many instances there are.
        merge(&mut entries, limit);
    }
    Ok(entries)
}

/// In the order of time; the sort is stable, so lines of one instance in the same millisecond keep theirs.
pub(super) fn merge(entries: &mut Vec<LogEntry>, limit: usize) {
    entries.sort_by_key(|entry| entry.line.ts);
    let surplus = entries.len().saturating_sub(limit);
    entries.drain(..surplus);
}

/// `before` is a file and an offset in it: what comes after is left to somebody else.
pub(super) fn last_lines(
    dir: &Path,
    query: &LogQuery,
    limit: usize,
    before: Option<(u64, u64)>,
) -> io::Result<Vec<Line>> {
    let numbers = match file_numbers(dir) {
        Ok(numbers) => numbers,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut newest_first = Vec::new();
    'files: for number in numbers.into_iter().rev() {
        if before.is_some_and(|(file, _)| number > file) {
            continue;
        }
        let mut text = match fs::read(dir.join(file_name(number))) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if let Some((_, offset)) = before.filter(|(file, _)| number == *file) {
            text.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
        }
        let mut lines_before_since = false;
        for line in text.split(|byte| *byte == b'\n').rev().filter_map(Line::decode) {
            if newest_first.len() >= limit {
                break 'files;
            }
            lines_before_since |= query.since.is_some_and(|since| line.ts < since);
            if query.takes(&line) {
                newest_first.push(line);
            }
        }
        // Older files are older still, save for a clock that was set back; then one file's worth is shown.
        if lines_before_since {
            break;
        }
    }
    newest_first.reverse();
    Ok(newest_first)
}

#[cfg(test)]
pub(super) mod tests {
    use fairway_engine::id::{EnvironmentName, ProjectName};

    use super::super::line::Stream;
    use super::super::writer::LogWriter;
    use super::*;
    use crate::spec::LogPolicy;

    fn environment() -> EnvironmentKey {
        EnvironmentKey {
            project: ProjectName::new("shop").unwrap(),
            environment: EnvironmentName::new("dev").unwrap(),
        }
    }

    pub(in crate::logs) fn writer(state_dir: &Path, instance: &str) -> LogWriter {
        let key = InstanceKey { environment: environment(), instance: instance.parse().unwrap() };
        let policy = LogPolicy { file_bytes_max: 32 << 10, files_max: 4 };
        LogWriter::open(&Layout::new(state_dir).instance(&key).join(LOG_DIR), policy)
    }

    pub(in crate::logs) fn put(log: &mut LogWriter, at: u64, text: &str) {
        log.push(Timestamp(at), Stream::Stdout, format!("{text}\n").as_bytes(), |_| {});
        log.flush(Timestamp(at));
    }

    pub(in crate::logs) fn query() -> LogQuery {
        LogQuery {
            environment: environment(),
            selection: Selection::Instances,
            since: None,
            until: None,
            grep: None,
            limit: 100,
        }
    }

    fn check(state_dir: &Path, query: &LogQuery, expect: &[&str]) {
        let found: Vec<String> =
            read(state_dir, query).unwrap().iter().map(|entry| entry.line.text()).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn instances_are_merged_in_time_and_filtered() {
        let dir = tempfile::tempdir().unwrap();
        let (mut api, mut web) = (writer(dir.path(), "api.r1.1"), writer(dir.path(), "web.r2.1"));
        put(&mut api, 10, "api one");
        put(&mut web, 20, "web one");
        put(&mut api, 30, r#"{"msg":"api two","order":"o-77"}"#);
        put(&mut web, 40, "web two");
        let dir = dir.path();
        check(dir, &query(), &["api one", "web one", "api two", "web two"]);
        check(dir, &LogQuery { limit: 2, ..query() }, &["api two", "web two"]);
        check(
            dir,
            &LogQuery { since: Some(Timestamp(20)), until: Some(Timestamp(30)), ..query() },
            &["web one", "api two"],
        );
        let of = |service: Option<&str>, release| LogQuery {
            selection: Selection::Of { service: service.map(|s| ServiceName::new(s).unwrap()), release },
            ..query()
        };
        check(dir, &of(Some("api"), None), &["api one", "api two"]);
        check(dir, &of(None, Some(ReleaseNumber(2))), &["web one", "web two"]);
        check(dir, &of(Some("api"), Some(ReleaseNumber(2))), &[]);
        let grep = |grep| LogQuery { grep: Some(grep), ..query() };
        check(dir, &grep(Pattern::Substring("o-77".into())), &["api two"]);
        check(dir, &grep(Pattern::regex("(?i)ONE$").unwrap()), &["api one", "web one"]);
        assert!(Pattern::regex("(").is_err());
        let other = LogQuery { selection: Selection::Job(JobNumber(1)), ..query() };
        check(dir, &other, &[]);
    }

    #[test]
    fn a_torn_line_and_strange_files_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut api = writer(dir.path(), "api.r1.1");
        put(&mut api, 1, "whole");
        let log = dir.path().join("instances/shop.dev/api.r1.1/log");
        fs::write(log.join("000002.jsonl"), "{\"ts\":\"1970-01-01T00:00").unwrap();
        fs::write(log.join("core"), "x").unwrap();
        check(dir.path(), &query(), &["whole"]);
    }
}
