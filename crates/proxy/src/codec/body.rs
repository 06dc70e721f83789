use super::{Chunked, ChunkedError, Framing};

/// Where a body ends, and how much of it is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Nothing more to come.
    Done,
    Length {
        left: u64,
    },
    Chunked(Chunked),
    /// Ends when the sender closes. Responses only.
    UntilClose,
}

pub type BodyError = ChunkedError;

/// What one call to [`Body::feed`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes that belong to the body; what follows is the next message.
    pub read: usize,
    /// Bytes at the front of the buffer that are to be passed on.
    pub pass: usize,
    /// How many of those are data, and no framing.
    pub data: u64,
}

impl Body {
    #[must_use]
    pub fn length(left: u64) -> Self {
        if left == 0 { Self::Done } else { Self::Length { left } }
    }

    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Whether it is chunked, and another chunk may begin here.
    #[must_use]
    pub fn is_between_chunks(&self) -> bool {
        match self {
            Self::Chunked(chunked) => chunked.is_between_chunks(),
            Self::Done | Self::Length { .. } | Self::UntilClose => false,
        }
    }

    /// Reads body bytes from the front of `buf`, in place.
    ///
    /// # Errors
    /// When the chunk framing is broken.
    pub fn feed(&mut self, buf: &mut [u8], framing: Framing) -> Result<Fed, BodyError> {
        self.feed_with(buf, framing, |_| {})
    }

    /// As [`Self::feed`], and shows the bytes of the trailers.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub fn feed_with(
        &mut self,
        buf: &mut [u8],
        framing: Framing,
        trailer: impl FnMut(u8),
    ) -> Result<Fed, BodyError> {
        match self {
            Self::Done => Ok(Fed { read: 0, pass: 0, data: 0 }),
            Self::UntilClose => Ok(Fed { read: buf.len(), pass: buf.len(), data: buf.len() as u64 }),
            Self::Length { left } => {
                let here = usize::try_from(*left).map_or(buf.len(), |left| left.min(buf.len()));
                *self = Self::length(*left - here as u64);
                Ok(Fed { read: here, pass: here, data: here as u64 })
            }
            Self::Chunked(chunked) => {
                let before = chunked.data_bytes();
                let (read, pass) = chunked.feed_with(buf, framing, trailer)?;
                let data = chunked.data_bytes() - before;
                if chunked.is_done() {
                    *self = Self::Done;
                }
                Ok(Fed { read, pass, data })
            }
        }
    }
}
