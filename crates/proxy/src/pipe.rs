//! A connection within one core: what one end writes, the other reads. A stream of HTTP/2 reaches the relay through
//! one, and leaves it through another.
//!
//! Bounded each way, so that whoever does not read holds up whoever writes. An empty direction holds no memory: a
//! thousand idle streams cost a thousand small structs. No borrow outlives a call.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IoSlice};
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, BytesMut};

/// What one direction holds. As much as the relay reads of a request at once; what is beyond it stays with the sender,
/// which HTTP/2's windows tell to wait.
pub(crate) const PIPE_BYTES_MAX: usize = 64 * 1024;

/// What is added to a body on its way: the size of a chunk, and its ends.
const FRAMING_BYTES: usize = 64;

/// One end.
pub(crate) struct Pipe {
    shared: Rc<Shared>,
    side: Side,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Near = 0,
    Far = 1,
}

struct Shared {
    /// By the side that writes.
    flows: [RefCell<Flow>; 2],
    /// The far side says that nothing of what the near one wrote was acted upon.
    unreceived: Cell<bool>,
    /// What each flow may hold, by the side that writes.
    bytes_max: [usize; 2],
    /// Bytes that the far side was rid of, of those that it had read.
    passed_on: Cell<u64>,
}

#[derive(Default)]
struct Flow {
    bytes: BytesMut,
    state: State,
    /// Waits for bytes or an end.
    reader: Option<Waker>,
    /// Waits for room.
    writer: Option<Waker>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The writer has ended in good order; what is here can still be read.
    Ended,
    /// The writer has given up.
    Broken,
    /// The reader is gone; nobody will read what is written.
    Unread,
}

impl Flow {
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// The writer's last word, if the reader still listens.
    fn end(&mut self, state: State) {
        if self.state == State::Open || (self.state == State::Ended && state == State::Broken) {
            self.state = state;
            if state == State::Broken {
                self.bytes = BytesMut::new();
            }
            self.wake_reader();
            // It may wait for room that does not matter any more.
            self.wake_writer();
        }
    }
}

