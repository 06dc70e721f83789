use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;

/// A temporary directory that goes also when there are read-only trees in it.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = remove_tree(self.0.path());
    }
}

struct World {
    _dir: Scratch,
    project: PathBuf,
    trees: Trees,
}

impl World {
    fn new() -> Self {
        let dir = Scratch::new();
        let project = dir.path().join("project");
        fs::create_dir(&project).unwrap();
        let trees = Trees::open(&dir.path().join("state")).unwrap();
        Self { project, trees, _dir: dir }
    }

    fn shop() -> Self {
        let world = Self::new();
        world.write("app/server.js", "serve()");
        world.write("app/lib/deep/util.js", "util()");
        world.write("run.sh", "#!/bin/sh");
        fs::set_permissions(world.project.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(world.project.join("empty")).unwrap();
        symlink("app/server.js", world.project.join("main")).unwrap();
        world
    }

    fn write(&self, path: &str, content: &str) {
        let full = self.project.join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, content).unwrap();
    }

    fn capture(&self) -> Captured {
        self.trees.capture(&self.project, &Exclude::default()).unwrap()
    }

    /// As a capture in an hour would find it.
    fn capture_later(&self) -> Captured {
        let later = SystemTime::now() + Duration::from_secs(3600);
        self.trees.capture_at(&self.project, &Exclude::default(), later, &|_| {}).unwrap()
    }
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let world = World::shop();
    let captured = world.capture();
    assert_eq!((captured.files, captured.files_read), (3, 3));
    let built = world.trees.materialise(&captured.digest).unwrap();
    assert_eq!(built.how, How::Built);
    let mode = |path: &str| fs::symlink_metadata(built.path.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("run.sh"), mode("app/server.js"), mode("app")), (0o555, 0o444, 0o555));
    assert_eq!(fs::read_link(built.path.join("main")).unwrap(), Path::new("app/server.js"));
    assert!(fs::read_dir(built.path.join("empty")).unwrap().next().is_none());
    // What was built is captured again as the same tree.
    let again = world.trees.capture(&built.path, &Exclude::default()).unwrap();
    assert_eq!(again.digest, captured.digest);
    assert_eq!(world.trees.materialise(&captured.digest).unwrap().how, How::Reused);
}

#[test]
fn a_later_edit_of_the_project_changes_neither_blob_nor_tree() {
    let world = World::shop();
    let first = world.capture();
    let built = world.trees.materialise(&first.digest).unwrap().path;
    world.write("app/server.js", "other()");
    let second = world.capture();
    assert_ne!(first.digest, second.digest);
    assert_eq!(fs::read_to_string(built.join("app/server.js")).unwrap(), "serve()");
    assert_eq!(
        world.trees.materialise(&first.digest).unwrap(),
        Materialised { path: built, how: How::Reused }
    );
}

#[test]
fn an_app_that_writes_into_its_own_tree_damages_no_blob() {
    let world = World::shop();
    let captured = world.capture();
    let built = world.trees.materialise(&captured.digest).unwrap().path;
    let file = built.join("app/server.js");
    assert_eq!(fs::metadata(&file).unwrap().nlink(), 1, "a hard link");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, "evil()!").unwrap();
    let rebuilt = world.trees.materialise(&captured.digest).unwrap();
    let How::Rebuilt { aside, .. } = &rebuilt.how else { panic!("{rebuilt:?}") };
    assert_eq!(fs::read_to_string(aside.join("app/server.js")).unwrap(), "evil()!");
    assert_eq!(rebuilt.path, built);
    assert_eq!(fs::read_to_string(&file).unwrap(), "serve()");
    assert_eq!(world.trees.materialise(&captured.digest).unwrap().how, How::Reused);
}

