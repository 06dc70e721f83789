/// What becomes of the chunk framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Chunk sizes stay; extensions and trailers are taken out.
    Keep,
    /// Chunk sizes and trailers stay; extensions are taken out. For peers of which one speaks HTTP/2: what turns the
    /// trailers into its own drops the forbidden ones.
    KeepTrailers,
    /// Only the data stays.
    Strip,
}

/// Why a chunked body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkedError {
    #[error("a chunk size is not a hexadecimal number")]
    Size,
    #[error("a chunk size is too large")]
    SizeTooLarge,
    #[error("chunk extensions are too long or hold control characters")]
    Extension,
    #[error("a chunk does not end where its size says")]
    DataEnd,
    #[error("a line of the chunk framing does not end with CR LF")]
    LineEnd,
    #[error("a trailer field is malformed or the trailers are too long")]
    Trailer,
}

/// 15 hexadecimal digits are an exabyte; more could overflow in a server behind us.
const SIZE_DIGITS_MAX: u8 = 15;

/// Extension bytes over the whole body. Nobody uses extensions; without a bound they are a way to send without
/// end and without a body (CVE-2023-39326).
const EXTENSION_BYTES_MAX: u32 = 4 * 1024;

/// Trailer bytes over the whole body, for the same reason.
const TRAILER_BYTES_MAX: u32 = 8 * 1024;

/// Decoder for a chunked body (RFC 9112, section 7.1) that works in place.
///
/// Trailers are checked, and dropped unless asked for, which section 6.5.1 of RFC 9110 allows an intermediary: merging
/// them unseen is how forbidden fields get past checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunked {
    state: State,
    extension_bytes: u32,
    trailer_bytes: u32,
    /// Without the framing.
    data_bytes: u64,
}

/// What a byte that is not data belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Frame,
    Extension,
    Trailer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size { value: u64, digits: u8 },
    Extension { size: u64 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            state: State::Size { value: 0, digits: 0 },
            extension_bytes: 0,
            trailer_bytes: 0,
            data_bytes: 0,
        }
    }
}

impl Chunked {
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether another chunk may begin here: the last one too.
    #[must_use]
    pub fn is_between_chunks(&self) -> bool {
        self.state == State::Size { value: 0, digits: 0 }
    }

    /// Data so far, without the framing.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Reads from the front of `buf` and moves what is to be passed on to its front. Returns how many bytes
    /// were read and how many of those are to be passed on. Reads everything unless the body ends earlier.
    ///
    /// # Errors
    /// The body cannot be trusted from here on; the decoder must not be used again.
    pub fn feed(&mut self, buf: &mut [u8], framing: Framing) -> Result<(usize, usize), ChunkedError> {
        self.feed_with(buf, framing, |_| {})
    }

    /// As [`Self::feed`], and shows the bytes of the trailers: complete lines, in the end.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub fn feed_with(
        &mut self,
        buf: &mut [u8],
        framing: Framing,
        mut trailer: impl FnMut(u8),
    ) -> Result<(usize, usize), ChunkedError> {
        let mut read = 0;
        let mut written = 0;
        while read < buf.len() && self.state != State::Done {
            if let State::Data { left } = self.state {
                let here = usize::try_from(left).map_or(buf.len() - read, |left| left.min(buf.len() - read));
                if read != written {
                    buf.copy_within(read..read + here, written);
                }
                read += here;
                written += here;
                self.data_bytes = self.data_bytes.saturating_add(here as u64);
                let left = left - here as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                continue;
            }
            let b = buf[read];
            read += 1;
            let part = self.step(b)?;
            if part == Part::Trailer {
                trailer(b);
            }
            let stays = match framing {
                Framing::Strip => false,
                Framing::Keep => part == Part::Frame,
                Framing::KeepTrailers => part != Part::Extension,
            };
            if stays {
                buf[written] = b;
                written += 1;
            }
        }
        Ok((read, written))
    }

    /// Takes one byte that is not data; says what it belongs to.
    fn step(&mut self, b: u8) -> Result<Part, ChunkedError> {
        let (next, part) = match self.state {
            State::Size { value, digits } => match (b, digits) {
                (b';', 1..) => (State::Extension { size: value }, Part::Extension),
                (b'\r', 1..) => (State::SizeLf { size: value }, Part::Frame),
                (_, SIZE_DIGITS_MAX..) if b.is_ascii_hexdigit() => return Err(ChunkedError::SizeTooLarge),
                (_, _) => {
                    let digit = char::from(b).to_digit(16).ok_or(ChunkedError::Size)?;
                    (State::Size { value: value * 16 + u64::from(digit), digits: digits + 1 }, Part::Frame)
                }
            },
            State::Extension { size } => match b {
                b'\r' => (State::SizeLf { size }, Part::Frame),
                b'\t' | b' '..=b'~' | 0x80.. => {
                    self.extension_bytes += 1;
                    if self.extension_bytes > EXTENSION_BYTES_MAX {
                        return Err(ChunkedError::Extension);
                    }
                    (State::Extension { size }, Part::Extension)
                }
                _ => return Err(ChunkedError::Extension),
            },
            State::SizeLf { size } => match (b, size) {
                (b'\n', 0) => (State::TrailerStart, Part::Frame),
                (b'\n', left) => (State::Data { left }, Part::Frame),
                (_, _) => return Err(ChunkedError::LineEnd),
            },
            State::DataCr if b == b'\r' => (State::DataLf, Part::Frame),
            State::DataLf if b == b'\n' => (State::Size { value: 0, digits: 0 }, Part::Frame),
            State::DataCr | State::DataLf => return Err(ChunkedError::DataEnd),
            State::TrailerStart if b == b'\r' => (State::EndLf, Part::Frame),
            State::TrailerStart if super::is_tchar(b) => (self.trailer(State::TrailerName)?, Part::Trailer),
            State::TrailerName if b == b':' => (self.trailer(State::TrailerValue)?, Part::Trailer),
            State::TrailerName if super::is_tchar(b) => (self.trailer(State::TrailerName)?, Part::Trailer),
            State::TrailerStart | State::TrailerName => return Err(ChunkedError::Trailer),
            State::TrailerValue => match b {
                b'\r' => (State::TrailerLf, Part::Trailer),
                b'\t' | b' '..=b'~' | 0x80.. => (self.trailer(State::TrailerValue)?, Part::Trailer),
                _ => return Err(ChunkedError::Trailer),
            },
            State::TrailerLf if b == b'\n' => (State::TrailerStart, Part::Trailer),
            State::EndLf if b == b'\n' => (State::Done, Part::Frame),
            State::TrailerLf | State::EndLf => return Err(ChunkedError::LineEnd),
            // `feed` handles these in bulk and never steps through them.
            State::Data { .. } | State::Done => (self.state, Part::Frame),
        };
        self.state = next;
        Ok(part)
    }

    fn trailer(&mut self, next: State) -> Result<State, ChunkedError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX { Err(ChunkedError::Trailer) } else { Ok(next) }
    }
}
