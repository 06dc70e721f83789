"""Runs the real shop, all of its processes, on free ports of the loopback."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse
import uuid

SHOP = pathlib.Path(__file__).resolve().parent.parent

# Far above what anything here takes; a test that reaches it has found something stuck.
PATIENCE_SECONDS = 30

versions = {}
_scratch = None


def setUpModule():
    global _scratch
    _scratch = tempfile.TemporaryDirectory(prefix="shop-test-")
    for name in ("v1", "v2", "v3", "broken", "flaky", "slow", "hanging"):
        versions[name] = pathlib.Path(_scratch.name, name)
        subprocess.run([SHOP / "make-version", name, versions[name]], check=True)


def tearDownModule():
    _scratch.cleanup()


class Process:
    """A service of the shop. Ended by its own process id, whatever happens."""

    def __init__(self, command, directory, **environment):
        self.log_path = pathlib.Path(_scratch.name, f"{uuid.uuid4().hex}.log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def log(self):
        return self.log_path.read_text()

    def events(self):
        lines = (line for line in self.log().splitlines() if line.startswith("{"))
        return [json.loads(line) for line in lines]

    def wait_for_event(self, event):
        def found():
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.log()}")
            return next((line for line in self.events() if line["event"] == event), None)

        return wait_until(found, lambda: f"no {event!r} in:\n{self.log()}")

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def wait_until(condition, complaint):
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(complaint())


def call(address, method, path, body=None, headers=None, connection=None, timeout=None):
    """One request; never repeated. Returns status, headers, body."""
    own = connection is None
    if own:
        connection = http.client.HTTPConnection(address, timeout=timeout or PATIENCE_SECONDS)
    try:
        raw = json.dumps(body) if isinstance(body, dict) else body
        connection.request(method, path, raw, {"connection": "close", **(headers or {})} if own else headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        if own:
            connection.close()


def call_json(address, method, path, body=None):
    status, _, raw = call(address, method, path, body)
    return status, json.loads(raw)


def raw_exchange(address, sent):
    """Sends bytes as they are and reads until the other side closes."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(sent)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


def order(number=None, **more):
    order_id = uuid.uuid4().hex if number is None else f"test-{number}"
    return {"id": order_id, "product": "rope-10m", "quantity": 2, **more}


