use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask for a drain.
#[derive(Debug)]
pub(crate) enum Stop {
    Signals {
        terminate: Signal,
        interrupt: Signal,
    },
    /// Whoever embeds the proxy handles signals.
    Never,
}

impl Stop {
    pub(crate) fn new(handle_signals: bool) -> io::Result<Self> {
        Ok(match handle_signals {
            true => Self::Signals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
            false => Self::Never,
        })
    }

    pub(crate) async fn asked(&mut self) {
        match self {
            Self::Never => std::future::pending().await,
            Self::Signals { terminate, interrupt } => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
        }
    }
}
