-- A version is never used twice, so its row stays when its value goes. key_id names the key-encryption key that
-- wraps wrapped_key, the key of ciphertext.
CREATE TABLE secrets (
    environment TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    state TEXT NOT NULL CHECK (state IN ('kept', 'unset', 'purged')),
    created_at_ms INTEGER NOT NULL,
    due_at_ms INTEGER,
    key_id TEXT,
    wrapped_key BLOB,
    ciphertext BLOB,
    PRIMARY KEY (environment, name, version),
    CHECK ((state = 'kept') = (key_id IS NOT NULL)),
    CHECK ((state = 'kept') = (wrapped_key IS NOT NULL)),
    CHECK ((state = 'kept') = (ciphertext IS NOT NULL))
) STRICT;
