"""The point of this test is to ensure that a user whom --allow-uid leaves out is told so at once, and by whom."""

from __future__ import annotations

import os
import select
import socket
from time import monotonic

import pytest

import gtask
from gtask.server.seldom import BURST
from tests.promises.server.test_tool_call import tool
from tests.support.daemon import daemon
from tests.support.waiting import SOON, wait_until


@pytest.fixture
def server(tmp_path, nothing_is_left_behind):
    """A server for another user."""
    with daemon(tmp_path, "--name", "hasher", "--allow-uid", str(os.getuid() + 1)) as server:
        yield server


@pytest.mark.parametrize("use", [lambda client: client.call("pid"), lambda client: client.open(wait=True)])
def test_a_client(server, connect, use):
    """Calls and open(wait=True) get the reason and the remedy, and do not wait out their time."""
    began = monotonic()
    with pytest.raises(PermissionError) as caught:
        use(connect(server.address, min_workers=1, timeout=4 * SOON))
    assert monotonic() - began < SOON
    assert isinstance(caught.value, gtask.SetupError)
    text = str(caught.value)
    assert f"process {os.getpid()} of user {os.getuid()} may not connect to {server.address} (allow_uid)" in text
    assert "start the server with another --allow-uid" in text
    assert any(note.startswith(f"said by hasher at {server.address}") for note in caught.value.__notes__)


def test_the_command(server):
    """gtask ping, too."""
    status, _, err = tool("ping", server.address)
    assert status != 0
    assert f"of user {os.getuid()} may not connect" in err


@pytest.mark.parametrize("says", [b"", b"[]", b"\n"])
def test_others_are_hung_up_on(server, says):
    """Peers that say nothing, or no greeting: the server waits for none of them, and serves on."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(f"{server.directory}/sock")
        peer.sendall(says)
        peer.settimeout(SOON)
        heard = peer.recv(65536)
        assert heard == b"" or (says == b"\n" and b"PermissionError" in heard)


def hung_up_on(crowd):
    """How many of these peers have been hung up on."""
    readable, _, _ = select.select(crowd, (), (), 0)
    return len(readable)


def test_many_of_them(server):
    """A crowd that says nothing costs the server no more than a bounded number of descriptors."""
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(150)]
    for peer in crowd:
        peer.connect(f"{server.directory}/sock")
    server.wait_for("refused: ", BURST)
    # The rest is counted: a crowd fills no log.
    wait_until(lambda: hung_up_on(crowd) >= 80, "most are hung up on")
    assert server.log.count("refused: ") == BURST
    assert len(os.listdir(f"/proc/{server.master}/fd")) < 120
    for peer in crowd:
        peer.close()
    wait_until(lambda: len(os.listdir(f"/proc/{server.master}/fd")) < 40)
