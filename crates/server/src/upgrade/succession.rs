//! From one program to the next in the same process, and back when the next one does not come up.

use std::ffi::OsString;
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairway_api::Upgraded;
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use super::guard::{self, Guard};
use super::{Successor, parent_of};
use crate::warn::warn;

/// The hidden option of `fairway server run` that says what came through.
const OPTION: &str = "--handed=";

/// From the `exec` until the API is served; a start takes some tens of milliseconds, the replay of a long log a second or
/// two. Whoever is not there by now hangs, and the one before serves again.
pub(super) const SERVE_WITHIN: Duration = Duration::from_secs(60);

/// Standard input, output and error are nobody's to hand on.
const FIRST_FD: RawFd = 3;

/// What goes from one program to the next, as descriptors that stay open.
#[derive(Debug)]
pub struct Kept {
    pub lock: OwnedFd,
    pub commands: OwnedFd,
    pub figures: Option<OwnedFd>,
}

impl Kept {
    fn try_clone(&self) -> std::io::Result<Kept> {
        Ok(Kept {
            lock: self.lock.try_clone()?,
            commands: self.commands.try_clone()?,
            figures: self.figures.as_ref().map(OwnedFd::try_clone).transpose()?,
        })
    }
}

/// The same in words, on the command line of the next program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handed {
    #[serde(flatten)]
    pub upgraded: Upgraded,
    pub lock: RawFd,
    pub commands: RawFd,
    pub figures: Option<RawFd>,
    back: Option<WayBack>,
    #[serde(default)]
    guard: Option<RawFd>,
}

impl Handed {
    pub(super) fn of(kept: &Kept, upgraded: Upgraded) -> Handed {
        Handed {
            upgraded,
            lock: kept.lock.as_raw_fd(),
            commands: kept.commands.as_raw_fd(),
            figures: kept.figures.as_ref().map(AsRawFd::as_raw_fd),
            back: None,
            guard: None,
        }
    }
}

/// Descriptors that were handed to this process, in the order of their numbers' naming. What this process starts does
/// not get them: a lock would outlive its server.
pub(super) fn own(numbers: &[RawFd]) -> Result<Vec<OwnedFd>, String> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != numbers.len() || sorted.first().is_some_and(|first| *first < FIRST_FD) {
        return Err(format!("{numbers:?} are not descriptors that were handed over"));
    }
    for number in numbers {
        // SAFETY: borrowed for one call that fails on a number that is not open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(*number) };
        fcntl_getfd(borrowed)
            .and_then(|_| fcntl_setfd(borrowed, FdFlags::CLOEXEC))
            .map_err(|error| format!("descriptor {number}: {error}"))?;
    }
    // SAFETY: open, each named once, above the standard ones; nothing else in this process knows of them, because
    // this runs before anything else is opened.
    Ok(numbers.iter().map(|number| unsafe { OwnedFd::from_raw_fd(*number) }).collect())
}

/// The program before, its name, and the words with which it was started: those of this program may be others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WayBack {
    program: RawFd,
    name: PathBuf,
    words: Vec<OsString>,
}

/// What a program has from the one before it in the same process.
#[derive(Debug)]
pub struct Taken {
    pub upgraded: Upgraded,
    pub kept: Kept,
    pub predecessor: Predecessor,
}

/// The way back, open until this program serves, and who takes it where this program cannot.
#[derive(Clone, Debug, Default)]
pub struct Predecessor(Arc<Mutex<Before>>);

#[derive(Debug, Default)]
struct Before {
    back: Option<Back>,
    guard: Option<Guard>,
}

#[derive(Debug)]
struct Back {
    program: OwnedFd,
    name: PathBuf,
    words: Vec<OsString>,
    kept: Kept,
    upgraded: Upgraded,
}

