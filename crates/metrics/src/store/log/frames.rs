//! Checked pieces of a file, found again after damage.
//!
//! A frame is a mark, the length of its content, a CRC-32 over length and content, and the content. Every frame stands
//! for itself: after one that is damaged, reading goes on at the next mark with a right checksum.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::error::StoreError;

/// Unlikely in content: not text, no small number.
const MARK: [u8; 4] = [0xf5, 0xa1, 0x1e, 0xd7];

const HEADER_BYTES: usize = 12;

/// No writer makes larger ones: it closes a frame long before, and the largest record has some 100 KiB.
pub(in super::super) const CONTENT_BYTES_MAX: usize = 2 << 20;

/// Files begin with this; the last byte is the version.
pub(in super::super) const FILE_HEADER: [u8; 8] = *b"FWLOG\0\0\x01";

fn checksum(length: [u8; 4], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(content);
    hasher.finalize()
}

/// `content` has at most [`CONTENT_BYTES_MAX`] bytes.
pub(in super::super) fn put_frame(out: &mut Vec<u8>, content: &[u8]) {
    let length = (content.len() as u32).to_le_bytes();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(length, content).to_le_bytes());
    out.extend_from_slice(content);
}

/// What stands at one place of a file.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Found {
    Content {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Bytes that are no frame, up to the next one.
    Hole {
        offset: u64,
        bytes: u64,
    },
    /// Bytes that are no frame, up to the end.
    Tail {
        offset: u64,
        bytes: u64,
    },
}

/// Goes through a file, with a part of it in memory.
#[derive(Debug)]
pub(in super::super) struct Frames<'a> {
    file: &'a File,
    path: &'a Path,
    length: u64,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
}

const WINDOW_BYTES: u64 = 4 << 20;

impl<'a> Frames<'a> {
    pub fn new(file: &'a File, path: &'a Path) -> Result<Self, StoreError> {
        let length = file.metadata().map_err(StoreError::io(path, "read"))?.len();
        Ok(Self { file, path, length, at: 0, window: Vec::new(), window_at: 0 })
    }

    /// Up to `length` bytes at `offset`: fewer at the end.
    fn bytes(&mut self, offset: u64, length: u64) -> Result<&[u8], StoreError> {
        let end = (offset + length).min(self.length);
        let known = self.window_at + self.window.len() as u64;
        if offset < self.window_at || end > known {
            let wanted = WINDOW_BYTES.max(length).min(self.length - offset);
            self.window.resize(wanted as usize, 0);
            self.window_at = offset;
            self.file.read_exact_at(&mut self.window, offset).map_err(StoreError::io(self.path, "read"))?;
        }
        Ok(&self.window[(offset - self.window_at) as usize..(end - self.window_at) as usize])
    }