class ShopTest(unittest.TestCase):
    def setUp(self):
        self.database = str(pathlib.Path(_scratch.name, uuid.uuid4().hex, "shop.db"))

    def run_tool(self, version, *command, expect=0, **environment):
        done = subprocess.run(
            [str(versions[version] / command[0]), *command[1:]],
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "DATABASE_PATH": self.database, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        self.assertEqual(done.returncode, expect, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def start(self, command, version, **environment):
        process = Process(command, versions[version], DATABASE_PATH=self.database, **environment)
        self.addCleanup(process.kill)
        return process

    def start_api(self, version="v1", **environment):
        process = self.start([sys.executable, "api/server.py"], version, PORT="0", **environment)
        return process, process.wait_for_event("listening")["address"]

    def start_web(self, api, version="v1"):
        # Node takes an empty PORT for unset and 0 for any.
        process = self.start(["node", "web/server.js"], version, PORT=free_port(), API_URL=f"http://{api}")
        return process, process.wait_for_event("listening")["address"]

    def start_worker(self, version="v1", **environment):
        return self.start([sys.executable, "worker/worker.py"], version, **environment)

    def rows(self, sql):
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(sql).fetchall()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


class Migrations(ShopTest):
    def test_two_at_once_apply_each_once(self):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            outputs = list(pool.map(lambda _: self.run_tool("v2", "bin/migrate", "expand"), range(4)))
        self.assertEqual(sum(output.count("applied 001") for output in outputs), 1)
        self.assertEqual(sum(output.count("applied 002") for output in outputs), 1)
        self.assertIn("pending  contract  003_drop_note.contract.sql", self.run_tool("v2", "bin/migrate", "status"))

    def test_contract_needs_expand_first(self):
        output = self.run_tool("v2", "bin/migrate", "contract", expect=1)
        self.assertIn("001_create_tables.sql is not applied yet: run bin/migrate expand first", output)

    def test_older_version_leaves_a_newer_schema_alone(self):
        self.run_tool("v2", "bin/migrate", "expand")
        self.assertIn("expand: up to date", self.run_tool("v1", "bin/migrate", "expand"))
        self.assertIn("002_add_gift_note.sql (of a newer version)", self.run_tool("v1", "bin/migrate", "status"))

    def test_failing_migration_leaves_nothing_behind(self):
        self.run_tool("v1", "bin/migrate", "expand")
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            connection.execute("CREATE TRIGGER orders_note_is_gift_note AFTER INSERT ON orders BEGIN SELECT 1; END")
        output = self.run_tool("v2", "bin/migrate", "expand", expect=1)
        self.assertIn("002_add_gift_note.sql: trigger orders_note_is_gift_note already exists", output)
        columns = [row[1] for row in self.rows("PRAGMA table_info(orders)")]
        self.assertNotIn("gift_note", columns)

    def test_status_changes_nothing(self):
        self.assertIn("pending", self.run_tool("v1", "bin/migrate", "status"))
        self.assertFalse(os.path.exists(self.database))

    def test_data_directory_stands_in_for_the_path(self):
        directory = os.path.dirname(self.database)
        self.run_tool("v1", "bin/migrate", "expand", DATABASE_PATH="", DATA_DIR=directory)
        self.assertEqual(os.listdir(directory), ["shop.db"])

    def test_wrong_use_says_how(self):
        self.assertIn("usage:", self.run_tool("v1", "bin/migrate", "sideways", expect=2))
        self.assertIn("DATABASE_PATH is not set", self.run_tool("v1", "bin/migrate", "expand", expect=2, DATABASE_PATH=""))


class Seeding(ShopTest):
    def test_adds_once_and_refuses_production(self):
        self.run_tool("v1", "bin/migrate", "expand")
        self.assertIn("refused", self.run_tool("v1", "bin/seed", "production", expect=2))
        self.assertEqual(self.rows("SELECT COUNT(*) FROM orders"), [(0,)])
        self.assertIn("20 orders added", self.run_tool("v1", "bin/seed", "dev"))
        self.assertIn("0 orders added", self.run_tool("v2", "bin/seed", "dev"))
        self.assertIn("no environment 'prod'", self.run_tool("v1", "bin/seed", "prod", expect=2))


class Serving(ShopTest):
    def setUp(self):
        super().setUp()
        self.run_tool("v1", "bin/migrate", "expand")
        self.api_process, self.api = self.start_api()

    def test_api_answers_what_it_should(self):
        self.assertEqual(call_json(self.api, "GET", "/healthz"), (200, {"ready": True, "version": "v1"}))
        self.assertEqual(call_json(self.api, "GET", "/livez")[0], 200)
        wanted = order(1, note="for <Ann> & \"Bob\"")
        self.assertEqual(call_json(self.api, "POST", "/api/orders", wanted)[0], 201)
        found = call_json(self.api, "GET", "/api/orders/test-1")[1]
        self.assertEqual((found["note"], found["status"]), (wanted["note"], "pending"))
        self.assertEqual(call_json(self.api, "GET", "/api/receipts/duplicates")[1], {"duplicates": [], "receipts": 1})

    def test_an_order_sent_twice_counts_once_and_shows_as_duplicate(self):
        for expect in (201, 200):
            self.assertEqual(call_json(self.api, "POST", "/api/orders", order(1))[0], expect)
        self.assertEqual(call_json(self.api, "GET", "/api/orders/count")[1]["orders"], 1)
        self.assertEqual(
            call_json(self.api, "GET", "/api/receipts/duplicates")[1],
            {"duplicates": [{"id": "test-1", "times": 2}], "receipts": 2},
        )

    def test_bad_requests_are_refused_in_words_and_the_next_is_served(self):
        cases = [
            (b"not json", 400, "not JSON"),
            (b"[]", 400, "not a JSON object"),
            (b"[" * 60000, 400, "not JSON"),
            (b"{}", 400, "id:"),
            (json.dumps({"id": "x"}).encode(), 400, "product:"),
            (b'{"id": "\\ud800", "product": "rope-10m"}', 400, "Unicode"),
            (json.dumps(order(quantity=True)).encode(), 400, "quantity:"),
            (json.dumps(order(quantity=10**30)).encode(), 400, "quantity:"),
            (json.dumps(order(note="x" * 501)).encode(), 400, "note:"),
            (json.dumps({**order(), "product": "submarine"}).encode(), 422, "submarine"),
        ]
        connection = http.client.HTTPConnection(self.api, timeout=PATIENCE_SECONDS)
        self.addCleanup(connection.close)
        for body, expect, words in cases:
            status, _, raw = call(self.api, "POST", "/api/orders", body, connection=connection)
            self.assertEqual((status, words in json.loads(raw)["error"]), (expect, True), (body[:40], raw))
        self.assertEqual(call(self.api, "GET", "/api/nothing", connection=connection)[0], 404)
        self.assertEqual(call(self.api, "GET", "/api/products", connection=connection)[0], 200)

    def test_unreadable_requests_get_an_answer_not_a_reset(self):
        head = b"POST /api/orders HTTP/1.1\r\nHost: x\r\n"
        cases = [
            (head + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000000, b" 413 "),
            (head + b"Content-Length: -1\r\n\r\n", b" 400 "),
            (head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b" 411 "),
            (head + b"Connection: close\r\n\r\n", b" 411 "),
            (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", b" 501 "),
            (b"\x00\x01\x02\r\n\r\n", b" 400 "),
        ]
        for sent, expect in cases:
            received = raw_exchange(self.api, sent)
            self.assertIn(expect, received.split(b"\r\n")[0], (sent[:60], received))
        self.assertEqual(call(self.api, "GET", "/api/products")[0], 200)

    def test_request_id_and_version_are_passed_through_both_services(self):
        web_process, web = self.start_web(self.api)
        _, headers, _ = call(web, "GET", "/", headers={"x-request-id": "trace-me"})
        self.assertEqual((headers["x-request-id"], headers["x-shop-version"]), ("trace-me", "v1"))
        for process in (web_process, self.api_process):
            wait_until(
                lambda: any(line.get("request_id") == "trace-me" for line in process.events()),
                process.log,
            )

    def test_the_form_places_an_order(self):
        _, web = self.start_web(self.api)
        _, _, page = call(web, "GET", "/")
        order_id = page.decode().split('name="id" value="')[1].split('"')[0]
        form = urllib.parse.urlencode({"id": order_id, "product": "fender-s", "quantity": 3, "note": "<b>"})
        status, headers, _ = call(
            web, "POST", "/orders", form, headers={"content-type": "application/x-www-form-urlencoded"}
        )
        self.assertEqual((status, headers["location"]), (303, "/thanks"))
        found = call_json(self.api, "GET", f"/api/orders/{order_id}")[1]
        self.assertEqual((found["product"], found["quantity"], found["note"]), ("fender-s", 3, "<b>"))
        status, _, page = call(web, "POST", "/orders", "id=%3Cx%3E&product=%3Cscript%3E&quantity=1")
        self.assertEqual((status, b"<script>" in page, b"&lt;script&gt;" in page), (422, False, True))

    def test_web_says_so_when_the_api_is_gone(self):
        web_process, web = self.start_web(self.api)
        self.assertEqual(call(web, "GET", "/")[0], 200)
        self.api_process.kill()
        status, headers, page = call(web, "GET", "/")
        self.assertEqual((status, headers["retry-after"]), (503, "1"))
        self.assertIn(b"cannot reach its store room", page)
        self.assertEqual([call(web, "GET", path)[0] for path in ("/healthz", "/livez")], [200, 200])
        self.assertTrue(any(line["event"] == "request failed" for line in web_process.events()))

    def test_smoke_passes_on_a_shop_and_names_what_fails(self):
        _, web = self.start_web(self.api)
        edge = Edge(web, self.api)
        self.addCleanup(edge.close)
        output = self.run_tool("v1", "bin/smoke", BASE_URL=f"http://{edge.address}", EXPECT_VERSION="v1")
        self.assertEqual(output.count("ok  "), 3)
        output = self.run_tool("v1", "bin/smoke", expect=1, BASE_URL=f"http://{edge.address}", EXPECT_VERSION="v9")
        self.assertIn("answered by version v1, expected v9", output)
        self.api_process.kill()
        output = self.run_tool("v1", "bin/smoke", expect=1, BASE_URL=f"http://{edge.address}")
        self.assertIn("FAIL  front page: GET / answered 503", output)
        self.assertIn("3 of 3 checks failed", output)
        self.assertIn("BASE_URL is not set", self.run_tool("v1", "bin/smoke", expect=2))


class Edge:
    """Puts web and API behind one address by path, a connection a request."""

    def __init__(self, web, api):
        self.web, self.api = web, api
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "%s:%d" % self.listener.getsockname()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.forward, args=(connection,), daemon=True).start()

    def forward(self, connection):
        with connection, contextlib.suppress(OSError):
            request = connection.recv(65536)
            host, port = (self.api if b" /api" in request.split(b"\r\n")[0] else self.web).split(":")
            with socket.create_connection((host, int(port))) as upstream:
                upstream.sendall(request)
                threading.Thread(target=self.pump, args=(connection, upstream), daemon=True).start()
                self.pump(upstream, connection)

    @staticmethod
    def pump(source, sink):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)

    def close(self):
        self.listener.close()


class UnderLoad(ShopTest):
    def hammer(self, clients, over, place, serve):
        """Each client alternates between kept and fresh connections. `place` and `serve` tell
        which API and which front to use next. Returns the threads, and two lists that they
        fill: what failed, and the ids of acknowledged orders."""
        failures, acknowledged = [], []

        def client(number):
            kept = {}
            turn = 0
            while not over.is_set():
                turn += 1
                keep = turn % 2 == 0
                wanted = order(f"{number}-{turn}")
                for method, address, path, body in (("POST", place(), "/api/orders", wanted), ("GET", serve(), "/", None)):
                    try:
                        if keep and address not in kept:
                            kept[address] = http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS)
                        status, headers, _ = call(address, method, path, body, connection=kept.get(address) if keep else None)
                        if status >= 300:
                            failures.append((method, path, status))
                        elif method == "POST":
                            acknowledged.append(wanted["id"])
                        if keep and headers["connection"] == "close":
                            kept.pop(address).close()
                    except (OSError, http.client.HTTPException) as problem:
                        failures.append((method, path, repr(problem)))
                        if keep and address in kept:
                            kept.pop(address).close()
            for connection in kept.values():
                connection.close()

        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        return threads, failures, acknowledged

    def test_two_versions_and_two_workers_at_once_lose_and_double_nothing(self):
        self.run_tool("v2", "bin/migrate", "expand")
        apis, webs, workers = [], [], []
        for version in ("v1", "v2"):
            apis.append(self.start_api(version))
            webs.append(self.start_web(apis[-1][1], version))
            workers.append(self.start_worker(version))
        over = threading.Event()
        turns = iter(range(10**9))
        lock = threading.Lock()

        def turn():
            with lock:
                return next(turns)

        threads, failures, acknowledged = self.hammer(
            8, over, lambda: apis[turn() % 2][1], lambda: webs[turn() % 2][1]
        )
        time.sleep(3)
        over.set()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertGreater(len(acknowledged), 50)
        self.assertEqual(call_json(apis[0][1], "GET", "/api/receipts/duplicates")[1]["duplicates"], [])
        self.assertEqual({row[0] for row in self.rows("SELECT id FROM orders")}, set(acknowledged))
        wait_until(
            lambda: self.rows("SELECT COUNT(*) FROM orders WHERE status = 'pending'") == [(0,)],
            lambda: workers[0].log(),
        )
        for process, _ in (*apis, *webs):
            self.assertEqual(process.terminate(), 0, process.log())
        for process in workers:
            self.assertEqual(process.terminate(), 0, process.log())
        self.assertEqual(self.rows("SELECT order_id FROM packings GROUP BY order_id HAVING COUNT(*) > 1"), [])
        self.assertEqual(self.rows("SELECT COUNT(*) FROM packings"), [(len(acknowledged),)])

    def test_acknowledged_orders_survive_a_kill(self):
        self.run_tool("v1", "bin/migrate", "expand")
        process, api = self.start_api()
        _, other = self.start_api()
        over = threading.Event()
        threads, _, acknowledged = self.hammer(4, over, lambda: api, lambda: other)
        wait_until(lambda: len(acknowledged) > 50, process.log)
        process.kill()
        over.set()
        for thread in threads:
            thread.join()
        _, again = self.start_api()
        self.assertEqual(call(again, "GET", "/healthz")[0], 200)
        self.assertLessEqual(set(acknowledged), {row[0] for row in self.rows("SELECT id FROM orders")})
        self.assertEqual(self.rows("PRAGMA integrity_check"), [("ok",)])

    def test_api_that_is_told_to_stop_ends_what_it_has_accepted(self):
        self.run_tool("v1", "bin/migrate", "expand")
        process, api = self.start_api()
        # One connection of each sort: between requests, and within one.
        idle = http.client.HTTPConnection(api, timeout=PATIENCE_SECONDS)
        self.addCleanup(idle.close)
        call(api, "GET", "/livez", connection=idle)
        host, port = api.split(":")
        busy = socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)
        self.addCleanup(busy.close)
        body = json.dumps(order("late")).encode()
        busy.sendall(b"POST /api/orders HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:5])
        # The request above is being read once another one, sent later, has been answered.
        call(api, "GET", "/livez")
        process.process.send_signal(signal.SIGTERM)
        self.assertEqual(idle.sock.recv(1), b"", "an idle connection is closed in order")
        process.wait_for_event("stopping")
        busy.sendall(body[5:])
        received = b""
        while piece := busy.recv(65536):
            received += piece
        self.assertTrue(received.startswith(b"HTTP/1.1 201 "), received)
        self.assertIn(b"\r\nConnection: close\r\n", received)
        self.assertEqual(process.process.wait(PATIENCE_SECONDS), 0, process.log())
        self.assertEqual(self.rows("SELECT id FROM orders"), [("test-late",)])

    def test_web_that_is_told_to_stop_ends_what_it_has_accepted(self):
        api = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(api.close)
        process, web = self.start_web("%s:%d" % api.getsockname())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(call, web, "GET", "/")
            connection, _ = api.accept()
            with connection:
                connection.recv(65536)
                process.process.send_signal(signal.SIGTERM)
                process.wait_for_event("stopping")
                products = b'{"products":[]}'
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(products) + products)
                status, headers, _ = answer.result(PATIENCE_SECONDS)
        self.assertEqual((status, headers["connection"]), (200, "close"))
        self.assertEqual(process.process.wait(PATIENCE_SECONDS), 0, process.log())