impl Taken {
    /// What `text`, the value of `--handed`, announces.
    ///
    /// # Errors
    /// When it is not what a predecessor writes.
    pub fn from_option(text: &str) -> Result<Taken, String> {
        let handed: Handed = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut numbers = vec![handed.lock, handed.commands];
        numbers.extend(handed.figures);
        numbers.extend(handed.back.as_ref().map(|back| back.program));
        numbers.extend(handed.guard);
        let mut descriptors = own(&numbers)?.into_iter();
        let mut next = || descriptors.next().ok_or_else(|| "a descriptor is missing".to_owned());
        let (lock, commands) = (next()?, next()?);
        let kept = Kept { lock, commands, figures: handed.figures.map(|_| next()).transpose()? };
        let back = match handed.back {
            None => None,
            Some(WayBack { name, words, .. }) => Some(Back {
                program: next()?,
                name,
                words,
                kept: kept.try_clone().map_err(|error| error.to_string())?,
                upgraded: handed.upgraded.clone(),
            }),
        };
        let guard = handed.guard.map(|_| next().map(Guard)).transpose()?;
        let predecessor = Predecessor(Arc::new(Mutex::new(Before { back, guard })));
        Ok(Taken { upgraded: handed.upgraded, kept, predecessor })
    }
}

impl Kept {
    /// # Errors
    /// When they are not the sockets that they should be.
    pub fn listeners(&self) -> std::io::Result<(tokio::net::UnixListener, Option<tokio::net::TcpListener>)> {
        let commands = UnixListener::from(self.commands.try_clone()?);
        commands.set_nonblocking(true)?;
        let figures = self.figures.as_ref().map(|figures| {
            let figures = TcpListener::from(figures.try_clone()?);
            figures.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(figures)
        });
        Ok((tokio::net::UnixListener::from_std(commands)?, figures.transpose()?))
    }
}

impl Predecessor {
    /// This program serves: there is no way back any more.
    pub fn retire(&self) {
        let Before { back, guard } = self.take();
        drop(back);
        if let Some(guard) = guard {
            guard.release();
        }
    }

    /// Becomes the predecessor again, if this program does not serve yet. Returns when it cannot.
    pub fn return_to(&self, why: &str) {
        let Before { back, guard } = self.take();
        let Some(Back { program, name, words, kept, upgraded }) = back else { return };
        warn(format_args!("this version does not start ({why}); going back to the one before"));
        let upgraded = Upgraded { failed: Some(why.to_owned()), ..upgraded };
        let path = PathBuf::from(format!("/proc/self/fd/{}", program.as_raw_fd()));
        if let Err(error) = let_through(program.as_fd()) {
            warn(format_args!("the version before cannot be kept open: {error}"));
        }
        let error = become_program(&path, &name, &words, &kept, upgraded, None, guard.as_ref());
        warn(format_args!("the version before does not start either: {error}"));
    }

    /// Goes back by itself where nothing else does.
    pub fn watch(&self) {
        let predecessor = self.clone();
        let waiting = move || {
            std::thread::sleep(SERVE_WITHIN);
            predecessor.return_to(&format!("it does not serve after {} s", SERVE_WITHIN.as_secs()));
        };
        if let Err(error) = std::thread::Builder::new().name("succession".to_owned()).spawn(waiting) {
            warn(format_args!("nobody watches over the start: {error}"));
        }
    }

