//! What the running proxy listens on, held here as well: the next one gets it when that one dies.

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairway_proxy::safekeeping::Keeper;
use tokio::task::AbortHandle;

/// How long connections are let wait while no proxy runs. One starts within a tenth of a second; where none did for so
/// long, a client is better told that nobody serves.
const WITHOUT_PROXY: Duration = Duration::from_secs(10);

type Sockets = Arc<Vec<TcpListener>>;

#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    sockets: Sockets,
    /// Holds what the proxy shows. One at a time: each descriptor that is left over keeps a closed address taken.
    follower: Option<AbortHandle>,
}

impl Kept {
    pub(super) fn sockets(&self) -> Sockets {
        Arc::clone(&self.held().sockets)
    }

    pub(super) fn let_go(&self) {
        self.hold(Sockets::default());
    }

    fn hold(&self, sockets: Sockets) {
        self.held().sockets = sockets;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds what the proxy in this directory listens on, until some time after its end.
    pub(super) fn follow(&self, dir: &Path) {
        if let Some(before) = self.held().follower.take() {
            before.abort();
        }
        let Ok(mut keeper) = Keeper::connect(dir) else {
            // One of an earlier version shows nothing. What was held is not what it listens on.
            self.let_go();
            return;
        };
        let kept = self.clone();
        let follower = tokio::spawn(async move {
            while let Ok(sockets) = keeper.next().await {
                kept.hold(Arc::new(sockets));
            }
            tokio::time::sleep(WITHOUT_PROXY).await;
            kept.let_go();
        });
        self.held().follower = Some(follower.abort_handle());
    }
}
