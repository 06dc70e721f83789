//! A part of a file on its way out: a bounded piece at a time, read when the connection has room for it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::JoinHandle;

/// What all downloads together hold in pieces that are read and not yet sent: a thousand at once are as cheap as ten.
const PIECES_BYTES_MAX: u64 = 16 << 20;
/// Beyond, a larger piece saves no time.
const PIECE_BYTES_MAX: u64 = 128 << 10;
/// Below, the calls cost more than the bytes; a thousand downloads hold 16 MiB.
const PIECE_BYTES_MIN: u64 = 16 << 10;

/// Downloads under way in this process.
static UNDER_WAY: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub(super) enum FileBody {
    Bytes(Option<Bytes>),
    Part(Part),
}

#[derive(Debug)]
pub(super) struct Part {
    file: Arc<File>,
    left: Range<u64>,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
    _counted: Counted,
}

#[derive(Debug)]
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FileBody {
    pub(super) fn empty() -> Self {
        Self::Bytes(None)
    }

    pub(super) fn text(text: &'static str) -> Self {
        Self::Bytes(Some(Bytes::from_static(text.as_bytes())))
    }

    pub(super) fn part(file: File, range: Range<u64>) -> Self {
        UNDER_WAY.fetch_add(1, Ordering::Relaxed);
        Self::Part(Part { file: Arc::new(file), left: range, reading: None, _counted: Counted })
    }
}

impl Part {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let piece = match &mut self.reading {
            Some(reading) => {
                let read = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                read.unwrap_or_else(|error| Err(io::Error::other(error)))?
            }
            None => {
                let bytes = piece_bytes(self.left.end - self.left.start);
                match read_at_once(&self.file, bytes, self.left.start) {
                    Some(read) => read?,
                    None => {
                        let (file, offset) = (Arc::clone(&self.file), self.left.start);
                        self.reading = Some(tokio::task::spawn_blocking(move || read(&file, bytes, offset)));
                        return self.poll_piece(cx);
                    }
                }
            }
        };
        // The length was promised: the connection is cut, so that nobody takes what came for the whole.
        if piece.is_empty() {
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        self.left.start += piece.len() as u64;
        Poll::Ready(Some(Ok(Bytes::from(piece))))
    }
}

fn piece_bytes(left: u64) -> usize {
    let share = PIECES_BYTES_MAX / UNDER_WAY.load(Ordering::Relaxed).max(1);
    let bytes = share.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX).min(left);
    usize::try_from(bytes).expect("it is at most 128 KiB")
}

/// What lies in memory is read here and now; none when the disk would have to be waited for.
fn read_at_once(file: &File, bytes: usize, offset: u64) -> Option<io::Result<Vec<u8>>> {
    let mut piece = vec![0; bytes];
    let read = {
        let mut buffers = [io::IoSliceMut::new(&mut piece)];
        rustix::io::preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT)
    };
    match read {
        Ok(read) => {
            piece.truncate(read);
            Some(Ok(piece))
        }
        // Not in memory, or a filesystem or kernel that cannot tell.
        Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => None,
        Err(error) => Some(Err(error.into())),
    }
}

fn read(file: &File, bytes: usize, offset: u64) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; bytes];
    loop {
        match file.read_at(&mut piece, offset) {
            Ok(read) => {
                piece.truncate(read);
                return Ok(piece);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Bytes(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Part(part) => part.poll_piece(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_none(),
            Self::Part(part) => part.left.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Bytes(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::Part(part) => part.left.end - part.left.start,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http_body_util::BodyExt;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[tokio::test]
    async fn a_part_is_sent_in_pieces_whole() {
        let content: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        let body = FileBody::part(file(&content), 7..999_999);
        assert_eq!(body.size_hint().exact(), Some(999_992));
        assert_eq!(body.collect().await.unwrap().to_bytes(), content[7..999_999]);
        assert_eq!(FileBody::part(file(b""), 0..0).collect().await.unwrap().to_bytes(), "");
    }

    #[tokio::test]
    async fn a_file_that_shrinks_midway_is_an_error_and_never_a_shorter_file() {
        let file = file(&[1; 300_000]);
        let mut body = FileBody::part(file.try_clone().unwrap(), 0..300_000);
        assert!(body.frame().await.unwrap().is_ok());
        file.set_len(200_000).unwrap();
        let mut error = None;
        while let Some(frame) = body.frame().await {
            if let Err(found) = frame {
                error = Some(found);
                break;
            }
        }
        assert_eq!(error.unwrap().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_read_off_the_runtime_is_the_same() {
        let file = file(b"0123456789");
        assert_eq!(read(&file, 4, 3).unwrap(), b"3456");
        assert_eq!(read(&file, 4, 8).unwrap(), b"89");
        assert_eq!(read(&file, 4, 10).unwrap(), b"");
    }
}