    /// The content of a whole frame at `offset`.
    fn content(&mut self, offset: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some((header, _)) = self.bytes(offset, HEADER_BYTES as u64)?.split_first_chunk::<HEADER_BYTES>()
        else {
            return Ok(None);
        };
        let [m0, m1, m2, m3, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        let length = [l0, l1, l2, l3];
        let wanted = u32::from_le_bytes(length) as usize;
        if [m0, m1, m2, m3] != MARK || wanted > CONTENT_BYTES_MAX {
            return Ok(None);
        }
        let content = self.bytes(offset + HEADER_BYTES as u64, wanted as u64)?;
        let whole =
            content.len() == wanted && checksum(length, content) == u32::from_le_bytes([c0, c1, c2, c3]);
        Ok(whole.then(|| content.to_vec()))
    }

    /// The header of the file, or what stands there instead.
    pub fn header(&mut self) -> Result<Option<Found>, StoreError> {
        if self.bytes(0, FILE_HEADER.len() as u64)? == FILE_HEADER {
            self.at = FILE_HEADER.len() as u64;
            return Ok(None);
        }
        self.next()
    }

    pub fn next(&mut self) -> Result<Option<Found>, StoreError> {
        let offset = self.at;
        if offset >= self.length {
            return Ok(None);
        }
        if let Some(bytes) = self.content(offset)? {
            self.at += (HEADER_BYTES + bytes.len()) as u64;
            return Ok(Some(Found::Content { offset, bytes }));
        }
        let mut place = offset + 1;
        while place + (HEADER_BYTES as u64) <= self.length {
            let window = self.bytes(place, WINDOW_BYTES / 2)?;
            let Some(skip) = window.windows(MARK.len()).position(|four| four == MARK) else {
                // A mark may begin in the last three bytes.
                place += (window.len() - MARK.len() + 1) as u64;
                continue;
            };
            place += skip as u64;
            if self.content(place)?.is_some() {
                self.at = place;
                return Ok(Some(Found::Hole { offset, bytes: place - offset }));
            }
            place += 1;
        }
        self.at = self.length;
        Ok(Some(Found::Tail { offset, bytes: self.length - offset }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Found> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        let mut frames = Frames::new(&file, &path).unwrap();
        let mut all: Vec<Found> = frames.header().unwrap().into_iter().collect();
        while let Some(found) = frames.next().unwrap() {
            all.push(found);
        }
        all
    }

    fn file(contents: &[&[u8]]) -> Vec<u8> {
        let mut out = FILE_HEADER.to_vec();
        contents.iter().for_each(|content| put_frame(&mut out, content));
        out
    }

    fn contents(found: &[Found]) -> Vec<&[u8]> {
        let mut contents = Vec::new();
        for found in found {
            match found {
                Found::Content { bytes, .. } => contents.push(&bytes[..]),
                Found::Hole { .. } | Found::Tail { .. } => {}
            }
        }
        contents
    }

    #[test]
    fn frames_come_back_up_to_where_the_file_was_cut() {
        let whole = file(&[b"one", b"", b"three", &MARK]);
        assert_eq!(contents(&read(&whole)), [&b"one"[..], b"", b"three", &MARK]);
        for end in 0..whole.len() {
            let found = read(&whole[..end]);
            let ends = [23, 35, 52, 68];
            let count = ends.iter().filter(|complete| **complete <= end).count();
            assert_eq!(contents(&found).len(), count, "cut at {end}: {found:?}");
            let boundary = ends.contains(&end) || end == FILE_HEADER.len() || end == 0;
            assert_eq!(
                matches!(found.last(), Some(Found::Tail { .. })),
                !boundary,
                "cut at {end}: {found:?}"
            );
        }
    }

    #[test]
    fn after_any_damaged_byte_the_other_frames_are_found() {
        let whole = file(&[b"one", b"two two", b"three"]);
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x41;
            let found = read(&damaged);
            let (first, last) = (FILE_HEADER.len()..23, 42..whole.len());
            let expected = if place < FILE_HEADER.len() { 3 } else { 2 };
            assert_eq!(contents(&found).len(), expected, "damaged at {place}: {found:?}");
            assert_eq!(matches!(found.last(), Some(Found::Tail { .. })), last.contains(&place));
            assert!(!first.contains(&place) || matches!(found[0], Found::Hole { offset: 8, bytes: 15 }));
        }
    }

    #[test]
    fn a_frame_is_found_behind_more_rubbish_than_is_in_memory_at_once() {
        let mut bytes = file(&[b"one"]);
        let mut rng = fastrand::Rng::with_seed(2);
        bytes.extend((0..WINDOW_BYTES + 12_345).map(|_| rng.u8(..)));
        bytes.extend_from_slice(&MARK[..3]);
        put_frame(&mut bytes, &vec![7; CONTENT_BYTES_MAX]);
        let found = read(&bytes);
        assert_eq!(contents(&found), [&b"one"[..], &vec![7; CONTENT_BYTES_MAX]]);
    }
}
