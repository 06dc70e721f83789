//! Another Fairway in the place of this one, without a gap.
//!
//! 1. The program is looked at ([`program`]): can it run here, which version is it, can it read the state. It is tried
//!    with the very words with which the server was started, and with `--check`, which reads and writes nothing.
//! 2. The proxy hands its sockets over (`fairway_proxy::handover`). Nothing is changed when that fails.
//! 3. The server ends in order and becomes the program by `exec` ([`succession`]). The process stays the same one: for
//!    systemd, for `fairway up`, for a container. The lock of the state directory and the listening sockets go through,
//!    so that no second server can start in between and commands wait instead of being refused.
//! 4. A program that does not get as far as serving becomes the one before again; one that crashes is replaced by it, in
//!    another process that was there before ([`guard`]).
//!
//! What was asked for and what came of it is on the record of every environment. One that the record says is under way
//! when a server starts as a process of its own was interrupted by the end of the server ([`Account`]).
//!
//! Shims are not touched: they hold the services.

mod account;
mod guard;
mod program;
mod succession;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fairway_api::{ApiError, ProxyHandover, UpgradeReport};
use fairway_engine::{Input, Upgrade, UpgradeEnd, UpgradeStep};
use fairway_targets::key::InstanceKey;
use tokio::sync::{Mutex, mpsc};

use crate::drivers::Known;
use crate::proxy_process::{NotHandedOver, Proxies};
use crate::pump::Pump;

pub use account::Account;
pub use guard::{say_served, stand};
pub use program::{State, examine};
pub use succession::{Kept, Predecessor, Taken, adopt_children, succeed};

/// What this server is to become.
#[derive(Clone, Debug)]
pub struct Successor {
    pub program: PathBuf,
    pub id: String,
}

/// Carries upgrades out, one at a time.
#[derive(Clone, Debug)]
pub struct Upgrades {
    one: Arc<Mutex<()>>,
    successors: mpsc::Sender<Successor>,
}

impl Upgrades {
    /// The receiver is told what the server is to become.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Successor>) {
        let (successors, receiver) = mpsc::channel(1);
        (Self { one: Arc::default(), successors }, receiver)
    }

    /// Returns when the proxy is the new one and the server is about to be.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn begin(
        &self,
        binary: &Path,
        by: String,
        proxies: &Proxies,
        pump: &Pump,
    ) -> Result<UpgradeReport, ApiError> {
        let Ok(one) = Arc::clone(&self.one).try_lock_owned() else {
            return Err(ApiError::new("upgrade/under-way", "another upgrade is under way")
                .hint("`fairway status` shows the version when it is done")
                .exit(7));
        };
        let program = examine(binary).await.map_err(|unfit| unfit.to_api(binary))?;
        let id = new_id();
        let from = env!("CARGO_PKG_VERSION").to_owned();
        let upgrade = Upgrade { id: id.clone(), from, to: program.version, by };
        let step = |step| Input::Upgrade { upgrade: upgrade.clone(), step };
        let begun = UpgradeStep::Begun { program: binary.display().to_string() };
        pump.command(step(begun)).await.map_err(|refused| refused.to_api().cause("nothing was changed"))?;
        let proxy = match proxies.hand_over(binary).await {
            Ok(proxy) => proxy,
            Err(failed) => {
                let end =
                    UpgradeEnd::Refused { why: format!("the new proxy did not take over: {}", failed.why) };
                pump.outcome(step(UpgradeStep::Ended { end })).await;
                return Err(not_handed_over(&failed, binary));
            }
        };
        if let Some(ProxyHandover { took_ms, .. }) = proxy {
            pump.outcome(step(UpgradeStep::ProxyHandedOver { took_ms })).await;
        }
        let Upgrade { from, to, .. } = upgrade;
        let report = UpgradeReport { id: id.clone(), from, to, proxy };
        let successor = Successor { program: binary.to_owned(), id };
        if self.successors.send(successor).await.is_err() {
            return Err(ApiError::new("server/stopping", "the server is stopping"));
        }
        // What comes now is for the successor: nobody upgrades this server any more.
        std::mem::forget(one);
        Ok(report)
    }
}

fn not_handed_over(failed: &NotHandedOver, binary: &Path) -> ApiError {
    let error = ApiError::new("upgrade/proxy", "the new proxy did not take over").cause(failed.why.clone());
    let error = match failed.is_unharmed {
        true => error.cause("nothing was changed: the proxy and the server are the ones before"),
        false => error.cause("the proxy before does not answer either; the server starts one again").exit(6),
    };
    error
        .hint(format!("`{} --version` on that machine; then `fairway status`", binary.display()))
        .lines(failed.last_lines.clone())
}

/// When it began, and in which process: no other upgrade of this directory has the same.
fn new_id() -> String {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("{:x}-{:x}", since.as_millis(), std::process::id())
}

/// How many of these copies are held by a shim that runs another program than this process.
#[must_use]
pub fn older_shims(known: &Known) -> u32 {
    let Some(own) = file_of(std::process::id()) else { return 0 };
    let of_another = |(_, told): &(&InstanceKey, &crate::drivers::Told)| {
        let shim = told.pid.and_then(parent_of);
        shim.and_then(file_of).is_some_and(|file| file != own)
    };
    u32::try_from(known.iter().filter(of_another).count()).unwrap_or(u32::MAX)
}

/// Device and inode of the program of a process, which stay the same when the file is renamed or deleted.
fn file_of(pid: u32) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let program = std::fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((program.dev(), program.ino()))
}

/// Field 4 of `/proc/PID/stat`, counted after the name, which may hold spaces and brackets.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use fairway_engine::State;
    use fairway_engine::time::Timestamp;
    use fairway_store::{Log, Snapshots};

    use super::*;

    fn pump(dir: &Path) -> Pump {
        let log = Log::open(&dir.join(fairway_store::database::DATABASE_FILE)).unwrap();
        let snapshots = Snapshots::open(&dir.join("snapshots")).unwrap();
        let (effects, _) = mpsc::unbounded_channel();
        let clock = crate::clock::Clock::start(Timestamp(0));
        crate::pump::start(log, snapshots, State::default(), 0, clock, effects).unwrap().0
    }

    #[tokio::test]
    async fn two_upgrades_at_once_are_one_too_many() {
        let (upgrades, _successors) = Upgrades::new();
        let _first = Arc::clone(&upgrades.one).try_lock_owned().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (proxies, pump) = (Proxies::new(dir.path().to_owned()), pump(dir.path()));
        let error =
            upgrades.begin(Path::new("/bin/true"), "ann".to_owned(), &proxies, &pump).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.exit), ("upgrade/under-way", 7));
    }

    #[tokio::test]
    async fn after_a_refusal_the_next_one_is_heard() {
        let (upgrades, _successors) = Upgrades::new();
        let dir = tempfile::tempdir().unwrap();
        let (proxies, pump) = (Proxies::new(dir.path().to_owned()), pump(dir.path()));
        for _ in 0..2 {
            let error = upgrades
                .begin(&dir.path().join("none"), "ann".to_owned(), &proxies, &pump)
                .await
                .unwrap_err();
            assert_eq!((error.code.as_str(), error.exit), ("upgrade/no-program", 1));
        }
    }

    #[test]
    fn the_parent_of_a_process_is_found() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        assert_eq!(parent_of(child.id()), Some(std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(parent_of(child.id()), None);
    }
}
