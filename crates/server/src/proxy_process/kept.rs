//! What the running proxy listens on, held here as well: the next one gets it when that one dies.

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairway_proxy::safekeeping::Keeper;

/// How long connections are let wait while no proxy runs. One starts within a tenth of a second; where none did for so
/// long, a client is better told that nobody serves.
const WITHOUT_PROXY: Duration = Duration::from_secs(10);

type Sockets = Arc<Vec<TcpListener>>;

#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Mutex<Sockets>>);

impl Kept {
    pub(super) fn sockets(&self) -> Sockets {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn let_go(&self) {
        self.hold(Sockets::default());
    }

    fn hold(&self, sockets: Sockets) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sockets;
    }

    /// Holds what the proxy in this directory listens on, until some time after its end.
    pub(super) fn follow(&self, dir: &Path) {
        let Ok(mut keeper) = Keeper::connect(dir) else {
            // One of an earlier version shows nothing. What was held is not what it listens on.
            self.let_go();
            return;
        };
        let kept = self.clone();
        tokio::spawn(async move {
            let mut last = kept.sockets();
            while let Ok(sockets) = keeper.next().await {
                last = Arc::new(sockets);
                kept.hold(Arc::clone(&last));
            }
            tokio::time::sleep(WITHOUT_PROXY).await;
            // Else another proxy is followed by now.
            if Arc::ptr_eq(&kept.sockets(), &last) {
                kept.let_go();
            }
        });
    }
}
