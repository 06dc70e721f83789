CREATE TABLE products (
    slug        TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    price_cents INTEGER NOT NULL CHECK (price_cents > 0)
) WITHOUT ROWID;

INSERT INTO products (slug, name, price_cents) VALUES
    ('rope-10m',      'Mooring rope, 10 m',      2490),
    ('fender-s',      'Fender, small',           1290),
    ('fender-l',      'Fender, large',           3450),
    ('lantern-brass', 'Brass anchor lantern',    8900),
    ('chart-north',   'Chart, northern waters',  3200),
    ('compass-hand',  'Hand bearing compass',    7450),
    ('bucket-canvas', 'Canvas bucket',           1850),
    ('cleat-12',      'Cleat, 12 cm',             990);

CREATE TABLE orders (
    id        TEXT PRIMARY KEY,
    product   TEXT NOT NULL REFERENCES products (slug),
    quantity  INTEGER NOT NULL CHECK (quantity > 0),
    note      TEXT,
    status    TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'packed')),
    placed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

CREATE INDEX orders_pending ON orders (placed_at) WHERE status = 'pending';

-- Every attempt to place an order, on purpose without uniqueness: an id that is here twice
-- was sent twice.
CREATE TABLE receipts (
    number      INTEGER PRIMARY KEY,
    order_id    TEXT NOT NULL,
    received_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

CREATE INDEX receipts_order ON receipts (order_id);

-- Every packing, without uniqueness for the same reason.
CREATE TABLE packings (
    number    INTEGER PRIMARY KEY,
    order_id  TEXT NOT NULL REFERENCES orders (id),
    packed_by TEXT NOT NULL,
    packed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
