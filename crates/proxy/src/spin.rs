//! Whether a core that has nothing to do looks again at once or sleeps.
//!
//! To sleep and be woken costs a core 5 to 25 µs of its own time, most of it on virtual machines, and as much again in
//! latency. Where the next thing to do comes sooner than that, looking for it is cheaper than sleeping. So gaps are
//! watched: while nearly all of them are short, the core looks on for [`LOOK_MAX`] before it sleeps; when they are not,
//! which is always the case unless tens of thousands of events come in a second, it sleeps at once.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

/// How long is looked on in vain: as long as a sleep costs, so that a wrong guess doubles that and no more. With 50 µs a
/// load of 12,000 requests a second took twice the processor time, which services on the machine have use for. In tests as
/// long as another thread takes to answer, or none would ever look on with success.
const LOOK_MAX: Duration = Duration::from_micros(if cfg!(test) { 5_000 } else { 10 });

/// A sleep so short would have been saved by looking on: the waking is a part of it.
const SHORT_SLEEP: Duration = Duration::from_micros(35);

/// What a gap counts. A look in vain costs about what one that succeeds saves: only where four of five gaps and more are
/// short is there much to be had.
const SHORT: i8 = 1;
const LONG: i8 = -1;
const IN_VAIN: i8 = -4;

/// Gaps are short on the whole when this many more were.
const TRUSTED: i8 = 8;
const TRUST_MAX: i8 = 16;

/// What the last gaps were like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Trust(i8);

impl Trust {
    fn count(&mut self, gap: i8) {
        self.0 = (self.0 + gap).clamp(0, TRUST_MAX);
    }

    fn is_enough(self) -> bool {
        self.0 >= TRUSTED
    }
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Working,
    Looking,
    /// It looked for long enough; what follows is sleep.
    Tired,
    Asleep {
        since: Instant,
    },
}

/// One core's.
struct Spin {
    trust: Cell<Trust>,
    stage: Cell<Stage>,
    /// How often there was something to do.
    turns: Cell<u64>,
    looker: Cell<Option<Waker>>,
}

thread_local! {
    static SPIN: Spin = const {
        Spin {
            trust: Cell::new(Trust(0)),
            stage: Cell::new(Stage::Working),
            turns: Cell::new(0),
            looker: Cell::new(None),
        }
    };
}

impl Spin {
    fn count(&self, gap: i8) {
        let mut trust = self.trust.get();
        trust.count(gap);
        self.trust.set(trust);
    }

    /// The core has nothing to do. Waking a task keeps it from sleeping.
    fn before_sleep(&self) {
        match self.stage.get() {
            Stage::Working if self.trust.get().is_enough() => {
                if let Some(looker) = self.looker.take() {
                    self.stage.set(Stage::Looking);
                    looker.wake();
                }
            }
            Stage::Working | Stage::Tired => self.stage.set(Stage::Asleep { since: Instant::now() }),
            Stage::Looking | Stage::Asleep { .. } => {}
        }
    }

    fn after_sleep(&self) {
        if let Stage::Asleep { since } = self.stage.get() {
            self.count(if since.elapsed() < SHORT_SLEEP { SHORT } else { LONG });
            self.stage.set(Stage::Working);
        }
    }
}

/// Looks on whenever it is woken. Each turn of it polls the kernel once.
async fn look() {
    loop {
        let (begun, turns) = poll_fn(|cx| {
            SPIN.with(|spin| match spin.stage.get() {
                Stage::Looking => Poll::Ready((Instant::now(), spin.turns.get())),
                Stage::Working | Stage::Tired | Stage::Asleep { .. } => {
                    spin.looker.set(Some(cx.waker().clone()));
                    Poll::Pending
                }
            })
        })
        .await;
        let (gap, next) = loop {
            tokio::task::yield_now().await;
            if SPIN.with(|spin| spin.turns.get()) != turns {
                break (SHORT, Stage::Working);
            }
            if begun.elapsed() >= LOOK_MAX {
                break (IN_VAIN, Stage::Tired);
            }
        };
        SPIN.with(|spin| {
            spin.count(gap);
            spin.stage.set(next);
        });
    }
}

