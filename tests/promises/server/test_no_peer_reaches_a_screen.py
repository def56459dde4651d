"""The point of this test is to ensure that what a peer says reaches no screen, log or error as more than its letters.

A client's name and a method's name are shown to the operator: in the log, by ``gtask status`` and ``gtask top``. What
a server says is shown to its clients. Each is sent with every control character, with terminal sequences, forged lines
and markup.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
from pathlib import Path

import msgpack
import pytest

import gtask
from gtask.tool import cli, tables, top
from gtask.tool.conversation import Session
from gtask.wire.frames import Encoder
from gtask.wire.lastwords import last_words
from gtask.wire.messages import Greeting, LastWords, Retire, Value
from tests.support.daemon import daemon
from tests.support.needs import needed_package

FORGED = "\n2026-01-01 00:00:00,000 ERROR 1 gtask.server: forged"
CONTROLS = "".join(map(chr, [*range(1, 32), *range(127, 160), 0x200E, 0x202E, 0x2028, 0xFEFF]))
ODD = ["\x1b]0;x\x07\x1b[2J", FORGED, "[/red][bold]", "\x9b31m", "\u202egnp.exe", "%s%n{0}"]
ODD += [CONTROLS[at : at + 12] for at in range(0, len(CONTROLS), 12)]

SOURCE = """
    import os, signal, time

    def app(name, what):
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
"""


def is_plain(text):
    """Whether there is nothing in it but letters and ends of lines."""
    return all(line.isprintable() for line in text.split("\n"))


def run(*arguments):
    """What the command prints, on both streams."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        cli.main([*arguments])
    return out.buffer.getvalue().decode(), err.getvalue()


def scrape(path):
    """What the server tells Prometheus."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(path)
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        with sock.makefile("rb") as file:
            head, _, body = file.read().partition(b"\r\n\r\n")
    assert b"200" in head.split(b"\r\n")[0]
    return body.decode()


class Peer:
    """A client that says what it likes."""

    def __init__(self, path, name):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(path)
        self.say("hi", {"v": 1, "name": name})
        self.socket.recv(int.from_bytes(self.socket.recv(4, socket.MSG_WAITALL), "big"), socket.MSG_WAITALL)

    def say(self, *message):
        body = msgpack.packb(message)
        self.socket.sendall(len(body).to_bytes(4, "big") + body)


def test_a_client_that_names_itself_and_a_method(tmp_path):
    """Log, metrics, titles, ``gtask status`` and ``gtask top`` show letters; the log has as many lines as events."""
    rich = needed_package("rich")
    metrics = f"{tmp_path}/metrics"
    with daemon(tmp_path, "--metrics", f"unix:{metrics}", source=SOURCE, target="app:app") as server:
        path = server.address.removeprefix("unix:")
        peers = []
        for count, odd in enumerate(ODD, 1):
            peers += [Peer(path, f"{odd}w"), Peer(path, f"{odd}d")]
            peers[-2].say("do", None, f"{odd}f", "wait")
            peers[-1].say("do", None, f"{odd}g", "die")
            server.wait_for("was ended by SIGKILL", count)
        shown, _ = run("status", server.address)
        assert shown.count("was ended by SIGKILL") >= 3
        assert is_plain(shown)
        assert json.loads(run("status", "--json", server.address)[0])
        assert is_plain(scrape(metrics))
        for pid in (server.pid, server.master, *server.workers):
            assert Path(f"/proc/{pid}/cmdline").read_text().replace("\0", "").isprintable()
            assert Path(f"/proc/{pid}/comm").read_text().strip().isprintable()
        with Session(gtask.address.parse(server.address), 20, about=True) as session:
            said = tables.shown(session.call("status"))
        for width in (80, 200):
            console = rich.console.Console(file=io.StringIO(), width=width, height=60, color_system=None)
            console.print(top._view(said, None, 1.0, width, 60))
            drawn = console.file.getvalue()
            assert is_plain(drawn)
            assert "[/red][bold]f" in drawn
        for peer in peers:
            peer.socket.close()
    assert is_plain(server.log)
    assert not [line for line in server.log.splitlines() if line.startswith("2026-01-01")]


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_a_server_that_names_itself_and_its_reasons(connect, tmp_path, odd, caplog):
    """Errors, reprs, statistics and log lines of its client show letters, too."""
    path = str(tmp_path / "peer")
    encode = Encoder().encode_reply
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def peer():
            for reply in (
                encode(Retire(f"{odd}why")) + encode(Value(1)),
                last_words(LastWords(7, signal=f"{odd}SIG", method=f"{odd}f", stacks=f"a\n\t{odd}b", why=f"{odd}c")),
            ):
                with listener.accept()[0] as sock:
                    sock.recv(1000)
                    sock.sendall(encode(Greeting(name=f"{odd}server", pid=7)))
                    sock.recv(1000)
                    sock.sendall(reply)
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(1000):
                        pass

        thread = threading.Thread(target=peer)
        thread.start()
        try:
            client = connect(f"unix:{path}", max_workers=1)
            with client.checkout() as worker:
                assert worker.f() == 1
                told = [repr(worker)]
            with pytest.raises(gtask.Error) as caught:
                client.call("f")
        finally:
            client.close()
            thread.join()
    told += [str(caught.value), *caught.value.__notes__, *client.stats().retirements, caplog.text, caught.value.stacks]
    assert [text for text in told if not is_plain(text.replace("\t", " "))] == []


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_a_setup_that_has_raised(connect, tmp_path, odd):
    """What it has raised stands in the errors of those who wait for a worker in vain."""
    path = str(tmp_path / "peer")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(20)
        ended = threading.Event()

        def peer():
            with contextlib.suppress(OSError):
                while not ended.is_set():
                    with listener.accept()[0] as sock:
                        sock.recv(1000)
                        sock.sendall(Encoder().encode_reply(Greeting(text=f"{odd}full", pid=0)))

        thread = threading.Thread(target=peer)
        thread.start()
        try:
            client = connect(f"unix:{path}", timeout=1)
            with pytest.raises(gtask.Error) as caught:
                client.call("f")
            told = client._pool._no_worker.trouble
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert "full" in told
    assert is_plain(told.replace("\t", " "))
    assert caught.value
