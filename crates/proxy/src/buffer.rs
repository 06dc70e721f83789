//! Buffers that are used again: the common path allocates nothing.
//!
//! Free ones belong to the thread, which is the core. A connection that waits with nothing read holds none.

use std::cell::RefCell;
use std::ops::Range;

/// One read of most requests. Held until the answer is there, so with 1,000 requests under way the size decides
/// whether they fit into a cache or make the kernel hand out and clear memory all the time.
const REQUEST_BYTES: usize = 8 * 1024;

/// A request with a long head or a body. Twice the largest head, so that a body always has room beside it; also the
/// longest body that can be sent again to another instance.
pub(crate) const LONG_REQUEST_BYTES: usize = 64 * 1024;

/// One read of a response. 128 KiB rather than 64 were worth 25 % on bodies of 64 KiB: head and body then come
/// in one read.
pub(crate) const RESPONSE_BYTES: usize = 128 * 1024;

/// Free memory kept per core and kind; above it memory of a burst goes back to the system. 16 MiB are 2,048 requests
/// under way, or 128 answers that are slow to be taken.
const FREE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Free heads kept per core: each request under way has up to three.
const FREE_HEADS_MAX: usize = 2_048;

#[derive(Default)]
struct Free {
    request: Vec<Box<[u8]>>,
    long_request: Vec<Box<[u8]>>,
    response: Vec<Box<[u8]>>,
    heads: Vec<Vec<u8>>,
}

thread_local! {
    static FREE: RefCell<Free> = RefCell::default();
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    /// What a request grows into that does not fit.
    LongRequest,
    Response,
}

impl Kind {
    fn bytes(self) -> usize {
        match self {
            Self::Request => REQUEST_BYTES,
            Self::LongRequest => LONG_REQUEST_BYTES,
            Self::Response => RESPONSE_BYTES,
        }
    }

    fn list(self, free: &mut Free) -> &mut Vec<Box<[u8]>> {
        match self {
            Self::Request => &mut free.request,
            Self::LongRequest => &mut free.long_request,
            Self::Response => &mut free.response,
        }
    }
}

/// A fixed piece of memory with a filled part in it.
#[derive(Debug)]
pub(crate) struct Buffer {
    kind: Kind,
    data: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(crate) fn take(kind: Kind) -> Self {
        let data = FREE
            .with_borrow_mut(|free| kind.list(free).pop())
            .unwrap_or_else(|| vec![0; kind.bytes()].into_boxed_slice());
        Self { kind, data, start: 0, end: 0 }
    }

    pub(crate) fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.data[range]
    }

    pub(crate) fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.data[range]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Room behind the filled part.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.data[self.end..]
    }

    /// Makes room in a full buffer, if it is of a kind that grows. Positions stay what they are.
    pub(crate) fn grow_if_full(&mut self) {
        if self.kind == Kind::Request && self.end == self.data.len() {
            let mut larger = Self::take(Kind::LongRequest);
            larger.data[self.start..self.end].copy_from_slice(self.filled());
            (larger.start, larger.end) = (self.start, self.end);
            *self = larger;
        }
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.end += bytes;
        debug_assert!(self.end <= self.data.len());
    }

    /// Takes bytes off the front; an empty buffer starts over.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Cuts the filled part off behind `end`, a position as [`Self::range`] gives it.
    pub(crate) fn truncate_to(&mut self, end: usize) {
        debug_assert!((self.start..=self.end).contains(&end));
        self.end = end;
    }

    /// Moves the filled part to the front.
    pub(crate) fn compact(&mut self) {
        self.data.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        let kind = self.kind;
        // Threads that end drop their list before their last connections: nothing to give back to then.
        let _ = FREE.try_with(|free| {
            if let Ok(mut free) = free.try_borrow_mut() {
                let list = kind.list(&mut free);
                if list.len() * data.len() < FREE_BYTES_MAX {
                    list.push(data);
                }
            }
        });
    }
}

/// What a head has room for when it is kept for the next one: more than any common head.
const HEAD_KEPT_BYTES_MAX: usize = 16 * 1024;

/// A growing piece of memory for one rewritten head.
#[derive(Debug)]
pub(crate) struct HeadBuffer(Vec<u8>);

impl HeadBuffer {
    pub(crate) fn take() -> Self {
        Self(FREE.with_borrow_mut(|free| free.heads.pop()).unwrap_or_else(|| Vec::with_capacity(1024)))
    }

    /// No memory yet.
    pub(crate) fn later() -> Self {
        Self(Vec::new())
    }

    /// Takes memory, if there is none. The later it is taken, the likelier somebody had it a moment ago, and it is near.
    pub(crate) fn now(&mut self) -> &mut Vec<u8> {
        if self.0.capacity() == 0 {
            *self = Self::take();
        }
        &mut self.0
    }
}

impl std::ops::Deref for HeadBuffer {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl std::ops::DerefMut for HeadBuffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for HeadBuffer {
    fn drop(&mut self) {
        let mut head = std::mem::take(&mut self.0);
        // One that held a packed body is not kept for heads, nor is one that never had memory.
        if head.capacity() == 0 || head.capacity() > HEAD_KEPT_BYTES_MAX {
            return;
        }
        head.clear();
        let _ = FREE.try_with(|free| {
            if let Ok(mut free) = free.try_borrow_mut()
                && free.heads.len() < FREE_HEADS_MAX
            {
                free.heads.push(head);
            }
        });
    }
}
