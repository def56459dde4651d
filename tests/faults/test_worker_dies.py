"""Rows 1 to 18 of the table of faults: a worker dies, or raises, wherever it can.

Each test injects one fault and checks its row: what the caller sees, that the call ran at most once, that nobody gets
another call's answer, that slots and descriptors are as before, and that the server's log tells the cause.
"""

import os
import re
import signal
import traceback
from time import monotonic

import gevent
import pytest

import gtask
from tests.support.process import children, is_reaped, state_of, stop
from tests.support.waiting import PATIENCE, SOON, wait_until

from .conftest import bury, ran, steady_hub


def assert_usable(client, workers=1):
    """All slots are there, and each worker answers its own caller."""
    checkouts = [client.checkout() for _ in range(workers)]
    for number, checkout in enumerate(checkouts):
        assert checkout.echo(number) == number
    for checkout in checkouts:
        checkout.release()
    wait_until(lambda: (client.stats().busy, client.stats().idle) == (0, workers), what="idle workers")


def wait_for_log(server_log, pattern):
    text = ""

    def is_there():
        nonlocal text
        text = server_log()
        return re.search(pattern, text)

    wait_until(is_there, what=f"{pattern!r} in the log")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_an_idle_worker_is_killed(faulty, connect, server_log):
    """Row 1: the next call notices nothing, whether or not the hub has heard of the death; the server logs it."""
    server = faulty()
    client = connect(server, max_workers=1)
    for heard in (False, True):
        pid = client.call("pid")
        bury(pid, server)
        if heard:
            wait_until(lambda: "0 idle" in repr(client))
        assert client.call("pid") != pid
        wait_for_log(server_log, rf"worker {pid} was ended by SIGKILL waiting for its client after [\d.e-]+ s\n")
        assert_usable(client)


def test_an_idle_worker_is_killed_and_cannot_be_replaced(faulty, connect):
    """Row 1: the time that its replacement takes counts; the call was never sent, so it is AcquireTimeout."""
    server = faulty()
    client = connect(server, max_workers=1)
    bury(client.call("pid"), server)
    stop(server.pid)
    started = monotonic()
    with client.checkout(timeout=0.5) as worker, pytest.raises(gtask.AcquireTimeout):
        worker.note("never")
    assert 0.5 <= monotonic() - started < SOON
    os.kill(server.pid, signal.SIGCONT)
    assert_usable(client)


def test_the_request_was_not_yet_read(faulty, connect, server_log, tmp_path):
    """Row 2: nobody can know whether it was executed, so it is not executed again."""
    client = connect(faulty(), max_workers=1)
    with client.checkout() as worker:
        pid = worker.pid()
        stop(pid)
        result = worker.note.submit("token")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(gtask.WorkerDied) as caught:
            result.get()
    error = caught.value
    assert (error.pid, error.signal, error.exitcode, error.method) == (pid, "SIGKILL", None, "note")
    assert error.executed is None
    assert_usable(client)
    assert ran(tmp_path) == []
    wait_for_log(server_log, rf"worker {pid} was ended by SIGKILL")


def test_the_method_kills_its_worker(faulty, connect, server_log, tmp_path):
    """Row 3: WorkerDied at once, with a sentence that names all there is to know; the side effect is there once."""
    client = connect(faulty(), max_workers=1)
    with client.checkout() as worker:
        pid = worker.pid()
        started = monotonic()
        with pytest.raises(gtask.WorkerDied) as caught:
            worker.kill_itself()
        took = monotonic() - started
        assert took < SOON
        with pytest.raises(gtask.WorkerDied) as again:
            worker.pid()
        assert (type(again.value), vars(again.value)) == (type(caught.value), vars(caught.value))
    error = caught.value
    assert (error.pid, error.signal, error.exitcode, error.method) == (pid, "SIGKILL", None, "kill_itself")
    assert 0 < error.elapsed <= took
    assert error.maxrss > 1024
    assert (error.executed, error.stacks) == (None, "")
    assert re.fullmatch(
        rf"worker {pid} of \S+ at unix:\S+ was ended by SIGKILL [\d.e-]+ s after kill_itself was called; it had used "
        r"\d+ MiB of memory at the most; whether the call was executed is not known",
        str(error),
    )
    assert_usable(client)
    assert ran(tmp_path) == ["kill_itself"]
    wait_for_log(server_log, rf"worker {pid} was ended by SIGKILL in kill_itself after [\d.e-]+ s\n")


