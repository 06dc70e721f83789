//! Writes an instance's output to numbered files of bounded size. The application is never made to wait for a
//! disk: what cannot be written is dropped and counted.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fairway_engine::time::Timestamp;

use super::line::{Piece, Stream, encode};
use crate::event::LAST_LINES_MAX;
use crate::spec::LogPolicy;

/// A longer line is stored in pieces. 16 KiB holds any stack trace on one line; a line without end must not hold
/// the shim's memory.
pub(crate) const LINE_BYTES_MAX: usize = 16 << 10;

/// What is kept in memory of each of the last lines.
const LAST_LINE_BYTES_MAX: usize = 2 << 10;

#[derive(Debug)]
pub(crate) struct LogWriter {
    dir: PathBuf,
    policy: LogPolicy,
    number: u64,
    file: Option<File>,
    file_bytes: u64,
    pending: Vec<u8>,
    pending_lines: u64,
    dropped: Dropped,
    last: VecDeque<String>,
    stdout: Splitter,
    stderr: Splitter,
}

#[derive(Debug, Default)]
struct Dropped {
    total: u64,
    /// Not yet told in the log itself.
    untold: u64,
    why: String,
}

/// `000042.jsonl`
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:06}.jsonl")
}

/// The numbers of the files in a log directory, oldest first.
pub(crate) fn file_numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".jsonl")?.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

impl LogWriter {
    /// The directory is made if it is missing. A disk that is full already is no error: lines are dropped.
    pub(crate) fn open(dir: &Path, policy: LogPolicy) -> Self {
        let _ = fs::create_dir_all(dir);
        Self {
            dir: dir.to_path_buf(),
            policy: LogPolicy {
                file_bytes_max: policy.file_bytes_max.max(2 * LINE_BYTES_MAX as u64),
                files_max: policy.files_max.max(2),
            },
            number: file_numbers(dir).ok().and_then(|numbers| numbers.last().copied()).unwrap_or(0),
            file: None,
            file_bytes: 0,
            pending: Vec::new(),
            pending_lines: 0,
            dropped: Dropped::default(),
            last: VecDeque::with_capacity(LAST_LINES_MAX),
            stdout: Splitter::default(),
            stderr: Splitter::default(),
        }
    }

    /// Takes a chunk of output as it came out of the pipe. Every whole line is handed to `seen` as well.
    pub(crate) fn push(&mut self, at: Timestamp, stream: Stream, chunk: &[u8], mut seen: impl FnMut(&[u8])) {
        let mut splitter = self.take_splitter(stream);
        splitter.push(chunk, |line, piece| {
            seen(line);
            self.line(at, stream, line, piece);
        });
        self.put_splitter(stream, splitter);
    }

    /// A remark of the shim's own.
    pub(crate) fn remark(&mut self, at: Timestamp, text: &str) {
        self.line(at, Stream::Fairway, text.as_bytes(), Piece::Whole);
        self.flush(at);
    }

    /// The streams have ended: a last line without a newline is a line too.
    pub(crate) fn end_of_streams(&mut self, at: Timestamp, mut seen: impl FnMut(&[u8])) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut splitter = self.take_splitter(stream);
            splitter.end(|line, piece| {
                seen(line);
                self.line(at, stream, line, piece);
            });
        }
        self.flush(at);
    }

    fn take_splitter(&mut self, stream: Stream) -> Splitter {
        match stream {
            Stream::Stdout => std::mem::take(&mut self.stdout),
            Stream::Stderr | Stream::Fairway => std::mem::take(&mut self.stderr),
        }
    }

    fn put_splitter(&mut self, stream: Stream, splitter: Splitter) {
        match stream {
            Stream::Stdout => self.stdout = splitter,
            Stream::Stderr | Stream::Fairway => self.stderr = splitter,
        }
    }

    fn line(&mut self, at: Timestamp, stream: Stream, line: &[u8], piece: Piece) {
        if stream != Stream::Fairway {
            if self.last.len() == LAST_LINES_MAX {
                self.last.pop_front();
            }
            let kept = line.get(..LAST_LINE_BYTES_MAX).unwrap_or(line);
            self.last.push_back(String::from_utf8_lossy(kept).into_owned());
        }
        let before = self.pending.len();
        encode(&mut self.pending, at, stream, line, piece);
        if self.file_bytes + self.pending.len() as u64 > self.policy.file_bytes_max {
            let line = self.pending.split_off(before);
            self.flush(at);
            self.rotate();
            self.pending = line;
        }
        self.pending_lines += 1;
    }

    /// Hands what is pending to the kernel; called once per turn of the shim's loop.
    pub(crate) fn flush(&mut self, at: Timestamp) {
        if self.pending.is_empty() {
            return;
        }
        let mut told = 0;
        if self.dropped.untold > 0 {
            let note = format!("{} lines were dropped: {}", self.dropped.untold, self.dropped.why);
            let mut with_note = Vec::with_capacity(self.pending.len() + 256);
            encode(&mut with_note, at, Stream::Fairway, note.as_bytes(), Piece::Whole);
            with_note.append(&mut self.pending);
            self.pending = with_note;
            told = self.dropped.untold;
        }
        match self.write_pending() {
            Ok(()) => self.dropped.untold -= told,
            Err(error) => {
                self.dropped.total += self.pending_lines;
                self.dropped.untold += self.pending_lines;
                self.dropped.why = error.to_string();
            }
        }
        self.pending.clear();
        // A burst must not keep its memory for ever.
        self.pending.shrink_to(LINE_BYTES_MAX);
        self.pending_lines = 0;
    }

    fn write_pending(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                self.number += 1;
                let path = self.dir.join(file_name(self.number));
                let opened = fs::create_dir_all(&self.dir)
                    .and_then(|()| File::options().append(true).create_new(true).open(path));
                match opened {
                    Ok(file) => none.insert(file),
                    Err(error) => {
                        self.number -= 1;
                        return Err(error);
                    }
                }
            }
        };
        if let Err(error) = file.write_all(&self.pending) {
            // Half a line would make the next one unreadable too.
            file.set_len(self.file_bytes)?;
            return Err(error);
        }
        self.file_bytes += self.pending.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) {
        self.file = None;
        self.file_bytes = 0;
        let numbers = file_numbers(&self.dir).unwrap_or_default();
        // Room for the one that comes next.
        let keep = usize::try_from(self.policy.files_max).unwrap_or(usize::MAX) - 1;
        for number in numbers.iter().take(numbers.len().saturating_sub(keep)) {
            let _ = fs::remove_file(self.dir.join(file_name(*number)));
        }
    }

    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }

    /// Before a new run, so that a failure is not explained with the output of the run before it.
    pub(crate) fn forget_last_lines(&mut self) {
        self.last.clear();
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.total
    }
}

