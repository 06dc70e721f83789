//! A directory inside the project, and the prefix of a route.

/// A path relative to the project root, with `/` between its parts and without `.` and `..`; `"."` is the root.
///
/// # Errors
/// Why the text does not name something inside the project.
pub(crate) fn relative(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("it is empty; write \".\" for the project directory");
    }
    if text.starts_with('/') || text.starts_with('~') {
        return Err("it must be relative to the project directory");
    }
    if text.contains(['\0', '\n', '\r', '\\']) {
        return Err("it has a character that no path of a project may have");
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or("it leads out of the project directory")?;
            }
            part => parts.push(part),
        }
    }
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

/// `child` below `parent`, both as `relative` returns them.
pub(crate) fn join(parent: &str, child: &str) -> String {
    match (parent, child) {
        (".", child) => child.to_owned(),
        (parent, ".") => parent.to_owned(),
        (parent, child) => format!("{parent}/{child}"),
    }
}

/// What remains of `path` below `parent`; empty when they are the same, none when it is not inside.
pub(crate) fn below<'a>(path: &'a str, parent: &str) -> Option<&'a str> {
    if parent == "." {
        return Some(if path == "." { "" } else { path });
    }
    let rest = path.strip_prefix(parent)?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

/// # Errors
/// Why the text is not the path prefix of a route.
pub(crate) fn route(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') {
        return Err("it must start with '/'");
    }
    if text.contains(['?', '#', '*', ' ', '%', '\\']) || text.chars().any(char::is_control) {
        return Err("it is a plain path prefix: no '?', '#', '*', '%', '\\', blank or control character");
    }
    if text.contains("//") || text.split('/').any(|part| part == "." || part == "..") {
        return Err("it must not have empty, '.' or '..' parts");
    }
    let trimmed = text.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

/// # Errors
/// Why the text is not a path that a probe can ask for.
pub(crate) fn request(text: &str) -> Result<(), &'static str> {
    if !text.starts_with('/') {
        return Err("it must start with '/'");
    }
    if text.chars().any(|c| c.is_control() || c == ' ' || c == '#' || !c.is_ascii()) {
        return Err("it has a character that must be percent-encoded in a request");
    }
    Ok(())
}

/// A path below the project in whose parts `*` and `?` stand for text.
///
/// # Errors
/// Why the text is not one.
pub(crate) fn pattern(text: &str) -> Result<String, &'static str> {
    if text.contains("**") {
        return Err("'**' is not understood; a '*' stands for a part of one name");
    }
    if text.contains(['[', ']', '{', '}']) {
        return Err("only '*' and '?' are understood");
    }
    match relative(text)?.as_str() {
        "." => Err("it is a directory"),
        path => Ok(path.to_owned()),
    }
}

/// True when `pattern` says this path. `*` stands for any text within one part and `?` for one character; neither
/// for a dot at the start, so that files of editors stay out.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if part_matches(pattern, part) => {}
            (Some(_), Some(_)) | (Some(_), None) | (None, Some(_)) => return false,
        }
    }
}

/// As `matches`, for one part.
pub(crate) fn part_matches(pattern: &str, part: &str) -> bool {
    if part.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, part): (Vec<char>, Vec<char>) = (pattern.chars().collect(), part.chars().collect());
    let (mut at, mut from) = (0, 0);
    // Where the last star was, and how much it has swallowed: only that star can be wrong, so the time is quadratic
    // at worst.
    let mut star: Option<(usize, usize)> = None;
    while from < part.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(c) if *c == '?' || *c == part[from] => {
                at += 1;
                from += 1;
            }
            Some(_) | None => match star {
                Some((star_at, swallowed)) => {
                    star = Some((star_at, swallowed + 1));
                    at = star_at + 1;
                    from = swallowed + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_its_part() {
        for (pattern, path, expected) in [
            ("ops/*.yml", "ops/a.yml", true),
            ("ops/*.yml", "ops/a/b.yml", false),
            ("ops/*.yml", "ops/.a.yml", false),
            ("*/*.rules.yml", "ops/a.rules.yml", true),
            ("ops/a?.yml", "ops/ab.yml", true),
            ("ops/a?.yml", "ops/a.yml", false),
            ("*a*a*b", "aaaaaaaaaaaaaab", true),
            ("*a*a*b", "aaaaaaaaaaaaaac", false),
            ("a", "b", false),
            ("a*", "a", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
        for bad in ["", "/etc/*", "../*.yml", "**/a", "a[0]", "{a,b}", ".", "a/.."] {
            assert!(pattern(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_project() {
        for bad in ["", "/etc", "..", "a/../..", "~/x", "a\0b", "a\\b"] {
            assert!(relative(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(relative("./a//b/../c/").as_deref(), Ok("a/c"));
        assert_eq!(relative("a/..").as_deref(), Ok("."));
    }

    #[test]
    fn routes_are_plain_prefixes() {
        assert_eq!(route("/api/").as_deref(), Ok("/api"));
        assert_eq!(route("/").as_deref(), Ok("/"));
        for bad in ["", "api", "/a//b", "/a/../b", "/a?b", "/*", "/a b"] {
            assert!(route(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn below_is_on_part_boundaries() {
        assert_eq!(below("dist/web", "dist"), Some("web"));
        assert_eq!(below("dist", "dist"), Some(""));
        assert_eq!(below("distant", "dist"), None);
        assert_eq!(below("dist", "."), Some("dist"));
        assert_eq!(join("web", "dist"), "web/dist");
        assert_eq!(join(".", "dist"), "dist");
    }
}