#[test]
fn every_kind_of_change_to_a_built_tree_is_noticed() {
    let world = World::shop();
    let captured = world.capture();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    type Change = (&'static str, fn(&Path));
    let changes: [Change; 7] = [
        ("added", |tree| fs::write(tree.join("empty/new"), "x").unwrap()),
        ("removed", |tree| fs::remove_file(tree.join("app/server.js")).unwrap()),
        ("mode", |tree| {
            fs::set_permissions(tree.join("run.sh"), fs::Permissions::from_mode(0o777)).unwrap();
        }),
        ("same size and time", |tree| {
            let path = tree.join("app/lib/deep/util.js");
            let before = fs::metadata(&path).unwrap().modified().unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(&path, "UTIL()").unwrap();
            fs::File::open(&path).unwrap().set_modified(before).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        }),
        ("symlink", |tree| {
            fs::remove_file(tree.join("main")).unwrap();
            symlink("run.sh", tree.join("main")).unwrap();
        }),
        ("directory became a symlink", |tree| {
            fs::remove_dir(tree.join("empty")).unwrap();
            symlink("/usr", tree.join("empty")).unwrap();
        }),
        ("record", |tree| fs::write(tree.parent().unwrap().join("record"), "garbage").unwrap()),
    ];
    for (name, change) in changes {
        let built = world.trees.materialise(&captured.digest).unwrap().path;
        for directory in [&built, &built.join("empty"), &built.join("app")] {
            open(directory);
        }
        change(&built);
        let how = world.trees.materialise(&captured.digest).unwrap().how;
        assert!(matches!(how, How::Rebuilt { .. }), "{name}: {how:?}");
        assert_eq!(world.trees.materialise(&captured.digest).unwrap().how, How::Reused, "{name}");
    }
}

#[test]
fn after_another_boot_every_byte_is_checked_once() {
    let world = World::shop();
    let captured = world.capture();
    let built = world.trees.materialise(&captured.digest).unwrap().path;
    let record_path = built.parent().unwrap().join("record");
    let other_boot = || {
        let mut record: serde_json::Value = cache::load(&record_path).unwrap();
        record["boot_id"] = "another".into();
        cache::save(&record_path, &record).unwrap();
    };
    other_boot();
    assert_eq!(world.trees.materialise(&captured.digest).unwrap().how, How::Reused);
    let record: serde_json::Value = cache::load(&record_path).unwrap();
    assert_ne!(record["boot_id"], "another", "the check is repeated at each start");
    // A power cut that kept sizes and times but lost the bytes: stamps fit, content does not.
    let file = built.join("app/server.js");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, "\0\0\0\0\0\0\0").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    let mut record: serde_json::Value = cache::load(&record_path).unwrap();
    let now = serde_json::to_value(stamp::Stamp::of(&fs::metadata(&file).unwrap())).unwrap();
    record["entries"]["app/server.js"] = now;
    record["boot_id"] = "another".into();
    cache::save(&record_path, &record).unwrap();
    let how = world.trees.materialise(&captured.digest).unwrap().how;
    assert!(matches!(how, How::Rebuilt { .. }), "{how:?}");
}

#[test]
fn a_missing_or_damaged_blob_builds_nothing() {
    let world = World::shop();
    let captured = world.capture();
    let blob = world.trees.blobs().path(Digest::of(b"serve()"));
    fs::remove_file(&blob).unwrap();
    let error = world.trees.materialise(&captured.digest).unwrap_err();
    assert!(matches!(error, MaterialiseError::Blob { source: BlobError::Missing { .. }, .. }), "{error}");
    fs::write(&blob, "serve(!").unwrap();
    let error = world.trees.materialise(&captured.digest).unwrap_err();
    assert!(matches!(error, MaterialiseError::Blob { source: BlobError::Damaged { .. }, .. }), "{error}");
    let left: Vec<_> =
        fs::read_dir(world.trees.trees_dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == ".lock"), "{left:?}");
    // Capturing the same bytes again brings the release back.
    world.capture();
    assert_eq!(world.trees.materialise(&captured.digest).unwrap().how, How::Built);
}

#[test]
fn what_is_not_part_of_a_release_is_left_out() {
    let world = World::shop();
    world.write(".git/HEAD", "x");
    world.write("app/.git", "gitdir: elsewhere");
    world.write(".fairway/state", "x");
    world.write("logs/a.log", "x");
    world.write("app/b.log", "x");
    world.write("app/keep.log", "x");
    world.write("node_modules/m/index.js", "x");
    world.write(".fairwayignore", "*.log\n!keep.log\n/logs/\n# a comment\n");
    let exclude = Exclude { patterns: vec!["node_modules/".into()] };
    let captured = world.trees.capture(&world.project, &exclude).unwrap();
    let paths: Vec<_> = captured.manifest.entries().keys().map(TreePath::as_str).collect();
    assert_eq!(
        paths,
        [
            ".fairwayignore",
            "app",
            "app/keep.log",
            "app/lib",
            "app/lib/deep",
            "app/lib/deep/util.js",
            "app/server.js",
            "empty",
            "main",
            "run.sh"
        ]
    );
}

#[test]
fn a_bad_pattern_is_an_error_and_not_skipped() {
    let world = World::shop();
    let exclude = Exclude { patterns: vec!["a{b".into()] };
    let error = world.trees.capture(&world.project, &exclude).unwrap_err();
    assert!(matches!(&error, CaptureError::Pattern { place, .. } if place.contains("a{b")), "{error}");
    world.write(".fairwayignore", "[z-a]\n");
    assert!(matches!(
        world.trees.capture(&world.project, &Exclude::default()),
        Err(CaptureError::Pattern { .. })
    ));
}

