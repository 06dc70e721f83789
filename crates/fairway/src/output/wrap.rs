//! Long text in lines that fit.

use super::paint::width;

/// Breaks between words, but not between a number and its unit; a word that is wider than a line stands in one of its
/// own.
#[must_use]
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let is_unit =
            matches!(word.trim_end_matches(|c: char| c.is_ascii_punctuation() && c != '%'), "%" | "ms" | "s");
        match words.last_mut() {
            Some(number) if is_unit => {
                number.push(' ');
                number.push_str(word);
            }
            Some(_) | None => words.push(word.to_owned()),
        }
    }
    let mut lines = vec![String::new()];
    for word in &words {
        let Some(line) = lines.last_mut() else { break };
        let taken = width(line);
        if taken == 0 {
            line.push_str(word);
        } else if taken.saturating_add(width(word) + 1) <= columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.clone());
        }
    }
    lines
}

/// `pieces` with dots between them in lines of `columns`, the first after `prefix` and the others below it.
#[must_use]
pub fn fold(prefix: &str, pieces: &[String], columns: usize) -> Vec<String> {
    let indent = width(prefix);
    let room = columns.saturating_sub(indent).max(1);
    let mut lines: Vec<String> = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let dot = if index + 1 < pieces.len() { " ·" } else { "" };
        // A dot stays with what it ends.
        let piece = format!("{piece}{dot}");
        match lines.last_mut() {
            Some(line) if width(line).saturating_add(width(&piece) + 1) <= room => {
                line.push(' ');
                line.push_str(&piece);
            }
            Some(_) | None => lines.extend(wrap(&piece, room)),
        }
    }
    let blank = " ".repeat(indent);
    let with_indent = |(at, line): (usize, String)| {
        if at == 0 { format!("{prefix}{line}") } else { format!("{blank}{line}") }
    };
    lines.into_iter().enumerate().map(with_indent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stay_whole_where_they_can() {
        let pieces = ["errors of api", "3 of 20 requests", "x"].map(str::to_owned);
        assert_eq!(fold("> ", &pieces, 22), ["> errors of api ·", "  3 of 20 requests · x"]);
        assert_eq!(fold("> ", &pieces, 12), ["> errors of", "  api ·", "  3 of 20", "  requests ·", "  x"]);
        assert!(fold("> ", &[], 20).is_empty());
    }

    #[test]
    fn text_is_broken_between_words_and_no_word_is_lost() {
        assert_eq!(wrap("errors of api: 12 in 40", 10), ["errors of", "api: 12 in", "40"]);
        assert_eq!(wrap("abcdefghijklm no", 5), ["abcdefghijklm", "no"]);
        assert_eq!(wrap("a share of 5 %: so", 13), ["a share of", "5 %: so"]);
        assert_eq!(wrap("one line", usize::MAX), ["one line"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