def test_executed_but_the_reply_unsent(faulty, connect, server_log, tmp_path):
    """Row 4: WorkerDied does not claim to know; the call ran once, and is not run again."""
    client = connect(faulty(), max_workers=1)
    with pytest.raises(gtask.WorkerDied) as caught:
        client.call("die_before_the_reply", "token")
    assert caught.value.executed is None
    assert "whether the call was executed is not known" in str(caught.value)
    assert_usable(client)
    assert ran(tmp_path) == ["token"]
    wait_for_log(server_log, rf"worker {caught.value.pid} was ended by SIGKILL in die_before_the_reply")


@pytest.mark.parametrize(("value", "sent"), [("x" * 1_000_000, 500_000), *((True, sent) for sent in range(1, 8))])
def test_half_a_reply_was_sent(faulty, connect, value, sent):
    """Row 5: no partial value, but WorkerDied with the last words; of a large reply, and of a tiny one cut anywhere."""
    client = connect(faulty(), max_workers=1)
    with client.checkout() as worker:
        pid = worker.pid()
        with pytest.raises(gtask.WorkerDied) as caught:
            worker.die_amid_the_reply(value, sent)
    error = caught.value
    assert (error.pid, error.signal, error.method) == (pid, "SIGKILL", "die_amid_the_reply")
    assert error.maxrss > 0
    assert "half way through its reply" in str(error)
    assert_usable(client)


@pytest.mark.parametrize("hub", ["running", "busy"])
@pytest.mark.parametrize("value", [True, "x" * 100_000], ids=["tiny", "large"])
def test_the_whole_reply_was_sent(faulty, connect, value, hub):
    """Row 6: the value counts, also where reply, last words and end of the stream are read at once."""
    client = connect(faulty(), max_workers=1)
    with client.checkout() as worker:
        pid = worker.pid()
        result = worker.die_after_the_reply.submit(value)
        deadline = monotonic() + PATIENCE
        while hub == "busy" and not is_reaped(pid):
            assert monotonic() < deadline
        assert result.get() == value
        wait_until(lambda: "ended by WorkerDied" in repr(worker))
        with pytest.raises(gtask.WorkerDied, match="was ended by SIGKILL"):
            worker.pid()
    assert_usable(client)


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt"])
def test_the_method_raises_what_ends_programs(faulty, connect, name):
    """Row 7: the caller gets a RemoteError and lives; the worker is retired, whatever refork_after_error says."""
    source = """
        def raise_system_exit():
            sys.exit(3)

        def raise_keyboard_interrupt():
            raise KeyboardInterrupt
    """
    method = {"SystemExit": "raise_system_exit", "KeyboardInterrupt": "raise_keyboard_interrupt"}[name]
    client = connect(faulty(more=source), max_workers=1, refork_after_error=False)
    with client.checkout() as worker:
        pid = worker.pid()
        with pytest.raises(gtask.RemoteError) as caught:
            worker.call(method)
        assert caught.value.remote_type == name
        assert not isinstance(caught.value, (SystemExit, KeyboardInterrupt))
        assert worker.pid() == pid
    assert client.call("pid") != pid
    wait_until(lambda: is_reaped(pid), what="the end of the worker")


def test_os_exit(faulty, connect, server_log):
    """Row 8: WorkerDied with the exit status."""
    client = connect(faulty(), max_workers=1)
    with pytest.raises(gtask.WorkerDied, match=r"exited with status 7 [\d.e-]+ s after leave was called") as caught:
        client.call("leave", 7)
    assert (caught.value.exitcode, caught.value.signal) == (7, "")
    assert_usable(client)
    wait_for_log(server_log, rf"worker {caught.value.pid} exited with status 7 in leave after [\d.e-]+ s\n")


def test_a_segfault(faulty, connect, server_log):
    """Row 9: WorkerDied with SIGSEGV and the stacks, which its traceback shows, too."""
    client = connect(faulty(), max_workers=1)
    with pytest.raises(gtask.WorkerDied, match="was ended by SIGSEGV") as caught:
        client.call("segfault")
    error = caught.value
    assert (error.signal, error.exitcode, error.method) == ("SIGSEGV", None, "segfault")
    assert "Segmentation fault" in error.stacks
    assert re.search(r"served_\d+\.py\", line \d+ in segfault", error.stacks)
    assert any(error.stacks in note for note in error.__notes__)
    assert_usable(client)
    wait_for_log(server_log, rf"worker {error.pid} was ended by SIGSEGV in segfault after")