#[test]
fn the_state_directory_does_not_capture_itself() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    let trees = Trees::open(&dir.path().join("state")).unwrap();
    let first = trees.capture(dir.path(), &Exclude::default()).unwrap();
    assert_eq!(first.manifest.entries().len(), 1);
    assert_eq!(trees.capture(dir.path(), &Exclude::default()).unwrap().digest, first.digest);
}

#[test]
fn special_files_and_strange_names_are_refused_with_a_hint() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::shop();
    let socket = world.project.join("app.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let error = world.trees.capture(&world.project, &Exclude::default()).unwrap_err();
    assert!(
        error.to_string().contains("app.sock is a socket") && error.to_string().contains("hint"),
        "{error}"
    );
    fs::remove_file(socket).unwrap();
    let fifo = world.project.join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let error = world.trees.capture(&world.project, &Exclude::default()).unwrap_err();
    assert!(matches!(error, CaptureError::Special { kind: "named pipe", .. }), "{error}");
    fs::remove_file(fifo).unwrap();
    fs::write(world.project.join(std::ffi::OsStr::from_bytes(b"caf\xe9")), "x").unwrap();
    let error = world.trees.capture(&world.project, &Exclude::default()).unwrap_err();
    assert!(matches!(error, CaptureError::NotUtf8 { .. }), "{error}");
    assert!(matches!(
        world.trees.capture(&world.project.join("run.sh"), &Exclude::default()),
        Err(CaptureError::NotADirectory { .. })
    ));
    assert!(matches!(
        world.trees.capture(&world.project.join("none"), &Exclude::default()),
        Err(CaptureError::Read { .. })
    ));
}

#[test]
fn symlinks_that_lead_out_are_kept_and_told() {
    let world = World::shop();
    symlink("/usr/bin/python3", world.project.join("python")).unwrap();
    symlink("../../outside", world.project.join("app/out")).unwrap();
    symlink("../run.sh", world.project.join("app/in")).unwrap();
    let mut out = world.capture().leading_out;
    out.sort();
    assert_eq!(out.iter().map(TreePath::as_str).collect::<Vec<_>>(), ["app/out", "python"]);
}

