//! A block: what series had in a span of time, on disk, never changed.
//!
//! Read with `pread` into buffers of its own rather than mapped: a file that is cut or a disk that fails gives an
//! error then, where a map would end the process, and no `unsafe` is needed. In memory stay the texts, shared with other
//! blocks, where each series is, and where the postings of each label value are.

pub(super) mod meta;
pub(super) mod write;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bits::{take_text, take_varint, unzigzag};
use super::chunk::{BYTES_MAX, Garbled, SAMPLES_MAX};
use super::disk::read_at;
use super::error::StoreError;
use super::intern::Interner;
use super::matching::{Candidates, LabelIndex};
use crate::labels::Labels;
use crate::sample::TimestampMs;
use meta::Meta;

const CHUNKS_FILE: &str = "chunks";
const INDEX_FILE: &str = "index";
const META_FILE: &str = "meta.json";
const CHUNKS_HEADER: [u8; 8] = *b"FWCHUNK\x01";
const INDEX_HEADER: [u8; 8] = *b"FWINDEX\x01";
const FOOTER_BYTES: u64 = 20;

#[derive(Debug)]
pub(super) struct Block {
    pub dir: PathBuf,
    pub meta: Meta,
    /// On disk.
    pub bytes: u64,
    index: File,
    chunks: File,
    chunks_bytes: u64,
    texts: Vec<Arc<str>>,
    /// Where each series is, and where the last one ends.
    offsets: Vec<u64>,
    directory_at: u64,
    labels: Vec<LabelValues>,
}

#[derive(Debug)]
struct LabelValues {
    name: Arc<str>,
    /// Sorted by the text. With the place of the postings.
    values: Vec<(u32, u64)>,
}

/// One series of a block.
#[derive(Debug)]
pub(super) struct Entry {
    pub labels: Labels,
    pub chunks: Vec<Place>,
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub min_ms: TimestampMs,
    pub max_ms: TimestampMs,
    pub count: u16,
    /// Of its checksum, before its bytes.
    offset: u64,
    length: usize,
}

const CRC_BYTES: usize = 4;

impl Place {
    pub fn overlaps(&self, from_ms: TimestampMs, to_ms: TimestampMs) -> bool {
        self.min_ms <= to_ms && from_ms <= self.max_ms
    }
}

impl Block {
    pub fn open(dir: &Path, interner: &mut Interner) -> Result<Self, StoreError> {
        let meta = Meta::read(&dir.join(META_FILE))?;
        let (index_path, chunks_path) = (dir.join(INDEX_FILE), dir.join(CHUNKS_FILE));
        let open = |path: &Path| -> Result<(File, u64), StoreError> {
            let file = File::open(path).map_err(StoreError::io(path, "open"))?;
            let length = file.metadata().map_err(StoreError::io(path, "read"))?.len();
            Ok((file, length))
        };
        let (index, index_bytes) = open(&index_path)?;
        let (chunks, chunks_bytes) = open(&chunks_path)?;
        check_header(&index, &index_path, INDEX_HEADER)?;
        check_header(&chunks, &chunks_path, CHUNKS_HEADER)?;
        let (directory_at, directory) = read_directory(&index, &index_path, index_bytes)?;
        let mut block = Self {
            dir: dir.to_owned(),
            bytes: index_bytes
                + chunks_bytes
                + std::fs::metadata(dir.join(META_FILE)).map_or(0, |meta| meta.len()),
            meta,
            index,
            chunks,
            chunks_bytes,
            texts: Vec::new(),
            offsets: Vec::new(),
            directory_at,
            labels: Vec::new(),
        };
        block.take_directory(&directory, interner).ok_or_else(|| {
            StoreError::damaged(&index_path, directory_at, "the directory does not fit the file")
        })?;
        if block.series_count() as u64 != block.meta.series {
            return Err(StoreError::damaged(
                &index_path,
                directory_at,
                "it has not the series that meta.json tells",
            ));
        }
        Ok(block)
    }

    fn take_directory(&mut self, directory: &[u8], interner: &mut Interner) -> Option<()> {
        let rest = &mut &directory[..];
        let mut offset = 0_u64;
        for _ in 0..take_varint(rest)?.checked_add(1)? {
            let inside = |offset: &u64| *offset <= self.directory_at;
            offset = offset.checked_add(take_varint(rest)?).filter(inside)?;
            self.offsets.push(offset);
        }
        for _ in 0..take_varint(rest)? {
            self.texts.push(interner.text(take_text(rest)?));
        }
        let text = |number: u64| usize::try_from(number).ok().filter(|number| *number < self.texts.len());
        for _ in 0..take_varint(rest)? {
            let name = Arc::clone(&self.texts[text(take_varint(rest)?)?]);
            let mut values = Vec::new();
            for _ in 0..take_varint(rest)? {
                let value = text(take_varint(rest)?)? as u32;
                values.push((value, take_varint(rest)?));
            }
            self.labels.push(LabelValues { name, values });
        }
        rest.is_empty().then_some(())
    }

