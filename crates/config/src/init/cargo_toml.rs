//! Cargo.toml: each binary is a service, built by `cargo build --release`; its artifact is the binary alone.

use super::draft::{Draft, DraftBuild, DraftRuns, DraftService, project_name, service_name, words};
use super::files::{File, Files};
use crate::diagnostic::Findings;
use crate::span::Source;
use crate::tree::{self, Node, Table};

const NAME: &str = "Cargo.toml";

/// What the examples of the Rust frameworks listen on.
const PORT: u16 = 3000;

const SERVERS: [&str; 10] =
    ["axum", "actix-web", "warp", "rocket", "poem", "tide", "hyper", "salvo", "tonic", "ntex"];

pub(super) fn read(files: &Files) -> Option<Draft> {
    let file = files.read(NAME)?;
    let mut draft = Draft::default();
    let Some(manifest) = parse(&file) else {
        draft.notes.unmapped(&file.name, 1, "(the file)", "it is not TOML");
        return Some(draft);
    };
    package(&manifest, &file, files, files, &mut draft);
    let members = at(&manifest, &["workspace", "members"]).and_then(|node| node.value.as_array());
    for member in members.into_iter().flatten().filter_map(|node| node.value.as_text()) {
        let directories: Vec<String> = match member.strip_suffix("/*") {
            Some(parent) => {
                let below = files.below(parent).map(|parent| parent.directories()).unwrap_or_default();
                below.iter().map(|name| format!("{parent}/{name}")).collect()
            }
            None => vec![member.to_owned()],
        };
        for below in directories.iter().filter_map(|directory| files.below(directory)) {
            let Some(file) = below.read(NAME) else { continue };
            if let Some(manifest) = parse(&file) {
                package(&manifest, &file, &below, files, &mut draft);
            }
        }
    }
    Some(draft)
}

fn parse(file: &File) -> Option<Table> {
    tree::parse(&Source::new(&file.name, &file.text), &mut Findings::default())
}

fn at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Node> {
    let (last, parents) = path.split_last()?;
    parents.iter().try_fold(table, |table, key| table.get(key)?.value.as_table())?.get(last)
}

/// The binaries of one package. `root` is where `target` is.
fn package(manifest: &Table, file: &File, files: &Files, root: &Files, draft: &mut Draft) {
    let Some(name) = at(manifest, &["package", "name"]).and_then(|node| node.value.as_text()) else { return };
    // A member's name is not the workspace's.
    if files.dir == root.dir {
        draft.project.get_or_insert_with(|| project_name(name));
    }
    let mut binaries: Vec<String> = Vec::new();
    let declared = manifest.get("bin").and_then(|node| node.value.as_array()).unwrap_or_default();
    for binary in declared {
        binaries.extend(
            binary.value.as_table().and_then(|table| table.get("name")?.value.as_text()).map(str::to_owned),
        );
    }
    if declared.is_empty() && files.has("src/main.rs") {
        binaries.push(name.to_owned());
    }
    if let Some(bins) = files.below("src/bin") {
        binaries.extend(bins.files().iter().filter_map(|file| Some(file.strip_suffix(".rs")?.to_owned())));
    }
    binaries.sort();
    binaries.dedup();
    // A name that is a path would lead elsewhere.
    binaries.retain(|name| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    });
    if binaries.is_empty() {
        return;
    }
    let serves = at(manifest, &["dependencies"])
        .and_then(|node| node.value.as_table())
        .is_some_and(|dependencies| SERVERS.iter().any(|server| dependencies.get(server).is_some()));
    // Of several, the one with the package's name answers requests; which else does, no file says.
    let single = binaries.len() == 1;
    for binary in binaries {
        let serves = serves && (single || binary == name);
        let own = service_name(&binary, "service");
        let line = file.line_of(&format!("\"{binary}\""));
        draft.notes.mapped(&file.name, line, format!("binary {binary}"), format!("service.{own}.command"));
        if !single && !serves {
            let why =
                format!("whether it listens is not in the file; if it does, give [service.{own}] a port");
            draft.notes.unmapped(&file.name, line, format!("binary {binary} (its port)"), why);
        }
        let run = ["cargo", "build", "--release", "--bin", &binary].map(str::to_owned).to_vec();
        draft.services.push(DraftService {
            name: own,
            runs: DraftRuns::Command(words(&format!("./{binary}"))),
            dir: Some(root.dir.clone()),
            build: Some(DraftBuild { run, artifact: Some(format!("target/release/{binary}")) }),
            port: serves.then_some(PORT),
            public: serves,
            ..DraftService::default()
        });
    }
    if at(manifest, &["package", "rust-version"]).is_some() {
        let line = file.line_of("rust-version");
        draft.notes.unmapped(&file.name, line, "package.rust-version", "the Rust on the machine is used");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn draft(entries: &[(&str, &str)]) -> Option<Draft> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in entries {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        read(&Files::new(directory.path()))
    }

    fn names(draft: &Draft) -> Vec<&str> {
        draft.services.iter().map(|service| service.name.as_str()).collect()
    }

    #[test]
    fn every_binary_is_a_service() {
        let draft = draft(&[
            (
                "Cargo.toml",
                "[package]\nname = \"Shop_Api\"\nrust-version = \"1.80\"\n[dependencies]\naxum = \"0.8\"\n",
            ),
            ("src/main.rs", ""),
            ("src/bin/worker.rs", ""),
        ])
        .unwrap();
        assert_eq!(names(&draft), ["shop-api", "worker"]);
        let api = &draft.services[0];
        assert_eq!(api.build.as_ref().unwrap().artifact.as_deref(), Some("target/release/Shop_Api"));
        assert_eq!((api.port, api.public), (Some(PORT), true));
        assert_eq!((draft.services[1].port, draft.services[1].public), (None, false));
        assert!(draft.notes.unmapped.iter().any(|u| u.key == "package.rust-version" && u.line == 3));
    }

    #[test]
    fn a_library_runs_nothing_and_a_workspace_is_looked_into() {
        assert!(
            draft(&[("Cargo.toml", "[package]\nname = \"lib\"\n"), ("src/lib.rs", "")])
                .unwrap()
                .services
                .is_empty()
        );
        let draft = draft(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\", \"../out\"]\n"),
            (
                "crates/api/Cargo.toml",
                "[package]\nname = \"api\"\n[[bin]]\nname = \"api-server\"\npath = \"x.rs\"\n",
            ),
            ("crates/lib/Cargo.toml", "[package]\nname = \"lib\"\n"),
        ])
        .unwrap();
        assert_eq!(names(&draft), ["api-server"]);
        assert_eq!(draft.services[0].dir.as_deref(), Some("."), "target is the workspace's");
        assert_eq!(draft.project, None, "a member's name is not the workspace's");
    }

    #[test]
    fn garbage_is_listed() {
        for text in
            ["[", "package = 3", "[package]\nname = 3", "[package]\nname = \"a\"\nbin = 3", "bin = [1]"]
        {
            assert!(draft(&[("Cargo.toml", text)]).unwrap().services.is_empty(), "{text}");
        }
        let bad = draft(&[("Cargo.toml", "[package]\nname = \"a\"\n[[bin]]\nname = \"../x\"\n")]).unwrap();
        assert!(bad.services.is_empty());
    }
}
