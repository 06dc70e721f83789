"""The shop's API.

PORT            where to listen (4000)
HOST            address to listen on (127.0.0.1)
DATABASE_PATH   the SQLite file that bin/migrate made
DATA_DIR        without DATABASE_PATH: the directory with shop.db
"""

import json
import os
import pathlib
import signal
import socket
import socketserver
import sqlite3
import sys
import threading
import time
import traceback
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import checks  # noqa: E402
import orders  # noqa: E402
from common import log  # noqa: E402
from common.database import PATH_MISSING, Database, path_from  # noqa: E402

VERSION = (ROOT / "VERSION").read_text().strip()

# Longer than the idle time of what is in front of us: whoever sends must be the one who
# closes, or a request meets a closing connection.
IDLE_SECONDS = 75

# One thread each. Above this, connections wait in the listen queue.
CONNECTIONS_MAX = 512
LISTEN_QUEUE = 512

BODY_BYTES_MAX = 64 * 1024

# After SIGTERM: connections that have not sent their first request yet are given this long,
# requests under way that long.
FIRST_REQUEST_SECONDS = 1.0
DRAIN_SECONDS_MAX = 25.0


class Readiness:
    """Whether traffic is welcome. Logged when it changes, not each time it is asked."""

    def __init__(self, database):
        self._database = database
        self._startup_problem = None
        self._lock = threading.Lock()
        self._last = None

    def start(self, environ):
        try:
            checks.startup(environ)
        except Exception as problem:
            self._startup_problem = str(problem)
            traceback.print_exc()
            log.error("cannot start serving", cause=str(problem))

    def problem(self):
        problem = self._startup_problem or self._database_problem()
        with self._lock:
            changed = problem != self._last or self._last is None
            self._last = problem or ""
            if problem:
                if changed:
                    log.error("not ready", cause=problem)
            elif changed and problem is not None:
                log.info("ready")
        return problem

    def _database_problem(self):
        try:
            missing = self._database.missing(orders.NEEDED)
        except sqlite3.Error as problem:
            return f"database {self._database.path}: {problem} (was bin/migrate expand run?)"
        if missing:
            return f"database schema: {VERSION} needs " + ", ".join(missing) + "; see bin/migrate status"
        return ""


