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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_no_word_is_lost() {
        assert_eq!(wrap("errors of api: 12 in 40", 10), ["errors of", "api: 12 in", "40"]);
        assert_eq!(wrap("abcdefghijklm no", 5), ["abcdefghijklm", "no"]);
        assert_eq!(wrap("a share of 5 %: so", 13), ["a share of", "5 %: so"]);
        assert_eq!(wrap("one line", usize::MAX), ["one line"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
