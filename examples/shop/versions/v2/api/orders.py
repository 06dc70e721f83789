"""Products and orders, as this version of the shop knows them."""

import offers

# What the code below reads and writes; /healthz compares it with the database.
NEEDED = {
    "products": ["slug", "name", "price_cents"],
    "orders": ["id", "product", "quantity", "gift_note", "status", "placed_at"],
    "receipts": ["order_id", "received_at"],
}

TEXT_MAX = 500


class Refused(Exception):
    """The request is understood and not acceptable."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status
        self.why = why


def products(database):
    with database.read() as connection:
        rows = connection.execute("SELECT slug, name, price_cents FROM products ORDER BY name")
        return offers.apply([dict(row) for row in rows])


def place(database, wanted):
    """Inserts the order unless its id is known; every attempt leaves a receipt."""
    order_id = _text(wanted, "id", required=True)
    product = _text(wanted, "product", required=True)
    # Forms that v1 showed still send `note`.
    gift_note = _text(wanted, "gift_note") or _text(wanted, "note")
    quantity = wanted.get("quantity", 1)
    if type(quantity) is not int or not 1 <= quantity <= 100:
        raise Refused(400, "quantity: give a whole number from 1 to 100")
    with database.write() as connection:
        connection.execute("INSERT INTO receipts (order_id) VALUES (?)", (order_id,))
        if not connection.execute("SELECT 1 FROM products WHERE slug = ?", (product,)).fetchone():
            known = False
        else:
            known = True
            inserted = connection.execute(
                "INSERT INTO orders (id, product, quantity, gift_note) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (id) DO NOTHING",
                (order_id, product, quantity, gift_note),
            ).rowcount
    if not known:
        raise Refused(422, f"product: there is no {product!r}")
    return {"id": order_id, "repeated": inserted == 0}


def find(database, order_id):
    with database.read() as connection:
        row = connection.execute(
            "SELECT id, product, quantity, gift_note, status, placed_at FROM orders WHERE id = ?",
            (order_id,),
        ).fetchone()
    if row is None:
        raise Refused(404, "there is no such order")
    return dict(row)


def count(database):
    with database.read() as connection:
        by_status = dict(
            connection.execute("SELECT status, COUNT(*) FROM orders GROUP BY status").fetchall()
        )
    return {"orders": sum(by_status.values()), "by_status": by_status}


def duplicates(database):
    """Order ids that arrived more than once: somebody repeated a request."""
    with database.read() as connection:
        rows = connection.execute(
            "SELECT order_id AS id, COUNT(*) AS times FROM receipts"
            " GROUP BY order_id HAVING COUNT(*) > 1 ORDER BY order_id LIMIT 1000"
        ).fetchall()
        receipts = connection.execute("SELECT COUNT(*) FROM receipts").fetchone()[0]
    return {"duplicates": [dict(row) for row in rows], "receipts": receipts}


def _text(wanted, key, required=False):
    value = wanted.get(key)
    if value is None and not required:
        return None
    if not isinstance(value, str) or not value or len(value) > TEXT_MAX:
        raise Refused(400, f"{key}: give a text of 1 to {TEXT_MAX} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        # JSON can spell half a surrogate pair; SQLite cannot store it.
        raise Refused(400, f"{key}: not valid Unicode") from None
    return value
