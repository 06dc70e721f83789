//! Keys and certificates on disk.
//!
//! ```text
//! STATE/certificates/            0700
//!   accounts/AUTHORITY-…/account.json
//!   sets/NAME-…/meta.json        what is known of the set, its last trouble, its order under way
//!   sets/NAME-…/order.key        the key of the order under way
//!   sets/NAME-…/DIGEST/chain.pem, key.pem
//!   sets/NAME-…/challenge-DIGEST/chain.pem, key.pem
//! ```
//!
//! Files are 0600, written whole beside their place, synced and renamed. A pair is never changed: a renewed one lies
//! beside it, so that whoever reads by a path and a digest never sees half of each. One server at a time: it holds the
//! lock of its state directory.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::cause::Cause;
use super::meta::Meta;
use super::offer::{Certificate, Purpose};
use super::pair::{PEM_BYTES_MAX, Pair};
use super::wanted::Slug;

const CHAIN: &str = "chain.pem";
const KEY: &str = "key.pem";
const META: &str = "meta.json";
const ORDER_KEY: &str = "order.key";
const CHALLENGE: &str = "challenge-";
/// What was being written when the server died.
const UNFINISHED: &str = ".unfinished";

/// A set that is not wanted any more may be wanted again, as after a rollback, and certificates are counted by
/// authorities.
const UNWANTED_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[derive(Clone, Debug)]
pub(super) struct Shelf {
    root: PathBuf,
    /// Held while an account is looked for and opened: sets that are new together share one.
    pub(super) accounts: Arc<tokio::sync::Mutex<()>>,
}

impl Shelf {
    /// # Errors
    /// When the directory cannot be made, or not kept to this user.
    pub(super) fn open(state_dir: &Path) -> Result<Self, Cause> {
        let root = state_dir.join("certificates");
        for dir in [&root, &root.join("accounts"), &root.join("sets")] {
            make_dir(dir)?;
            // It may have been made by hand.
            let private = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(dir, private).map_err(|error| Cause::disk(dir, &error))?;
        }
        Ok(Self { root, accounts: Arc::default() })
    }

    /// The account file of one authority and contact.
    pub(super) fn account(&self, name: &str) -> Result<PathBuf, Cause> {
        let dir = self.root.join("accounts").join(name);
        make_dir(&dir)?;
        Ok(dir.join("account.json"))
    }

    /// The place of a set, which may not be there yet.
    pub(super) fn set(&self, slug: &Slug) -> Place {
        Place { dir: self.root.join("sets").join(slug.as_str()) }
    }

    /// Removes sets that are not among `wanted` and were not touched for long.
    pub(super) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        for (name, path) in entries(&self.root.join("sets")) {
            let age = path.join(META).metadata().and_then(|meta| meta.modified()).map(|at| at.elapsed());
            if !wanted(&name) && !matches!(age, Ok(Ok(age)) if age < UNWANTED_KEPT) {
                drop(std::fs::remove_dir_all(path));
            }
        }
    }
}

/// The directory of one set.
#[derive(Clone, Debug)]
pub(super) struct Place {
    dir: PathBuf,
}

