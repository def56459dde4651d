"""The point of this test is to ensure that psycopg2 in workers keeps the transactions of a real PostgreSQL server,
whatever happens to greenlets, workers and that server, and that its connections are used again.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import re
import signal

import gevent
import psycopg2
import psycopg2.errors
import pytest
from gevent.event import Event

import gtask
from gtask import dbapi
from tests.support.postgresql import private_cluster
from tests.support.waiting import wait_until

SERVER = """
    import os
    import psycopg2
    from gtask.server.dbapi import wrap

    DSN = {dsn!r}
    interface = wrap(psycopg2, dsn=DSN)

    def init(connection):
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SET search_path TO elsewhere; CREATE TEMPORARY TABLE made_by_init (n int)")

    initialised = wrap(psycopg2, dsn=DSN, init=init)
    reset = wrap(psycopg2, dsn=DSN, reset=lambda connection: connection.cursor().execute("SET work_mem TO '1MB'"))
"""

PATIENCE = 30


@pytest.fixture(scope="module")
def cluster():
    with private_cluster() as cluster:
        yield cluster


@pytest.fixture
def plain(cluster):
    """psycopg2 itself: executes a statement, and gives the rows."""
    with contextlib.closing(psycopg2.connect(cluster.dsn, options="-c lock_timeout=20s")) as connection:
        connection.autocommit = True

        def execute(statement, *parameters):
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters or None)
                return cursor.fetchall() if cursor.description else None

        yield execute


@pytest.fixture
def start(cluster, serve, connect, request):
    """``start(attribute="interface", **options)`` serves psycopg2, and gives the module that stands for it.

    In the database its connections have the test's name.
    """

    def make(attribute="interface", dsn="", **options):
        dsn = f"{cluster.dsn} application_name='{request.node.name}' {dsn}"
        server = serve(SERVER.format(dsn=dsn), attribute=attribute)
        with connect(server, min_workers=1) as other:
            other.open(wait=True)  # no time-out of a test counts how long the server's start takes
        client = connect(server, **{"max_workers": 4, "refork_after_error": False, **options})
        return dbapi.module(client, "psycopg2")

    return make


@pytest.fixture
def entries(plain):
    """A table; gives what is committed in it."""
    plain("CREATE TABLE entries (text text)")
    yield lambda: [text for (text,) in plain("SELECT text FROM entries ORDER BY text")]
    plain("DROP TABLE entries")


@pytest.fixture
def backends(plain, request):
    """Gives the database's processes for this test's connections, and the statement that each is in, or None."""
    statement = """
        SELECT pid, CASE state WHEN 'active' THEN query END FROM pg_stat_activity
        WHERE application_name = left(%s, 63)
    """

    def list_them():
        return dict(plain(statement, request.node.name))

    return list_them


def worker_of(connection):
    """The process id of a connection's worker."""
    return int(re.search(r"worker (\d+)", repr(connection))[1])


# --- transactions ------------------------------------------------------------------------------------------


@pytest.fixture
def accounts(plain):
    """Ten of them, with 1000 each."""
    plain("CREATE TABLE account (id int PRIMARY KEY, balance int CHECK (balance >= 0))")
    plain("INSERT INTO account SELECT n, 1000 FROM generate_series(0, 9) AS n")
    yield lambda: dict(plain("SELECT id, balance FROM account"))
    plain("DROP TABLE account")


