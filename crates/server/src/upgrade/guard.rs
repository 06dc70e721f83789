//! Watches over a program that has taken the place of this one, from another process: a program that crashes cannot go
//! back by itself.
//!
//! The guard is the program before, started by it a moment before it becomes the next one, and holds what that one has:
//! lock and sockets. It ends as soon as it is told that the next one serves. When the process dies before, the guard
//! becomes the server, with the words with which that was started; commands that wait on the socket are answered.
//!
//! Where something else starts the server again when it dies (systemd), that goes first: two would be one too many, and
//! what systemd starts is what systemd can stop. The lock decides between the two.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fairway_api::Upgraded;
use fairway_store::ServerLock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::parent_of;
use super::succession::{Handed, Kept, SERVE_WITHIN, become_program, own, own_words};
use crate::SOCKET_NAME;
use crate::warn::warn;

/// The hidden option of `fairway server run` that makes it a guard.
pub const OPTION: &str = "--guarding=";

/// The next program has its time to come up, and the one before as long when it is back; whoever guards for longer
/// guards a program that does not know how to say that it serves.
const GUARD_WITHIN: Duration = SERVE_WITHIN.saturating_mul(2);

/// systemd waits a second (`RestartSec`), a start takes tens of milliseconds, and gives up after five starts; another
/// thirty seconds without a server change nothing for what it runs.
const OTHERS_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks whether another server serves.
const LOOK: Duration = Duration::from_millis(100);

/// A server that does not answer in this time does not serve.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Where the last server that served says which it was. A guard that only looked now and then would miss one that
/// served and was stopped, and start what a person has stopped.
const SERVED: &str = "served";

/// What goes through the pipe when the next program serves.
const SERVES: &[u8] = b"S";

/// What a guard is told.
#[derive(Debug, Serialize, Deserialize)]
struct Orders {
    handed: Handed,
    state_dir: PathBuf,
    /// How the program is called.
    name: PathBuf,
    /// Whether something else starts the server again when it dies.
    is_started_again: bool,
    process: RawFd,
    released: RawFd,
}

/// The end of the pipe that the next program has. The guard stays until it is released.
#[derive(Debug)]
pub struct Guard(pub(super) OwnedFd);

impl Guard {
    /// Starts one that watches over this process.
    ///
    /// # Errors
    /// Whatever the system says; then nobody watches.
    pub(super) fn start(
        kept: &Kept,
        state_dir: &Path,
        name: &Path,
        upgraded: Upgraded,
    ) -> std::io::Result<Guard> {
        let pid = std::process::id();
        let of = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(std::io::ErrorKind::InvalidData)?;
        let process = pidfd_open(of, PidfdFlags::empty())?;
        let (released, release) = std::io::pipe()?;
        let orders = Orders {
            handed: Handed::of(kept, upgraded),
            state_dir: state_dir.to_owned(),
            name: name.to_owned(),
            is_started_again: is_started_by_systemd(pid),
            process: process.as_raw_fd(),
            released: released.as_raw_fd(),
        };
        let orders = serde_json::to_string(&orders)?;
        let let_through = [
            Some(kept.lock.as_fd()),
            Some(kept.commands.as_fd()),
            kept.figures.as_ref().map(AsFd::as_fd),
            Some(process.as_fd()),
            Some(released.as_fd()),
        ];
        let numbers: Vec<RawFd> = let_through.into_iter().flatten().map(|fd| fd.as_raw_fd()).collect();
        let mut command = Command::new("/proc/self/exe");
        command.arg0(name).args(own_words()).arg(format!("{OPTION}{orders}")).stdin(Stdio::null());
        // SAFETY: setsid and fcntl are async-signal-safe; the numbers are open in the child, which is a copy of this
        // process, and no other thread of it closes them there.
        unsafe {
            command.pre_exec(move || {
                // What ends the server by the terminal must not end who would bring it back, nor the other way round.
                rustix::process::setsid()?;
                for number in &numbers {
                    fcntl_setfd(std::os::fd::BorrowedFd::borrow_raw(*number), FdFlags::empty())?;
                }
                Ok(())
            });
        }
        // Taken leave of by the next program, whose child it is then.
        command.spawn()?;
        Ok(Guard(release.into()))
    }

