use std::path::PathBuf;

use crate::fault::Done;
use crate::workspace;

/// Above this a file is more than one noun; 500 is the aim.
const LINES_MAX: usize = 800;

/// Longer files, with the reason.
const LONG: &[(&str, &str)] = &[
    ("LICENSE", "as published"),
    ("Cargo.lock", "generated"),
    ("ui/package-lock.json", "generated"),
    ("docs/reference/config.md", "generated"),
    ("docs/reference/cli.md", "generated"),
    ("crates/metrics/tests/conformance/promql/histograms.test", "as published"),
    ("crates/metrics/tests/conformance/promql/operators.test", "as published"),
];

/// A file is text and small unless listed: what is large does not belong into every clone.
const BYTES_MAX: u64 = 512 * 1024;

/// Marks of work left undone, in two halves so that this file is not found.
const UNDONE: &[(&str, &str)] =
    &[("TO", "DO"), ("FIX", "ME"), ("XX", "X:"), ("todo", "!("), ("unimplemented", "!("), ("dbg", "!(")];

#[derive(Debug)]
pub struct Text {
    pub path: PathBuf,
    pub text: String,
}

impl Text {
    pub fn name(&self) -> std::borrow::Cow<'_, str> {
        self.path.to_string_lossy()
    }

    fn is(&self, endings: &[&str]) -> bool {
        endings.iter().any(|ending| self.name().ends_with(ending))
    }
}

/// Every text file of the repository. Binary files are left out.
pub fn read_all() -> Done<Vec<Text>> {
    let root = workspace::root();
    let mut all = Vec::new();
    for path in workspace::files()? {
        // What is gone since git was asked is somebody's edit in progress.
        let Ok(bytes) = std::fs::read(root.join(&path)) else { continue };
        if let Ok(text) = String::from_utf8(bytes) {
            all.push(Text { path, text });
        }
    }
    Ok(all)
}

pub fn check_length(files: &[Text]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        if LONG.iter().any(|(name, _)| *name == file.name()) {
            continue;
        }
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            findings.push(format!(
                "{}: {lines} lines, {LINES_MAX} at most: it is more than one noun",
                file.name()
            ));
        }
        if file.text.len() as u64 > BYTES_MAX {
            findings.push(format!("{}: {} bytes, {BYTES_MAX} at most", file.name(), file.text.len()));
        }
    }
    findings
}

pub fn check_undone(files: &[Text]) -> Vec<String> {
    let marks: Vec<String> = UNDONE.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let code = [".rs", ".py", ".js", ".ts", ".svelte", ".sh", ".sql", ".toml", ".md", ".yml"];
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is(&code)) {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(*mark)) {
                findings.push(format!("{}:{}: {mark}", file.name(), number + 1));
            }
        }
    }
    findings
}

/// Home directories and the place of this very clone: they exist on one machine only.
pub fn check_paths(files: &[Text]) -> Vec<String> {
    let root = workspace::root().to_string_lossy().into_owned();
    let mut forbidden = vec![format!("/{}/", "root"), format!("/{}/", "Users")];
    // A clone in / or /src is not told from the same words in a document.
    if root.matches('/').count() >= 2 {
        forbidden.push(root);
    }
    let mut findings = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(path) = forbidden.iter().find(|path| line.contains(*path)) {
                findings.push(format!("{}:{}: {path} is a path of one machine", file.name(), number + 1));
            }
        }
    }
    findings
}

pub fn check_whitespace(files: &[Text]) -> Vec<String> {
    // What programs printed is kept as they printed it, and what fuzzing begins with as it is read.
    let golden = |file: &&Text| {
        let kept = ["/tests/", "/fuzz/seeds/"];
        !kept.iter().any(|part| file.name().contains(part)) && !file.is(&[".svg", ".txt"])
    };
    let mut findings = Vec::new();
    for file in files.iter().filter(golden) {
        for (number, line) in file.text.lines().enumerate() {
            if line.ends_with([' ', '\t']) {
                findings.push(format!("{}:{}: trailing space", file.name(), number + 1));
            }
            if ["<<<<<<< ", ">>>>>>> "].iter().any(|mark| line.starts_with(mark)) {
                findings.push(format!("{}:{}: a merge was not finished", file.name(), number + 1));
            }
        }
        if file.text.contains('\r') {
            findings.push(format!("{}: has carriage returns", file.name()));
        }
        if !file.text.is_empty() && (!file.text.ends_with('\n') || file.text.ends_with("\n\n")) {
            findings.push(format!("{}: does not end in exactly one newline", file.name()));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Vec<Text> {
        vec![Text { path: path.into(), text: text.into() }]
    }

    #[test]
    fn marks_of_undone_work_are_found_with_their_line() {
        let text = format!("fine\n// {}{}: later\n", "TO", "DO");
        assert_eq!(check_undone(&file("a.rs", &text)), [format!("a.rs:2: {}{}", "TO", "DO")]);
        assert_eq!(check_undone(&file("a.rs", "fn todo() {}\n")), [""; 0]);
    }

    #[test]
    fn a_long_file_is_found_unless_it_is_listed() {
        let long = "x\n".repeat(LINES_MAX + 1);
        assert_eq!(check_length(&file("a.rs", &long)).len(), 1);
        assert_eq!(check_length(&file("Cargo.lock", &long)).len(), 0);
        assert_eq!(check_length(&file("a.rs", &"x\n".repeat(LINES_MAX))).len(), 0);
    }

    #[test]
    fn white_space_that_only_a_diff_shows_is_found() {
        assert_eq!(check_whitespace(&file("a.rs", "x \n")), ["a.rs:1: trailing space"]);
        assert_eq!(check_whitespace(&file("a.rs", "x")).len(), 1);
        assert_eq!(check_whitespace(&file("a.rs", "x\n\n")).len(), 1);
        assert_eq!(check_whitespace(&file("a.rs", "x\r\n")).len(), 1);
        assert_eq!(check_whitespace(&file("a.rs", "x\n")).len(), 0);
    }

    #[test]
    fn a_home_directory_is_found() {
        let text = format!("see /{}/.config\n", "root");
        assert_eq!(check_paths(&file("a.md", &text)).len(), 1);
        assert_eq!(check_paths(&file("a.md", "see /etc/passwd\n")).len(), 0);
    }
}
