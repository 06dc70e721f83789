//! Exactly one server for a state directory.
//!
//! The lock is the kernel's (`flock`), held by an open file and gone with the process however it ends: there is no
//! stale lock to delete. What the file says is only for the words of the refusal. The file itself is never removed,
//! because two servers could then hold locks on two files of the same name. On NFS the kernel maps `flock` to a lock
//! on the server; SQLite's own locks want a local disk anyway.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::database::{DatabaseError, io_error};

/// Name of the lock inside the state directory.
pub const LOCK_FILE: &str = "server.lock";

/// The note is a line of JSON; more than this was not written by a server.
const NOTE_BYTES_MAX: usize = 4096;

/// After the death of a server in the middle of an upgrade its guard has the lock until it has seen that, and then leaves
/// it to what systemd starts. That must not fail for coming too soon.
const LET_GO_WITHIN: Duration = Duration::from_secs(1);
const LET_GO_ASK: Duration = Duration::from_millis(10);

/// Who holds a state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    /// Milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Clock ticks from boot to the start of the process, and the boot: with the pid they name one process for good.
    pub start_ticks: u64,
    pub boot_id: String,
    /// Where its API listens.
    pub address: String,
}

impl Holder {
    /// The process has ended. What cannot be found out is not held for gone.
    fn is_gone(&self) -> bool {
        let same_boot = boot_id().is_none_or(|boot| boot == self.boot_id);
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid));
        match stat {
            Ok(stat) => {
                let is_another = start_ticks_in(&stat).is_some_and(|ticks| ticks != self.start_ticks);
                same_boot && (field(&stat, 3) == Some("Z") || is_another)
            }
            Err(error) => same_boot && error.kind() == io::ErrorKind::NotFound,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, since_ms, address, .. } = self;
        write!(f, "pid {pid}, since {}", Utc(*since_ms))?;
        if address.is_empty() { Ok(()) } else { write!(f, ", at {address}") }
    }
}

#[derive(Debug, Error)]
pub enum LockError {
    #[error(
        "another server ({}) has the state directory {}\nhint: use that one, stop it, or choose another \
         directory; there is no lock file to delete", holder_words(holder.as_ref()), dir.display()
    )]
    Held { dir: PathBuf, holder: Option<Holder> },
    #[error(transparent)]
    Io(#[from] DatabaseError),
}

fn holder_words(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| "it has not said which".to_owned(), ToString::to_string)
}

/// Held until dropped, or until the process ends in any way.
#[derive(Debug)]
pub struct ServerLock {
    file: File,
    holder: Holder,
}

impl ServerLock {
    /// Takes `dir`, which is made when it is not there.
    ///
    /// Waits for up to a second where the server that took it has died and what that handed it on to still has it.
    ///
    /// # Errors
    /// `Held`, with who holds it; or when the file cannot be made.
    pub fn acquire(dir: &Path, address: &str, now_ms: u64) -> Result<Self, LockError> {
        let path = dir.join(LOCK_FILE);
        let fail = |error: io::Error| LockError::Io(io_error(&path, &error));
        fs::create_dir_all(dir).map_err(fail)?;
        // Std opens with O_CLOEXEC: an app started by this server does not keep the lock when the server dies.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        let until = Instant::now() + LET_GO_WITHIN;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Self::of(file, address, now_ms).map_err(fail),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(fail(errno.into())),
            }
            let holder = read_note(&file);
            // Whoever holds it for a server that has died is about to let go.
            if !holder.as_ref().is_some_and(Holder::is_gone) || Instant::now() >= until {
                return Err(LockError::Held { dir: dir.to_owned(), holder });
            }
            std::thread::sleep(LET_GO_ASK);
        }
    }

    fn of(file: File, address: &str, now_ms: u64) -> io::Result<Self> {
        let holder = Holder {
            pid: std::process::id(),
            since_ms: now_ms,
            start_ticks: start_ticks().unwrap_or(0),
            boot_id: boot_id().unwrap_or_default(),
            address: address.to_owned(),
        };
        let lock = Self { file, holder };
        lock.write_note()?;
        Ok(lock)
    }

    /// Another descriptor of the same lock, for a program that takes this process over: as long as either is open,
    /// nobody else gets the directory. It is closed at an `exec` unless the caller lets it through.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn hand_on(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Goes on with a lock that the program before this one in the same process held, and that [`ServerLock::hand_on`]
    /// kept open.
    ///
    /// # Errors
    /// `Held` when the descriptor is not one of the lock of `dir`, or the lock is somebody else's.
    pub fn inherit(descriptor: OwnedFd, dir: &Path, address: &str, now_ms: u64) -> Result<Self, LockError> {
        let path = dir.join(LOCK_FILE);
        let fail = |error: io::Error| LockError::Io(io_error(&path, &error));
        let file = File::from(descriptor);
        let (own, there) = (file.metadata().map_err(fail)?, fs::metadata(&path).map_err(fail)?);
        let is_the_lock = (own.dev(), own.ino()) == (there.dev(), there.ino());
        // Of the same open file: it succeeds at once where the lock is ours, and where nobody has it.
        if !is_the_lock || rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(LockError::Held { dir: dir.to_owned(), holder: last_holder(dir) });
        }
        Self::of(file, address, now_ms).map_err(fail)
    }

    /// Says where the API listens, once that is known.
    ///
    /// # Errors
    /// When the file cannot be written; the lock is held all the same.
    pub fn announce(&mut self, address: &str) -> Result<(), LockError> {
        address.clone_into(&mut self.holder.address);
        self.write_note().map_err(|error| LockError::Io(io_error(Path::new(LOCK_FILE), &error)))
    }

    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Padded with spaces to a fixed length and written at once, so that a reader never meets an empty file or the
    /// end of a longer note of the server before.
    fn write_note(&self) -> io::Result<()> {
        let mut note = serde_json::to_vec(&self.holder)?;
        note.resize(note.len().max(1023), b' ');
        note.push(b'\n');
        self.file.write_all_at(&note, 0)?;
        self.file.set_len(note.len() as u64)
    }
}

