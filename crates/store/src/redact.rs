//! Secret values are masked before anything is written: logs, job output, error texts, diagnostics.
//!
//! A value is found as it is and as programs commonly print it: in base64 (also in the middle of a longer encoded
//! text, as in `Authorization: Basic …`), URL-encoded, escaped in JSON, and each long line of a value of several
//! lines. Not found: other transformations, such as hex, compression, or base64 that is broken into lines.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use thiserror::Error;

use crate::secrets::SecretValue;

/// What stands where a secret stood. Its length does not depend on that of the secret.
pub const MASK: &[u8] = b"***";

/// Shorter values, such as `no` or `42`, occur everywhere by chance: masking them would leave no log readable, and
/// tell what they are by where the masks stand.
pub const MASKED_BYTES_MIN: usize = 4;

/// A line of a longer value is masked by itself from this length on; `}` and `-----` are not secret.
const LINE_BYTES_MIN: usize = 8;

/// A thousand secrets of ordinary length in all their forms. The automaton takes some ten times as much memory.
const FORMS_BYTES_MAX: usize = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the secrets to mask have {bytes} bytes in all their forms, more than {FORMS_BYTES_MAX}")]
pub struct TooManySecrets {
    pub bytes: usize,
}

/// What to mask; shared by all streams of an environment. Its copies of the values are in memory until it is dropped.
pub struct Masks {
    matcher: Option<AhoCorasick>,
    /// Sorted, for the search of a beginning.
    forms: Vec<Vec<u8>>,
    longest: usize,
    too_short: usize,
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Masks({} forms ***)", self.forms.len())
    }
}

impl Masks {
    /// # Errors
    /// When there are more and longer values than can be searched for.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a SecretValue>) -> Result<Arc<Self>, TooManySecrets> {
        let mut forms = BTreeSet::new();
        let mut too_short = 0;
        for value in values {
            if value.expose().trim_ascii().len() < MASKED_BYTES_MIN {
                too_short += 1;
            } else {
                forms_of(value.expose(), &mut forms);
            }
        }
        let bytes = forms.iter().map(Vec::len).sum();
        if bytes > FORMS_BYTES_MAX {
            return Err(TooManySecrets { bytes });
        }
        let forms: Vec<Vec<u8>> = forms.into_iter().collect();
        let matcher = match forms.is_empty() {
            true => None,
            false => Some(AhoCorasick::new(&forms).map_err(|_| TooManySecrets { bytes })?),
        };
        let longest = forms.iter().map(Vec::len).max().unwrap_or(0);
        Ok(Arc::new(Self { matcher, forms, longest, too_short }))
    }

    /// How many values are too short to be masked; worth a warning where they are set.
    #[must_use]
    pub fn too_short(&self) -> usize {
        self.too_short
    }

    /// Masks a whole text at once.
    #[must_use]
    pub fn redact(self: &Arc<Self>, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut redactor = Redactor::new(self);
        redactor.push(bytes, &mut out);
        redactor.finish(&mut out);
        out
    }

    /// Where the longest end of `bytes` starts that could be the beginning of a secret.
    fn held_from(&self, bytes: &[u8]) -> usize {
        let first = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        (first..bytes.len()).find(|at| self.is_beginning(&bytes[*at..])).unwrap_or(bytes.len())
    }

    /// Whether some form starts with `bytes` and goes on.
    fn is_beginning(&self, bytes: &[u8]) -> bool {
        let at = self.forms.partition_point(|form| form.as_slice() <= bytes);
        self.forms.get(at).is_some_and(|form| form.starts_with(bytes))
    }
}

/// Masks one stream, in pieces as they come. What could be the beginning of a secret is held back until the next
/// piece; at most the length of the longest form.
#[derive(Debug)]
pub struct Redactor {
    masks: Arc<Masks>,
    held: Held,
    /// The last thing that was given out is a mask; a secret that overlaps it needs no second one.
    in_mask: bool,
}

#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// So many of them belong to a secret whose start was masked already.
    covered: usize,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

impl Redactor {
    #[must_use]
    pub fn new(masks: &Arc<Masks>) -> Self {
        Self { masks: Arc::clone(masks), held: Held::default(), in_mask: false }
    }