@pytest.mark.parametrize("way", ["FOR UPDATE", "SERIALIZABLE"])
def test_two_hundred_greenlets_move_money(start, accounts, backends, way):
    """By eight workers: nothing is lost, nothing is made, and what fails has no effect."""
    module = start(max_workers=8, timeout=PATIENCE)
    moved, refused, pids = [], [], set()

    def move(connection, one, other, amount):
        cursor = connection.cursor()
        for account, change in sorted([(one, -amount), (other, amount)]):
            cursor.execute(
                f"SELECT balance FROM account WHERE id = %s {way if way == 'FOR UPDATE' else ''}", (account,)
            )
            [balance] = cursor.fetchone()
            cursor.execute("UPDATE account SET balance = %s WHERE id = %s", (balance + change, account))

    def work(number):
        chance = random.Random(number)
        for _ in range(3):
            order = *chance.sample(range(10), 2), chance.choice([10, 100, 700])
            while True:
                with contextlib.closing(module.connect()) as connection:
                    pids.add(connection.get_backend_pid())
                    if way == "SERIALIZABLE":
                        connection.set_session(isolation_level=way)
                    try:
                        with connection:
                            move(connection, *order)
                    except psycopg2.errors.SerializationFailure:
                        continue
                    except psycopg2.IntegrityError:
                        refused.append(order)
                    else:
                        moved.append(order)
                    break

    gevent.joinall([gevent.spawn(work, number) for number in range(200)], raise_error=True)
    assert len(moved) + len(refused) == 600
    assert moved
    assert refused
    expected = dict.fromkeys(range(10), 1000)
    for one, other, amount in moved:
        expected[one] -= amount
        expected[other] += amount
    assert accounts() == expected
    assert len(pids) <= 8
    assert set(backends()) == pids


@pytest.mark.parametrize("how", ["killed greenlet", "gevent.Timeout", "time-out of the call", "killed worker"])
def test_a_transaction_is_cut_short_in_a_statement(start, entries, backends, cluster, how):
    """It is rolled back, and the database does not go on with the statement."""
    dsn = "options='-c client_connection_check_interval=100'" if how == "killed worker" else ""
    log_ended = os.path.getsize(f"{cluster.directory}/log")
    module = start(dsn=dsn, timeout=5 if how == "time-out of the call" else PATIENCE)
    connections = []

    def work():
        connection = module.connect()
        connections.append(connection)
        with connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO entries VALUES ('lost')")
            cursor.execute("SELECT pg_sleep(3600)")

    greenlet = gevent.spawn(work)
    wait_until(lambda: list(backends().values()) == ["SELECT pg_sleep(3600)"], "the statement")
    if how == "killed greenlet":
        greenlet.kill()
    elif how == "gevent.Timeout":
        greenlet.kill(gevent.Timeout(1))  # as when its time is up
    elif how == "killed worker":
        os.kill(worker_of(connections[0]), signal.SIGKILL)
    greenlet.join()
    if how == "killed greenlet":
        assert type(greenlet.value) is gevent.GreenletExit
    elif how == "gevent.Timeout":
        assert type(greenlet.exception) is gevent.Timeout
    else:
        assert isinstance(greenlet.exception, psycopg2.OperationalError)
        assert isinstance(greenlet.exception, gtask.FatalError)
        kind = gtask.CallTimeout if how == "time-out of the call" else gtask.WorkerDied
        assert type(greenlet.exception.__cause__) is kind
        assert type(greenlet.exception).__name__ == kind.__name__
        assert greenlet.exception.pgcode is greenlet.exception.diag.constraint_name is None
    [connection] = connections
    assert connection.closed
    with pytest.raises(psycopg2.OperationalError):
        connection.cursor().execute("SELECT 1")
    wait_until(lambda: not backends(), "the end of the statement in the database")
    with open(f"{cluster.directory}/log") as log:
        log.seek(log_ended)
        reason = "connection to client lost" if how == "killed worker" else "canceling statement due to user request"
        assert reason in log.read()
    with contextlib.closing(module.connect()) as connection, connection:
        connection.cursor().execute("INSERT INTO entries VALUES ('kept')")
    assert entries() == ["kept"]


