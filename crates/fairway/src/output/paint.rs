//! Colour, never alone: the words say the same without it.

/// Whether colours are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    Off,
    Ansi,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    Good,
    Warn,
    Bad,
    Dim,
    Bold,
    /// One of six, so that services can be told apart.
    Nth(usize),
}

impl Colours {
    /// On a terminal, unless `NO_COLOR` is set (no-color.org: to anything but an empty text).
    #[must_use]
    pub fn of(is_terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if is_terminal && !refused { Colours::Ansi } else { Colours::Off }
    }

    #[must_use]
    pub fn paint(self, paint: Paint, text: &str) -> String {
        const NTH: [&str; 6] = ["36", "35", "34", "32", "33", "96"];
        let code = match (self, paint) {
            (Colours::Off, _) => return text.to_owned(),
            (Colours::Ansi, Paint::Good) => "32",
            (Colours::Ansi, Paint::Warn) => "33",
            (Colours::Ansi, Paint::Bad) => "1;31",
            (Colours::Ansi, Paint::Dim) => "2",
            (Colours::Ansi, Paint::Bold) => "1",
            (Colours::Ansi, Paint::Nth(n)) => NTH[n % NTH.len()],
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Text from elsewhere that must not steer the terminal: control characters, and those that reorder a line, become
/// one visible character each so that columns stay.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => '·',
            c if c.is_control() => '·',
            c => c,
        })
        .collect()
}

/// How many columns a text takes, colours not counted.
#[must_use]
pub fn width(text: &str) -> usize {
    let mut count = 0;
    let mut in_escape = false;
    for c in text.chars() {
        match (in_escape, c) {
            (false, '\x1b') => in_escape = true,
            (false, _) => count += 1,
            (true, 'm') => in_escape = false,
            (true, _) => {}
        }
    }
    count
}

/// The first `columns` columns, with an ellipsis when that is not all; colours end where the text does.
#[must_use]
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut count = 0;
    let mut in_escape = false;
    for c in text.chars() {
        match (in_escape, c) {
            (false, '\x1b') => in_escape = true,
            (false, _) if count + 1 >= columns => break,
            (false, _) => count += 1,
            (true, 'm') => in_escape = false,
            (true, _) => {}
        }
        shown.push(c);
    }
    shown.push('…');
    if text.contains('\x1b') {
        shown.push_str("\x1b[0m");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_line_fits_and_leaves_no_colour_on() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 4), "abc…");
        let painted = Colours::Ansi.paint(Paint::Bad, "abcdef");
        let shown = cut(&painted, 4);
        assert_eq!(width(&shown), 4);
        assert!(shown.ends_with("\x1b[0m"), "{shown:?}");
    }

    #[test]
    fn what_an_application_says_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\tc\u{202e}d\r"), "a·[2Jb c·d·");
    }
}