/// A runtime for one core.
///
/// # Errors
/// When there are no descriptors for it.
pub(crate) fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .on_thread_park(|| SPIN.with(Spin::before_sleep))
        .on_thread_unpark(|| SPIN.with(Spin::after_sleep))
        .build()
}

/// Runs a core on this thread.
pub(crate) fn run(runtime: &Runtime, core: impl Future<Output = ()>) {
    let local = LocalSet::new();
    runtime.block_on(async {
        tokio::spawn(look());
        let mut core = pin!(local.run_until(core));
        poll_fn(|cx| {
            SPIN.with(|spin| spin.turns.set(spin.turns.get().wrapping_add(1)));
            core.as_mut().poll(cx)
        })
        .await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(gaps: &[(usize, i8)]) -> Trust {
        let mut trust = Trust::default();
        for (times, gap) in gaps {
            (0..*times).for_each(|_| trust.count(*gap));
        }
        trust
    }

    #[test]
    fn a_core_looks_on_only_where_nearly_all_gaps_are_short() {
        assert!(!trust(&[]).is_enough());
        assert!(!trust(&[(7, SHORT)]).is_enough());
        assert!(trust(&[(8, SHORT)]).is_enough());
        assert!(!trust(&[(1_000, SHORT), (9, LONG)]).is_enough(), "it does not live on what was");
        assert!(!trust(&[(1_000, SHORT), (3, IN_VAIN)]).is_enough());
        let mut mixed = trust(&[(1_000, SHORT)]);
        let mut looks = 0;
        for _ in 0..1_000 {
            looks += u32::from(mixed.is_enough());
            mixed.count(SHORT);
            mixed.count(if mixed.is_enough() { IN_VAIN } else { LONG });
        }
        assert!(looks < 10, "every second gap is long, and it looked on {looks} times");
    }

    /// Runs a core that trusts short gaps on a thread of its own.
    fn on_a_core<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) -> (u64, Trust) {
        let core = std::thread::spawn(move || {
            SPIN.with(|spin| spin.trust.set(Trust(TRUST_MAX)));
            run(&runtime().unwrap(), async { work().await });
            SPIN.with(|spin| (spin.turns.get(), spin.trust.get()))
        });
        core.join().unwrap()
    }

    #[test]
    fn a_core_that_looked_in_vain_sleeps_and_trusts_less() {
        let sleep = || tokio::time::sleep(Duration::from_millis(20));
        let (turns, trust) = on_a_core(move || async move { sleep().await });
        assert!(trust.0 <= TRUST_MAX + IN_VAIN, "{trust:?}: it did not look on");
        assert!(turns < 10, "{turns} turns for one sleep");
        let (turns, trust) = on_a_core(move || async move {
            for _ in 0..20 {
                sleep().await;
            }
        });
        assert!(!trust.is_enough(), "{trust:?} after nothing but long gaps");
        assert!(turns < 100, "{turns} turns for 20 sleeps");
    }

    #[test]
    fn what_comes_while_it_looks_on_is_taken() {
        use std::io::{Read as _, Write as _};
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let echo = std::thread::spawn(move || {
            let mut byte = [0];
            while (&theirs).read(&mut byte).unwrap() > 0 {
                (&theirs).write_all(&byte).unwrap();
            }
        });
        on_a_core(move || async move {
            ours.set_nonblocking(true).unwrap();
            let ours = tokio::net::UnixStream::from_std(ours).unwrap();
            for _ in 0..200 {
                ours.writable().await.unwrap();
                ours.try_write(b"x").unwrap();
                while ours.try_read(&mut [0; 2]).is_err() {
                    ours.readable().await.unwrap();
                }
            }
        });
        echo.join().unwrap();
    }
}
