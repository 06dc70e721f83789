//! What `cache-control` says (RFC 9111, 5.2; RFC 5861).

use std::time::Duration;

/// Longer times are cut to this: a year, as RFC 2616 had it. Sums of two such times cannot overflow.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The directives of a message that mean something to a shared cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// There is a `cache-control` at all.
    pub present: bool,
    pub no_store: bool,
    /// With a list of fields too, which is stricter than asked.
    pub no_cache: bool,
    /// With a list of fields too, which is stricter than asked.
    pub private: bool,
    pub public: bool,
    /// `must-revalidate` or `proxy-revalidate`.
    pub must_revalidate: bool,
    pub only_if_cached: bool,
    pub max_age: Option<Duration>,
    pub s_maxage: Option<Duration>,
    pub stale_while_revalidate: Option<Duration>,
    pub stale_if_error: Option<Duration>,
}

impl Control {
    /// Of the values of all `cache-control` lines.
    pub(crate) fn of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut control = Self::default();
        for value in values {
            control.present = true;
            for directive in directives(value) {
                control.read(directive);
            }
        }
        control
    }

    fn read(&mut self, directive: &[u8]) {
        let (name, argument) = match directive.iter().position(|b| *b == b'=') {
            Some(at) => (directive[..at].trim_ascii(), Some(directive[at + 1..].trim_ascii())),
            None => (directive, None),
        };
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        let time = match () {
            () if is("max-age") => &mut self.max_age,
            () if is("s-maxage") => &mut self.s_maxage,
            () if is("stale-while-revalidate") => &mut self.stale_while_revalidate,
            () if is("stale-if-error") => &mut self.stale_if_error,
            () => {
                self.no_store |= is("no-store");
                self.no_cache |= is("no-cache");
                self.private |= is("private");
                self.public |= is("public");
                self.must_revalidate |= is("must-revalidate") || is("proxy-revalidate");
                self.only_if_cached |= is("only-if-cached");
                return;
            }
        };
        // RFC 9111, 4.2.1: what contradicts itself or is no number is best taken for stale.
        let said = argument.and_then(seconds).unwrap_or_default();
        *time = Some(time.map_or(said, |before| before.min(said)));
    }
}

/// Elements of the list; commas within quotes do not end one.
fn directives(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = value.split(move |b| {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        *b == b',' && !quoted
    });
    parts.map(<[u8]>::trim_ascii).filter(|part| !part.is_empty())
}

/// `delta-seconds`, quoted or not.
pub(super) fn seconds(text: &[u8]) -> Option<Duration> {
    let text = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = text.iter().fold(0u64, |sum, b| sum.saturating_mul(10).saturating_add(u64::from(b - b'0')));
    Some(Duration::from_secs(number).min(TIME_MAX))
}

pub(super) fn at_most_a_year(time: Duration) -> Duration {
    time.min(TIME_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(values: &[&str]) -> Control {
        Control::of(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn times_are_read_and_what_is_wrong_is_stale() {
        let check = |values: &[&str], expect: Option<u64>| {
            assert_eq!(control(values).max_age, expect.map(Duration::from_secs), "{values:?}");
        };
        check(&[], None);
        check(&["max-age=60"], Some(60));
        check(&["Public , MAX-AGE = \"60\""], Some(60));
        check(&["max-age=60, max-age=10"], Some(10));
        check(&["max-age=10", "max-age=60"], Some(10));
        check(&["max-age"], Some(0));
        check(&["max-age=-1"], Some(0));
        check(&["max-age=1.5"], Some(0));
        check(&["max-age=99999999999999999999999999"], Some(31_536_000));
        check(&["x=\"a, max-age=60\""], None);
        check(&["x=\"a\\\", max-age=60\", max-age=5"], Some(5));
        check(&["x=\"never closed, max-age=60"], None);
        check(&[",,=,max-age=3"], Some(3));
    }

    #[test]
    fn lists_of_fields_count_as_the_whole() {
        assert!(control(&["private=\"set-cookie, x\""]).private);
        assert!(control(&["no-cache=\"x\""]).no_cache);
        assert!(!control(&["x=\"no-store\""]).no_store);
        assert!(control(&[""]).present);
    }
}