@pytest.mark.parametrize("how", ["closed", "dropped", "killed greenlet", "killed worker"])
def test_a_transaction_is_left_open(start, entries, backends, how):
    """Between two statements: it is rolled back; and the driver's connection is used again if it is still there."""
    module = start(max_workers=1)
    pids, may_go, connections = [], Event(), []

    def work():
        connection = module.connect()
        connection.cursor().execute("INSERT INTO entries VALUES ('lost')")
        pids.append(connection.get_backend_pid())
        if how == "killed worker":
            connections.append(connection)
            os.kill(worker_of(connection), signal.SIGKILL)
        if how == "killed greenlet":
            may_go.set()
            gevent.sleep(3600)
        if how == "closed":
            connections.append(connection)
            connection.close()

    greenlet = gevent.spawn(work)
    if how == "killed greenlet":
        may_go.wait()
        greenlet.kill()
    greenlet.get()
    del greenlet
    gc.collect()
    if how == "killed worker":
        with pytest.raises(psycopg2.OperationalError, match="worker"):
            connections[0].commit()
        connections[0].close()
    with contextlib.closing(module.connect()) as connection, connection:
        connection.cursor().execute("INSERT INTO entries VALUES ('kept')")
        pids.append(connection.get_backend_pid())
    assert entries() == ["kept"]
    assert (pids[0] == pids[1]) == (how != "killed worker")
    wait_until(lambda: list(backends()) == [pids[1]], "the end of the other connection")


# --- connections -------------------------------------------------------------------------------------------


def test_connections_are_used_again(start, backends):
    """Hundreds of checkouts, and as many connections as workers, by errors, too."""
    module = start()
    pids = set()

    def work():
        for _ in range(10):
            with contextlib.closing(module.connect()) as connection:
                pids.add(connection.get_backend_pid())
                with contextlib.suppress(psycopg2.ProgrammingError):
                    connection.cursor().execute(random.choice(["SELECT 1", "SELEC"]))

    gevent.joinall([gevent.spawn(work) for _ in range(40)], raise_error=True)
    assert len(pids) <= 4
    assert set(backends()) == pids


LEFT_BEHIND = """
    SET search_path TO nowhere; SET timezone TO 'Asia/Tokyo'; SET datestyle TO 'German';
    SET client_encoding TO 'latin1'; SET statement_timeout TO 100000; SET work_mem TO '2MB';
    CREATE TEMPORARY TABLE temporary (n int); CREATE TEMPORARY SEQUENCE numbers; SELECT nextval('numbers');
    PREPARE prepared AS SELECT 1; LISTEN something; SELECT pg_advisory_lock(7);
    DECLARE held CURSOR WITH HOLD FOR SELECT 1; DO $$ BEGIN RAISE NOTICE 'something'; END $$;
"""

STATE = [
    *(f"SHOW {name}" for name in ("search_path", "timezone", "datestyle", "client_encoding", "statement_timeout")),
    "SHOW work_mem", "SHOW transaction_isolation", "SHOW transaction_read_only", "SHOW transaction_deferrable",
    "SELECT relname FROM pg_class WHERE relpersistence = 't' AND relnamespace = pg_my_temp_schema()",
    "SELECT name FROM pg_prepared_statements", "SELECT name FROM pg_cursors", "SELECT pg_listening_channels()",
    "SELECT objid FROM pg_locks WHERE locktype = 'advisory'", "SELECT date '2026-02-28'",
    "SELECT session_user, current_user", "SELECT pg_backend_pid()",
]  # fmt: skip


def state(module):
    with contextlib.closing(module.connect()) as connection:
        told = [
            connection.autocommit, connection.isolation_level, connection.readonly, connection.deferrable,
            connection.encoding, connection.notices, connection.status,
        ]  # fmt: skip
        for statement in STATE:
            cursor = connection.cursor()
            cursor.execute(statement)
            told.append((statement, cursor.fetchall()))
        return told