    /// Nobody has to come back any more.
    pub fn release(self) {
        // A guard that has ended needs no telling.
        let _ = std::fs::File::from(self.0).write_all(SERVES);
    }
}

/// What became of the program that was guarded.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Serves,
    Died,
    /// It neither said nor died: it is another version's affair.
    Unclear,
}

/// Guards. Returns when there is nothing to do, or when what had to be done failed.
///
/// # Errors
/// When it is told nothing that it understands, or cannot become the server.
pub fn stand(text: &str) -> Result<(), String> {
    let orders: Orders = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Handed { lock, commands, figures, .. } = orders.handed;
    let mut numbers = vec![lock, commands, orders.process, orders.released];
    numbers.extend(figures);
    let mut descriptors = own(&numbers)?.into_iter();
    let (Some(lock), Some(commands), Some(process), Some(released)) =
        (descriptors.next(), descriptors.next(), descriptors.next(), descriptors.next())
    else {
        return Err("descriptors are missing".to_owned());
    };
    let kept = Kept { lock, commands, figures: descriptors.next() };
    match watch(&process, released, GUARD_WITHIN) {
        Seen::Serves | Seen::Unclear => return Ok(()),
        Seen::Died => {}
    }
    let why = "it ended before it served";
    let words = own_words();
    // While the lock is held here: nobody else has served since.
    let before = last_served(&orders.state_dir);
    if orders.is_started_again {
        warn(format_args!("the new version: {why}; waiting for whatever starts it again"));
        drop(kept);
        return match await_another(&orders.state_dir, before.as_deref(), OTHERS_WITHIN) {
            Other::Serves => Ok(()),
            Other::None => {
                warn(format_args!("no server in {} s; this is the version before", OTHERS_WITHIN.as_secs()));
                let error = Command::new("/proc/self/exe").arg0(&orders.name).args(words).exec();
                Err(format!("the version before does not start: {error}"))
            }
        };
    }
    warn(format_args!("the new version: {why}; process {} is the version before", std::process::id()));
    let upgraded = Upgraded { failed: Some(why.to_owned()), ..orders.handed.upgraded };
    let error =
        become_program(Path::new("/proc/self/exe"), &orders.name, &words, &kept, upgraded, None, None);
    Err(format!("the version before does not start: {error}"))
}

