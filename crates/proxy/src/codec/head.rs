use super::Refusal;

/// Largest request head. Browsers stay below 8 KiB per site; the rest is room for large cookies and tokens.
/// nginx allows 32 KiB as well (4 × 8 KiB).
pub const REQUEST_HEAD_BYTES_MAX: usize = 32 * 1024;

/// Largest response head; content security policies and many cookies make them longer than requests.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;

/// Longest request line. Below it every browser and proxy agrees; nginx's default too.
const REQUEST_LINE_BYTES_MAX: usize = 8 * 1024;

/// Header lines in one head; Apache's default, and far above what browsers send.
pub const HEADERS_MAX: usize = 100;

/// Finds the end of a head and refuses line ends that others may read differently.
///
/// The verdict depends on the bytes alone, not on how they were split into reads: bytes are judged in order,
/// and nothing is judged twice.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadScan {
    /// Bytes that were judged.
    seen: usize,
    /// Where the current line began.
    line_start: usize,
    /// Lines that ended, leading empty ones not counted.
    lines: usize,
    /// Where the head begins: behind an empty line that some clients send after a body.
    start: usize,
}

/// The first byte of a connection that begins with TLS (RFC 8446, section 5.1).
pub const TLS_HANDSHAKE: u8 = 22;

/// How many bytes the limits leave to a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limits {
    Request,
    Response,
}

impl HeadScan {
    /// `buf` begins where the message begins and holds at least what earlier calls saw. `Some((start, end))`
    /// once the head is complete.
    ///
    /// # Errors
    /// The refusal that the first offending byte earns.
    pub fn request(&mut self, buf: &[u8]) -> Result<Option<(usize, usize)>, Refusal> {
        self.scan(buf, Limits::Request)
    }

    /// As [`Self::request`], with the limits of responses.
    ///
    /// # Errors
    /// The refusal that the first offending byte earns.
    pub fn response(&mut self, buf: &[u8]) -> Result<Option<(usize, usize)>, Refusal> {
        self.scan(buf, Limits::Response)
    }

    fn scan(&mut self, buf: &[u8], limits: Limits) -> Result<Option<(usize, usize)>, Refusal> {
        if self.seen == 0
            && let Some(end) = end_without_doubt(buf)
        {
            return Ok(Some((0, end)));
        }
        self.scan_by_line(buf, limits)
    }

    fn scan_by_line(&mut self, buf: &[u8], limits: Limits) -> Result<Option<(usize, usize)>, Refusal> {
        loop {
            let max = self.bytes_max(limits);
            let window = &buf[self.seen..buf.len().min(max)];
            let Some(at) = find(window, b'\n').map(|offset| self.seen + offset) else {
                // Everything but the last byte is final; the last may be a CR whose LF is yet to come.
                let judged = buf.len().min(max);
                self.judge_line(&buf[self.line_start..judged], limits)?;
                self.seen = judged;
                if buf.len() >= max {
                    return Err(match (limits, self.lines) {
                        (Limits::Request, 0) => Refusal::TargetTooLong,
                        (Limits::Request | Limits::Response, _) => Refusal::HeadTooLarge,
                    });
                }
                return Ok(None);
            };
            let line = &buf[self.line_start..at];
            let Some((b'\r', line)) = line.split_last() else {
                self.judge_line(line, limits)?;
                return Err(Refusal::Bad("a line ends without CR"));
            };
            self.judge_line(line, limits)?;
            if find(line, b'\r').is_some() {
                return Err(Refusal::Bad("CR within a line"));
            }
            self.seen = at + 1;
            self.line_start = at + 1;
            match (line.is_empty(), self.lines) {
                // RFC 9112, section 2.2: one empty line before the request line is to be ignored.
                (true, 0) if self.start == 0 && limits == Limits::Request => self.start = at + 1,
                (true, 0) => return Err(Refusal::Bad("the message begins with empty lines")),
                (true, _) => return Ok(Some((self.start, at + 1))),
                (false, _) => self.lines += 1,
            }
        }
    }

    fn bytes_max(&self, limits: Limits) -> usize {
        match (limits, self.lines) {
            (Limits::Request, 0) => self.start + REQUEST_LINE_BYTES_MAX,
            (Limits::Request, _) => self.start + REQUEST_HEAD_BYTES_MAX,
            (Limits::Response, _) => RESPONSE_HEAD_BYTES_MAX,
        }
    }

    /// A line that continues the one before (obs-fold) is refused at its first byte, and so is a TLS handshake, which
    /// has no line end for which it could be judged.
    fn judge_line(&self, line: &[u8], limits: Limits) -> Result<(), Refusal> {
        match line.first() {
            Some(&TLS_HANDSHAKE) if self.lines == 0 && limits == Limits::Request => {
                Err(Refusal::Bad("TLS is not spoken at this address"))
            }
            Some(b' ' | b'\t') if self.lines > 0 => Err(Refusal::Bad("a folded header line")),
            Some(b' ' | b'\t') => Err(Refusal::Bad("the message begins with white space")),
            Some(_) | None => Ok(()),
        }
    }
}

