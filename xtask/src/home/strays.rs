//! Nothing that we started may outlive us: not after a failure, not after Ctrl-C. Services and the proxy leave our
//! process group on purpose, so they are found by the directory that they belong to.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Killed processes are gone at once unless they wait for a disk.
const END_TIMEOUT: Duration = Duration::from_secs(10);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static WATCHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Every process whose command line, working directory or environment names the directory.
pub fn of(directory: &Path) -> Vec<u32> {
    let name = directory.as_os_str().as_encoded_bytes();
    // The name of a temporary directory is long and by chance; a short one could be anybody's.
    if name.len() < "/tmp/fairway-".len() {
        return Vec::new();
    }
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let names = |bytes: &[u8]| bytes.windows(name.len()).any(|window| window == name);
        let belongs = || {
            ["cmdline", "environ"]
                .iter()
                .any(|file| std::fs::read(entry.path().join(file)).is_ok_and(|bytes| names(&bytes)))
                || std::fs::read_link(entry.path().join("cwd"))
                    .is_ok_and(|cwd| names(cwd.as_os_str().as_encoded_bytes()))
        };
        if pid != own && belongs() && !is_zombie(pid) {
            found.push(pid);
        }
    }
    found
}

/// Dead and waiting for its parent to notice: there is nothing left to end.
fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// Kills every process of the directory. One that is started meanwhile by another is found in the next round.
pub fn end(directory: &Path) {
    let deadline = Instant::now() + END_TIMEOUT;
    loop {
        let pids = of(directory);
        if pids.is_empty() || Instant::now() > deadline {
            break;
        }
        for pid in pids.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            // Gone in the meantime is what is wanted.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    watched().retain(|path| path != directory);
}

/// From now on Ctrl-C ends what belongs to the directory, and removes it.
pub fn watch_over(directory: &Path) {
    watched().push(directory.to_owned());
}

/// Ends what is watched over when we are told to end, and then ourselves.
pub fn end_on_interrupt() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        std::thread::spawn(|| {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            if runtime.block_on(interrupted()).is_err() {
                return;
            }
            INTERRUPTED.store(true, Ordering::SeqCst);
            eprintln!("\ninterrupted: ending what was started");
            let directories = watched().clone();
            for directory in directories {
                end(&directory);
                drop(std::fs::remove_dir_all(&directory));
            }
            #[expect(clippy::exit, reason = "the main thread may wait for a child that never ends")]
            std::process::exit(130);
        });
    });
}

/// Does not return once we are being ended: what the main thread would say then is about processes that were ended on
/// purpose.
pub fn wait_if_interrupted() {
    // The signal that ended a child of ours may reach us a moment after it.
    std::thread::sleep(Duration::from_millis(50));
    while INTERRUPTED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

async fn interrupted() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut hup = signal(SignalKind::hangup())?;
    let mut int = signal(SignalKind::interrupt())?;
    std::future::poll_fn(|cx| {
        let any = [&mut term, &mut hup, &mut int].into_iter().any(|signal| signal.poll_recv(cx).is_ready());
        if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    Ok(())
}

fn watched() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_works_in_a_directory_is_found_and_ended() {
        let directory = tempfile::Builder::new().prefix("fairway-").tempdir().unwrap();
        let mut inside = Command::new("sleep").arg("60").current_dir(directory.path()).spawn().unwrap();
        let mut told = Command::new("sleep").arg("60").env("X", directory.path()).spawn().unwrap();
        let mut stranger = Command::new("sleep").arg("60").current_dir("/").spawn().unwrap();
        let mut found = of(directory.path());
        found.sort_unstable();
        let mut expected = [inside.id(), told.id()];
        expected.sort_unstable();
        assert_eq!(found, expected);
        end(directory.path());
        assert!(!inside.wait().unwrap().success() && !told.wait().unwrap().success());
        assert!(stranger.try_wait().unwrap().is_none(), "a stranger lives on");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn a_short_name_finds_nobody() {
        assert_eq!(of(Path::new("/")), [0; 0]);
        assert_eq!(of(Path::new("/tmp")), [0; 0]);
    }
}
