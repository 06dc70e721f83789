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

    /// A line that continues the one before (obs-fold) is refused at its first byte.
    fn judge_line(&self, line: &[u8], _limits: Limits) -> Result<(), Refusal> {
        match line.first() {
            Some(b' ' | b'\t') if self.lines > 0 => Err(Refusal::Bad("a folded header line")),
            Some(b' ' | b'\t') => Err(Refusal::Bad("the message begins with white space")),
            Some(_) | None => Ok(()),
        }
    }
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
