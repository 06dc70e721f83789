//! A block is written: into a directory of another name first, which is renamed when all of it is on disk.
//!
//! ```text
//! chunks   8 bytes of header, then each chunk: crc32 of its bytes, its bytes
//! index    8 bytes of header
//!          series, in the order of their labels: length, {labels, chunks}, crc32
//!          postings, one list for each label pair: length, {count, distances}, crc32
//!          directory: series offsets and where they end, texts, for each label its values and where their postings are
//!          footer: offset, length and crc32 of the directory
//! ```
//! Numbers are varints, but for checksums and the footer, which are little-endian.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::bits::{put_text, put_varint, zigzag};
use super::super::disk::{Buffered, Disk};
use super::super::error::StoreError;
use super::meta::{Meta, VERSION};
use super::{CHUNKS_FILE, CHUNKS_HEADER, INDEX_FILE, INDEX_HEADER, META_FILE};
use crate::labels::Labels;
use crate::sample::TimestampMs;

/// A chunk to be written.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Piece<'a> {
    pub min_ms: TimestampMs,
    pub max_ms: TimestampMs,
    pub count: u16,
    pub bytes: &'a [u8],
}

/// Series go in sorted by labels. What it keeps in memory is the names and four bytes a label of a series.
#[derive(Debug)]
pub(in super::super) struct BlockWriter {
    disk: Disk,
    dir: PathBuf,
    chunks: Buffered,
    index: Buffered,
    texts: HashMap<Arc<str>, u32>,
    text_list: Vec<Arc<str>>,
    /// By name and value.
    postings: BTreeMap<(Arc<str>, Arc<str>), Vec<u32>>,
    offsets: Vec<u64>,
    meta: Meta,
    scratch: Vec<u8>,
}

impl BlockWriter {
    pub fn create(
        disk: &Disk,
        dir: &Path,
        from_ms: TimestampMs,
        to_ms: TimestampMs,
        sources: Vec<String>,
    ) -> Result<Self, StoreError> {
        disk.create_dir(dir)?;
        let mut chunks = Buffered::new(disk.create(&dir.join(CHUNKS_FILE))?);
        chunks.write(&CHUNKS_HEADER)?;
        let mut index = Buffered::new(disk.create(&dir.join(INDEX_FILE))?);
        index.write(&INDEX_HEADER)?;
        Ok(Self {
            disk: disk.clone(),
            dir: dir.to_owned(),
            chunks,
            index,
            texts: HashMap::new(),
            text_list: Vec::new(),
            postings: BTreeMap::new(),
            offsets: Vec::new(),
            meta: Meta {
                version: VERSION,
                from_ms,
                to_ms,
                min_ms: TimestampMs::MAX,
                max_ms: TimestampMs::MIN,
                series: 0,
                chunks: 0,
                samples: 0,
                sources,
            },
            scratch: Vec::new(),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    fn text(&mut self, text: &Arc<str>) -> u32 {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        let number = self.text_list.len() as u32;
        self.text_list.push(Arc::clone(text));
        self.texts.insert(Arc::clone(text), number);
        number
    }

    /// `pieces` are in order and at least one.
    pub fn add<'a>(
        &mut self,
        labels: &Labels,
        pieces: impl ExactSizeIterator<Item = Piece<'a>>,
    ) -> Result<(), StoreError> {
        let ordinal = self.offsets.len() as u32;
        let mut entry = std::mem::take(&mut self.scratch);
        entry.clear();
        put_varint(&mut entry, labels.len() as u64);
        for (name, value) in labels.pairs() {
            let numbers = [self.text(name), self.text(value)];
            numbers.iter().for_each(|number| put_varint(&mut entry, u64::from(*number)));
            self.postings.entry((Arc::clone(name), Arc::clone(value))).or_default().push(ordinal);
        }
        put_varint(&mut entry, pieces.len() as u64);
        put_varint(&mut entry, self.chunks.offset());
        let mut before = self.meta.from_ms;
        for piece in pieces {
            put_varint(&mut entry, zigzag(piece.min_ms.wrapping_sub(before)));
            put_varint(&mut entry, piece.max_ms.wrapping_sub(piece.min_ms) as u64);
            put_varint(&mut entry, piece.count.into());
            put_varint(&mut entry, piece.bytes.len() as u64);
            before = piece.max_ms;
            self.chunks.write(&crc32fast::hash(piece.bytes).to_le_bytes())?;
            self.chunks.write(piece.bytes)?;
            self.meta.min_ms = self.meta.min_ms.min(piece.min_ms);
            self.meta.max_ms = self.meta.max_ms.max(piece.max_ms);
            self.meta.samples += u64::from(piece.count);
            self.meta.chunks += 1;
        }
        self.meta.series += 1;
        self.offsets.push(self.index.offset());
        write_checked(&mut self.index, &entry)?;
        self.scratch = entry;
        Ok(())
    }

    /// Writes the rest and makes all of it durable. The directory still has its first name.
    pub fn finish(mut self) -> Result<Meta, StoreError> {
        let mut directory = Vec::new();
        put_varint(&mut directory, self.offsets.len() as u64);
        self.offsets.push(self.index.offset());
        let mut before = 0;
        for offset in &self.offsets {
            put_varint(&mut directory, offset - before);
            before = *offset;
        }
        put_varint(&mut directory, self.text_list.len() as u64);
        self.text_list.iter().for_each(|text| put_text(&mut directory, text));
        let mut values: BTreeMap<u32, Vec<(u32, u64)>> = BTreeMap::new();
        let mut names = Vec::new();
        let mut list = Vec::new();
        for ((name, value), ordinals) in std::mem::take(&mut self.postings) {
            list.clear();
            put_varint(&mut list, ordinals.len() as u64);
            let mut before = 0;
            for ordinal in ordinals {
                put_varint(&mut list, u64::from(ordinal - before));
                before = ordinal;
            }
            let name = self.text(&name);
            if names.last() != Some(&name) {
                names.push(name);
            }
            let value = self.text(&value);
            values.entry(name).or_default().push((value, self.index.offset()));
            write_checked(&mut self.index, &list)?;
        }
        put_varint(&mut directory, names.len() as u64);
        for name in names {
            let values = values.remove(&name).unwrap_or_default();
            put_varint(&mut directory, name.into());
            put_varint(&mut directory, values.len() as u64);
            for (value, offset) in values {
                put_varint(&mut directory, value.into());
                put_varint(&mut directory, offset);
            }
        }
        let mut footer = self.index.offset().to_le_bytes().to_vec();
        footer.extend_from_slice(&(directory.len() as u64).to_le_bytes());
        footer.extend_from_slice(&crc32fast::hash(&directory).to_le_bytes());
        self.index.write(&directory)?;
        self.index.write(&footer)?;
        self.index.finish()?;
        self.chunks.finish()?;
        let mut meta = Buffered::new(self.disk.create(&self.dir.join(META_FILE))?);
        let path = self.dir.join(META_FILE);
        let text = serde_json::to_vec_pretty(&self.meta)
            .map_err(|error| StoreError::io(&path, "write")(std::io::Error::other(error)))?;
        meta.write(&text)?;
        meta.finish()?;
        self.disk.sync_dir(&self.dir)?;
        Ok(self.meta)
    }
}

fn write_checked(out: &mut Buffered, bytes: &[u8]) -> Result<(), StoreError> {
    let mut length = Vec::with_capacity(5);
    put_varint(&mut length, bytes.len() as u64);
    out.write(&length)?;
    out.write(bytes)?;
    out.write(&crc32fast::hash(bytes).to_le_bytes())
}