fn watch(process: &OwnedFd, released: OwnedFd, within: Duration) -> Seen {
    let until = Instant::now() + within;
    let mut released = Some(std::fs::File::from(released));
    loop {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
        let mut wanted = vec![PollFd::new(process, PollFlags::IN)];
        wanted.extend(released.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        match poll(&mut wanted, left.as_ref()) {
            Ok(0) => return Seen::Unclear,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Seen::Unclear,
        }
        let died = !wanted[0].revents().is_empty();
        let told = wanted.get(1).is_some_and(|pipe| !pipe.revents().is_empty());
        drop(wanted);
        if told && let Some(pipe) = &mut released {
            match pipe.read(&mut [0]) {
                Ok(1..) => return Seen::Serves,
                // Closed without a word, as by a death: the process tells.
                Ok(0) | Err(_) => released = None,
            }
        } else if died {
            // What it had said before it died was in the pipe, and looked at first.
            return Seen::Died;
        }
    }
}

/// systemd tells a process that it started it (`SYSTEMD_EXEC_PID`, since version 248); before that, whose child it is
/// says as much. A guess that is wrong costs [`OTHERS_WITHIN`].
fn is_started_by_systemd(pid: u32) -> bool {
    let told = std::env::var("SYSTEMD_EXEC_PID").is_ok_and(|told| told == pid.to_string());
    let is_systemd = |parent: u32| {
        std::fs::read_to_string(format!("/proc/{parent}/comm")).is_ok_and(|name| name.trim() == "systemd")
    };
    told || parent_of(pid).is_some_and(is_systemd)
}

#[derive(Debug, PartialEq, Eq)]
enum Other {
    Serves,
    None,
}

/// `before`: what served last before anybody else could.
fn await_another(state_dir: &Path, before: Option<&[u8]>, within: Duration) -> Other {
    let has_served = || last_served(state_dir).as_deref() != before || serves(state_dir);
    let until = Instant::now() + within;
    loop {
        if has_served() {
            return Other::Serves;
        }
        if Instant::now() > until {
            break;
        }
        std::thread::sleep(LOOK);
    }
    // One that starts and crashes has the directory now and then; between two of them it is free.
    for _ in 0..OTHERS_WITHIN.as_millis() / LOOK.as_millis() {
        if has_served() {
            return Other::Serves;
        }
        if ServerLock::acquire(state_dir, "", 0).is_ok() {
            break;
        }
        std::thread::sleep(LOOK);
    }
    Other::None
}

/// Says that this process serves.
pub fn say_served(state_dir: &Path) {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    // On a full disk a guard has to find out by asking.
    let _ = std::fs::write(state_dir.join(SERVED), format!("{} {since}\n", std::process::id()));
}

fn last_served(state_dir: &Path) -> Option<Vec<u8>> {
    std::fs::read(state_dir.join(SERVED)).ok()
}

fn serves(state_dir: &Path) -> bool {
    let answer = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(state_dir.join(SOCKET_NAME))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: fairway\r\nconnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head == *b"HTTP/1.1 200")
    };
    answer().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::process::Child;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn sleeper() -> (Child, OwnedFd) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        (child, pidfd_open(pid, PidfdFlags::empty()).unwrap())
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_program_that_says_that_it_serves_is_not_guarded_any_more() {
        let (child, process) = sleeper();
        let (released, release) = std::io::pipe().unwrap();
        Guard(release.into()).release();
        // It may well die after that: then it had served.
        end(child);
        assert_eq!(watch(&process, released.into(), GUARD_WITHIN), Seen::Serves);
    }

    #[test]
    fn a_program_that_dies_is_told_from_one_that_closes_its_descriptors() {
        let (child, process) = sleeper();
        let (released, release) = std::io::pipe().unwrap();
        drop(release);
        assert_eq!(watch(&process, released.try_clone().unwrap().into(), SHORT), Seen::Unclear);
        end(child);
        assert_eq!(watch(&process, released.into(), GUARD_WITHIN), Seen::Died);
    }

    #[test]
    fn orders_that_name_what_is_not_open_are_refused() {
        assert!(stand("{").is_err());
        let orders = serde_json::json!({
            "handed": { "id": "1", "from": "0", "lock": 1_000_001, "commands": 1_000_002 },
            "state_dir": "/s", "name": "fairway", "is_started_again": false, "process": 1_000_003, "released": 2,
        });
        assert!(stand(&orders.to_string()).is_err());
    }

    #[test]
    fn a_directory_where_nobody_serves_is_waited_for_and_then_free() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(await_another(dir.path(), None, SHORT), Other::None);
        ServerLock::acquire(dir.path(), "", 0).expect("the look has let go of it");
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET_NAME)).unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 64]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        });
        assert_eq!(await_another(dir.path(), None, OTHERS_WITHIN), Other::Serves);
        answering.join().unwrap();
    }

    #[test]
    fn a_server_that_has_served_and_was_stopped_is_not_started_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(SERVED), "1 1").unwrap();
        let before = last_served(dir.path());
        assert_eq!(await_another(dir.path(), before.as_deref(), SHORT), Other::None);
        // Between two looks: it came, served, and is gone again.
        say_served(dir.path());
        assert_eq!(await_another(dir.path(), before.as_deref(), OTHERS_WITHIN), Other::Serves);
    }
}
