//! "Did you mean": the known name that a mistyped one is nearest to.

/// The nearest of `known`, when it is near enough to be what was meant: at most a third of the letters differ.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer than any key or name there is: comparing costs length x length, and no suggestion would fit.
    const GIVEN_LEN_MAX: usize = 64;
    if given.len() > GIVEN_LEN_MAX {
        return None;
    }
    let folded = given.to_ascii_lowercase().replace('-', "_");
    let allowed = (given.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| {
            (strsim::damerau_levenshtein(&folded, &name.to_ascii_lowercase().replace('-', "_")), name)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

pub(crate) fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(given, known).map(|name| format!("did you mean {name:?}?"))
}

/// `"a", "b" and "c"`, for a hint that lists what there is.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN_MAX: usize = 12;
    let names: Vec<String> = names.into_iter().map(|name| format!("{name:?}")).collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first @ .., last] if names.len() <= SHOWN_MAX => format!("{} and {last}", first.join(", ")),
        many => format!("{} and {} more", many[..SHOWN_MAX].join(", "), many.len() - SHOWN_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_another_word_is_not() {
        let known = ["command", "port", "replicas", "blue-green"];
        assert_eq!(nearest("comand", known), Some("command"));
        assert_eq!(nearest("prot", known), Some("port"));
        assert_eq!(nearest("Blue_Green", known), Some("blue-green"));
        assert_eq!(nearest("image", known), None);
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }

    #[test]
    fn lists_read_like_a_sentence() {
        assert_eq!(listed([]), "none");
        assert_eq!(listed(["a"]), "\"a\"");
        assert_eq!(listed(["a", "b"]), "\"a\" and \"b\"");
    }
}
