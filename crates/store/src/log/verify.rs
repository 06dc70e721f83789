//! Proof that the whole log is what was appended.

use super::read::LogReader;
use super::record::Head;
use crate::database::{Damage, DatabaseError, classify, expected_objects, objects};

/// What was proven: `count` records, chained without a gap up to `head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    pub count: u64,
    pub head: Head,
}

impl LogReader {
    /// Reads everything: each record's hash, the absence of gaps, the head, the pages and indexes of the file, and
    /// the triggers that keep the log append-only. Takes seconds for a million records; run it on a second reader.
    ///
    /// # Errors
    /// `Damaged` names the first record that cannot be trusted.
    pub fn verify(&self) -> Result<Verified, DatabaseError> {
        // One transaction, so that a record appended meanwhile is not taken for a contradiction.
        let fail = classify(self.path(), "verifying");
        let tx = self.connection().unchecked_transaction().map_err(&fail)?;
        let head = self.head()?;
        let mut last = Head::EMPTY;
        for record in self.read_from(1) {
            let record = record?;
            last = Head { seq: record.seq, hash: record.hash };
        }
        if last != head {
            return Err(self.damage(head.seq, "it is not the last one that was recorded"));
        }
        self.verify_pages()?;
        self.verify_schema()?;
        tx.finish().map_err(&fail)?;
        Ok(Verified { count: last.seq, head })
    }

    fn verify_pages(&self) -> Result<(), DatabaseError> {
        let fail = classify(self.path(), "verifying");
        let mut statement = self.connection().prepare("PRAGMA integrity_check(1)").map_err(&fail)?;
        let said: String = statement.query_row([], |row| row.get(0)).map_err(&fail)?;
        if said == "ok" { Ok(()) } else { Err(self.file_damage(said)) }
    }

    fn verify_schema(&self) -> Result<(), DatabaseError> {
        let fail = classify(self.path(), "verifying");
        let found = objects(self.connection()).map_err(&fail)?;
        let expected = expected_objects().map_err(&fail)?;
        let differing = expected
            .iter()
            .find(|object| !found.contains(object))
            .or_else(|| found.iter().find(|object| !expected.contains(object)));
        match differing {
            None => Ok(()),
            Some((kind, name, _)) => {
                Err(self.file_damage(format!("the {kind} {name:?} is not as Fairway made it")))
            }
        }
    }

    fn file_damage(&self, what: String) -> DatabaseError {
        DatabaseError::Damaged(Damage { path: self.path().to_owned(), seq: None, what })
    }
}
