"""Packs pending orders. Has no port; several may run at once.

DATABASE_PATH   the SQLite file that bin/migrate made
DATA_DIR        without DATABASE_PATH: the directory with shop.db
NOTIFY_SOCKET   if set, told READY=1 once the database can be worked on (sd_notify)
"""

import os
import pathlib
import signal
import socket
import sqlite3
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common import log  # noqa: E402
from common.database import PATH_MISSING, Database, path_from  # noqa: E402

VERSION = (ROOT / "VERSION").read_text().strip()

NEEDED = {"orders": ["id", "status", "placed_at"], "packings": ["order_id", "packed_by"]}

# Small, so that a batch holds the write lock for a few milliseconds at most.
BATCH = 20
POLL_SECONDS = 0.5
# After a failure of the database.
BACK_OFF_SECONDS = 2.0


def pack(database, name):
    """Packs up to a batch in one transaction: no order is packed twice or half."""
    with database.read() as connection:
        if not connection.execute("SELECT 1 FROM orders WHERE status = 'pending' LIMIT 1").fetchone():
            return 0
    with database.write() as connection:
        packed = connection.execute(
            "UPDATE orders SET status = 'packed' WHERE id IN"
            " (SELECT id FROM orders WHERE status = 'pending' ORDER BY placed_at LIMIT ?)"
            " RETURNING id",
            (BATCH,),
        ).fetchall()
        connection.executemany(
            "INSERT INTO packings (order_id, packed_by) VALUES (?, ?)",
            [(row["id"], name) for row in packed],
        )
    return len(packed)


def notify(state):
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    # A leading @ stands for Linux's abstract namespace.
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        try:
            notifier.sendto(state.encode(), address)
        except OSError as problem:
            log.error("cannot notify", socket=path, cause=str(problem))


def main():
    log.setup("worker", VERSION)
    path = path_from(os.environ)
    if not path:
        log.error("cannot start", cause=PATH_MISSING)
        return 1
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    database = Database(path)
    name = f"{VERSION}/{os.getpid()}"
    ready = False
    last_problem = None
    while True:
        packed, pause = 0, POLL_SECONDS
        try:
            if not ready:
                missing = database.missing(NEEDED)
                if missing:
                    raise sqlite3.OperationalError("the database lacks " + ", ".join(missing))
                ready = True
                log.info("ready")
                notify("READY=1")
            packed = pack(database, name)
            last_problem = None
        except sqlite3.Error as problem:
            pause = BACK_OFF_SECONDS
            if str(problem) != last_problem:
                last_problem = str(problem)
                log.error("cannot pack", database=path, cause=last_problem)
        if packed:
            log.info("packed", orders=packed)
        # With a full batch there is more to do at once, but a signal is still seen.
        received = signal.sigtimedwait(signals, 0 if packed == BATCH else pause)
        if received:
            notify("STOPPING=1")
            log.info("stopped", signal=signal.Signals(received.si_signo).name)
            return 0


if __name__ == "__main__":
    sys.exit(main())
