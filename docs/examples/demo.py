"""The main job of gtask, shown on this machine; bin/demo runs it. Take from it what you need.

Work that would block gevent's hub (password hashes, database transactions, plain computing) is done by forked worker
processes, and called as if it were local.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator

import argon2
import gevent
import gevent.socket
from gevent.pywsgi import WSGIServer

import gtask

# ----- What the workers do: plain blocking code that knows nothing of gevent ----------------------


class Work:
    """Its public methods can be called; ``setup`` and ``checkout_done`` are hooks, which gtask calls."""

    def __init__(self, path: str) -> None:
        self.path = path

    def setup(self) -> None:
        """Runs once in each worker, so each has a database connection of its own."""
        self.database = sqlite3.connect(self.path)
        self.hasher = argon2.PasswordHasher()

    def checkout_done(self) -> None:
        """Runs after each checkout: whoever has this worker next finds no half transaction."""
        self.database.rollback()

    def hash(self, password: str) -> str:
        return self.hasher.hash(password)

    def verify(self, crypted: str, password: str) -> bool:
        return self.hasher.verify(crypted, password)

    def insert(self, name: str | None) -> None:
        self.database.execute("insert into people values (?)", (name,))

    def count(self) -> int:
        return self.database.execute("select count(*) from people").fetchone()[0]

    def rollback(self) -> None:
        self.database.rollback()

    def compute(self) -> int:
        return compute()


def compute() -> int:
    """Half a second or so of work that holds the interpreter's lock, the GIL."""
    return sum(i * i % 7 for i in range(12_000_000))


# ----- The web page, in the gevent process --------------------------------------------------------


class Page:
    """``/`` answers at once; ``/hash/WORD`` has a worker hash the word."""

    def __init__(self, client: gtask.Client) -> None:
        self.client = client
        self.server = WSGIServer(("127.0.0.1", 0), self.answer, log=None)
        self.server.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def answer(self, environ: dict, start_response: Callable) -> Iterator[bytes]:
        first, _, word = environ["PATH_INFO"][1:].partition("/")
        status, text = "200 OK", f"gevent serves this page; {self.url}hash/WORD has a worker hash a word"
        if first == "hash" and word:
            text = self.client.call("hash", word)
        elif first:
            status, text = "404 Not Found", "there is no such page"
        start_response(status, [("Content-Type", "text/plain")])
        yield f"{text}\n".encode()

    def fetch(self) -> str:
        """Get the page as a browser would."""
        with gevent.socket.create_connection(self.server.address) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with connection.makefile() as reply:
                return reply.read()


# ----- The show -----------------------------------------------------------------------------------


def show_page(client: gtask.Client, page: Page) -> None:
    headline("A web page that answers while passwords are hashed")
    words = [f"password {number}" for number in range(20)]
    hashing = [gevent.spawn(client.call, "hash", word) for word in words]
    waits = []
    while not all(job.ready() for job in hashing):
        start = time.perf_counter()
        assert page.fetch().startswith("HTTP/1.1 200 OK")
        waits.append(time.perf_counter() - start)
        gevent.sleep(0.005)
    crypted = hashing[0].get()
    print(f"Workers hashed {len(words)} passwords with argon2, the first to\n    {crypted}")
    print(f"and know it again: {client.call('verify', crypted, words[0])}.")
    print(f"Meanwhile {page.url} answered {len(waits)} times, at the slowest in {ms(max(waits))}.")


def show_transaction(client: gtask.Client) -> None:
    headline("A database transaction through one checkout")
    with client.checkout() as database:  # one worker, with its connection to SQLite, for this block alone
        database.insert("Ada")
        database.insert("Grace")
        print(f"After two inserts this worker counts {database.count()} rows, another one {client.call('count')}.")
        database.rollback()
        print(f"After the roll-back it counts {database.count()}.")


def show_exception(client: gtask.Client) -> None:
    headline("An exception in a worker")
    print("SQLite refuses a row without a name. `except sqlite3.IntegrityError` catches that here, and the")
    print("traceback shows the worker's lines below the caller's:\n")
    try:
        client.call("insert", None)
    except sqlite3.IntegrityError:
        print("    " + traceback.format_exc().rstrip().replace("\n", "\n    "))


def show_hub(client: gtask.Client) -> None:
    headline("How long the hub stands still")
    print("The same pure Python loop runs in three places while a greenlet asks to be woken each millisecond.")
    print("As long as that greenlet waits, every page, socket and timer of the program waits:\n")
    print(f"    {'the loop runs':24}{'median wait':>14}{'longest wait':>16}{'the loop takes':>18}")
    for place, run in (
        ("in the hub", compute),
        ("in gevent's threadpool", lambda: gevent.get_hub().threadpool.apply(compute)),
        ("in a gtask worker", lambda: client.call("compute")),
    ):
        waits, took = waits_during(run)
        print(f"    {place:24}{ms(statistics.median(waits)):>14}{ms(max(waits)):>16}{ms(took):>18}")


def waits_during(run: Callable[[], object]) -> tuple[list[float], float]:
    """How long each of the waits for a millisecond took while this ran, and how long that took."""
    waits = []
    running = True

    def tick() -> None:
        while running:
            start = time.perf_counter()
            gevent.sleep(0.001)
            waits.append(time.perf_counter() - start)

    ticking = gevent.spawn(tick)
    gevent.sleep(0)  # the first wait begins
    start = time.perf_counter()
    run()
    took = time.perf_counter() - start
    running = False
    ticking.join()
    return waits, took


def headline(text: str) -> None:
    print(f"\n{text}\n{'=' * len(text)}\n", flush=True)


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bin/demo", description="Show the main job of gtask on this machine.")
    parser.add_argument("--serve", action="store_true", help="keep the web page up until Ctrl-C")
    serve = parser.parse_args().serve
    with tempfile.TemporaryDirectory(prefix="gtask-demo-") as directory:
        path = os.path.join(directory, "people.sqlite")
        with sqlite3.connect(path) as database:
            database.execute("create table people (name text not null)")
        database.close()

        # Fork the server early: it shares what has been imported, and must come before threads and gevent's hub.
        with gtask.fork_server(Work(path)) as server, gtask.Client(server.address, max_workers=4) as client:
            page = Page(client)
            headline("A server, forked for the occasion")
            print(f"The server is process {server.pid}; it forks a worker for each connection that this program,")
            print(f"process {os.getpid()}, makes to {server.address}.")
            show_page(client, page)
            show_transaction(client)
            show_exception(client)
            show_hub(client)
            if serve:
                headline("The page stays up until Ctrl-C")
                for number in (signal.SIGINT, signal.SIGTERM):
                    gevent.signal_handler(number, page.server.stop)
                print(f"{page.url}\n{page.url}hash/secret", flush=True)
                page.server.serve_forever()
            else:
                print("\nThat was it. `bin/demo --serve` keeps the web page up; docs/examples/demo.py is its code.")


if __name__ == "__main__":
    main()