/// Who wrote the note last, for `status` without a server. Says nothing about whether the lock is held.
#[must_use]
pub fn last_holder(dir: &Path) -> Option<Holder> {
    read_note(&File::open(dir.join(LOCK_FILE)).ok()?)
}

fn read_note(file: &File) -> Option<Holder> {
    let mut note = vec![0; NOTE_BYTES_MAX];
    let length = file.read_at(&mut note, 0).ok()?;
    serde_json::from_slice(&note[..length]).ok()
}

fn boot_id() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

fn start_ticks() -> Option<u64> {
    start_ticks_in(&fs::read_to_string("/proc/self/stat").ok()?)
}

fn start_ticks_in(stat: &str) -> Option<u64> {
    field(stat, 22)?.parse().ok()
}

/// Of /proc/PID/stat, by its number in proc(5), from the third on: they are counted after the name, which may hold
/// spaces and brackets.
fn field(stat: &str, number: usize) -> Option<&str> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number.checked_sub(3)?)
}

/// Milliseconds since the epoch as people read them.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

/// Days since 1970-01-01 as year, month, day: Howard Hinnant's `civil_from_days`, for days that are not negative.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_server_is_told_who_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut lock = ServerLock::acquire(dir.path(), "", 1_763_703_190_000).unwrap();
        lock.announce("127.0.0.1:7800").unwrap();
        let error = ServerLock::acquire(dir.path(), "", 0).unwrap_err();
        let expected = format!(
            "another server (pid {}, since 2025-11-21 05:33:10 UTC, at 127.0.0.1:7800)",
            std::process::id()
        );
        assert!(error.to_string().starts_with(&expected), "{error}");
        let LockError::Held { holder: Some(holder), .. } = error else { panic!("no holder") };
        assert!(holder.start_ticks > 0 && !holder.boot_id.is_empty());
        drop(lock);
        assert!(ServerLock::acquire(dir.path(), "", 0).is_ok());
    }

    #[test]
    fn a_lock_that_is_handed_on_is_never_free_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let lock = ServerLock::acquire(dir.path(), "", 0).unwrap();
        let handed = lock.hand_on().unwrap();
        drop(lock);
        assert!(
            ServerLock::acquire(dir.path(), "", 0).is_err(),
            "nobody has taken it up yet, and it is held"
        );
        let lock = ServerLock::inherit(handed, dir.path(), "a", 0).unwrap();
        assert!(ServerLock::acquire(dir.path(), "", 0).is_err());
        drop(lock);
        assert!(ServerLock::acquire(dir.path(), "", 0).is_ok());
    }

    #[test]
    fn what_holds_it_for_a_server_that_died_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        let mut lock = ServerLock::acquire(dir.path(), "", 0).unwrap();
        let begun = Instant::now();
        ServerLock::acquire(dir.path(), "", 0).unwrap_err();
        assert!(begun.elapsed() < LET_GO_WITHIN, "its server lives");
        (lock.holder.pid, lock.holder.start_ticks) = (dead.id(), 1);
        dead.wait().unwrap();
        lock.write_note().unwrap();
        let lets_go = std::thread::spawn(move || {
            std::thread::sleep(LET_GO_WITHIN / 5);
            drop(lock);
        });
        let again = ServerLock::acquire(dir.path(), "", 0).unwrap();
        lets_go.join().unwrap();
        assert!(!again.holder().is_gone());
    }

    #[test]
    fn another_file_is_no_lock() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let lock = ServerLock::acquire(dir.path(), "", 0).unwrap();
        let elsewhere = ServerLock::acquire(other.path(), "", 0).unwrap().hand_on().unwrap();
        assert!(ServerLock::inherit(elsewhere, dir.path(), "", 0).is_err());
        // The right file, opened anew: the lock is of the open file and not of its name.
        let stranger = OwnedFd::from(File::open(dir.path().join(LOCK_FILE)).unwrap());
        assert!(ServerLock::inherit(stranger, dir.path(), "", 0).is_err());
        drop(lock);
    }

    #[test]
    fn a_note_of_garbage_neither_blocks_nor_breaks() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK_FILE), vec![0xff; 10_000]).unwrap();
        let lock = ServerLock::acquire(dir.path(), "a", 0).unwrap();
        lock.file.write_all_at(b"garbage", 0).unwrap();
        let error = ServerLock::acquire(dir.path(), "b", 0).unwrap_err();
        assert!(error.to_string().contains("it has not said which"), "{error}");
    }

    #[test]
    fn days_become_dates() {
        for (days, date) in
            [(0, (1970, 1, 1)), (59, (1970, 3, 1)), (11_016, (2000, 2, 29)), (20_454, (2026, 1, 1))]
        {
            assert_eq!(civil(days), date);
        }
    }
}