    pub fn name(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub fn series_count(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn overlaps(&self, from_ms: TimestampMs, to_ms: TimestampMs) -> bool {
        self.meta.min_ms <= to_ms && from_ms <= self.meta.max_ms
    }

    pub fn label_names(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(|label| &*label.name)
    }

    pub fn label_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values_of(name).iter().map(|(value, _)| self.value(*value))
    }

    fn values_of(&self, name: &str) -> &[(u32, u64)] {
        match self.labels.binary_search_by(|label| (*label.name).cmp(name)) {
            Ok(place) => &self.labels[place].values,
            Err(_) => &[],
        }
    }

    fn value(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }

    /// Hands the series with these ordinals, in rising order, to `each`. Neighbours are read at once.
    pub fn entries<E: From<StoreError>>(
        &self,
        ordinals: &[u32],
        mut each: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = ordinals;
        while let Some(first) = rest.first() {
            let start = self.offsets[*first as usize];
            let near = rest
                .partition_point(|ordinal| self.offsets[*ordinal as usize + 1] - start <= READ_BYTES_MAX)
                .max(1);
            let (together, others) = rest.split_at(near);
            rest = others;
            let last = together[near - 1] as usize;
            let end = self.offsets[last + 1];
            let bytes = read_at(&self.index, &self.dir.join(INDEX_FILE), start, (end - start) as usize)?;
            for ordinal in together {
                let offset = self.offsets[*ordinal as usize];
                let entry = self.entry(&bytes[(offset - start) as usize..]);
                each(entry.ok_or_else(|| {
                    StoreError::damaged(
                        &self.dir.join(INDEX_FILE),
                        offset,
                        "the entry of a series is not as written",
                    )
                })?)?;
            }
        }
        Ok(())
    }

    fn entry(&self, bytes: &[u8]) -> Option<Entry> {
        let mut entry = checked(bytes)?;
        let rest = &mut entry;
        let mut pairs = Vec::new();
        for _ in 0..take_varint(rest)? {
            let mut text = || {
                let number = usize::try_from(take_varint(rest)?).ok()?;
                self.texts.get(number).map(Arc::clone)
            };
            pairs.push((text()?, text()?));
        }
        let count = take_varint(rest)?;
        let mut offset = take_varint(rest)?;
        let mut before = self.meta.from_ms;
        let mut chunks = Vec::new();
        for _ in 0..count {
            let min_ms = before.wrapping_add(unzigzag(take_varint(rest)?));
            let max_ms = min_ms.wrapping_add(take_varint(rest)? as i64);
            let count = u16::try_from(take_varint(rest)?).ok().filter(|count| *count <= SAMPLES_MAX)?;
            let length = usize::try_from(take_varint(rest)?).ok().filter(|length| *length <= BYTES_MAX)?;
            chunks.push(Place { min_ms, max_ms, count, offset, length });
            offset =
                offset.checked_add((CRC_BYTES + length) as u64).filter(|end| *end <= self.chunks_bytes)?;
            before = max_ms;
        }
        Some(Entry { labels: Labels::new(pairs), chunks })
    }

    /// Hands the bytes of chunks to `each`, in the order given. Those that follow one another in the file are read at
    /// once.
    pub fn read_chunks<E: From<StoreError>>(
        &self,
        places: &[Place],
        mut each: impl FnMut(&Place, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = self.dir.join(CHUNKS_FILE);
        for run in places.chunk_by(|a, b| a.offset + (CRC_BYTES + a.length) as u64 == b.offset) {
            for part in run.chunks(READ_CHUNKS_MAX) {
                let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
                let length = (last.offset - first.offset) as usize + CRC_BYTES + last.length;
                let bytes = read_at(&self.chunks, &path, first.offset, length)?;
                for place in part {
                    let start = (place.offset - first.offset) as usize;
                    let piece = bytes[start..][..CRC_BYTES + place.length].split_first_chunk::<CRC_BYTES>();
                    let whole =
                        piece.filter(|(crc, bytes)| crc32fast::hash(bytes) == u32::from_le_bytes(**crc));
                    let Some((_, bytes)) = whole else {
                        return Err(
                            StoreError::damaged(&path, place.offset, "a chunk is not as written").into()
                        );
                    };
                    each(place, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// The checksum was right, and the content is none.
    pub fn garbled(&self, place: &Place, Garbled: Garbled) -> StoreError {
        StoreError::damaged(&self.dir.join(CHUNKS_FILE), place.offset, "a chunk that cannot be unpacked")
    }

    fn postings(&self, offset: u64) -> Result<Vec<u32>, StoreError> {
        let path = self.dir.join(INDEX_FILE);
        let damaged = || StoreError::damaged(&path, offset, "a list of postings is not as written");
        // Most lists are short.
        let room = self.directory_at.checked_sub(offset).ok_or_else(damaged)?;
        let mut bytes = read_at(&self.index, &path, offset, room.min(POSTINGS_READ_BYTES) as usize)?;
        let rest = &mut &bytes[..];
        let length = take_varint(rest).ok_or_else(damaged)?;
        let total = (bytes.len() - rest.len()) as u64 + length.saturating_add(CRC_BYTES as u64);
        if total > room {
            return Err(damaged());
        }
        if total > bytes.len() as u64 {
            bytes = read_at(&self.index, &path, offset, total as usize)?;
        }
        let read = || {
            let mut list = checked(&bytes)?;
            let rest = &mut list;
            let count = take_varint(rest)?;
            let mut ordinals = Vec::with_capacity(usize::try_from(count).ok()?.min(self.series_count()));
            let mut ordinal = 0_u64;
            for _ in 0..count {
                ordinal = ordinal.checked_add(take_varint(rest)?)?;
                ordinals.push(
                    u32::try_from(ordinal).ok().filter(|number| (*number as usize) < self.series_count())?,
                );
            }
            Some(ordinals)
        };
        read().ok_or_else(damaged)
    }
}

/// Series that are further apart are read by themselves.
const READ_BYTES_MAX: u64 = 256 << 10;

/// At most half a megabyte of chunks is in memory at one time.
const READ_CHUNKS_MAX: usize = 256;

const POSTINGS_READ_BYTES: u64 = 4 << 10;

fn check_header(file: &File, path: &Path, header: [u8; 8]) -> Result<(), StoreError> {
    if read_at(file, path, 0, header.len())? == header {
        Ok(())
    } else {
        Err(StoreError::damaged(path, 0, "the header is not one of this version"))
    }
}

/// The directory and where it begins.
fn read_directory(file: &File, path: &Path, length: u64) -> Result<(u64, Vec<u8>), StoreError> {
    let damaged = |what| StoreError::damaged(path, length.saturating_sub(FOOTER_BYTES), what);
    let footer_at = length.checked_sub(FOOTER_BYTES).ok_or_else(|| damaged("it is too short"))?;
    let footer = read_at(file, path, footer_at, FOOTER_BYTES as usize)?;
    let number = |range: std::ops::Range<usize>| {
        footer[range].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let (offset, bytes, crc) = (number(0..8), number(8..16), number(16..20));
    if offset.checked_add(bytes) != Some(footer_at) {
        return Err(damaged("the footer does not fit the file"));
    }
    let directory = read_at(file, path, offset, bytes as usize)?;
    if u64::from(crc32fast::hash(&directory)) != crc {
        return Err(StoreError::damaged(path, offset, "the directory is not as written"));
    }
    Ok((offset, directory))
}

/// The content of a length, content, checksum.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    let length = usize::try_from(take_varint(&mut rest)?).ok()?;
    let (content, after) = rest.split_at_checked(length)?;
    let (crc, _) = after.split_first_chunk::<CRC_BYTES>()?;
    (crc32fast::hash(content) == u32::from_le_bytes(*crc)).then_some(content)
}

impl LabelIndex for Block {
    type Id = u32;
    type Error = StoreError;

    fn all(&self) -> Vec<u32> {
        (0..self.series_count() as u32).collect()
    }

    fn lists(
        &self,
        label: &str,
        candidates: &Candidates,
        accept: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Vec<u32>>, StoreError> {
        let values = self.values_of(label);
        let mut lists = Vec::new();
        let mut look = |part: &mut dyn Iterator<Item = &(u32, u64)>| -> Result<(), StoreError> {
            for (value, offset) in part {
                if accept(self.value(*value)) {
                    lists.push(self.postings(*offset)?);
                }
            }
            Ok(())
        };
        match candidates {
            Candidates::All => look(&mut values.iter())?,
            Candidates::These(texts) => {
                for text in texts {
                    let place = values.binary_search_by(|(value, _)| self.value(*value).cmp(text));
                    look(&mut place.ok().map(|place| &values[place]).into_iter())?;
                }
            }
            Candidates::Prefixes(prefixes) => {
                for prefix in prefixes {
                    let start = values.partition_point(|(value, _)| self.value(*value) < prefix.as_str());
                    let within = |pair: &&(u32, u64)| self.value(pair.0).starts_with(prefix.as_str());
                    look(&mut values[start..].iter().take_while(within))?;
                }
            }
        }
        Ok(lists)
    }
}
