"""SQLite, shared by several processes: two versions and several replicas run at once."""

import contextlib
import os.path
import queue
import sqlite3
import threading
import urllib.parse

# How long a write waits for another process's write. A write takes well under a
# millisecond; this much waiting means that something is stuck.
BUSY_SECONDS = 5

# Readers kept open between requests. More may be open while they are in use.
IDLE_READERS_MAX = 8


def path_from(environ):
    """DATABASE_PATH, or shop.db in DATA_DIR; None if neither is set."""
    path = environ.get("DATABASE_PATH")
    if not path and environ.get("DATA_DIR"):
        path = os.path.join(environ["DATA_DIR"], "shop.db")
    return path or None


PATH_MISSING = "DATABASE_PATH is not set: give the path of the SQLite file, or DATA_DIR, the directory for it"


def connect(path):
    """Opens a database that exists. Creating it is bin/migrate's job: an empty file made
    here by mistake would look like a shop without orders."""
    uri = "file:" + urllib.parse.quote(path) + "?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        # With WAL an acknowledged order survives any crash of the shop; only a power cut
        # can take the last ones.
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class Database:
    """Reads run in parallel; writes take turns within the process, so that only writes of
    other processes have to be waited for with SQLite's own (sleeping) lock."""

    def __init__(self, path):
        self.path = path
        self._readers = queue.LifoQueue(IDLE_READERS_MAX)
        self._writing = threading.Lock()
        self._writer = None

    @contextlib.contextmanager
    def read(self):
        try:
            connection = self._readers.get_nowait()
        except queue.Empty:
            connection = connect(self.path)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        try:
            self._readers.put_nowait(connection)
        except queue.Full:
            connection.close()

    @contextlib.contextmanager
    def write(self):
        """One transaction; rolled back if the block raises."""
        with self._writing:
            if self._writer is None:
                self._writer = connect(self.path)
            # IMMEDIATE takes the write lock at once. A transaction that reads first and
            # then wants to write would fail, not wait, when another wrote in between.
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise

    def missing(self, needed):
        """What of `needed` (table -> columns) the schema lacks, in words; empty if nothing."""
        lacking = []
        with self.read() as connection:
            for table, columns in needed.items():
                present = {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")}
                if not present:
                    lacking.append(f"table {table}")
                else:
                    lacking += [f"column {table}.{name}" for name in columns if name not in present]
        return lacking
