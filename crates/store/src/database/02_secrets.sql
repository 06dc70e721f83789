-- A version is never used twice. ciphertext is NULL for the version that says "unset from here on".
CREATE TABLE secrets (
    environment TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    created_at_ms INTEGER NOT NULL,
    due_at_ms INTEGER,
    key_id TEXT,
    wrapped_key BLOB,
    ciphertext BLOB,
    PRIMARY KEY (environment, name, version),
    CHECK ((key_id IS NULL) = (ciphertext IS NULL) AND (wrapped_key IS NULL) = (ciphertext IS NULL))
) STRICT;
