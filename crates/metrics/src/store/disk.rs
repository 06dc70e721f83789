//! The calls that change files. All of them pass through here, so that each error has its place, and tests can fill
//! the disk or stop the machine at any of them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::StoreError;

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub faults: std::sync::Arc<Faults>,
}

/// What is to go wrong.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// How many bytes can still be written, if that is limited.
    pub bytes_left: std::sync::Mutex<Option<u64>>,
    /// After how many calls nothing works any more.
    pub calls_left: std::sync::Mutex<Option<u64>>,
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Output {
    disk: Disk,
    file: File,
    path: PathBuf,
}

impl Disk {
    #[cfg(test)]
    fn call(&self) -> io::Result<()> {
        match &mut *self.faults.calls_left.lock().unwrap() {
            Some(0) => Err(io::Error::other("the machine has stopped")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    #[cfg(not(test))]
    fn call(&self) -> io::Result<()> {
        Ok(())
    }

    /// How much of a write of `length` bytes finds room.
    #[cfg(test)]
    fn room(&self, length: usize) -> usize {
        match &mut *self.faults.bytes_left.lock().unwrap() {
            Some(left) => {
                let taken = (*left).min(length as u64);
                *left -= taken;
                taken as usize
            }
            None => length,
        }
    }

    #[cfg(not(test))]
    fn room(&self, length: usize) -> usize {
        length
    }

    pub fn create_dir(&self, path: &Path) -> Result<(), StoreError> {
        self.call().and_then(|()| fs::create_dir_all(path)).map_err(StoreError::io(path, "create"))
    }

    /// A new file, private to the user: metrics tell about the inside of services.
    pub fn create(&self, path: &Path) -> Result<Output, StoreError> {
        let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = self.call().and_then(|()| open()).map_err(StoreError::io(path, "create"))?;
        Ok(Output { disk: self.clone(), file, path: path.to_owned() })
    }

    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.call().and_then(|()| fs::rename(from, to)).map_err(StoreError::io(to, "move to"))
    }

    pub fn remove_file(&self, path: &Path) -> Result<(), StoreError> {
        self.call().and_then(|()| fs::remove_file(path)).map_err(StoreError::io(path, "remove"))
    }

    pub fn remove_dir(&self, path: &Path) -> Result<(), StoreError> {
        self.call().and_then(|()| fs::remove_dir_all(path)).map_err(StoreError::io(path, "remove"))
    }

    /// Makes what was created, renamed and removed in a directory durable.
    pub fn sync_dir(&self, path: &Path) -> Result<(), StoreError> {
        let sync = || File::open(path)?.sync_all();
        self.call().and_then(|()| sync()).map_err(StoreError::io(path, "sync"))
    }

    /// Cuts a file that is not open for writing.
    pub fn cut(&self, path: &Path, length: u64) -> Result<(), StoreError> {
        let cut = || {
            let file = OpenOptions::new().write(true).open(path)?;
            file.set_len(length)?;
            file.sync_all()
        };
        self.call().and_then(|()| cut()).map_err(StoreError::io(path, "cut"))
    }
}

impl Output {
    /// On an error, some of the bytes may be there.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        let room = self.disk.room(bytes.len());
        let write = || {
            self.file.write_all_at(&bytes[..room], offset)?;
            if room < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        };
        self.disk.call().and_then(|()| write()).map_err(StoreError::io(&self.path, "write"))
    }

    /// After an error the bytes may be gone although a second call works: they have to be written again.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.disk.call().and_then(|()| self.file.sync_data()).map_err(StoreError::io(&self.path, "sync"))
    }

    pub fn cut(&self, length: u64) -> Result<(), StoreError> {
        self.disk.call().and_then(|()| self.file.set_len(length)).map_err(StoreError::io(&self.path, "cut"))
    }
}

/// Collects small writes into large ones.
#[derive(Debug)]
pub(super) struct Buffered {
    output: Output,
    buffer: Vec<u8>,
    flushed: u64,
}

/// Large enough that the call is not felt beside the bytes.
const BUFFER_BYTES: usize = 256 << 10;

impl Buffered {
    pub fn new(output: Output) -> Self {
        Self { output, buffer: Vec::with_capacity(BUFFER_BYTES), flushed: 0 }
    }

    /// Where the next byte goes.
    pub fn offset(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.output.write_at(&self.buffer, self.flushed)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes and syncs what is left, and gives the length.
    pub fn finish(mut self) -> Result<u64, StoreError> {
        self.flush()?;
        self.output.sync()?;
        Ok(self.flushed)
    }
}

/// Reads exactly `length` bytes.
pub(super) fn read_at(file: &File, path: &Path, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(StoreError::damaged(path, offset, format!("it ends before {length} bytes more")))
        }
        Err(error) => Err(StoreError::io(path, "read")(error)),
    }
}