    /// Takes the next piece of the stream and adds what is safe to show to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if self.masks.matcher.is_none() {
            out.extend_from_slice(piece);
            return;
        }
        self.held.bytes.extend_from_slice(piece);
        let until = self.masks.held_from(&self.held.bytes);
        self.give(until, out);
    }

    /// The stream has ended: what was held back was no secret.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let until = self.held.bytes.len();
        self.give(until, out);
        self.in_mask = false;
    }

    /// Gives out the first `until` bytes, masked. All secrets that start in them are whole in what is held.
    fn give(&mut self, until: usize, out: &mut Vec<u8>) {
        let Some(matcher) = &self.masks.matcher else { return };
        let mut at = 0;
        let mut covered = self.held.covered;
        // Those that start later are found again when the rest is given out.
        let mut matches: Vec<(usize, usize)> = matcher
            .find_overlapping_iter(&self.held.bytes)
            .map(|found| (found.start(), found.end()))
            .filter(|(start, _)| *start < until)
            .collect();
        matches.sort_unstable();
        // Overlapping secrets are masked together: of two that share bytes, masking one would show the rest of the
        // other. The last pair is no secret, it only ends the run before it.
        for (start, end) in matches.into_iter().chain([(until, until)]) {
            if start > covered || start == until {
                let masked = covered.min(until);
                if masked > at {
                    self.in_mask = mask(self.in_mask, out);
                    at = masked;
                }
                if start > at {
                    out.extend_from_slice(&self.held.bytes[at..start]);
                    self.in_mask = false;
                    at = start;
                }
            }
            covered = covered.max(end);
        }
        self.held.bytes.drain(..until);
        self.held.covered = covered.saturating_sub(until);
    }
}

fn mask(in_mask: bool, out: &mut Vec<u8>) -> bool {
    if !in_mask {
        out.extend_from_slice(MASK);
    }
    true
}

/// All the ways in which a value may be printed.
fn forms_of(value: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    let mut add = |form: Vec<u8>| {
        if form.len() >= MASKED_BYTES_MIN {
            forms.insert(form);
        }
    };
    // A file that was read into a variable ends with a newline; programs print it without.
    let trimmed = value.trim_ascii();
    for value in [value, trimmed] {
        for alphabet in [STANDARD, URL_SAFE] {
            add(base64(value, alphabet));
            (0..3).for_each(|shift| add(base64_inside(value, alphabet, shift)));
        }
        for keep in [&b"-._~"[..], b"-_.!~*'()", b"*-._"] {
            for digits in [b"0123456789ABCDEF", b"0123456789abcdef"] {
                add(url_encoded(value, keep, digits, b"%20"));
                add(url_encoded(value, keep, digits, b"+"));
            }
        }
        if let Ok(text) = std::str::from_utf8(value)
            && let Ok(quoted) = serde_json::to_string(text)
        {
            add(quoted.as_bytes()[1..quoted.len() - 1].to_vec());
        }
    }
    for line in trimmed.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        if line.len() >= LINE_BYTES_MIN {
            add(line.to_vec());
        }
    }
    add(trimmed.to_vec());
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Without padding, which a mask need not cover.
fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            out.push(alphabet[(bits >> (18 - 6 * digit) & 63) as usize]);
        }
    }
    out
}

/// The characters that are the same whatever stands before and after the value, when `shift` bytes (modulo 3) stand
/// before it. The one character at each end that also holds bits of a neighbour stays visible: up to 6 bits.
fn base64_inside(bytes: &[u8], alphabet: &[u8; 64], shift: usize) -> Vec<u8> {
    let mut shifted = vec![0; shift];
    shifted.extend_from_slice(bytes);
    let encoded = base64(&shifted, alphabet);
    let start = (shift * 8).div_ceil(6);
    let end = shifted.len() * 8 / 6;
    encoded[start.min(end)..end].to_vec()
}