impl Place {
    /// Nothing for a set that is new, and for a file that cannot be understood: it says nothing that is not found out
    /// again.
    pub(super) fn meta(&self) -> Meta {
        let bytes = read(&self.dir.join(META)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// # Errors
    /// When nothing can be written there.
    pub(super) fn prepare(&self) -> Result<(), Cause> {
        make_dir(&self.dir)
    }

    pub(super) fn save_meta(&self, meta: &Meta) -> Result<(), Cause> {
        let path = self.dir.join(META);
        let bytes = serde_json::to_vec_pretty(meta).map_err(|error| Cause::disk(&path, &error.into()))?;
        write(&path, &bytes)
    }

    pub(super) fn order_key(&self) -> Option<String> {
        String::from_utf8(read(&self.dir.join(ORDER_KEY)).ok()?).ok()
    }

    pub(super) fn save_order_key(&self, pem: &str) -> Result<(), Cause> {
        write(&self.dir.join(ORDER_KEY), pem.as_bytes())
    }

    /// The stored pair, checked again: a file may be lost or damaged.
    pub(super) fn pair(&self, digest: &str, names: &BTreeSet<String>) -> Option<Pair> {
        let dir = self.dir.join(digest);
        let pair = Pair::read(read(&dir.join(CHAIN)).ok()?, read(&dir.join(KEY)).ok()?, names).ok()?;
        (pair.digest == digest).then_some(pair)
    }

    pub(super) fn certificate(&self, pair: &Pair, names: &[String]) -> Certificate {
        let dir = self.dir.join(&pair.digest);
        Certificate {
            names: names.to_vec(),
            chain: dir.join(CHAIN),
            key: dir.join(KEY),
            digest: pair.digest.clone(),
            purpose: Purpose::Serving,
        }
    }

    /// Whether both files of a pair are there.
    pub(super) fn has(&self, name: &str) -> bool {
        let dir = self.dir.join(name);
        dir.join(CHAIN).is_file() && dir.join(KEY).is_file()
    }

    pub(super) fn store(&self, pair: &Pair) -> Result<(), Cause> {
        self.store_as(&pair.digest, &pair.chain_pem, &pair.key_pem).map(drop)
    }

    /// A certificate that only answers a challenge.
    pub(super) fn store_challenge(&self, name: &str, chain: &str, key: &str) -> Result<Certificate, Cause> {
        let digest = blake3::hash([chain, key].concat().as_bytes()).to_hex().to_string();
        let dir = self.store_as(&format!("{CHALLENGE}{digest}"), chain.as_bytes(), key.as_bytes())?;
        Ok(Certificate {
            names: vec![name.to_owned()],
            chain: dir.join(CHAIN),
            key: dir.join(KEY),
            digest,
            purpose: Purpose::AcmeTlsAlpn,
        })
    }

    fn store_as(&self, name: &str, chain: &[u8], key: &[u8]) -> Result<PathBuf, Cause> {
        let finished = self.dir.join(name);
        if self.has(name) {
            return Ok(finished);
        }
        // Half of it, where somebody has removed the other.
        if finished.is_dir() {
            std::fs::remove_dir_all(&finished).map_err(|error| Cause::disk(&finished, &error))?;
        }
        let unfinished = self.dir.join(format!("{name}{UNFINISHED}"));
        make_dir(&unfinished)?;
        write(&unfinished.join(CHAIN), chain)?;
        write(&unfinished.join(KEY), key)?;
        std::fs::rename(&unfinished, &finished).map_err(|error| Cause::disk(&finished, &error))?;
        sync_dir(&self.dir)?;
        Ok(finished)
    }

    /// Removes what is needed by nobody: earlier pairs, answers to challenges, what a server that died has left half.
    /// Only once the proxy has confirmed that it has done with them: its own snapshot on disk names files, too.
    pub(super) fn tidy(&self, meta: &Meta) {
        self.remove_where(|name| match name {
            META => false,
            ORDER_KEY => meta.order.is_none(),
            pair => meta.digest.as_deref() != Some(pair),
        });
    }

    /// What cannot be removed now is tried again the next time.
    fn remove_where(&self, is_garbage: impl Fn(&str) -> bool) {
        for (name, path) in entries(&self.dir) {
            if !is_garbage(&name) {
                continue;
            }
            if path.is_dir() {
                drop(std::fs::remove_dir_all(path));
            } else {
                drop(std::fs::remove_file(path));
            }
        }
    }
}

fn entries(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let named = entries.flatten().map(|entry| (entry.file_name().into_string(), entry.path()));
    named.filter_map(|(name, path)| Some((name.ok()?, path))).collect()
}

fn make_dir(path: &Path) -> Result<(), Cause> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Cause::disk(path, &error))
}

/// A bounded file.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(PEM_BYTES_MAX).unwrap_or(u64::MAX);
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() > PEM_BYTES_MAX {
        return Err(std::io::Error::other(format!("it has more than {} KiB", PEM_BYTES_MAX >> 10)));
    }
    Ok(bytes)
}

/// Whole or not at all, for this user alone, and there after a power cut.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Cause> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        // A file that was left by somebody else keeps the rights that it had.
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)
    })();
    written.map_err(|error| Cause::disk(path, &error))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// The new name is durable only when its directory is.
fn sync_dir(path: &Path) -> Result<(), Cause> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| Cause::disk(path, &error))
}

#[cfg(test)]
mod tests {
    use super::super::wanted::{Source, Wanted};
    use super::*;

    fn wanted() -> Wanted {
        Wanted::new("shop/dev", ["a.example"], Source::SelfSigned)
    }