def test_out_of_memory(faulty, connect, server_log, tmp_path):
    """Row 10: what the kernel does then looks like kill -9; maxrss gives the hint. The master survives."""
    server = faulty()
    client = connect(server, max_workers=1)
    with client.checkout() as worker:
        pid, master = worker.pids()
        result = worker.fill_memory.submit(100 << 20)
        wait_until(lambda: ran(tmp_path) == ["filled"])
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(gtask.WorkerDied) as caught:
            result.get()
    assert caught.value.signal == "SIGKILL"
    assert 100 << 10 < caught.value.maxrss < 400 << 10
    assert re.search(r"it had used 1\d\d MiB of memory at the most", str(caught.value))
    assert master == server.pid
    assert client.call("pids")[1] == master
    assert_usable(client)
    assert is_reaped(pid)
    wait_for_log(server_log, rf"worker {pid} was ended by SIGKILL in fill_memory")


EXHAUST = """
    class Formatless(MemoryError):
        def __str__(self):
            return str(bytearray(1 << 40))

    def _limit_memory():
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (16 << 20), resource.RLIM_INFINITY))

    def allocate_too_much():
        _limit_memory()
        return len(bytearray(1 << 40))

    def fill_up():
        _limit_memory()
        held, size = [], 1 << 20
        while True:
            try:
                held.append(bytearray(size))
            except MemoryError:
                if size == 1 << 12:
                    raise
                size >>= 1

    def raise_formatless():
        raise Formatless("memory")
"""


@pytest.mark.parametrize("method", ["allocate_too_much", "fill_up", "raise_formatless"])
def test_a_memory_error(unmeasured, faulty, connect, method):
    """Row 11: RemoteError, also while memory is still full and where formatting fails again; the worker is retired.

    Not measured: where memory is full, coverage takes a part of what is left, and CPython itself may then crash.
    """
    client = connect(faulty(more=EXHAUST), max_workers=1, refork_after_error=False)
    with client.checkout() as worker:
        pid = worker.pid()
        with pytest.raises(gtask.RemoteError) as caught:
            worker.call(method)
    if method == "raise_formatless":
        assert caught.value.remote_type.endswith(".Formatless")
    else:
        assert isinstance(caught.value, MemoryError)
    assert client.call("pid") != pid
    assert_usable(client)


def test_a_recursion_error(faulty, connect):
    """Row 12: RemoteError; of a thousand frames the middle is left out; the worker is kept."""
    source = """
        def recurse(depth):
            return recurse(depth + 1)
    """
    client = connect(faulty(more=source), max_workers=1, refork_after_error=False)
    with client.checkout() as worker:
        pid = worker.pid()
        with pytest.raises(RecursionError) as caught:
            worker.recurse(0)
        assert isinstance(caught.value, gtask.RemoteError)
        frames = [frame for frame in traceback.extract_tb(caught.value.__traceback__) if "served_" in frame.filename]
        assert 10 < len(frames) <= 200
        assert {frame.name for frame in frames} == {"recurse"}
        assert worker.pid() == pid
    assert client.call("pid") == pid
    assert_usable(client)


def test_setup_raises(faulty, connect, tmp_path):
    """Row 13: SetupError promptly, not at the deadline; forks at a bounded rate; it heals when setup is repaired."""
    source = """
        def setup():
            note("fork")
            if os.path.exists(os.path.join(DIR, "broken")):
                raise LookupError("no database")
    """
    server = faulty(more=source)
    client = connect(server, max_workers=5)
    client.call("pid")  # so that the server is there
    (worker,) = children(server.pid)
    bury(worker, server)
    wait_until(lambda: "0 idle" in repr(client))
    (tmp_path / "broken").touch()
    (tmp_path / "ran").unlink()
    started = monotonic()
    until = started + 1.5
    failures = []

    def caller():
        while monotonic() < until:
            called = monotonic()
            with pytest.raises(gtask.SetupError, match="no database") as caught:
                client.call("pid")
            assert isinstance(caught.value, LookupError)
            failures.append(monotonic() - called)

    with steady_hub():
        callers = [gevent.spawn(caller) for _ in range(10)]
        gevent.joinall(callers, raise_error=True)
    assert len(failures) >= 20
    assert max(failures) < 1.5  # the longest backoff, half a second, and the allowance of L
    # Five at once, while nothing was wrong yet; pauses of at least 10, 20, 40, 80, 160 ms, then of at least 250.
    assert len(ran(tmp_path)) <= 10 + (monotonic() - started) / 0.25
    (tmp_path / "broken").unlink()
    assert client.call("echo", "healed") == "healed"
    assert_usable(client)


HANGING_SETUP = """
    def setup():
        if os.path.exists(os.path.join(DIR, "hanging")):
            note(os.getpid())
            time.sleep(60)
"""