fn url_encoded(bytes: &[u8], keep: &[u8], digits: &[u8; 16], space: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b' ' => out.extend_from_slice(space),
            byte if byte.is_ascii_alphanumeric() || keep.contains(byte) => out.push(*byte),
            byte => {
                out.push(b'%');
                out.push(digits[usize::from(byte >> 4)]);
                out.push(digits[usize::from(byte & 15)]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masks(values: &[&str]) -> Arc<Masks> {
        let values: Vec<SecretValue> =
            values.iter().map(|value| SecretValue::new(value.as_bytes().to_vec())).collect();
        Masks::new(&values).unwrap()
    }

    #[track_caller]
    fn check(values: &[&str], input: &str, expected: &str) {
        let masks = masks(values);
        assert_eq!(String::from_utf8_lossy(&masks.redact(input.as_bytes())), expected);
        for size in [1, 2, 3, 7] {
            let mut redactor = Redactor::new(&masks);
            let mut out = Vec::new();
            input.as_bytes().chunks(size).for_each(|piece| redactor.push(piece, &mut out));
            redactor.finish(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn values_are_masked_and_the_rest_is_untouched() {
        check(&["hunter2"], "password=hunter2; hunter3 hunter", "password=***; hunter3 hunter");
        check(&["hunter2"], "hunter2hunter2", "***");
        check(&["hunter2"], "hunter2 hunter2", "*** ***");
        check(&[], "nothing to hide", "nothing to hide");
        check(&["hunter2\n"], "it is hunter2.", "it is ***.");
    }

    #[test]
    fn overlapping_secrets_leave_no_rest() {
        check(&["abcdef", "defghi"], "x abcdefghi y", "x *** y");
        check(&["abcdef", "abcdefghijkl"], "abcdefghijk abcdefghijkl", "***ghijk ***");
        check(&["secret", "my secret word"], "my secret world", "my *** world");
        check(&["aaaa"], "aaaaaaaab", "***b");
    }

    #[test]
    fn the_encoded_forms_are_masked() {
        let secret = "p@ss w/rd+1?";
        check(&[secret], "GET /?k=p%40ss%20w%2Frd%2B1%3F&x", "GET /?k=***&x");
        check(&[secret], "GET /?k=p%40ss+w%2frd%2b1%3f&x", "GET /?k=***&x");
        // printf %s "$secret" | base64
        check(&[secret], "data: cEBzcyB3L3JkKzE/ end", "data: *** end");
        check(&[secret], "data: cEBzcyB3L3JkKzE_ end", "data: *** end");
        check(&["say \"hi\"\tnow"], r#"{"v":"say \"hi\"\tnow"}"#, r#"{"v":"***"}"#);
    }

    #[test]
    fn base64_of_a_longer_text_shows_no_secret_at_any_alignment() {
        for before in ["", "u", "us", "use", "ana:"] {
            for after in ["", "x", "xy", "xyz"] {
                let encoded = base64(format!("{before}correct horse{after}").as_bytes(), STANDARD);
                let encoded = String::from_utf8(encoded).unwrap();
                let shown = String::from_utf8(masks(&["correct horse"]).redact(encoded.as_bytes())).unwrap();
                assert!(shown.contains("***"), "{encoded}");
                assert!(shown.len() <= 3 + 2 + 6 + 6, "{encoded} shows {shown}");
            }
        }
    }

    #[test]
    fn each_long_line_of_a_key_is_masked_by_itself() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\nAA==\n-----END KEY-----\n";
        check(&[key], "line: kqhkiG9w0BAQEF\nAA== is short", "line: ***\nAA== is short");
    }

    #[test]
    fn short_values_are_counted_and_not_masked() {
        let masks = masks(&["no", "42", " x \n", "long enough"]);
        assert_eq!(masks.too_short(), 3);
        assert_eq!(masks.redact(b"no 42 long enough"), b"no 42 ***");
    }

    #[test]
    fn a_line_without_a_beginning_of_a_secret_is_not_held_back() {
        let masks = masks(&["hunter2", "correct horse battery staple"]);
        let mut redactor = Redactor::new(&masks);
        let mut out = Vec::new();
        redactor.push(b"listening on 8080\n", &mut out);
        assert_eq!(out, b"listening on 8080\n");
        redactor.push(b"corr", &mut out);
        assert_eq!(out, b"listening on 8080\n");
        redactor.push(b"ected\n", &mut out);
        assert_eq!(out, b"listening on 8080\ncorrected\n");
    }

    #[test]
    fn debug_output_shows_no_value() {
        let masks = masks(&["hunter2"]);
        let mut redactor = Redactor::new(&masks);
        redactor.push(b"hunter", &mut Vec::new());
        assert!(!format!("{masks:?} {redactor:?}").contains("hunt"));
    }

    #[test]
    fn too_many_secrets_are_refused() {
        let values: Vec<SecretValue> =
            (0..200u32).map(|number| SecretValue::new(number.to_be_bytes().repeat(1000))).collect();
        assert!(Masks::new(&values).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        /// A small alphabet, so that secrets overlap, repeat and break off in every way.
        #[test]
        fn no_secret_gets_through_however_the_stream_is_cut(
            values in proptest::collection::vec("[ab]{4,7}", 1..4),
            input in "[abc]{0,60}",
            cuts in proptest::collection::vec(0usize..8, 0..30),
        ) {
            let masks = masks(&values.iter().map(String::as_str).collect::<Vec<_>>());
            let whole = masks.redact(input.as_bytes());
            let mut redactor = Redactor::new(&masks);
            let mut out = Vec::new();
            let mut rest = input.as_bytes();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                redactor.push(piece, &mut out);
                rest = after;
            }
            redactor.push(rest, &mut out);
            redactor.finish(&mut out);
            prop_assert_eq!(&out, &whole);
            // The naive way: mark every byte of every occurrence, then write one mask a run.
            let bytes = input.as_bytes();
            let mut marked = vec![false; bytes.len()];
            for value in &values {
                for start in 0..bytes.len() {
                    if bytes[start..].starts_with(value.as_bytes()) {
                        marked[start..start + value.len()].fill(true);
                    }
                }
            }
            let mut expected = Vec::new();
            for (at, byte) in bytes.iter().enumerate() {
                if !marked[at] {
                    expected.push(*byte);
                } else if at == 0 || !marked[at - 1] {
                    expected.extend_from_slice(MASK);
                }
            }
            prop_assert_eq!(&whole, &expected);
        }
    }
}
