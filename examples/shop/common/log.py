"""JSON lines on stdout, one object a line, safe to call from any thread."""

import json
import os
import sys
import threading
import time

_lock = threading.Lock()
_fixed = {}


def setup(service, version):
    _fixed.update(service=service, version=version, pid=os.getpid())


def info(event, **fields):
    _write("info", event, fields)


def error(event, **fields):
    _write("error", event, fields)


def _write(level, event, fields):
    now = time.time()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + ".%03dZ" % (now % 1 * 1000)
    line = json.dumps({"at": at, "level": level, **_fixed, "event": event, **fields})
    with _lock:
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except OSError:
            # Whoever read the log is gone. Orders matter more than the log.
            pass