class Server(ThreadingHTTPServer):
    request_queue_size = LISTEN_QUEUE
    daemon_threads = True

    def __init__(self, address, database, readiness):
        self.database = database
        self.readiness = readiness
        self.draining = False
        self._slots = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._changed = threading.Condition()
        # connection -> "new" (nothing sent yet), "idle" (between requests) or "busy"
        self._connections = {}
        super().__init__(address, Handler)

    def server_bind(self):
        # HTTPServer's own asks the DNS for this machine's name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def process_request(self, request, client_address):
        self._slots.acquire()
        with self._changed:
            self._connections[request] = "new"
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._forget(request)
            raise

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def _forget(self, request):
        with self._changed:
            del self._connections[request]
            self._changed.notify_all()
        self._slots.release()

    def handle_error(self, request, client_address):
        problem = sys.exc_info()[1]
        if isinstance(problem, (ConnectionError, TimeoutError)):
            log.info("client went away", cause=str(problem))
        else:
            log.error("connection failed", traceback=traceback.format_exc())

    def set_idle(self, request):
        """Before waiting for another request. False: there will be no other."""
        with self._changed:
            if self._connections[request] == "new":
                return True
            self._connections[request] = "idle"
            return not self.draining

    def set_busy(self, request):
        with self._changed:
            self._connections[request] = "busy"

    def drain(self):
        """Stops accepting, lets every request end. True if all did."""
        # Sets `draining` first: answers from now on say `Connection: close`.
        with self._changed:
            self.draining = True
        self.shutdown()
        # What the kernel has accepted for us is ours to answer.
        self.timeout = 0
        self.socket.setblocking(False)
        while self._accept_one():
            pass
        self.socket.close()
        self._end_waiting({"idle"})
        end = time.monotonic() + DRAIN_SECONDS_MAX
        if not self._wait_empty(min(end, time.monotonic() + FIRST_REQUEST_SECONDS)):
            self._end_waiting({"idle", "new"})
        return self._wait_empty(end)

    def _accept_one(self):
        try:
            request, client_address = self.get_request()
        except OSError:
            return False
        request.setblocking(True)
        self.process_request(request, client_address)
        return True

    def _end_waiting(self, states):
        with self._changed:
            for connection, state in self._connections.items():
                if state in states:
                    try:
                        # A request that has arrived meanwhile is still read and answered.
                        connection.shutdown(socket.SHUT_RD)
                    except OSError:
                        pass

    def _wait_empty(self, until):
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._connections, max(0.0, until - time.monotonic())
            )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    server: Server

    def handle_one_request(self):
        self.close_connection = True
        if not self.server.set_idle(self.connection):
            return
        try:
            if not self.rfile.peek(1):
                return
        except (ConnectionError, TimeoutError):
            # Nothing was asked, so nothing is lost.
            return
        self.server.set_busy(self.connection)
        super().handle_one_request()

    def do_GET(self):
        self.handle_route("GET")

    def do_HEAD(self):
        self.handle_route("GET")

    def do_POST(self):
        self.handle_route("POST")

    def handle_route(self, method):
        began = time.monotonic()
        self.request_id = self.read_request_id()
        path = urllib.parse.urlsplit(self.path).path
        try:
            body = self.read_body()
            status, payload = self.route(method, path, body)
        except orders.Refused as refused:
            status, payload = refused.status, {"error": refused.why}
        except sqlite3.Error as problem:
            status, payload = 503, {"error": f"database: {problem}"}
            log.error("database failed", request_id=self.request_id, cause=str(problem))
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            status, payload = 500, {"error": "internal error", "request_id": self.request_id}
            log.error("request failed", request_id=self.request_id, traceback=traceback.format_exc())
        self.answer(status, payload)
        if path not in ("/healthz", "/livez"):
            log.info(
                "request",
                request_id=self.request_id,
                method=self.command,
                path=path,
                status=status,
                ms=round((time.monotonic() - began) * 1000, 2),
            )

    def route(self, method, path, body):
        database = self.server.database
        if method == "POST":
            if path == "/api/orders":
                placed = orders.place(database, body)
                return (200 if placed["repeated"] else 201), placed
        elif path == "/api/products":
            return 200, {"products": orders.products(database)}
        elif path == "/api/orders/count":
            return 200, orders.count(database)
        elif path == "/api/receipts/duplicates":
            return 200, orders.duplicates(database)
        elif path.startswith("/api/orders/"):
            return 200, orders.find(database, urllib.parse.unquote(path.removeprefix("/api/orders/")))
        elif path == "/livez":
            return 200, {"alive": True}
        elif path == "/healthz":
            problem = "shutting down" if self.server.draining else self.server.readiness.problem()
            if problem:
                return 503, {"ready": False, "version": VERSION, "cause": problem}
            return 200, {"ready": True, "version": VERSION}
        raise orders.Refused(404, f"there is no {method} {path}")

    def read_request_id(self):
        given = self.headers.get("x-request-id", "")
        usable = 0 < len(given) <= 128 and given.isascii() and given.isprintable()
        return given if usable else uuid.uuid4().hex

    def read_body(self):
        """The JSON object of a POST. What is not read here would be taken for a request."""
        length = self.headers.get("content-length")
        if "transfer-encoding" in self.headers:
            self.abandon_body(411, "send the body with a content-length")
        if length is None:
            if self.command == "POST":
                raise orders.Refused(411, "send the body with a content-length")
            return {}
        if not (length.isascii() and length.isdigit()):
            self.abandon_body(400, "content-length: not a number")
        if int(length) > BODY_BYTES_MAX:
            self.abandon_body(413, f"the body is larger than {BODY_BYTES_MAX} bytes")
        raw = self.rfile.read(int(length))
        if len(raw) < int(length):
            raise ConnectionAbortedError("the request's body was cut off")
        if self.command != "POST":
            return {}
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError) as problem:
            raise orders.Refused(400, f"the body is not JSON: {problem}") from None
        if not isinstance(body, dict):
            raise orders.Refused(400, "the body is not a JSON object")
        return body

    def abandon_body(self, status, why):
        self.body_unread = True
        raise orders.Refused(status, why)

    def answer(self, status, payload):
        body = json.dumps(payload).encode() + b"\n"
        if self.request_version == "HTTP/0.9":
            self.wfile.write(body)
            return
        unread = getattr(self, "body_unread", False)
        if self.server.draining or unread:
            self.close_connection = True
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Shop-Version", VERSION)
        self.send_header("X-Request-Id", self.request_id)
        if self.close_connection:
            self.send_header("Connection", "close")
        head = b"".join([*self._headers_buffer, b"\r\n"])
        self._headers_buffer = []
        # In one piece: a head and a body of their own would be two packets.
        self.wfile.write(head if self.command == "HEAD" else head + body)
        if unread:
            self.discard_unread()

    def discard_unread(self):
        """Closing with unread data resets the connection and takes our answer along."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(2)
        left = 1024 * 1024
        while left > 0 and (piece := self.rfile.read1(64 * 1024)):
            left -= len(piece)

    def send_error(self, code, message=None, explain=None):
        """For requests that http.server refuses before they reach a route."""
        self.close_connection = True
        self.body_unread = True
        self.request_id = uuid.uuid4().hex
        self.request_version = self.protocol_version
        if getattr(self, "command", None) is None:
            self.command = ""
        self.answer(code, {"error": message or "bad request"})

    def log_message(self, format, *args):
        """http.server's own lines; handle_route logs instead."""


def main():
    log.setup("api", VERSION)
    path = path_from(os.environ)
    if not path:
        log.error("cannot start", cause=PATH_MISSING)
        return 1
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "4000")))
    # Blocked before any thread starts, so that only sigwait below receives them.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    database = Database(path)
    readiness = Readiness(database)
    try:
        server = Server(address, database, readiness)
    except OSError as problem:
        log.error("cannot listen", address="%s:%d" % address, cause=str(problem))
        return 1
    # Before the first answer: ready for an instant, and never again, is not what a version should say.
    readiness.start(os.environ)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    log.info("listening", address="%s:%d" % server.server_address)
    readiness.problem()

    received = signal.sigwait(signals)
    log.info("stopping", signal=signal.Signals(received).name)
    done = server.drain()
    log.info("stopped", all_requests_ended=done)
    sys.stdout.flush()
    # Not sys.exit: threads of requests that did not end would be waited for.
    os._exit(0 if done else 1)


if __name__ == "__main__":
    sys.exit(main())