    fn take(&self) -> Before {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Becomes the successor. Returns when neither that nor this very program can be had.
#[must_use]
pub fn succeed(successor: &Successor, kept: &Kept, state_dir: &Path) -> std::io::Error {
    let upgraded =
        Upgraded { id: successor.id.clone(), from: env!("CARGO_PKG_VERSION").to_owned(), failed: None };
    let own = File::open("/proc/self/exe").map(OwnedFd::from);
    let name = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("fairway"));
    let words = own_words();
    let back = own.as_ref().ok().map(|own| (own.as_fd(), name.as_path()));
    let program = &successor.program;
    let guard = Guard::start(kept, state_dir, &name, upgraded.clone());
    if let Err(error) = &guard {
        warn(format_args!("nobody watches whether the next version crashes: {error}"));
    }
    let guard = guard.as_ref().ok();
    let error = become_program(program, program, &words, kept, upgraded.clone(), back, guard);
    let failed = Some(format!("it cannot be run: {error}"));
    let upgraded = Upgraded { failed, ..upgraded };
    become_program(Path::new("/proc/self/exe"), &name, &words, kept, upgraded, None, guard)
}

/// Only returns when it fails; everything is as it was then.
pub(super) fn become_program(
    program: &Path,
    name: &Path,
    words: &[OsString],
    kept: &Kept,
    upgraded: Upgraded,
    back: Option<(BorrowedFd<'_>, &Path)>,
    guard: Option<&Guard>,
) -> std::io::Error {
    let descriptors = [
        Some(kept.lock.as_fd()),
        Some(kept.commands.as_fd()),
        kept.figures.as_ref().map(AsFd::as_fd),
        back.map(|(program, _)| program),
        guard.map(|guard| guard.0.as_fd()),
    ];
    for descriptor in descriptors.into_iter().flatten() {
        if let Err(error) = let_through(descriptor) {
            return error;
        }
    }
    let handed = Handed {
        back: back.map(|(program, name)| WayBack {
            program: program.as_raw_fd(),
            name: name.to_owned(),
            words: words.to_vec(),
        }),
        guard: guard.map(|guard| guard.0.as_raw_fd()),
        ..Handed::of(kept, upgraded)
    };
    let handed = match serde_json::to_string(&handed) {
        Ok(handed) => handed,
        Err(error) => return error.into(),
    };
    Command::new(program).arg0(name).args(words).arg(format!("{OPTION}{handed}")).exec()
}

fn let_through(descriptor: BorrowedFd<'_>) -> std::io::Result<()> {
    Ok(fcntl_setfd(descriptor, FdFlags::empty())?)
}

/// With what this process was started, without what an earlier upgrade put there.
#[must_use]
pub fn own_words() -> Vec<OsString> {
    let of_upgrades = |word: &OsString| {
        [OPTION, guard::OPTION].iter().any(|option| word.as_encoded_bytes().starts_with(option.as_bytes()))
    };
    std::env::args_os().skip(1).filter(|word| !of_upgrades(word)).collect()
}

/// Takes leave of the children of the program before when they end. An `exec` keeps them, and the new program knows
/// nothing of them: without this they would stay behind as zombies.
pub fn adopt_children() {
    let own = std::process::id();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    adopt(pids.filter(|pid| parent_of(*pid) == Some(own)));
}

fn adopt(children: impl Iterator<Item = u32>) {
    for pid in children {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
        // Ours, so that the number is nobody else's before we have waited for it.
        let Ok(child) = pidfd_open(pid, PidfdFlags::NONBLOCK) else { continue };
        tokio::spawn(async move {
            // SAFETY: `as_raw_fd` of an `OwnedFd` always gives the descriptor that it owns, and the `AsyncFd` owns it and
            // deregisters it before closing it.
            let Ok(child) = (unsafe { AsyncFd::register(child) }) else { return };
            if child.readable().await.is_ok() {
                // Nobody asks how it ended.
                let _ = waitid(WaitId::PidFd(child.get_ref().as_fd()), WaitIdOptions::EXITED);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_that_nobody_handed_over_are_refused() {
        let of = |lock: i32, commands: i32| {
            let text = serde_json::json!({ "id": "1", "from": "0", "lock": lock, "commands": commands });
            Taken::from_option(&text.to_string())
        };
        assert!(of(0, 1).is_err(), "standard input is no lock");
        assert!(of(90, 90).is_err(), "one for two");
        assert!(of(1_000_001, 1_000_002).is_err(), "not open");
        assert!(Taken::from_option("{").is_err());
    }

    #[tokio::test]
    async fn what_is_taken_is_closed_to_children() {
        let file = |_| OwnedFd::from(File::open("/dev/null").unwrap());
        let [lock, commands] = [0, 1].map(file).map(|fd| {
            let_through(fd.as_fd()).unwrap();
            std::os::fd::IntoRawFd::into_raw_fd(fd)
        });
        let text = serde_json::json!({ "id": "1", "from": "0", "lock": lock, "commands": commands });
        let taken = Taken::from_option(&text.to_string()).unwrap();
        assert_eq!(fcntl_getfd(&taken.kept.lock).unwrap(), FdFlags::CLOEXEC);
        assert_eq!(fcntl_getfd(&taken.kept.commands).unwrap(), FdFlags::CLOEXEC);
        assert!(taken.kept.listeners().is_err(), "files are no sockets");
        taken.predecessor.return_to("there is none: this returns");
    }

    #[tokio::test]
    async fn children_of_the_program_before_leave_no_zombies() {
        let child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        // Forgotten, as by an exec.
        drop(child);
        adopt([pid].into_iter());
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while parent_of(pid) == Some(std::process::id()) {
            assert!(std::time::Instant::now() < until, "it is still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