fn wait(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(known) if known.will_wake(cx.waker()) => {}
        Some(_) | None => *slot = Some(cx.waker().clone()),
    }
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Pipe {
    /// Both ends: the relay's, and that of whoever translates.
    pub(crate) fn pair() -> (Self, Self) {
        Self::pair_within(PIPE_BYTES_MAX)
    }

    /// As [`Self::pair`]; what the near one wrote and nobody has read may be so much.
    pub(crate) fn pair_within(near_bytes_max: usize) -> (Self, Self) {
        let shared = Rc::new(Shared {
            flows: Default::default(),
            unreceived: Cell::new(false),
            bytes_max: [near_bytes_max, PIPE_BYTES_MAX],
            passed_on: Cell::new(0),
        });
        (Self { shared: Rc::clone(&shared), side: Side::Near }, Self { shared, side: Side::Far })
    }

    fn outward(&self) -> &RefCell<Flow> {
        &self.shared.flows[self.side as usize]
    }

    fn inward(&self) -> &RefCell<Flow> {
        &self.shared.flows[1 - self.side as usize]
    }

    /// Ready with 0 at a clean end.
    pub(crate) fn poll_read(&self, cx: &Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_take(cx, |bytes| {
            let count = bytes.len().min(buf.len());
            buf[..count].copy_from_slice(&bytes[..count]);
            bytes.advance(count);
            count
        })
    }

    /// As [`Self::poll_read`], with everything that is here, behind what `into` holds.
    pub(crate) fn poll_fill(&self, cx: &Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.poll_take(cx, |bytes| {
            let count = bytes.len();
            if into.is_empty() {
                *into = mem::take(bytes);
            } else {
                into.extend_from_slice(bytes);
                bytes.clear();
            }
            count
        })
    }

    fn poll_take(
        &self,
        cx: &Context<'_>,
        take: impl FnOnce(&mut BytesMut) -> usize,
    ) -> Poll<io::Result<usize>> {
        let mut flow = self.inward().borrow_mut();
        if flow.bytes.is_empty() {
            return match flow.state {
                State::Open => {
                    wait(&mut flow.reader, cx);
                    Poll::Pending
                }
                State::Ended | State::Unread => Poll::Ready(Ok(0)),
                State::Broken => Poll::Ready(Err(broken())),
            };
        }
        let count = take(&mut flow.bytes);
        if flow.bytes.is_empty() {
            flow.bytes = BytesMut::new();
        }
        if count > 0 {
            flow.wake_writer();
        }
        Poll::Ready(Ok(count))
    }

    /// Ready when a read gives something, an end or an error.
    pub(crate) fn poll_read_ready(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut flow = self.inward().borrow_mut();
        if flow.bytes.is_empty() && flow.state == State::Open {
            wait(&mut flow.reader, cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready with as many bytes as there was room for.
    pub(crate) fn poll_write(&self, cx: &Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut flow = self.outward().borrow_mut();
        if flow.state != State::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let offered = slices.iter().map(|slice| slice.len()).sum::<usize>();
        let room = self.shared.bytes_max[self.side as usize].saturating_sub(flow.bytes.len());
        if room == 0 && offered > 0 {
            wait(&mut flow.writer, cx);
            return Poll::Pending;
        }
        let count = offered.min(room);
        flow.bytes.reserve(count);
        let mut left = count;
        for slice in slices {
            let here = left.min(slice.len());
            flow.bytes.extend_from_slice(&slice[..here]);
            left -= here;
        }
        if count > 0 {
            flow.wake_reader();
        }
        Poll::Ready(Ok(count))
    }

    /// Ready with what a body may have to be written as one piece, framing included. Ready as well when nothing can be
    /// written any more, which the write will tell.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<usize> {
        if self.is_full() {
            wait(&mut self.outward().borrow_mut().writer, cx);
            return Poll::Pending;
        }
        Poll::Ready(self.room().max(1))
    }

    /// Whether nothing can be written yet that has a body.
    pub(crate) fn is_full(&self) -> bool {
        self.room() == 0 && self.outward().borrow().state == State::Open
    }

    fn room(&self) -> usize {
        let held = self.outward().borrow().bytes.len() + FRAMING_BYTES;
        self.shared.bytes_max[self.side as usize].saturating_sub(held)
    }

    /// The far side says that it was rid of so many bytes more.
    pub(crate) fn pass_on(&self, bytes: usize) {
        self.shared.passed_on.set(self.shared.passed_on.get() + bytes as u64);
    }

    /// Bytes that the far side was rid of.
    pub(crate) fn passed_on(&self) -> u64 {
        self.shared.passed_on.get()
    }

    /// Ends our side in good order.
    pub(crate) fn half_close(&self) {
        self.outward().borrow_mut().end(State::Ended);
    }

    /// Ends our side so that the other sees an error, whatever it has not read yet.
    pub(crate) fn reset(&self) {
        self.outward().borrow_mut().end(State::Broken);
    }

    /// Ends our side and says that nothing of what came was acted upon: it can be sent again elsewhere.
    pub(crate) fn refuse(&self) {
        self.shared.unreceived.set(true);
        self.half_close();
    }

    /// Whether the other side said so by [`Self::refuse`].
    pub(crate) fn is_refused(&self) -> bool {
        self.shared.unreceived.get()
    }

    /// Whether nothing waits to be read, not even an end.
    pub(crate) fn is_quiet(&self) -> bool {
        let flow = self.inward().borrow();
        flow.bytes.is_empty() && flow.state == State::Open
    }

    /// Whether the other side has given up.
    pub(crate) fn is_broken(&self) -> bool {
        self.inward().borrow().state == State::Broken
    }

    /// Ready when the other side has given up, or reads nothing more. An end in good order of what it writes is neither.
    pub(crate) fn poll_gone(&self, cx: &Context<'_>) -> Poll<()> {
        let mut outward = self.outward().borrow_mut();
        if outward.state == State::Unread {
            return Poll::Ready(());
        }
        wait(&mut outward.writer, cx);
        drop(outward);
        let mut inward = self.inward().borrow_mut();
        if inward.state == State::Broken {
            return Poll::Ready(());
        }
        wait(&mut inward.reader, cx);
        Poll::Pending
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut outward = self.outward().borrow_mut();
        outward.end(State::Ended);
        drop(outward);
        let mut inward = self.inward().borrow_mut();
        // A writer that has ended expects nothing, but may wait to see us go.
        inward.bytes = BytesMut::new();
        inward.state = State::Unread;
        inward.wake_writer();
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (inward, outward) = (self.inward().borrow(), self.outward().borrow());
        f.debug_struct("Pipe")
            .field("side", &self.side)
            .field("inward", &(inward.state, inward.bytes.len()))
            .field("outward", &(outward.state, outward.bytes.len()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A task that counts how often it is woken.
    struct Task(Arc<Count>, Waker);

    impl Task {
        fn new() -> Self {
            let count = Arc::new(Count::default());
            Self(Arc::clone(&count), Waker::from(count))
        }

        fn cx(&self) -> Context<'_> {
            Context::from_waker(&self.1)
        }

        fn woken(&self) -> usize {
            self.0.0.load(Ordering::Relaxed)
        }
    }

    fn write(pipe: &Pipe, task: &Task, bytes: &[u8]) -> Poll<Result<usize, io::ErrorKind>> {
        pipe.poll_write(&task.cx(), &[IoSlice::new(bytes)]).map_err(|error| error.kind())
    }

    fn read(pipe: &Pipe, task: &Task, max: usize) -> Poll<Result<Vec<u8>, io::ErrorKind>> {
        let mut buf = vec![0; max];
        pipe.poll_read(&task.cx(), &mut buf).map(|result| match result {
            Ok(count) => {
                buf.truncate(count);
                Ok(buf)
            }
            Err(error) => Err(error.kind()),
        })
    }

    const RESET: Poll<Result<Vec<u8>, io::ErrorKind>> = Poll::Ready(Err(io::ErrorKind::ConnectionReset));
    const BROKEN: Poll<Result<usize, io::ErrorKind>> = Poll::Ready(Err(io::ErrorKind::BrokenPipe));

    #[test]
    fn a_full_pipe_makes_its_writer_wait_and_an_empty_one_its_reader() {
        let (near, far) = Pipe::pair();
        let (writer, reader) = (Task::new(), Task::new());
        assert_eq!(read(&far, &reader, 10), Poll::Pending);
        assert_eq!(write(&near, &writer, b"abc"), Poll::Ready(Ok(3)));
        assert_eq!(reader.woken(), 1);
        let big = vec![b'x'; 2 * PIPE_BYTES_MAX];
        assert_eq!(write(&near, &writer, &big), Poll::Ready(Ok(PIPE_BYTES_MAX - 3)));
        assert_eq!(reader.woken(), 1, "nobody waited");
        assert_eq!(write(&near, &writer, b"y"), Poll::Pending);
        assert_eq!(read(&far, &reader, 3), Poll::Ready(Ok(b"abc".to_vec())));
        assert_eq!(writer.woken(), 1);
        assert_eq!(write(&near, &writer, &big), Poll::Ready(Ok(3)));
        let mut all = BytesMut::new();
        assert!(far.poll_fill(&reader.cx(), &mut all).is_ready());
        assert_eq!(all.len(), PIPE_BYTES_MAX);
        assert_eq!(writer.woken(), 1, "it was not told twice");
        assert_eq!(near.outward().borrow().bytes.capacity(), 0, "an empty pipe holds no memory");
    }

    #[test]
    fn an_end_comes_after_the_bytes_and_a_reset_before_them() {
        let (near, far) = Pipe::pair();
        let task = Task::new();
        assert_eq!(write(&near, &task, b"last"), Poll::Ready(Ok(4)));
        near.half_close();
        assert_eq!(write(&near, &task, b"more"), BROKEN);
        assert_eq!(read(&far, &task, 9), Poll::Ready(Ok(b"last".to_vec())));
        assert_eq!(read(&far, &task, 9), Poll::Ready(Ok(Vec::new())));
        assert_eq!(write(&far, &task, b"answer"), Poll::Ready(Ok(6)), "the other way is open");
        assert!(far.poll_gone(&task.cx()).is_pending(), "an end is not a goodbye");
        assert_eq!(write(&far, &task, b"lost"), Poll::Ready(Ok(4)));
        far.reset();
        assert_eq!(read(&near, &task, 9), RESET);
        assert!(near.poll_gone(&task.cx()).is_ready());
    }

    #[test]
    fn each_end_notices_that_the_other_is_dropped() {
        let (near, far) = Pipe::pair();
        let (task, other) = (Task::new(), Task::new());
        let big = vec![0; PIPE_BYTES_MAX];
        assert_eq!(write(&near, &task, &big), Poll::Ready(Ok(big.len())));
        assert_eq!(write(&near, &task, b"x"), Poll::Pending);
        assert!(near.poll_gone(&task.cx()).is_pending());
        assert_eq!(write(&far, &other, b"bye"), Poll::Ready(Ok(3)));
        drop(far);
        assert!(task.woken() >= 1);
        assert_eq!(write(&near, &task, b"x"), BROKEN);
        assert!(near.poll_gone(&task.cx()).is_ready());
        assert_eq!(read(&near, &task, 9), Poll::Ready(Ok(b"bye".to_vec())));
        assert_eq!(read(&near, &task, 9), Poll::Ready(Ok(Vec::new())));
        assert!(!near.is_refused());
        assert!(!near.is_quiet());
    }

    #[test]
    fn one_that_has_ended_still_sees_the_other_go() {
        let (near, far) = Pipe::pair();
        let task = Task::new();
        near.half_close();
        assert!(near.poll_gone(&task.cx()).is_pending());
        drop(far);
        assert!(task.woken() >= 1);
        assert!(near.poll_gone(&task.cx()).is_ready());
    }

    #[test]
    fn a_refusal_is_seen_as_an_end_and_as_a_proof() {
        let (near, far) = Pipe::pair();
        let task = Task::new();
        assert_eq!(write(&near, &task, b"POST"), Poll::Ready(Ok(4)));
        far.refuse();
        drop(far);
        assert_eq!(read(&near, &task, 9), Poll::Ready(Ok(Vec::new())));
        assert!(near.is_refused());
    }
}
