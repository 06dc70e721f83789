//! `init` on whole directories: the file that it writes is compared with `fixtures/init/NAME.toml`, and what it could
//! not take over with `fixtures/init/NAME.unmapped`. `FAIRWAY_BLESS=1` writes both anew.

// The helpers of a test fail as the test does.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use fairway_config::{DetectError, Detection, Importer, Project, detect, detect_from};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/init")
}

fn shown(detection: &Detection) -> String {
    let mapped = detection.mapped.iter().map(|m| format!("{}:{}: {} -> {}", m.file, m.line, m.key, m.to));
    let unmapped = detection.unmapped.iter().map(|u| format!("{}:{}: {}: {}", u.file, u.line, u.key, u.why));
    let mapped: Vec<String> = mapped.collect();
    let unmapped: Vec<String> = unmapped.collect();
    format!("taken over\n{}\n\nnot taken over\n{}\n", mapped.join("\n"), unmapped.join("\n"))
}

#[test]
fn each_project_becomes_the_file_beside_it() {
    let mut names: Vec<PathBuf> = fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    names.sort();
    assert!(names.len() >= 8, "the projects are gone");
    let mut wrong = Vec::new();
    for directory in names {
        let detection =
            detect(&directory).unwrap_or_else(|error| panic!("{}: {error:#?}", directory.display()));
        Project::parse("fairway.toml", &detection.toml).unwrap();
        for note in &detection.unmapped {
            assert!(!note.why.is_empty() && note.line > 0 && directory.join(&note.file).exists(), "{note:?}");
        }
        for (extension, text) in [("toml", detection.toml.clone()), ("notes", shown(&detection))] {
            let path = directory.with_extension(extension);
            if std::env::var_os("FAIRWAY_BLESS").is_some() {
                fs::write(&path, &text).unwrap();
            }
            let expected = fs::read_to_string(&path).unwrap_or_default();
            if text != expected {
                wrong.push(format!("== {}\n-- expected\n{expected}\n-- shown\n{text}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_directory_that_says_nothing_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(detect(directory.path()), Err(DetectError::Nothing { .. })));
    fs::write(directory.path().join("README.md"), "hello").unwrap();
    fs::write(directory.path().join("compose.yaml"), "services:\n  a:\n    image: mysql\n").unwrap();
    match detect(directory.path()) {
        Err(DetectError::Nothing { unmapped }) => assert!(unmapped.iter().any(|u| u.key == "services.a")),
        other => panic!("{other:?}"),
    }
    assert!(matches!(detect(&directory.path().join("none")), Err(DetectError::NotADirectory { .. })));
}

#[test]
fn from_believes_one_file() {
    let directory = fixtures().join("procfile");
    let detection = detect_from(&directory, Some(Importer::Procfile)).unwrap();
    assert_eq!(detection.sources, ["Procfile"]);
    assert!(matches!(detect_from(&directory, Some(Importer::Kubernetes)), Err(DetectError::Nothing { .. })));
    assert_eq!("compose".parse(), Ok(Importer::Compose));
    assert!("compos".parse::<Importer>().unwrap_err().to_string().contains("did you mean \"compose\"?"));
}

/// Files of garbage under every name that is read: no panic, and never an invalid fairway.toml.
#[test]
fn garbage_in_every_file_ends_in_a_file_or_a_reason() {
    let names = [
        "Procfile",
        "compose.yaml",
        "package.json",
        "Cargo.toml",
        "pyproject.toml",
        "requirements.txt",
        "k8s/a.yaml",
        "Dockerfile",
        "index.html",
    ];
    let mut samples: Vec<String> =
        ["", "\0", "{", "[", "a: [", "web: x\n", "web: $X\nweb: y\nWEB: z\n", "\u{feff}x"]
            .map(str::to_owned)
            .to_vec();
    // Each file of the fixtures, cut at some places.
    let mut stack = vec![fixtures()];
    while let Some(path) = stack.pop() {
        if path.is_dir() {
            stack.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            let cut = |part: usize| {
                text.char_indices().map(|(at, _)| at).take_while(|at| *at <= text.len() * part / 4).last()
            };
            samples.extend((1..=3).filter_map(cut).map(|end| text[..end].to_owned()));
            samples.push(text);
        }
    }
    samples.sort();
    samples.dedup();
    for sample in &samples {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("k8s")).unwrap();
        for name in names {
            fs::write(directory.path().join(name), sample).unwrap();
        }
        for only in std::iter::once(None).chain(Importer::ALL.map(Some)) {
            match detect_from(directory.path(), only) {
                Ok(_) | Err(DetectError::Nothing { .. }) => {}
                Err(error) => panic!("{only:?} of {sample:?}: {error:#?}"),
            }
        }
    }
}

#[test]
fn a_file_of_bytes_a_huge_file_and_a_pipe_are_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("Procfile"), [0xff, 0xfe, 0x00]).unwrap();
    fs::write(directory.path().join("package.json"), "x".repeat(3 << 20)).unwrap();
    fs::create_dir(directory.path().join("compose.yaml")).unwrap();
    assert!(matches!(detect(directory.path()), Err(DetectError::Nothing { .. })));
}