/// Cuts a stream of bytes into lines and endless lines into pieces.
#[derive(Debug, Default)]
struct Splitter {
    open: Vec<u8>,
    /// Pieces of the open line that were handed on already.
    pieces: u32,
}

impl Splitter {
    fn push(&mut self, mut chunk: &[u8], mut line: impl FnMut(&[u8], Piece)) {
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            self.add(&chunk[..end], &mut line);
            self.finish(&mut line);
            chunk = &chunk[end + 1..];
        }
        self.add(chunk, &mut line);
    }

    fn end(&mut self, mut line: impl FnMut(&[u8], Piece)) {
        if !self.open.is_empty() || self.pieces > 0 {
            self.finish(&mut line);
        }
    }

    fn add(&mut self, mut bytes: &[u8], line: &mut impl FnMut(&[u8], Piece)) {
        while self.open.len() + bytes.len() > LINE_BYTES_MAX {
            let (now, later) = bytes.split_at(LINE_BYTES_MAX - self.open.len());
            self.open.extend_from_slice(now);
            bytes = later;
            let cut = char_boundary(&self.open);
            self.pieces += 1;
            line(&self.open[..cut], Piece::Part { number: self.pieces, last: false });
            self.open.drain(..cut);
        }
        self.open.extend_from_slice(bytes);
    }

    fn finish(&mut self, line: &mut impl FnMut(&[u8], Piece)) {
        let text = self.open.strip_suffix(b"\r").unwrap_or(&self.open);
        match self.pieces {
            0 => line(text, Piece::Whole),
            pieces => line(text, Piece::Part { number: pieces + 1, last: true }),
        }
        self.open.clear();
        self.pieces = 0;
    }
}

/// Where to cut so that no character is torn; the whole length when the end is not UTF-8 anyway.
fn char_boundary(bytes: &[u8]) -> usize {
    let len = bytes.len();
    let start = (1..=4).map(|back| len.saturating_sub(back)).find(|at| bytes[*at] & 0xc0 != 0x80);
    match start {
        Some(at)
            if at > 0
                && std::str::from_utf8(&bytes[at..]).is_err_and(|error| error.error_len().is_none()) =>
        {
            at
        }
        _ => len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::line::Line;

    fn stored(dir: &Path) -> Vec<Line> {
        file_numbers(dir)
            .unwrap()
            .iter()
            .flat_map(|number| {
                let text = fs::read_to_string(dir.join(file_name(*number))).unwrap();
                text.lines().map(|line| Line::decode(line.as_bytes()).unwrap()).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn chunks_become_lines_wherever_they_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), LogPolicy::default());
        let mut seen = Vec::new();
        for chunk in ["on", "e\ntw", "o\r\n\nthr", "ee"] {
            log.push(Timestamp(1), Stream::Stdout, chunk.as_bytes(), |line| seen.push(line.to_vec()));
        }
        log.end_of_streams(Timestamp(2), |line| seen.push(line.to_vec()));
        let texts: Vec<_> = stored(dir.path()).iter().map(Line::text).collect();
        assert_eq!(texts, ["one", "two", "", "three"]);
        assert_eq!(log.last_lines(), texts);
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn a_line_without_end_is_stored_in_pieces_that_tear_no_character() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), LogPolicy::default());
        let long = format!("x{}", "é".repeat(LINE_BYTES_MAX));
        log.push(Timestamp(1), Stream::Stdout, long.as_bytes(), |_| {});
        log.push(Timestamp(1), Stream::Stdout, b"\nshort\n", |_| {});
        log.flush(Timestamp(1));
        let lines = stored(dir.path());
        let parts = &lines[..lines.len() - 1];
        assert_eq!(parts.iter().map(Line::text).collect::<String>(), long);
        assert_eq!(parts[0].fields["part"], 1);
        assert_eq!(parts.last().unwrap().fields["last"], true);
        assert_eq!(lines.last().unwrap().text(), "short");
    }

    #[test]
    fn the_disk_used_is_bounded_whatever_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let policy = LogPolicy { file_bytes_max: 64 << 10, files_max: 3 };
        let mut log = LogWriter::open(dir.path(), policy);
        for n in 0..20_000 {
            log.push(Timestamp(n), Stream::Stdout, format!("line {n}\n").as_bytes(), |_| {});
            if n % 7 == 0 {
                log.flush(Timestamp(n));
            }
        }
        log.flush(Timestamp(0));
        let used: u64 = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(used <= 3 * (64 << 10), "{used} bytes");
        let lines = stored(dir.path());
        assert_eq!(lines.last().unwrap().text(), "line 19999");
        let first = 20_000 - lines.len();
        assert_eq!(lines[0].text(), format!("line {first}"), "a line is missing in the middle");
    }
}