    fn pair(wanted: &Wanted) -> Pair {
        super::super::self_signed::make(&wanted.names, fairway_engine::time::Timestamp(0)).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_for_this_user_alone() {
        let state = tempfile::tempdir().unwrap();
        // As a careless hand would make it.
        std::fs::create_dir(state.path().join("certificates")).unwrap();
        let (shelf, wanted) = (Shelf::open(state.path()).unwrap(), wanted());
        let place = shelf.set(&wanted.slug());
        place.prepare().unwrap();
        let pair = pair(&wanted);
        place.store(&pair).unwrap();
        place.save_order_key("key").unwrap();
        let certificate = place.certificate(&pair, &["a.example".to_owned()]);
        assert_eq!(mode(&state.path().join("certificates")), 0o700);
        assert_eq!([mode(&certificate.chain), mode(&certificate.key)], [0o600; 2]);
        assert_eq!(mode(&place.dir.join(ORDER_KEY)), 0o600);
        let account = shelf.account("ca").unwrap();
        // Left by somebody else, open to all.
        std::fs::write(account.with_file_name("account.json.unfinished"), "").unwrap();
        write(&account, b"secret").unwrap();
        assert_eq!((mode(&account), mode(account.parent().unwrap())), (0o600, 0o700));
    }

    #[test]
    fn what_a_killed_server_left_half_is_removed_and_no_pair_of_the_proxy() {
        let state = tempfile::tempdir().unwrap();
        let (shelf, wanted) = (Shelf::open(state.path()).unwrap(), wanted());
        let place = shelf.set(&wanted.slug());
        place.prepare().unwrap();
        let (one, two) = (pair(&wanted), pair(&wanted));
        place.store(&one).unwrap();
        std::fs::create_dir(place.dir.join(format!("{}{UNFINISHED}", two.digest))).unwrap();
        place.store_challenge("a.example", "chain", "key").unwrap();
        place.save_order_key("key").unwrap();
        let order = Some("https://ca.example/order/1".to_owned());
        let mut meta = Meta { digest: Some(one.digest.clone()), order, ..Meta::default() };
        place.save_meta(&meta).unwrap();
        place.tidy(&meta);
        assert_eq!(entries(&place.dir).len(), 3);
        assert!(place.pair(&one.digest, &wanted.names).is_some());
        place.store(&two).unwrap();
        place.store(&two).unwrap();
        (meta.digest, meta.order) = (Some(two.digest.clone()), None);
        place.tidy(&meta);
        assert_eq!(entries(&place.dir).len(), 2);
        assert!(place.pair(&one.digest, &wanted.names).is_none());
        assert!(place.pair(&two.digest, &wanted.names).is_some());
    }

    #[test]
    fn sets_that_nobody_wants_go_after_a_while() {
        let state = tempfile::tempdir().unwrap();
        let (shelf, wanted) = (Shelf::open(state.path()).unwrap(), wanted());
        let place = shelf.set(&wanted.slug());
        place.prepare().unwrap();
        place.save_meta(&Meta::default()).unwrap();
        shelf.retain(|_| false);
        assert!(place.dir.is_dir(), "it was in use a moment ago");
        let meta = File::open(place.dir.join(META)).unwrap();
        meta.set_modified(std::time::SystemTime::now() - UNWANTED_KEPT).unwrap();
        shelf.retain(|name| name == wanted.slug().as_str());
        assert!(place.dir.is_dir());
        shelf.retain(|_| false);
        assert!(!place.dir.exists());
    }

    #[test]
    fn a_damaged_pair_is_none() {
        let state = tempfile::tempdir().unwrap();
        let (shelf, wanted) = (Shelf::open(state.path()).unwrap(), wanted());
        let place = shelf.set(&wanted.slug());
        place.prepare().unwrap();
        let pair = pair(&wanted);
        place.store(&pair).unwrap();
        let other = Wanted::new("shop/dev", ["b.example"], Source::SelfSigned);
        assert!(place.pair(&pair.digest, &other.names).is_none());
        let chain = place.certificate(&pair, &["a.example".to_owned()]).chain;
        std::fs::write(&chain, &pair.chain_pem[..pair.chain_pem.len() / 2]).unwrap();
        assert!(place.pair(&pair.digest, &wanted.names).is_none());
        std::fs::write(&chain, vec![b'\n'; PEM_BYTES_MAX + 1]).unwrap();
        read(&chain).unwrap_err();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join("certificates"), "a file").unwrap();
        assert!(matches!(Shelf::open(state.path()), Err(Cause::Disk { .. })));
    }
}