@pytest.mark.parametrize("attribute", ["interface", "initialised", "reset"])
def test_nothing_is_left_of_a_checkout(start, attribute):
    """Neither what it has told psycopg2 nor what it has told the database, but what the init hook has is there."""
    module = start(attribute, max_workers=1)
    with contextlib.closing(module.connect()):
        pass
    before = state(module)
    with contextlib.closing(module.connect()) as connection:
        connection.autocommit = False
        connection.cursor().execute(LEFT_BEHIND)
        assert len(connection.notices) == 1
        connection.commit()
        connection.set_session("SERIALIZABLE", readonly=True, deferrable=True, autocommit=True)
        connection.autocommit = False
        connection.readonly = False
    assert state(module) == before
    told = dict(before[7:])
    if attribute == "initialised":
        assert before[0]
        assert told["SHOW search_path"] == [("elsewhere",)]
        assert [name for (name,) in told[STATE[9]]] == ["made_by_init"]
    elif attribute == "reset":
        assert told["SHOW work_mem"] == [("1MB",)]


def test_a_transaction_that_psycopg2_does_not_know_of(start, entries):
    """One that was begun by a statement is rolled back, too."""
    module = start(max_workers=1)
    with contextlib.closing(module.connect()) as connection:
        connection.autocommit = True
        connection.cursor().execute("BEGIN; INSERT INTO entries VALUES ('lost')")
    with contextlib.closing(module.connect()) as connection, connection:
        assert not connection.autocommit
        connection.cursor().execute("INSERT INTO entries VALUES ('kept')")
    assert entries() == ["kept"]


def test_what_the_server_has_set_stays(start):
    """A client may add arguments, and gets a connection of its own for them."""
    module = start(max_workers=1)
    with contextlib.closing(module.connect(options="-c work_mem=3MB")) as connection:
        assert connection.cursor().execute("SHOW work_mem").fetchall() == [("3MB",)]
    with contextlib.closing(module.connect()) as connection:
        assert connection.cursor().execute("SHOW work_mem").fetchall() != [("3MB",)]
    with pytest.raises(psycopg2.InterfaceError, match="the server has set dsn"):
        module.connect("host=elsewhere")
    with pytest.raises(psycopg2.OperationalError, match="no_such_database"):
        module.connect(dbname="no_such_database")


# --- the database's server ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_the_server_restarts(start, cluster, mode):
    """Who uses a connection meanwhile gets an OperationalError, and who opens one later a new connection."""
    module = start()
    failed = {}

    def work(name, statement):
        with contextlib.closing(module.connect()) as connection:
            connection.cursor().execute("SELECT 1")
            ready[name].set()
            try:
                if statement is None:
                    restarted.wait()
                connection.cursor().execute(statement or "SELECT 2")
            except psycopg2.OperationalError as error:
                failed[name] = connection.closed, isinstance(error, gtask.RemoteError)

    ready, restarted = {"in use": Event(), "in a statement": Event()}, Event()
    with contextlib.closing(module.connect()) as third:  # which is idle in its worker, then
        old = third.get_backend_pid()
        greenlets = [gevent.spawn(work, "in use", None), gevent.spawn(work, "in a statement", "SELECT pg_sleep(3600)")]
        for event in ready.values():
            event.wait()
    cluster.restart(mode)
    restarted.set()
    gevent.joinall(greenlets, raise_error=True)
    assert set(failed) == set(ready)
    assert all(is_closed and is_remote for is_closed, is_remote in failed.values())
    pids = set()
    for connection in [module.connect() for _ in range(3)]:  # by each of the workers
        assert connection.cursor().execute("SELECT 1").fetchall() == [(1,)]
        pids.add(connection.get_backend_pid())
        connection.close()
    assert len(pids) == 3
    assert old not in pids


def test_the_server_is_down(start, cluster):
    """To connect is an OperationalError, at once, and works again when it is there; the workers stay."""
    module = start(max_workers=1)
    with contextlib.closing(module.connect()) as connection:
        worker = worker_of(connection)
    cluster.stop()
    try:
        for _ in range(3):
            with pytest.raises(psycopg2.OperationalError, match=r"No such file|connection to server"):
                module.connect()
    finally:
        cluster.start()
    with contextlib.closing(module.connect()) as connection:
        assert connection.cursor().execute("SELECT 1").fetchall() == [(1,)]
        assert worker_of(connection) == worker
