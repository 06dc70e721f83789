use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const ENVIRONMENT: &str = "shop/production";

struct World {
    dir: tempfile::TempDir,
    secrets: Secrets,
}

fn open(dir: &Path) -> Secrets {
    Secrets::open(&dir.join("fairway.db"), &dir.join(KEY_FILE)).unwrap()
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let secrets = open(dir.path());
    World { dir, secrets }
}

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.as_bytes().to_vec())
}

impl World {
    fn set(&mut self, name: &str, text: &str) -> u32 {
        self.secrets.set(ENVIRONMENT, name, &value(text), 1_000, Some(9_000)).unwrap()
    }

    fn get(&self, name: &str, version: u32) -> String {
        String::from_utf8(self.secrets.get(ENVIRONMENT, name, version).unwrap().expose().to_vec()).unwrap()
    }

    fn key_file(&self) -> PathBuf {
        self.dir.path().join(KEY_FILE)
    }

    fn sql(&self, sql: &str) {
        Connection::open(self.dir.path().join("fairway.db")).unwrap().execute_batch(sql).unwrap();
    }

    fn holds(&self, text: &str) -> bool {
        fs::read_dir(self.dir.path()).unwrap().any(|entry| {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
    }
}

#[test]
fn versions_are_kept_and_numbered() {
    let mut world = world();
    assert_eq!((world.set("DB", "one"), world.set("DB", "two"), world.set("KEY", "k")), (1, 2, 1));
    assert_eq!((world.get("DB", 1), world.get("DB", 2)), ("one".into(), "two".into()));
    assert_eq!(world.secrets.latest(ENVIRONMENT, "DB").unwrap(), Some(2));
    let list = world.secrets.list(ENVIRONMENT).unwrap();
    assert_eq!(
        list.iter().map(|entry| (entry.name.as_str(), entry.versions.len())).collect::<Vec<_>>(),
        [("DB", 2), ("KEY", 1)]
    );
    let expected =
        SecretVersion { version: 1, state: SecretState::Kept, created_at_ms: 1_000, due_at_ms: Some(9_000) };
    assert_eq!(list[0].versions[0], expected);
    assert!(world.secrets.list("shop/staging").unwrap().is_empty());
    let World { dir, secrets } = world;
    drop(secrets);
    assert_eq!(open(dir.path()).get(ENVIRONMENT, "DB", 2).unwrap(), value("two"));
}

#[test]
fn what_is_not_there_is_said() {
    let mut world = world();
    world.set("DB", "one");
    let get = |name, version| world.secrets.get(ENVIRONMENT, name, version).unwrap_err();
    assert!(matches!(get("NONE", 1), SecretError::Unknown { .. }));
    assert!(matches!(get("DB", 2), SecretError::UnknownVersion { newest: 1, .. }));
    assert!(matches!(world.secrets.get("shop/staging", "DB", 1), Err(SecretError::Unknown { .. })));
    assert!(matches!(world.secrets.unset(ENVIRONMENT, "NONE", 0), Err(SecretError::Unknown { .. })));
}

#[test]
fn an_unset_secret_stays_for_the_releases_that_name_it_until_it_is_purged() {
    let mut world = world();
    world.set("DB", "hunter2-the-secret");
    assert_eq!(world.secrets.unset(ENVIRONMENT, "DB", 2_000).unwrap(), 2);
    assert_eq!(world.secrets.unset(ENVIRONMENT, "DB", 3_000).unwrap(), 2);
    assert_eq!(world.secrets.latest(ENVIRONMENT, "DB").unwrap(), None);
    assert!(matches!(world.secrets.get(ENVIRONMENT, "DB", 2), Err(SecretError::Unset { .. })));
    assert_eq!(world.get("DB", 1), "hunter2-the-secret");
    assert_eq!(world.secrets.purge(ENVIRONMENT, "DB", &[1].into()).unwrap(), 0);
    assert_eq!(world.secrets.purge(ENVIRONMENT, "DB", &BTreeSet::new()).unwrap(), 1);
    assert!(matches!(world.secrets.get(ENVIRONMENT, "DB", 1), Err(SecretError::Purged { .. })));
    assert_eq!(world.set("DB", "again"), 3, "a version number was used twice");
}

#[test]
fn no_value_and_no_key_is_in_the_files_or_in_debug_output() {
    let mut world = world();
    world.set("DB", "hunter2-the-secret");
    assert!(!world.holds("hunter2"));
    let key_line = fs::read_to_string(world.key_file()).unwrap();
    let hex = key_line.trim().rsplit(' ').next().unwrap();
    let keys = KeyFile::at(&world.key_file()).load().unwrap().unwrap();
    let shown = format!("{:?} {:?} {keys:?}", value("hunter2"), world.secrets);
    assert!(!shown.contains("hunter2") && !shown.contains(hex), "{shown}");
}

#[test]
fn a_row_that_was_swapped_or_changed_does_not_open() {
    for sql in [
        "UPDATE secrets SET version = version + 10",
        "UPDATE secrets SET name = 'Z' WHERE name = 'A'; UPDATE secrets SET name = 'A' WHERE name = 'B'",
        "UPDATE secrets SET environment = 'shop/staging'",
        "UPDATE secrets SET ciphertext = (SELECT ciphertext FROM secrets s WHERE s.name = 'B')",
        "UPDATE secrets SET wrapped_key = (SELECT wrapped_key FROM secrets s WHERE s.name = 'B')",
        "UPDATE secrets SET ciphertext = x'00'",
        "UPDATE secrets SET ciphertext = zeroblob(100), wrapped_key = zeroblob(72)",
    ] {
        let mut world = world();
        world.set("A", "value of a");
        world.set("B", "value of b");
        world.sql(sql);
        for (environment, version) in [(ENVIRONMENT, 1), (ENVIRONMENT, 11), ("shop/staging", 1)] {
            match world.secrets.get(environment, "A", version) {
                Err(
                    SecretError::Damaged { .. }
                    | SecretError::Unknown { .. }
                    | SecretError::UnknownVersion { .. },
                ) => {}
                other => panic!("{sql}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_key_file_that_others_may_read_is_refused_with_the_command_that_mends_it() {
    let mut world = world();
    world.set("DB", "one");
    assert_eq!(fs::metadata(world.key_file()).unwrap().permissions().mode() & 0o777, 0o600);
    for mode in [0o644, 0o640, 0o604] {
        fs::set_permissions(world.key_file(), fs::Permissions::from_mode(mode)).unwrap();
        let error = world.secrets.get(ENVIRONMENT, "DB", 1).unwrap_err();
        assert!(matches!(error, SecretError::KeyFile(KeyFileError::Exposed { .. })), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(world.secrets.set(ENVIRONMENT, "DB", &value("two"), 0, None).is_err());
        assert!(world.secrets.rotate_kek().is_err());
    }
    fs::set_permissions(world.key_file(), fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(world.get("DB", 1), "one");
}

#[test]
fn a_lost_key_file_is_never_replaced_by_a_new_key() {
    let mut world = world();
    world.set("DB", "one");
    let kept = fs::read(world.key_file()).unwrap();
    fs::remove_file(world.key_file()).unwrap();
    for outcome in [
        world.secrets.get(ENVIRONMENT, "DB", 1).map(|_| ()),
        world.secrets.set(ENVIRONMENT, "DB", &value("two"), 0, None).map(|_| ()),
        world.secrets.rotate_kek().map(|_| ()),
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, SecretError::KeyFile(KeyFileError::Lost { locked: 1, .. })), "{error}");
    }
    assert!(!world.key_file().exists());
    // Another key, as from another machine.
    let other = tempfile::tempdir().unwrap();
    let mut elsewhere = open(other.path());
    elsewhere.set(ENVIRONMENT, "X", &value("x"), 0, None).unwrap();
    fs::copy(other.path().join(KEY_FILE), world.key_file()).unwrap();
    assert!(matches!(world.secrets.get(ENVIRONMENT, "DB", 1), Err(SecretError::KeyUnknown { .. })));
    durable_write(&world.key_file(), &kept);
    assert_eq!(world.get("DB", 1), "one");
}

fn durable_write(path: &Path, bytes: &[u8]) {
    crate::durable::replace_file(path, bytes, 0o600).unwrap();
}

#[test]
fn a_damaged_key_file_is_told_from_a_wrong_one() {
    let mut world = world();
    world.set("DB", "one");
    let whole = fs::read(world.key_file()).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        durable_write(&world.key_file(), &bytes);
        let error = world.secrets.get(ENVIRONMENT, "DB", 1).map(|_| ()).map_err(|error| error.to_string());
        // The newline at the end is the one byte without a meaning of its own.
        assert!(at == whole.len() - 1 || error.is_err_and(|error| error.contains("is not a key")), "at {at}");
    }
    durable_write(&world.key_file(), b"");
    assert!(matches!(
        world.secrets.get(ENVIRONMENT, "DB", 1),
        Err(SecretError::KeyFile(KeyFileError::Damaged { .. }))
    ));
}

#[test]
fn a_rotation_keeps_all_values_and_forgets_the_old_key() {
    let mut world = world();
    world.set("DB", "one");
    world.set("DB", "two");
    world.secrets.unset(ENVIRONMENT, "DB", 0).unwrap();
    let old = fs::read(world.key_file()).unwrap();
    assert_eq!(world.secrets.rotate_kek().unwrap(), 2);
    assert_eq!((world.get("DB", 1), world.get("DB", 2)), ("one".into(), "two".into()));
    let new = fs::read(world.key_file()).unwrap();
    assert_eq!(new.iter().filter(|byte| **byte == b'\n').count(), 1);
    durable_write(&world.key_file(), &old);
    assert!(matches!(world.secrets.get(ENVIRONMENT, "DB", 1), Err(SecretError::KeyUnknown { .. })));
}

#[test]
fn a_rotation_that_was_cut_short_is_finished_by_the_next() {
    let mut world = world();
    world.set("DB", "one");
    // As after a crash between the writing of both keys and the wrapping.
    let mut keys = world.secrets.key_file.load().unwrap().unwrap();
    keys.put_first(Key::random().unwrap());
    world.secrets.key_file.store(&keys).unwrap();
    assert_eq!(world.get("DB", 1), "one");
    world.set("DB", "two");
    assert_eq!((world.get("DB", 1), world.get("DB", 2)), ("one".into(), "two".into()));
    assert_eq!(world.secrets.rotate_kek().unwrap(), 2);
    assert_eq!((world.get("DB", 1), world.get("DB", 2)), ("one".into(), "two".into()));
}

#[test]
fn values_that_are_set_while_the_key_rotates_stay_readable() {
    let world = world();
    let dir = world.dir.path();
    std::thread::scope(|scope| {
        for writer in 0..3 {
            scope.spawn(move || {
                let mut secrets = open(dir);
                for number in 0..15 {
                    let name = format!("S{writer}");
                    secrets.set(ENVIRONMENT, &name, &value(&format!("{writer}-{number}")), 0, None).unwrap();
                }
            });
        }
        scope.spawn(move || {
            let mut secrets = open(dir);
            for _ in 0..10 {
                secrets.rotate_kek().unwrap();
            }
        });
    });
    for writer in 0..3 {
        for number in 0..15 {
            assert_eq!(world.get(&format!("S{writer}"), number + 1), format!("{writer}-{number}"));
        }
    }
}

#[test]
fn names_and_values_out_of_bounds_are_refused() {
    let mut world = world();
    for name in ["", "1A", "-a", ".a", "a b", "a/b", "ä", "a=b", &"x".repeat(129)] {
        let outcome = world.secrets.set(ENVIRONMENT, name, &value("v"), 0, None);
        assert!(matches!(outcome, Err(SecretError::Name { .. })), "{name:?}");
    }
    for bytes in [vec![], vec![0; VALUE_BYTES_MAX + 1]] {
        let outcome = world.secrets.set(ENVIRONMENT, "A", &SecretValue::new(bytes), 0, None);
        assert!(matches!(outcome, Err(SecretError::Length { .. })));
    }
    assert!(matches!(world.secrets.set("", "A", &value("v"), 0, None), Err(SecretError::Environment { .. })));
    assert!(world.secrets.list(ENVIRONMENT).unwrap().is_empty());
    let any: Vec<u8> = (0..=255).collect();
    world.secrets.set(ENVIRONMENT, "BYTES", &SecretValue::new(any.clone()), 0, None).unwrap();
    assert_eq!(world.secrets.get(ENVIRONMENT, "BYTES", 1).unwrap().expose(), any);
}

#[test]
fn keys_that_a_crash_left_in_unfinished_files_are_removed() {
    let mut world = world();
    world.set("DB", "one");
    let left = world.dir.path().join(".tmp-secrets.key-1-2-3");
    fs::copy(world.key_file(), &left).unwrap();
    world.secrets.rotate_kek().unwrap();
    assert!(!left.exists());
}
