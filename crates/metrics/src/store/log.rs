//! The write-ahead log: what is in memory and in no block yet, as it came in.
//!
//! `log/` has segments, numbered, and at most one checkpoint: `checkpoint-N` holds what was in memory when segment
//! N + 1 began, so that segments up to N are not needed. Both are made of [`frames`]. A segment is begun at every start:
//! nothing is ever written behind bytes whose fate is not known.
//!
//! What is not synced yet stays in memory too, so that a failed write or sync is repeated from the last place that is
//! known to be safe. After a failed sync the kernel may have dropped pages and report the next one as good.

pub(super) mod frames;
pub(super) mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, Output};
use super::error::StoreError;
use crate::labels::Labels;
use crate::sample::Sample;
use frames::{FILE_HEADER, put_frame};
use record::Samples;

/// A segment is followed by another one at this size: small enough to be removed soon.
const SEGMENT_BYTES: u64 = 16 << 20;

/// Frames of this size cost little beside their content, and little is lost with a damaged one.
pub(super) const FRAME_BYTES: usize = 64 << 10;

/// Written, not synced, as soon as there is so much: after a crash of the process alone more is there.
const UNWRITTEN_BYTES: usize = 256 << 10;

/// More is not kept waiting for the disk: some three million samples, half a minute at full speed.
pub(super) const PENDING_BYTES_MAX: usize = 32 << 20;

#[derive(Debug)]
pub(super) struct Log {
    disk: Disk,
    dir: PathBuf,
    segment: u64,
    output: Arc<Output>,
    /// How long the segment is known to be on disk.
    synced: u64,
    /// What comes behind that, in frames.
    pending: Vec<u8>,
    state: State,
    series: Vec<u8>,
    samples: Samples,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of `pending` are in the file already.
    Written(usize),
    /// Behind `synced` the file may hold anything.
    Failed,
}

/// What a sync has to do outside of the writer's lock.
#[derive(Debug)]
pub(super) struct Ticket {
    pub output: Arc<Output>,
    bytes: usize,
}

pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}"))
}

impl Log {
    /// Begins a segment that was not there before.
    pub fn begin(disk: &Disk, dir: &Path, segment: u64) -> Result<Self, StoreError> {
        Ok(Self {
            output: Arc::new(begin_segment(disk, dir, segment)?),
            disk: disk.clone(),
            dir: dir.to_owned(),
            segment,
            synced: FILE_HEADER.len() as u64,
            pending: Vec::new(),
            state: State::Written(0),
            series: Vec::new(),
            samples: Samples::default(),
        })
    }

    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    #[cfg(test)]
    pub fn segment(&self) -> u64 {
        self.segment
    }

    #[cfg(test)]
    pub fn synced_bytes(&self) -> u64 {
        self.synced
    }

    pub fn series(&mut self, id: u64, labels: &Labels) {
        record::put_series(&mut self.series, id, labels);
        if self.series.len() >= FRAME_BYTES {
            self.close_frames();
        }
    }

    pub fn sample(&mut self, id: u64, sample: Sample) {
        self.samples.put(id, sample);
        if self.samples.len() >= FRAME_BYTES {
            self.close_frames();
        }
    }

    fn close_frames(&mut self) {
        // Series come before the samples that name them.
        if !self.series.is_empty() {
            put_frame(&mut self.pending, &self.series);
            self.series.clear();
        }
        if let Some(content) = self.samples.take() {
            put_frame(&mut self.pending, &content);
        }
    }

    /// The end of a batch.
    pub fn end_batch(&mut self) {
        self.close_frames();
        if let State::Written(written) = self.state
            && self.pending.len() - written >= UNWRITTEN_BYTES
        {
            // A failure shows up again, and is reported, in the sync that makes this durable.
            let _ = self.write();
        }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let State::Written(written) = self.state else { return Ok(()) };
        if written == self.pending.len() {
            return Ok(());
        }
        self.state = State::Failed;
        self.output.write_at(&self.pending[written..], self.synced + written as u64)?;
        self.state = State::Written(self.pending.len());
        Ok(())
    }

    /// The first part of a sync; `None` when there is nothing to do. Only one sync at a time.
    pub fn prepare_sync(&mut self) -> Result<Option<Ticket>, StoreError> {
        self.close_frames();
        if self.pending.is_empty() {
            return Ok(None);
        }
        if self.state == State::Failed {
            self.output.cut(self.synced)?;
            self.state = State::Written(0);
        }
        self.write()?;
        Ok(Some(Ticket { output: Arc::clone(&self.output), bytes: self.pending.len() }))
    }

    /// The last part: what the sync of the ticket's file said.
    pub fn finish_sync(
        &mut self,
        ticket: &Ticket,
        outcome: Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if outcome.is_err() {
            self.state = State::Failed;
            return outcome;
        }
        self.pending.drain(..ticket.bytes);
        self.synced += ticket.bytes as u64;
        if let State::Written(written) = &mut self.state {
            *written -= ticket.bytes;
        }
        if self.synced >= SEGMENT_BYTES {
            // The data is safe where it is; a segment that cannot be begun only makes this one longer.
            let _ = self.next_segment();
        }
        Ok(())
    }

    /// Begins the next segment, with what is not synced yet, and gives the number of the one that ended. Not during a
    /// sync.
    pub fn next_segment(&mut self) -> Result<u64, StoreError> {
        // Part of them may be in the file. A torn end in the middle of the log would look like damage.
        if self.state != State::Written(0) {
            self.state = State::Failed;
            self.output.cut(self.synced)?;
            self.state = State::Written(0);
        }
        self.output = Arc::new(begin_segment(&self.disk, &self.dir, self.segment + 1)?);
        self.synced = FILE_HEADER.len() as u64;
        self.segment += 1;
        Ok(self.segment - 1)
    }
}

fn begin_segment(disk: &Disk, dir: &Path, number: u64) -> Result<Output, StoreError> {
    let output = disk.create(&segment_path(dir, number))?;
    output.write_at(&FILE_HEADER, 0)?;
    output.sync()?;
    disk.sync_dir(dir)?;
    Ok(output)
}