/// Where a head ends that is here as a whole, is within every limit, and in which no line end is other than it should be:
/// nearly every head. Sixteen bytes are looked at a time. `None`: who looks closer may still find one.
fn end_without_doubt(buf: &[u8]) -> Option<usize> {
    // What is judged by the first byte of a message is judged there.
    if matches!(buf.first()?, b'\r' | b'\n' | b' ' | b'\t' | &TLS_HANDSHAKE) {
        return None;
    }
    // What the block before ended with, as bits before the first of this one.
    let (mut cr_before, mut lf_before) = (0, 0);
    let (blocks, rest) = buf[..buf.len().min(REQUEST_LINE_BYTES_MAX)].as_chunks::<16>();
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    for (index, block) in blocks.iter().chain([&last]).enumerate() {
        let [cr, lf, blank] = line_ends(block);
        let behind_cr = cr << 1 | cr_before;
        let behind_lf = lf << 1 | lf_before >> 1;
        // Two line ends in a row: LF, CR, LF.
        let end = lf & (lf << 2 | lf_before);
        let up_to_end = end ^ end.wrapping_sub(1);
        // CR and LF only together, and no line that goes on in the next.
        if ((behind_cr ^ lf) | (behind_lf & blank)) & up_to_end & 0xffff != 0 {
            return None;
        }
        if end != 0 {
            return Some(index * 16 + end.trailing_zeros() as usize + 1);
        }
        (cr_before, lf_before) = (cr >> 15, lf >> 14);
    }
    None
}

/// Which bytes are CR, LF, and white space: the lowest bit is the first byte.
#[cfg(target_arch = "x86_64")]
fn line_ends(block: &[u8; 16]) -> [u32; 3] {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8};
    let bytes = u128::from_le_bytes(*block).cast_signed();
    // SAFETY: SSE2 is a part of x86-64, and nothing here touches memory.
    unsafe {
        let bytes = _mm_set_epi64x((bytes >> 64) as i64, bytes as i64);
        let are = |byte: u8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte.cast_signed()));
        [are(b'\r'), are(b'\n'), _mm_or_si128(are(b' '), are(b'\t'))]
            .map(|found| _mm_movemask_epi8(found).cast_unsigned())
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn line_ends(block: &[u8; 16]) -> [u32; 3] {
    let mut found = [0; 3];
    for (index, byte) in block.iter().enumerate() {
        let is = [*byte == b'\r', *byte == b'\n', matches!(byte, b' ' | b'\t')];
        for (found, is) in found.iter_mut().zip(is) {
            *found |= u32::from(is) << index;
        }
    }
    found
}

/// Where `byte` is first. Lines of a head have some 30 bytes: eight at a time in registers are found sooner than by a
/// call into a vector routine.
pub(super) fn find(bytes: &[u8], byte: u8) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let differs = u64::from_le_bytes(*word) ^ (ONES * u64::from(byte));
        // The highest bit of each byte that is zero, and of none before the first that is.
        let found = differs.wrapping_sub(ONES) & !differs & (ONES << 7);
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|b| *b == byte).map(|at| words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_at_once_is_what_is_seen_line_by_line() {
        let mut state = 11u64;
        let mut found = 0;
        for _ in 0..200_000 {
            let mut next = |n: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % n
            };
            let mut buf = b"GET / HTTP/1.1\r\n".to_vec();
            for _ in 0..next(14) {
                let part: &[u8] = match next(12) {
                    0 => b"\n",
                    1 => b"\r",
                    2 => b" ",
                    3 => b"\t",
                    4 | 5 => b"\r\n\r\n",
                    6..=8 => b"\r\n",
                    _ => b"name: value",
                };
                buf.extend_from_slice(&part[..part.len().min(1 + next(12) as usize)]);
            }
            buf.drain(..(next(20) as usize / 19) * next(17) as usize);
            if next(20) == 0
                && let Some(first) = buf.first_mut()
            {
                *first = TLS_HANDSHAKE;
            }
            let slow = HeadScan::default().scan_by_line(&buf, Limits::Request);
            if let Some(end) = end_without_doubt(&buf) {
                found += 1;
                assert_eq!(slow, Ok(Some((0, end))), "{:?}", buf.escape_ascii().to_string());
            } else if let Ok(Some((start, end))) = slow {
                assert!(start > 0, "{end} was not seen in {:?}", buf.escape_ascii().to_string());
            }
        }
        assert!(found > 1_000, "{found}");
    }

    /// Found by fuzzing: as a whole it was a head, and refused only by what reads heads.
    #[test]
    fn what_begins_as_tls_is_refused_however_it_comes() {
        let text = b"\x16\x16 / HTTP/1.1\r\nHost: a\r\n\r\n";
        let refused = Err(Refusal::Bad("TLS is not spoken at this address"));
        for first in 1..=text.len() {
            assert_eq!(HeadScan::default().request(&text[..first]), refused, "{first}");
        }
    }

    #[test]
    fn a_byte_is_found_where_it_is_first() {
        // Neighbours by value are what the arithmetic could take for the byte.
        let text: Vec<u8> =
            (0..64u8).map(|i| [b'\t', b'\n' + 1, b'\n' | 0x80, 0, 0xff][usize::from(i) % 5]).collect();
        assert_eq!(find(&text, b'\n'), None);
        assert_eq!(find(b"", b'\n'), None);
        for at in 0..text.len() {
            for later in at..text.len() {
                let mut text = text.clone();
                (text[at], text[later]) = (b'\n', b'\n');
                assert_eq!(find(&text, b'\n'), Some(at));
            }
        }
    }
}