def test_setup_hangs(faulty, connect, tmp_path):
    """Row 14: AcquireTimeout; when the client closes, the ladder ends the worker at once."""
    server = faulty(more=HANGING_SETUP)
    (tmp_path / "hanging").touch()
    client = connect(server, max_workers=1, timeout=2)
    connect(server).open()  # the server may still be starting
    wait_until(lambda: os.path.exists(server.address.path), "the server")
    started = monotonic()
    with steady_hub(), pytest.raises(gtask.AcquireTimeout, match=r"pid was not sent.*starting"):
        client.call("pid")
    assert 2 <= monotonic() - started < SOON
    (pid,) = ran(tmp_path)
    closed = monotonic()
    client.close()
    wait_until(lambda: is_reaped(pid), what="the end of the worker")
    assert monotonic() - closed < SOON


def test_setup_hangs_for_longer_than_hung_worker_timeout(faulty, connect, tmp_path):
    """Row 14: the server interrupts it, and the caller learns where it hung."""
    server = faulty("--hung-worker-timeout", "0.5", more=HANGING_SETUP)
    (tmp_path / "hanging").touch()
    client = connect(server, max_workers=1)
    with pytest.raises(gtask.SetupError) as caught:
        client.call("pid")
    assert "time.sleep(60)" in "".join(traceback.format_exception(caught.value))
    (pid,) = ran(tmp_path)
    wait_until(lambda: is_reaped(pid), "the end of the worker")
    (tmp_path / "hanging").unlink()
    assert_usable(client)


def test_checkout_done_raises(faulty, connect, server_log, tmp_path):
    """Row 15: the call that had finished is unaffected; the worker is retired, and its slot is free again."""
    source = """
        def checkout_done():
            if os.path.exists(os.path.join(DIR, "broken")):
                raise RuntimeError("the hook is broken")
    """
    client = connect(faulty(more=source), max_workers=1)
    with client.checkout() as worker:
        pid = worker.pid()
        (tmp_path / "broken").touch()
        result = worker.echo.submit("value")
    assert result.get() == "value"
    wait_until(lambda: is_reaped(pid), what="the end of the worker")
    (tmp_path / "broken").unlink()
    assert client.call("pid") != pid
    assert_usable(client)
    wait_for_log(server_log, rf"checkout_done failed in worker {pid}(.|\n)*the hook is broken")


HANGING_HOOK = """
    def checkout_done():
        if os.path.exists(os.path.join(DIR, "hanging")):
            note("hook")
            time.sleep(60)
"""


def release_into_a_hanging_hook(client, tmp_path):
    with client.checkout() as worker:
        pid = worker.pid()
        (tmp_path / "hanging").touch()
    wait_until(lambda: ran(tmp_path) == ["hook"])
    (tmp_path / "hanging").unlink()
    return pid


def test_checkout_done_hangs(faulty, connect, tmp_path):
    """Row 16: another worker serves the next checkout; when the client closes, the ladder follows stop_timeout."""
    client = connect(faulty("--stop-timeout", "0.5", more=HANGING_HOOK), max_workers=2)
    with steady_hub():
        pid = release_into_a_hanging_hook(client, tmp_path)
        assert client.call("pid") != pid
    assert state_of(pid) == "S"
    closed = monotonic()
    client.close()
    wait_until(lambda: is_reaped(pid), what="the end of the worker")
    assert 0.4 < monotonic() - closed < SOON


def test_checkout_done_hangs_for_longer_than_hung_worker_timeout(faulty, connect, tmp_path):
    """Row 16: with max_workers=1 the next checkout gets another worker once the server has ended this one."""
    client = connect(faulty("--hung-worker-timeout", "0.5", more=HANGING_HOOK), max_workers=1)
    pid = release_into_a_hanging_hook(client, tmp_path)
    assert client.call("pid") != pid
    wait_until(lambda: is_reaped(pid), "the end of the worker")
    assert_usable(client)


def test_user_code_closes_all_descriptors(faulty, connect, server_log):
    """Row 17: WorkerDied, told by the master, which has a connection of its own; no descriptor is lost there."""
    server = faulty()
    client = connect(server, max_workers=1)
    client.call("pid")
    before = descriptors(server.pid)
    with pytest.raises(gtask.WorkerDied) as caught:
        client.call("close_all_descriptors")
    assert caught.value.exitcode is not None
    wait_for_log(server_log, rf"worker {caught.value.pid} exited with status \d+ ")
    assert_usable(client)
    assert descriptors(server.pid) == before


def test_print_in_the_method(faulty, connect, capfd):
    """Row 18: whatever the method and its programs write to stdout, the reply is correct."""
    source = """
        def talk(value):
            print("printed")
            sys.stdout.flush()
            os.write(1, b"written\\n")
            subprocess.run(["echo", "echoed"])
            return value
    """
    client = connect(faulty(more=source), max_workers=1)
    with client.checkout() as worker:
        results = [worker.talk.submit(number) for number in range(5)]
        assert [result.get() for result in results] == list(range(5))
