"""The point of this test is to ensure that a server works where memfd_create is forbidden, and where there is no /proc.

Seccomp filters and some systems have the function and let it fail. The server says so at its start, and keeps a dying
worker's stacks in a temporary file, or does without.
"""

import ctypes
import os
import struct
import textwrap

import pytest

import gtask
from tests.support.daemon import Daemon
from tests.support.needs import needs_program

SOURCE = """
    import ctypes
    import os
    import time

    def pids():
        return os.getpid(), os.getppid()

    def crash():
        ctypes.string_at(0)

    def sleep():
        time.sleep(600)
"""

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}


def forbid_memory_files():
    """Let memfd_create fail with EPERM from now on, by a filter of seccomp."""
    number = MEMFD_CREATE[os.uname().machine]
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (0x20, 0, 0, 0),  # the number of the system call
            (0x15, 0, 1, number),
            (0x06, 0, 0, 0x00050000 | 1),  # EPERM
            (0x06, 0, 0, 0x7FFF0000),  # all others are allowed
        )
    )
    buffer = ctypes.create_string_buffer(program)
    fprog = ctypes.create_string_buffer(struct.pack("HP", len(program) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0):
        raise OSError(ctypes.get_errno(), "no seccomp here")


@pytest.mark.skipif(os.uname().machine not in MEMFD_CREATE, reason="the number of memfd_create is not known")
def test_memfd_create_fails(tmp_path, connect):
    """Stacks arrive by way of a temporary file."""
    server = Daemon(tmp_path, source=SOURCE, preexec_fn=forbid_memory_files)
    try:
        server.wait_for("this system has no memfd_create: the stacks of a dying worker go to a temporary file")
        with pytest.raises(gtask.WorkerDied) as caught:
            connect(server).call("crash")
        assert "in crash" in caught.value.stacks
        with pytest.raises(gtask.CallTimeout):
            connect(server).checkout(timeout=1).sleep()
        assert server.end() == 0
    finally:
        server.kill()


@pytest.mark.skipif(os.uname().machine not in MEMFD_CREATE, reason="the number of memfd_create is not known")
def test_no_temporary_file_either(tmp_path, connect):
    """Then there are no stacks, and all else works."""
    source = "import tempfile\ntempfile.tempdir = '/nowhere'\n" + textwrap.dedent(SOURCE)
    server = Daemon(tmp_path, source=source, preexec_fn=forbid_memory_files)
    try:
        server.wait_for("neither memfd_create nor a directory for temporary files: a dying worker leaves no stacks")
        with pytest.raises(gtask.WorkerDied) as caught:
            connect(server).call("crash")
        assert caught.value.stacks == ""
        assert server.end() == 0
    finally:
        server.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide /proc")
def test_no_proc(tmp_path, connect):
    """A server serves without it, and says so."""
    needs_program("unshare", "util-linux")
    hide = f'umount -l /proc && exec "$@" --listen unix:{tmp_path}/sock'
    launcher = ["unshare", "--mount", "--propagation", "private", "bash", "-c", hide, "bash"]
    server = Daemon(tmp_path, source=SOURCE, launcher=launcher)
    try:
        server.wait_for("this system has no /proc: the memory of workers is not known")
        client = connect(server)
        assert client.call("pids")
        with pytest.raises(gtask.WorkerDied) as caught:
            client.call("crash")
        assert "in crash" in caught.value.stacks
        with pytest.raises(gtask.CallTimeout):
            client.checkout(timeout=1).sleep()
        assert server.end() == 0
    finally:
        server.kill()
