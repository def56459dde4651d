"""The point of this test is to ensure that a process which the application forks in a worker ends by SIGTERM as
anywhere, so that multiprocessing can end its own.
"""

from __future__ import annotations

SOURCE = """
    import os, signal, time

    def fork_and_end():
        is_forked, forked = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.write(forked, b"!")
                time.sleep(60)
            finally:
                os._exit(1)
        os.read(is_forked, 1)
        os.kill(pid, signal.SIGTERM)
        return os.waitpid(pid, 0)[1]

    def pid():
        return os.getpid()
"""


def test_a_forked_process_ends_and_the_worker_does_not(shared, connect):
    """The child is ended by the signal; the worker serves on, and is not asked to retire."""
    client = connect(shared(SOURCE), min_workers=1, max_workers=1)
    with client.checkout() as checkout:
        pid = checkout.pid()
        assert checkout.fork_and_end() == 15
        assert checkout.pid() == pid
    assert client.call("pid") == pid


def test_the_forked_process_has_no_handler_of_ours(shared, connect):
    """In it a signal acts at once, and not at the next line of Python that runs."""
    client = connect(
        shared("""
        import os, signal

        def handlers():
            reading, writing = os.pipe()
            pid = os.fork()
            if not pid:
                try:
                    ours = [number.name for number in (signal.SIGTERM, signal.SIGALRM) if signal.getsignal(number)]
                    os.write(writing, " ".join(ours).encode())
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
            os.close(writing)
            return os.read(reading, 100).decode()

        def own():
            signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
            return fork_and_end()

        def fork_and_end():
            reading, writing = os.pipe()
            pid = os.fork()
            if not pid:
                os.write(writing, b".")
                while True:
                    pass
            os.read(reading, 1)
            os.kill(pid, signal.SIGTERM)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        """)
    )
    assert client.call("handlers") == ""
    assert client.call("fork_and_end") == -15
    assert client.call("own") == 7
