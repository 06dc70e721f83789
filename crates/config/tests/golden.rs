//! Each `cases/NAME.toml` must be refused, or warned about, with exactly the text in `cases/NAME.txt`.
//! `FAIRWAY_BLESS=1 cargo test -p fairway-config --test golden` writes the texts anew: read the difference.

// The helpers of a test fail as the test does.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use fairway_config::{CODES, Colour, Project, Source, render};

#[test]
fn bad_files_are_answered_in_these_words() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut names: Vec<_> = fs::read_dir(&cases)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    names.sort();
    assert!(names.len() >= 15, "the cases are gone");
    let mut wrong = Vec::new();
    for path in names {
        let text = fs::read_to_string(&path).unwrap();
        let problems = match Project::parse("fairway.toml", &text) {
            Ok(project) => project.warnings().to_vec(),
            Err(problems) => problems,
        };
        assert!(!problems.is_empty(), "{} is sound", path.display());
        for problem in &problems {
            assert!(CODES.iter().any(|(code, _)| *code == problem.code), "{} is not listed", problem.code);
        }
        let shown = render(&problems, &Source::new("fairway.toml", &text), Colour::Off);
        let expected_path = path.with_extension("txt");
        if std::env::var_os("FAIRWAY_BLESS").is_some() {
            fs::write(&expected_path, &shown).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if shown != expected {
            wrong.push(format!("== {}\n-- expected\n{expected}\n-- shown\n{shown}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
