use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Wakes within some 50 µs of the wanted instant.
#[derive(Debug)]
pub(crate) struct Timer {
    fd: AsyncFd<OwnedFd>,
}

impl Timer {
    /// Needs a tokio runtime with its IO driver entered.
    pub(crate) fn new() -> io::Result<Timer> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: `as_raw_fd` of an `OwnedFd` always gives the descriptor it owns, and the
        // `AsyncFd` owns it and deregisters it before closing it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Timer { fd })
    }

    /// Dropping the future is safe: the next call sets the timer anew, which also forgets an
    /// expiry that nobody read.
    pub(crate) async fn wait_until(&self, at: Instant) -> io::Result<()> {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        timerfd_settime(
            self.fd.get_ref(),
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(left) },
        )?;
        loop {
            let mut ready = self.fd.readable().await?;
            let mut expirations = [0u8; 8];
            let read =
                ready.try_io(|fd| rustix::io::read(fd.get_ref(), &mut expirations).map_err(io::Error::from));
            if let Ok(result) = read {
                return result.map(drop);
            }
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_at_least_as_long_as_asked_even_after_an_abandoned_wait() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let timer = Timer::new().unwrap();
            let abandoned = timer.wait_until(Instant::now() + Duration::from_millis(1));
            tokio::select! { biased; _ = abandoned => unreachable!(), () = std::future::ready(()) => {} }
            std::thread::sleep(Duration::from_millis(2));
            let at = Instant::now() + Duration::from_millis(5);
            timer.wait_until(at).await.unwrap();
            assert!(Instant::now() >= at);
        });
    }
}
