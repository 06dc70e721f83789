//! A new key-encryption key, without a moment in which a secret does not open.

use rusqlite::{TransactionBehavior, params};

use super::cipher::{self, Place};
use super::key_file::{Key, Keys};
use super::{Sealed, SecretError, Secrets};
use crate::database::classify;

impl Secrets {
    /// Makes a new key-encryption key, wraps all data keys with it, and forgets the old one. Returns how many secrets
    /// were wrapped again. After a crash at any point all secrets still open, and the next rotation finishes. Copies
    /// of the database from before need the old key file.
    ///
    /// # Errors
    /// When a secret does not open, the key file is not safe, or the disk is full; all then still open as before.
    pub fn rotate_kek(&mut self) -> Result<usize, SecretError> {
        // Exclusive until the end: a value that is set meanwhile would be wrapped by the key that is about to go.
        let _lock = self.key_file.lock_exclusive()?;
        let mut keys = match self.key_file.load()? {
            Some(keys) => keys,
            None => return self.make_key_file().map(|_| 0),
        };
        keys.put_first(Key::random()?);
        self.key_file.store(&keys)?;
        let rewrapped = self.rewrap(&keys)?;
        keys.keep_first();
        self.key_file.store(&keys)?;
        self.forget_in_wal();
        Ok(rewrapped)
    }

    fn rewrap(&mut self, keys: &Keys) -> Result<usize, SecretError> {
        let path = self.path.clone();
        let fail = classify(&path, "rotating the key");
        let rows: Vec<(String, String, u32, Sealed)> = self
            .conn
            .prepare(
                "SELECT environment, name, version, key_id, wrapped_key FROM secrets
                 WHERE state = 'kept' AND key_id IS NOT ?1",
            )
            .and_then(|mut statement| {
                let rows = statement.query_map([&keys.first().id], |row| {
                    let sealed = Sealed { key_id: row.get(3)?, wrapped: row.get(4)?, ciphertext: Vec::new() };
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, sealed))
                })?;
                rows.collect::<rusqlite::Result<_>>()
            })
            .map_err(&fail)?;
        let mut wrapped_again = Vec::with_capacity(rows.len());
        for (environment, name, version, sealed) in &rows {
            let place = Place { environment, name, version: *version };
            let data_key = self.unwrap(keys, place, sealed)?;
            wrapped_again.push(cipher::seal(&keys.first().bytes, place, cipher::Layer::Key, &*data_key)?);
        }
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&fail)?;
        for ((environment, name, version, _), wrapped) in rows.iter().zip(wrapped_again) {
            tx.execute(
                "UPDATE secrets SET key_id = ?1, wrapped_key = ?2
                 WHERE environment = ?3 AND name = ?4 AND version = ?5 AND state = 'kept'",
                params![keys.first().id, wrapped, environment, name, version],
            )
            .map_err(&fail)?;
        }
        tx.commit().map_err(&fail)?;
        Ok(rows.len())
    }
}
