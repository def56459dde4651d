"""Addresses: what can be written, what it means, and what is refused with the forms that there are."""

from __future__ import annotations

import socket

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gtask.address import UNIX_PATH_LIMIT, TcpAddress, UnixAddress, parse


@pytest.mark.parametrize(
    ("text", "address", "sockaddr"),
    [
        ("unix:/run/x.sock", UnixAddress("/run/x.sock"), "/run/x.sock"),
        ("unix:x.sock", UnixAddress("x.sock"), "x.sock"),
        ("unix:///run/x.sock", UnixAddress("/run/x.sock"), "/run/x.sock"),
        ("unix:/run/a b:c.sock", UnixAddress("/run/a b:c.sock"), "/run/a b:c.sock"),
        ("unix:@name", UnixAddress("@name"), "\0name"),
        ("tcp://localhost:80", TcpAddress("localhost", 80), ("localhost", 80)),
        ("tcp://10.0.0.1:65535/", TcpAddress("10.0.0.1", 65535), ("10.0.0.1", 65535)),
        ("tcp://127.0.0.1:0", TcpAddress("127.0.0.1", 0), ("127.0.0.1", 0)),
        ("tcp://[::1]:80", TcpAddress("::1", 80), ("::1", 80)),
    ],
)
def test_what_can_be_written(text, address, sockaddr):
    """Each form, and what bind and connect get of it."""
    assert parse(text) == address
    assert parse(text).sockaddr == sockaddr
    assert parse(address) is address


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "/run/x.sock", "unix", "unix:", "unix://", "unix:@", "unix:/a\0b", "tcp:", "tcp://", "tcp://host", "tcp://host:",
        "tcp://:80", "tcp://host:x", "tcp://host:-1", "tcp://host:65536", "tcp://::1:80", "tcp://[::1]", "tcp://host:80/x",
        "tcp://host:80\n", "tcp:host:80", "http://host:80", "UNIX:/x", " unix:/x", "spawn:module", "tcp://host:٣",
    ],
)  # fmt: skip
def test_what_is_refused(text):
    """A ValueError that shows what was written."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - each says something of its own
        parse(text)
    assert repr(text) in str(caught.value)


def test_a_path_that_is_too_long_for_the_system():
    """Counted in bytes, at the limit of sockaddr_un, and with what to do about it."""
    longest = "/" + "x" * (UNIX_PATH_LIMIT - 1)
    assert parse(f"unix:{longest}").sockaddr == longest
    for path in (longest + "x", "/" + "ü" * 60):
        with pytest.raises(ValueError, match="use a shorter directory"):
            parse(f"unix:{path}")


def test_the_limit_is_the_systems(tmp_path, monkeypatch):
    """A path of exactly that many bytes can be bound, one more cannot."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as sock:
        with pytest.raises(OSError, match="too long"):
            sock.bind("x" * (UNIX_PATH_LIMIT + 1))
        sock.bind("x" * UNIX_PATH_LIMIT)


def test_the_family_of_a_tcp_address():
    """A host with colons is of IPv6."""
    assert parse("tcp://[::1]:80").family == socket.AF_INET6
    assert parse("tcp://127.0.0.1:80").family == socket.AF_INET
    assert parse("tcp://localhost:80").family == socket.AF_INET


def test_addresses_are_values():
    """Equal ones are equal, also as keys."""
    assert len({parse("unix:/x"), parse("unix:///x"), UnixAddress("/x")}) == 1
    assert parse("unix:@x").abstract
    assert not parse("unix:/@x").abstract


TEXTS = st.one_of(
    st.text(max_size=120),
    st.builds("unix:{}".format, st.text(max_size=120)),
    st.builds("unix:{}".format, st.text(alphabet="/@a.", max_size=8)),
    st.builds("tcp://{}:{}".format, st.text(alphabet="a.:[]1", max_size=8), st.integers(-1, 70_000)),
)


@settings(deadline=None)
@given(TEXTS)
@example("unix:////run/x.sock")
@example("unix:\udcff\ud800")
@example("tcp://[[]:0")
def test_what_is_read_is_written_alike(text):
    """Any text is an address that is written so that it reads as the same, or a ValueError."""
    try:
        address = parse(text)
    except ValueError:
        return
    assert parse(str(address)) == address
