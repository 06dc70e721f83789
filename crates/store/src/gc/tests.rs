use std::time::{Duration, SystemTime};

use super::*;
use crate::tree::tests::Scratch;
use crate::tree::{Exclude, How};

struct World {
    dir: Scratch,
    trees: Trees,
    old: TreeDigest,
    new: TreeDigest,
}

/// Two releases that share one file, both built.
fn world() -> World {
    let dir = Scratch::new();
    let project = dir.path().join("project");
    fs::create_dir(&project).unwrap();
    let trees = Trees::open(&dir.path().join("state")).unwrap();
    fs::write(project.join("shared"), "shared").unwrap();
    let release = |content: &str| {
        fs::write(project.join("app"), content).unwrap();
        let digest = trees.capture(&project, &Exclude::default()).unwrap().digest;
        trees.materialise(&digest).unwrap();
        digest
    };
    let (old, new) = (release("one"), release("two"));
    World { dir, trees, old, new }
}

fn roots(trees: &[&TreeDigest]) -> Roots {
    Roots { trees: trees.iter().map(|tree| (*tree).clone()).collect(), blobs: BTreeSet::new() }
}

fn tomorrow() -> SystemTime {
    SystemTime::now() + GRACE + Duration::from_secs(60)
}

#[test]
fn what_a_retained_release_needs_stays_and_the_rest_goes() {
    let World { dir: _dir, trees, old, new } = world();
    let roots = roots(&[&new]);
    let plan = trees.gc(&roots, GRACE, tomorrow()).unwrap();
    let old_digest = Digest::try_from(&old).unwrap();
    let planned: BTreeSet<_> = plan.remove.iter().map(|removal| removal.what.clone()).collect();
    let expected = [What::BuiltTree(old_digest), What::Blob(old_digest), What::Blob(Digest::of(b"one"))];
    assert_eq!(planned, expected.into_iter().collect());
    assert!(plan.bytes() > 0 && plan.remove.iter().all(|removal| !removal.why.is_empty()));
    let applied = trees.apply(&plan, &roots, GRACE, tomorrow()).unwrap();
    assert_eq!((applied.removed.len(), applied.kept.len()), (3, 0));
    assert_eq!(trees.materialise(&new).unwrap().how, How::Reused);
    assert!(trees.materialise(&old).is_err());
    assert_eq!(trees.gc(&roots, GRACE, tomorrow()).unwrap(), Plan::default(), "planning again finds more");
}

#[test]
fn nothing_young_is_planned() {
    let World { dir: _dir, trees, .. } = world();
    assert_eq!(trees.gc(&Roots::default(), GRACE, SystemTime::now()).unwrap(), Plan::default());
    let yesterday = SystemTime::now() - GRACE * 2;
    assert_eq!(
        trees.gc(&Roots::default(), GRACE, yesterday).unwrap(),
        Plan::default(),
        "the clock stepped back"
    );
}

#[test]
fn what_became_needed_after_the_plan_stays() {
    let World { dir: _dir, trees, old, new } = world();
    let plan = trees.gc(&roots(&[&new]), GRACE, tomorrow()).unwrap();
    let applied = trees.apply(&plan, &roots(&[&new, &old]), GRACE, tomorrow()).unwrap();
    assert!(applied.removed.is_empty());
    assert_eq!(trees.materialise(&old).unwrap().how, How::Reused);
}

#[test]
fn what_was_captured_again_after_the_plan_stays() {
    let World { dir, trees, .. } = world();
    let set_back = SystemTime::now() - GRACE * 2;
    for (_, path, metadata) in list(trees.blobs().root()).unwrap() {
        if metadata.is_dir() {
            for (_, blob, _) in list(&path).unwrap() {
                fs::File::open(blob).unwrap().set_modified(set_back).unwrap();
            }
        }
    }
    let now = SystemTime::now();
    let plan = trees.gc(&Roots::default(), GRACE, now).unwrap();
    assert!(plan.remove.iter().any(|removal| removal.what == What::Blob(Digest::of(b"two"))));
    let captured = trees.capture(&dir.path().join("project"), &Exclude::default()).unwrap();
    let applied = trees.apply(&plan, &Roots::default(), GRACE, now).unwrap();
    assert!(applied.removed.iter().any(|removal| removal.what == What::Blob(Digest::of(b"one"))));
    assert!(trees.materialise(&captured.digest).is_ok());
    assert!(captured.manifest.blobs().all(|digest| trees.blobs().contains(digest)));
}

#[test]
fn a_retained_release_without_its_manifest_stops_the_removal() {
    let World { dir: _dir, trees, old, new } = world();
    let digest = Digest::try_from(&new).unwrap();
    fs::remove_file(trees.blobs().root().join(&digest.to_hex()[..2]).join(digest.to_hex())).unwrap();
    let error = trees.gc(&roots(&[&new, &old]), GRACE, tomorrow()).unwrap_err();
    assert!(matches!(error, GcError::RootUnreadable { .. }), "{error}");
}

#[test]
fn what_a_crash_left_and_what_was_set_aside_goes() {
    let World { dir: _dir, trees, old, new } = world();
    fs::write(trees.blobs().root().join(".tmp-1-2-3"), "half").unwrap();
    fs::create_dir_all(trees.trees_dir().join(".tmp-4-5-6/files")).unwrap();
    let built = trees.materialise(&old).unwrap().path;
    fs::write(built.parent().unwrap().join("record"), "garbage").unwrap();
    assert!(matches!(trees.materialise(&old).unwrap().how, How::Rebuilt { .. }));
    let roots = roots(&[&old, &new]);
    let plan = trees.gc(&roots, GRACE, tomorrow()).unwrap();
    let kinds: Vec<_> = plan.remove.iter().map(|removal| removal.what.to_string()).collect();
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    trees.apply(&plan, &roots, GRACE, tomorrow()).unwrap();
    assert_eq!(fs::read_dir(trees.trees_dir()).unwrap().count(), 3, "two trees and the lock");
    assert_eq!(trees.materialise(&old).unwrap().how, How::Reused);
}

#[test]
fn a_tree_in_which_a_process_runs_stays() {
    let World { dir: _dir, trees, old, .. } = world();
    let built = trees.materialise(&old).unwrap().path;
    let mut running = std::process::Command::new("sleep").arg("60").current_dir(&built).spawn().unwrap();
    let digest = What::BuiltTree(Digest::try_from(&old).unwrap());
    let planned = || {
        let plan = trees.gc(&Roots::default(), GRACE, tomorrow()).unwrap();
        plan.remove.into_iter().any(|removal| removal.what == digest)
    };
    let while_running = planned();
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(!while_running && planned());
}

#[test]
fn a_replaced_tree_has_its_grace_from_the_moment_it_was_set_aside() {
    let World { dir: _dir, trees, old, new } = world();
    let built = trees.materialise(&old).unwrap().path;
    let home = built.parent().unwrap();
    fs::write(home.join("record"), "garbage").unwrap();
    let set_back = SystemTime::now() - GRACE * 3;
    for path in [home.join("record"), home.to_owned()] {
        fs::File::open(path).unwrap().set_modified(set_back).unwrap();
    }
    assert!(matches!(trees.materialise(&old).unwrap().how, How::Rebuilt { .. }));
    let plan = trees.gc(&roots(&[&old, &new]), GRACE, SystemTime::now()).unwrap();
    assert_eq!(plan, Plan::default());
}
