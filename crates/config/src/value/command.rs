//! A command written as one string: split into words as a shell would, with nothing of a shell beyond that.

/// More words than any command line of a project; far below what the kernel refuses.
pub(crate) const WORDS_MAX: usize = 1024;

/// Why a text is not a plain command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotPlain {
    #[error("it is empty")]
    Empty,
    #[error("{0}")]
    Broken(String),
    /// What only a shell understands.
    #[error("{0}")]
    NeedsShell(String),
}

/// # Errors
/// Why the text is not a plain command line.
pub(crate) fn split(text: &str) -> Result<Vec<String>, NotPlain> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(NotPlain::Broken("a ' is never closed".to_owned())),
                        Some('\'') => break,
                        Some(c) => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(NotPlain::Broken("a \" is never closed".to_owned())),
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            None => return Err(NotPlain::Broken("a \" is never closed".to_owned())),
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                        },
                        Some(c @ ('$' | '`')) => return Err(shell_only(c)),
                        Some(c) => word.push(c),
                    }
                }
            }
            '\\' => match chars.next() {
                None => return Err(NotPlain::Broken("it ends with a \\".to_owned())),
                Some(c) => word.get_or_insert_default().push(c),
            },
            '$' | '`' | '|' | ';' | '<' | '>' | '&' | '(' | ')' | '*' | '?' => return Err(shell_only(c)),
            '#' if word.is_none() => return Err(shell_only(c)),
            '~' if word.is_none() => return Err(shell_only(c)),
            c => word.get_or_insert_default().push(c),
        }
        if words.len() > WORDS_MAX {
            return Err(NotPlain::Broken(format!("it has more than {WORDS_MAX} words")));
        }
    }
    words.extend(word);
    match words.first() {
        None => Err(NotPlain::Empty),
        Some(first) if is_assignment(first) => Err(NotPlain::NeedsShell(format!(
            "it starts with an assignment ({first}), which only a shell understands; put the variable into env"
        ))),
        Some(_) => Ok(words),
    }
}

fn shell_only(c: char) -> NotPlain {
    NotPlain::NeedsShell(format!("it has {c:?}, which only a shell understands"))
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| super::name::variable(name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_would() {
        let check = |text: &str, expected: &[&str]| assert_eq!(split(text).unwrap(), expected, "{text}");
        check("node server.js --port 1", &["node", "server.js", "--port", "1"]);
        check(r#"a 'b c' "d e" f\ g "" ''"#, &["a", "b c", "d e", "f g", "", ""]);
        check(r#"a 'b$c' "d\$e" x"y"z"#, &["a", "b$c", "d$e", "xyz"]);
        check("  a\tb\n", &["a", "b"]);
        check("curl http://x/#top", &["curl", "http://x/#top"]);
    }

    #[test]
    fn what_only_a_shell_understands_is_refused() {
        for bad in [
            "a $PORT",
            "a \"$PORT\"",
            "a | b",
            "a; b",
            "a && b",
            "a > f",
            "a < f",
            "a &",
            "`a`",
            "(a)",
            "ls *.js",
            "PORT=1 a",
            "cat ~/x",
            "# a",
            "",
            "   ",
            "a 'b",
            "a \"b",
            "a \\",
        ] {
            assert!(split(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_line_of_a_million_words_is_bounded() {
        assert!(split(&"a ".repeat(1_000_000)).is_err());
    }
}
