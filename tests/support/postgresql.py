"""A private PostgreSQL server for tests: on a directory and a unix socket of its own, gone with the tests."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import re
import subprocess
import tempfile

from tests.support.needs import fail_or_skip

BINARIES = "/usr/lib/postgresql/*/bin"

SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "max_prepared_transactions": "5",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class Cluster:
    """A server with one database, "postgres", whose superuser of that name needs no password.

    It runs in the background, not as a child of the tests; but a small child watches over it, and ends it when the
    tests have ended, however that came about.

    Attributes:
        directory: where it is, and its socket.
        dsn: for ``psycopg2.connect``.
    """

    def __init__(self):
        found = sorted(glob.glob(BINARIES), key=lambda path: int(re.search(r"\d+", path)[0]))
        if not found:
            fail_or_skip("PostgreSQL (apt-get install postgresql)")
        self._binaries = found[-1]
        self._identity = _somebody() if os.getuid() == 0 else {}
        self.directory = tempfile.mkdtemp(prefix="gtask-pg-")
        self.dsn = f"host={self.directory} user=postgres dbname=postgres"
        if self._identity:
            os.chown(self.directory, self._identity["user"], self._identity["group"])
        stop = f"{self._binaries}/pg_ctl -D {self.directory}/data -m immediate stop >/dev/null 2>&1"
        self._guard = subprocess.Popen(
            ["sh", "-c", f"cat; {stop}; cd /; rm -rf {self.directory}"],
            stdin=subprocess.PIPE,
            start_new_session=True,
            cwd=self.directory,
            **self._identity,
        )
        try:
            self._run("initdb", "--auth=trust", "--no-sync", "--username=postgres", "--no-locale", "--encoding=UTF8")
            with open(f"{self.directory}/data/postgresql.auto.conf", "a") as settings:
                settings.writelines(f"{name} = '{value}'\n" for name, value in SETTINGS.items())
                settings.write(f"unix_socket_directories = '{self.directory}'\n")
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self):
        """Start the server, and wait until it takes connections."""
        self._run("pg_ctl", "start", "-w", "-l", f"{self.directory}/log")

    def stop(self, mode="fast"):
        """Stop it: "fast" rolls back and says so, "immediate" as if it had crashed."""
        self._run("pg_ctl", "stop", "-w", "-m", mode)

    def restart(self, mode="fast"):
        """Stop it and start it."""
        self.stop(mode)
        self.start()

    def close(self):
        """End it, and take its directory away."""
        self._guard.stdin.close()
        self._guard.wait(60)

    def _run(self, program, *arguments):
        done = subprocess.run(
            [f"{self._binaries}/{program}", "-D", f"{self.directory}/data", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            cwd=self.directory,
            **self._identity,
        )
        if done.returncode:
            log = f"{self.directory}/log"
            more = open(log).read() if os.path.exists(log) else ""  # noqa: SIM115
            raise AssertionError(f"{program} {' '.join(arguments)}: {done.stdout}{more}")


@contextlib.contextmanager
def private_cluster():
    """A :class:`Cluster` for a ``with`` block; the test is skipped if there is no PostgreSQL."""
    cluster = Cluster()
    try:
        yield cluster
    finally:
        cluster.close()


def _somebody():
    """Who the server is to be: it refuses to run as root."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    return fail_or_skip("unprivileged user on this machine, such as nobody, whom PostgreSQL could run as")