#[test]
fn an_unchanged_tree_is_not_read_again_and_a_young_one_is() {
    let world = World::shop();
    assert_eq!(world.capture().files_read, 3);
    assert_eq!(world.capture().files_read, 3, "too young to be told from a later change in the same tick");
    assert_eq!(world.capture_later().files_read, 3);
    assert_eq!(world.capture_later().files_read, 0);
    world.write("run.sh", "#!/bin/zz");
    let changed = world.capture_later();
    assert_eq!(changed.files_read, 1);
    assert!(changed.manifest.blobs().any(|digest| digest == Digest::of(b"#!/bin/zz")));
    // A cached digest whose blob is gone is read again.
    fs::remove_file(world.trees.blobs().path(Digest::of(b"serve()"))).unwrap();
    let again = world.capture_later();
    assert_eq!(again.digest, changed.digest);
    assert!(world.trees.blobs().contains(Digest::of(b"serve()")));
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again_and_then_refused() {
    let world = World::shop();
    let changes = std::cell::Cell::new(0);
    let capture = |until: u32| {
        changes.set(0);
        let change = |path: &Path| {
            if path.ends_with("server.js") && changes.get() < until {
                changes.set(changes.get() + 1);
                let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
                file.write_all(b"more").unwrap();
            }
        };
        world.trees.capture_at(&world.project, &Exclude::default(), SystemTime::now(), &change)
    };
    let captured = capture(2).unwrap();
    assert!(captured.manifest.blobs().any(|digest| digest == Digest::of(b"serve()moremore")));
    assert!(!captured.manifest.blobs().any(|digest| digest == Digest::of(b"serve()")));
    let error = capture(3).unwrap_err();
    assert!(matches!(&error, CaptureError::Changing { path } if path.ends_with("server.js")), "{error}");
}

#[test]
fn racing_captures_and_builds_agree() {
    let world = World::shop();
    for number in 0..60 {
        world.write(&format!("many/{number}"), &format!("file {number}"));
    }
    let digests: Vec<_> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let digest = world.capture().digest;
                    let built = world.trees.materialise(&digest).unwrap();
                    assert_eq!(fs::read_to_string(built.path.join("many/59")).unwrap(), "file 59");
                    assert!(!matches!(built.how, How::Rebuilt { .. }), "{built:?}");
                    digest
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    let trees = fs::read_dir(world.trees.trees_dir()).unwrap().count();
    assert_eq!(trees, 2, "the tree and the lock");
}

#[test]
fn a_manifest_that_would_write_through_a_symlink_is_refused() {
    let path = |text| TreePath::new(text).unwrap();
    let file = Kind::File { digest: Digest::of(b""), bytes: 0, executable: false };
    let link = Kind::Symlink { target: "/etc".into() };
    let through = BTreeMap::from([(path("a"), link), (path("a/passwd"), file.clone())]);
    assert!(matches!(Manifest::new(through), Err(InvalidManifest::NoParent { .. })));
    assert!(matches!(
        Manifest::new(BTreeMap::from([(path("a/b"), file)])),
        Err(InvalidManifest::NoParent { .. })
    ));
    for target in ["", "a\0b", &"x".repeat(5000)] {
        let link = Kind::Symlink { target: target.into() };
        assert!(matches!(
            Manifest::new(BTreeMap::from([(path("a"), link)])),
            Err(InvalidManifest::Symlink { .. })
        ));
    }
}

#[test]
fn a_stored_manifest_with_a_bad_path_builds_nothing() {
    let world = World::new();
    for line in [
        r#"{"path":"../out","is":"directory"}"#,
        r#"{"path":"/out","is":"directory"}"#,
        r#"{"path":"a","is":"directory"} "#,
        r#"{"path":"a","is":"socket"}"#,
        r#"{"path":"a","is":"directory","mode":1}"#,
    ] {
        let stored = world.trees.blobs().put(format!("fairway-tree 1\n{line}\n").as_bytes()).unwrap();
        let error = world.trees.materialise(&stored.digest.into()).unwrap_err();
        assert!(
            matches!(error, MaterialiseError::Manifest(ManifestError::Invalid { .. })),
            "{line}: {error}"
        );
    }
    assert!(world.trees.materialise(&TreeDigest("../../etc".into())).is_err());
}

#[test]
fn the_encoding_of_a_tree_never_changes_between_versions() {
    let path = |text| TreePath::new(text).unwrap();
    let entries = BTreeMap::from([
        (path("a"), Kind::Directory),
        (path("a/b\n\"c"), Kind::File { digest: Digest::of(b""), bytes: 0, executable: true }),
        (path("l"), Kind::Symlink { target: "a".into() }),
    ]);
    let manifest = Manifest::new(entries).unwrap();
    let text = String::from_utf8(manifest.encode()).unwrap();
    assert_eq!(
        text,
        "fairway-tree 1\n\
         {\"path\":\"a\",\"is\":\"directory\"}\n\
         {\"path\":\"a/b\\n\\\"c\",\"is\":{\"file\":{\"digest\":\"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262\",\"bytes\":0,\"executable\":true}}}\n\
         {\"path\":\"l\",\"is\":{\"symlink\":{\"target\":\"a\"}}}\n"
    );
    assert_eq!(Manifest::decode(text.as_bytes()), Ok(manifest));
}

fn any_path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(String::new()),
        Just("x".repeat(256)),
        Just("a\0b".to_owned()),
        "[ -~]{1,8}",
        "\\PC{1,8}",
    ];
    proptest::collection::vec(part, 0..6).prop_map(|parts| parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_accepted_path_stays_inside(text in any_path()) {
        let bad = text.is_empty()
            || text.contains('\0')
            || text.len() > PATH_BYTES_MAX
            || text.split('/').any(|part| matches!(part, "" | "." | "..") || part.len() > 255);
        let outcome = TreePath::new(&text);
        prop_assert_eq!(outcome.is_err(), bad);
        if let Ok(path) = outcome {
            let inside = Path::new("/root").join(path.as_str());
            prop_assert!(inside.starts_with("/root"));
            let normal = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
            prop_assert!(Path::new(path.as_str()).components().all(normal));
        }
    }

    #[test]
    fn bytes_that_are_no_manifest_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut headed = b"fairway-tree 1\n".to_vec();
        headed.extend(&bytes);
        for bytes in [bytes, headed] {
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert_eq!(manifest.encode(), bytes);
            }
        }
    }
}

#[test]
fn paths_of_extreme_length_and_depth_are_refused() {
    let deep = vec!["d"; DEPTH_MAX + 1].join("/");
    assert!(TreePath::new(&deep).is_err());
    assert!(TreePath::new(&deep[2..]).is_ok());
    assert!(TreePath::new(&vec!["x".repeat(200); 11].join("/")).is_err());
}