class Versions(ShopTest):
    def test_note_of_the_old_version_is_the_gift_note_of_the_new_until_contraction(self):
        self.run_tool("v1", "bin/migrate", "expand")
        _, old = self.start_api("v1")
        _, new = self.start_api("v2")
        status, answer = call_json(new, "GET", "/healthz")
        self.assertEqual(status, 503)
        self.assertIn("v2 needs column orders.gift_note", answer["cause"])

        self.run_tool("v2", "bin/migrate", "expand")
        self.assertEqual([call(api, "GET", "/healthz")[0] for api in (old, new)], [200, 200])
        call(old, "POST", "/api/orders", order(1, note="from v1"))
        call(new, "POST", "/api/orders", order(2, gift_note="from v2"))
        self.assertEqual(call_json(new, "GET", "/api/orders/test-1")[1]["gift_note"], "from v1")
        self.assertEqual(call_json(new, "GET", "/api/orders/test-2")[1]["gift_note"], "from v2")

        self.run_tool("v2", "bin/migrate", "contract")
        status, answer = call_json(old, "GET", "/healthz")
        self.assertEqual(status, 503)
        self.assertIn("v1 needs column orders.note", answer["cause"])
        self.assertEqual(call_json(new, "GET", "/api/orders/test-1")[1]["gift_note"], "from v1")
        self.assertEqual(call(new, "POST", "/api/orders", order(3, gift_note="later"))[0], 201)

    def test_each_version_looks_different(self):
        self.run_tool("v2", "bin/migrate", "expand")
        pages = {}
        for version in ("v1", "v2", "v3"):
            _, api = self.start_api(version)
            _, web = self.start_web(api, version)
            _, headers, page = call(web, "GET", "/")
            self.assertEqual(headers["x-shop-version"], version)
            pages[version] = page.decode()
        self.assertNotIn("gift_note", pages["v1"])
        self.assertIn("gift_note", pages["v2"])
        self.assertIn("by night", pages["v3"])

    def test_broken_version_never_becomes_ready_and_says_why(self):
        self.run_tool("broken", "bin/migrate", "expand")
        process, api = self.start_api("broken")
        process.wait_for_event("not ready")
        self.assertNotIn("ready", [line["event"] for line in process.events()], "not for an instant either")
        status, answer = call_json(api, "GET", "/healthz")
        self.assertEqual(status, 503)
        self.assertIn("PAYMENT_GATEWAY_URL is not set", answer["cause"])
        self.assertEqual(call(api, "GET", "/livez")[0], 200)
        for _ in range(50):
            call(api, "GET", "/healthz")
        last_lines = process.log().splitlines()[-20:]
        self.assertTrue(any(line.startswith("Traceback") for line in last_lines), last_lines)
        self.assertTrue(any("payments.SettingMissing: PAYMENT_GATEWAY_URL" in line for line in last_lines))
        self.assertEqual(process.terminate(), 0)

    def test_broken_version_serves_once_its_setting_is_there(self):
        self.run_tool("broken", "bin/migrate", "expand")
        _, api = self.start_api("broken", PAYMENT_GATEWAY_URL="https://pay.example")
        self.assertEqual(call(api, "GET", "/healthz")[0], 200)

    def test_flaky_version_fails_every_tenth_list_of_products_and_looks_healthy(self):
        self.run_tool("flaky", "bin/migrate", "expand")
        process, api = self.start_api("flaky")
        answers = [call(api, "GET", "/api/products")[0] for _ in range(30)]
        self.assertEqual((answers.count(500), answers.count(200)), (3, 27))
        self.assertEqual(call(api, "GET", "/healthz")[0], 200)
        self.assertIn("KeyError: 'chart-nort'", process.log())

    def test_slow_version_lets_visitors_wait_and_looks_healthy(self):
        self.run_tool("slow", "bin/migrate", "expand")
        _, api = self.start_api("slow")
        began = time.monotonic()
        self.assertEqual(call(api, "GET", "/api/products")[0], 200)
        self.assertGreaterEqual(time.monotonic() - began, 0.4)
        self.assertEqual(call(api, "GET", "/healthz")[0], 200)

    def test_hanging_version_answers_at_first_and_then_never_and_looks_healthy(self):
        self.run_tool("hanging", "bin/migrate", "expand")
        _, api = self.start_api("hanging")
        for _ in range(12):
            self.assertEqual(call(api, "GET", "/api/products")[0], 200)
        with self.assertRaises(TimeoutError):
            call(api, "GET", "/api/products", timeout=0.5)
        self.assertEqual(call(api, "GET", "/healthz")[0], 200)

    def test_make_version_replaces_its_own_files_and_no_others(self):
        directory = pathlib.Path(_scratch.name, uuid.uuid4().hex)
        make = SHOP / "make-version"
        subprocess.run([make, "broken", directory], check=True)
        (directory / "mine").write_text("stays")
        subprocess.run([make, "v1", directory], check=True)
        self.assertEqual((directory / "VERSION").read_text(), "v1\n")
        self.assertFalse((directory / "api/payments.py").exists())
        self.assertEqual((directory / "mine").read_text(), "stays")

        stranger = pathlib.Path(_scratch.name, uuid.uuid4().hex)
        stranger.mkdir()
        (stranger / "mine").write_text("stays")
        done = subprocess.run([make, "v1", stranger], capture_output=True, text=True)
        self.assertEqual((done.returncode, [path.name for path in stranger.iterdir()]), (1, ["mine"]))
        done = subprocess.run([make, "v9", directory], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("give one of v1, broken, flaky, hanging, slow, v2, v3", done.stderr)


class Starting(ShopTest):
    def test_api_without_a_database_becomes_ready_once_there_is_one(self):
        process, api = self.start_api()
        status, answer = call_json(api, "GET", "/healthz")
        self.assertEqual(status, 503)
        self.assertIn("was bin/migrate expand run?", answer["cause"])
        self.assertFalse(os.path.exists(self.database), "only migrate creates it")
        self.run_tool("v1", "bin/migrate", "expand")
        self.assertEqual(call(api, "GET", "/healthz")[0], 200)
        process.wait_for_event("ready")

    def test_missing_setting_and_taken_port_are_named(self):
        process = Process([sys.executable, "api/server.py"], versions["v1"])
        self.assertEqual(process.process.wait(PATIENCE_SECONDS), 1)
        self.assertIn("DATABASE_PATH is not set", process.log())
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            for command in ([sys.executable, "api/server.py"], ["node", "web/server.js"]):
                process = self.start(command, "v1", PORT=port)
                self.assertEqual(process.process.wait(PATIENCE_SECONDS), 1, process.log())
                self.assertIn("cannot listen", process.log())

    def test_worker_notifies_once_it_can_work(self):
        for abstract in (False, True):
            with self.subTest(abstract=abstract), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
                self.database = str(pathlib.Path(_scratch.name, uuid.uuid4().hex, "shop.db"))
                name = uuid.uuid4().hex
                path = "@" + name if abstract else str(pathlib.Path(_scratch.name, name))
                notified.bind("\0" + name if abstract else path)
                notified.settimeout(PATIENCE_SECONDS)
                worker = self.start_worker(NOTIFY_SOCKET=path)
                worker.wait_for_event("cannot pack")
                self.run_tool("v1", "bin/migrate", "expand")
                self.assertEqual(notified.recv(100), b"READY=1")
                self.assertEqual(worker.terminate(), 0)
                self.assertEqual(notified.recv(100), b"STOPPING=1")


if __name__ == "__main__":
    unittest.main(verbosity=2)
