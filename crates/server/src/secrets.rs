//! Secrets of the environments, for the API and for starting instances.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fairway_api::{ApiError, SecretInfo};
use fairway_engine::id::EnvironmentKey;
use fairway_store::secrets::KEY_FILE;
use fairway_store::{SecretError, SecretState, SecretValue, Secrets};

/// One connection to the store: secrets are read when instances start and written by hand.
pub struct Vault(Mutex<Secrets>);

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(…)")
    }
}

impl Vault {
    /// # Errors
    /// When the database cannot be opened.
    pub fn open(database: &Path, state_dir: &Path) -> Result<Self, SecretError> {
        Secrets::open(database, &state_dir.join(KEY_FILE)).map(|secrets| Self(Mutex::new(secrets)))
    }

    fn lock(&self) -> MutexGuard<'_, Secrets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest version of each secret that is set.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn versions(&self, environment: &EnvironmentKey) -> Result<BTreeMap<String, u32>, ApiError> {
        Ok(self.list(environment)?.into_iter().map(|secret| (secret.name, secret.version)).collect())
    }

    /// # Errors
    /// When the database cannot be read.
    pub fn list(&self, environment: &EnvironmentKey) -> Result<Vec<SecretInfo>, ApiError> {
        let entries = self.lock().list(&environment.to_string()).map_err(to_api)?;
        Ok(entries
            .into_iter()
            .filter_map(|entry| {
                let newest = entry.versions.last()?;
                match newest.state {
                    SecretState::Kept => Some(SecretInfo {
                        name: entry.name,
                        version: newest.version,
                        created_ms: newest.created_at_ms,
                    }),
                    SecretState::Unset | SecretState::Purged => None,
                }
            })
            .collect())
    }

    /// # Errors
    /// When name or value are out of bounds, the key file is not safe, or the disk is full.
    pub fn set(
        &self,
        environment: &EnvironmentKey,
        name: &str,
        value: &str,
        now_ms: u64,
    ) -> Result<SecretInfo, ApiError> {
        let value = SecretValue::new(value.as_bytes().to_vec());
        let version =
            self.lock().set(&environment.to_string(), name, &value, now_ms, None).map_err(to_api)?;
        Ok(SecretInfo { name: name.to_owned(), version, created_ms: now_ms })
    }

    /// # Errors
    /// When there is no such secret, or the disk is full.
    pub fn unset(&self, environment: &EnvironmentKey, name: &str, now_ms: u64) -> Result<(), ApiError> {
        self.lock().unset(&environment.to_string(), name, now_ms).map(drop).map_err(to_api)
    }

    /// The value of one version, for a process that is about to start.
    ///
    /// # Errors
    /// Why not, in one sentence; never with the value.
    pub fn value(&self, environment: &EnvironmentKey, name: &str, version: u32) -> Result<String, String> {
        let value =
            self.lock().get(&environment.to_string(), name, version).map_err(|error| error.to_string())?;
        String::from_utf8(value.expose().to_vec()).map_err(|_| "it is not text".to_owned())
    }
}

fn to_api(error: SecretError) -> ApiError {
    let text = error.to_string();
    let (message, hint) = match text.split_once("\nhint: ") {
        Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
        None => (text, None),
    };
    let mut api = ApiError::new("secret/failed", message);
    api.hint = hint;
    api
}
