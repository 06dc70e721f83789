//! A future whose memory is fetched before it is needed.

use std::pin::Pin;
use std::task::{Context, Poll};

/// With hundreds of connections what one of them needs has left the near caches by its next turn. It is a few dozen lines,
/// which are asked for all at once here instead of one after the other where they are used.
pub(super) struct Warm<F>(Pin<Box<F>>);

impl<F: Future> Warm<F> {
    pub(super) fn new(future: F) -> Self {
        Self(Box::pin(future))
    }
}

impl<F: Future> Future for Warm<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        fetch(&*self.0);
        self.0.as_mut().poll(cx)
    }
}

#[cfg(target_arch = "x86_64")]
fn fetch<T>(value: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    const LINE_BYTES: usize = 64;
    let start = std::ptr::from_ref(value).cast::<i8>();
    for at in (0..size_of::<T>()).step_by(LINE_BYTES) {
        // SAFETY: a prefetch reads nothing that the program could see, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at)) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn fetch<T>(_: &T) {}
