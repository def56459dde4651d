"""The point of this test is to ensure that SQLAlchemy by workers does what its users do with SQLite.

The dialect passes SQLAlchemy's own suite, see tests/compliance/sqlalchemy. Here are its URLs, sessions in greenlets,
and what becomes of transactions when something fails.
"""

from __future__ import annotations

import configparser
import contextlib
import gc
import os
import signal
import sqlite3
from importlib import metadata
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

import gtask
from gtask import dbapi
from gtask.testing import wait_until
from tests.support.waiting import turn_hub

sqlalchemy = pytest.importorskip("sqlalchemy", "2.1", reason="SQLAlchemy 2.1 needs Python 3.11")
orm, pool = (pytest.importorskip(f"sqlalchemy.{name}") for name in ("orm", "pool"))

NAME, MODULE, CLASS = "sqlite.gtask", "gtask.integrations.sqlalchemy", "SQLiteDialect"

SERVER = """
    import os
    import sqlite3
    from gtask.server.dbapi import wrap

    def register(connection):
        connection.create_function("pid", 0, os.getpid)
        connection.execute("PRAGMA synchronous = OFF")

    interface = wrap(sqlite3, init=register)
"""

LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


class Base(orm.DeclarativeBase):
    """What is mapped here."""


class Account(Base):
    """A name, what it has, and what it bought."""

    __tablename__ = "account"
    name: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    cents: orm.Mapped[int] = orm.mapped_column(sqlalchemy.CheckConstraint("cents >= 0", name="solvency"))
    orders: orm.Mapped[list[Order]] = orm.relationship(back_populates="account", order_by="Order.id")


class Order(Base):
    """Something that was bought."""

    __tablename__ = "orders"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    what: orm.Mapped[str]
    owner: orm.Mapped[str] = orm.mapped_column(sqlalchemy.ForeignKey("account.name"))
    account: orm.Mapped[Account] = orm.relationship(back_populates="orders")


@pytest.fixture(scope="module", autouse=True)
def entry_point():
    """What setup.cfg declares, also where gtask is not installed."""
    if not metadata.entry_points(group="sqlalchemy.dialects", name=NAME):
        sqlalchemy.dialects.registry.register(NAME, MODULE, CLASS)


@pytest.fixture
def create_engine(nothing_is_left_behind, monkeypatch):
    """SQLAlchemy's, whose engines end with the test, and the clients that they share."""
    shared, engines = {}, []
    monkeypatch.setattr(dbapi.clients, "_shared", shared)

    def create(url, **options):
        engines.append(sqlalchemy.create_engine(url, **options))
        return engines[-1]

    yield create
    for engine in engines:
        engine.dispose()
    engines.clear()
    shared.clear()
    gc.collect()


@pytest.fixture
def address(serve):
    """That of a server of sqlite3, which knows ``pid()``."""
    return serve(SERVER, attribute="interface").address


@pytest.fixture
def url(address, tmp_path):
    """That of a database in a file, of which a worker waits up to 30 s for a lock."""
    return f"sqlite+gtask:///{tmp_path}/test.db?address={address}&timeout=30"


@pytest.fixture
def engine(url, create_engine):
    """An engine for that, with at most four workers, and an account with a hundred cents."""
    engine = create_engine(f"{url}&gtask_max_workers=4&gtask_timeout=60")
    Base.metadata.create_all(engine)
    with orm.Session(engine) as session, session.begin():
        session.add(Account(name="ann", cents=100))
    return engine


def cents(engine):
    """What Ann has."""
    with orm.Session(engine) as session:
        return session.get_one(Account, "ann").cents


# --- URLs ----------------------------------------------------------------------------------------------------


def test_the_entry_point_is_declared():
    """SQLAlchemy finds the dialect where gtask is installed."""
    declared = configparser.ConfigParser()
    declared.read(Path(gtask.__file__).parents[1] / "setup.cfg")
    lines = declared["options.entry_points"]["sqlalchemy.dialects"].split("\n")
    assert f"{NAME} = {MODULE}:{CLASS}" in lines
    assert sqlalchemy.make_url("sqlite+gtask:///x.db").get_dialect().__name__ == CLASS


def test_a_file(url, create_engine, tmp_path):
    """It is the one that the URL names, and the engine has no pool of its own."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n)")
        connection.execute(sqlalchemy.text("INSERT INTO t VALUES (:n)"), [{"n": 1}, {"n": 2}])
    with contextlib.closing(sqlite3.connect(tmp_path / "test.db")) as database:
        assert database.execute("SELECT n FROM t").fetchall() == [(1,), (2,)]
    assert isinstance(engine.pool, pool.NullPool)
    assert engine.dialect.driver == "gtask"


def test_a_file_is_looked_for_from_here(address, create_engine, tmp_path, monkeypatch):
    """As pysqlite does: where the server runs does not matter."""
    monkeypatch.chdir(tmp_path)
    with create_engine(f"sqlite+gtask:///here.db?address={address}").begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n)")
    assert (tmp_path / "here.db").exists()


def test_a_database_in_memory(address, create_engine):
    """It is there as long as the engine, and another engine has another one."""
    engines = [create_engine(f"sqlite+gtask:///:memory:?address={address}") for _ in range(2)]
    for number, engine in enumerate(engines):
        Base.metadata.create_all(engine)
        with orm.Session(engine) as session, session.begin():
            session.add(Account(name="ann", cents=number))
    assert [cents(engine) for engine in engines] == [0, 1]

    def look():
        with orm.Session(fresh) as session:
            return session.connection().connection.dbapi_connection

    fresh = create_engine(f"sqlite+gtask:///:memory:?address={address}")
    assert len({greenlet.get() for greenlet in [gevent.spawn(look) for _ in range(20)]}) == 1


def test_the_server_chooses_the_database(operator, create_engine, monkeypatch):
    """Without a file in the URL it is the server's, and no URL can name another."""
    monkeypatch.setenv("GTASK_DBAPI", '{"database": "chosen.db"}')
    operator.start(target="gtask.server.dbapi:sqlite3")
    engine = create_engine(f"sqlite+gtask:///?address={operator.address}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n)")
    assert (operator.directory / "chosen.db").exists()
    assert isinstance(engine.pool, pool.NullPool)
    with (
        pytest.raises(sqlalchemy.exc.InterfaceError, match="the server has set database"),
        create_engine(f"sqlite+gtask:///other.db?address={operator.address}").connect(),
    ):
        pass


def test_nobody_chooses_a_database(address, create_engine):
    """That is an error, which says what to do."""
    engine = create_engine(f"sqlite+gtask:///?address={address}")
    with pytest.raises(TypeError, match=r"no database is named.* GTASK_DBAPI"), engine.connect():
        pass


def test_options_of_the_client(url, create_engine):
    """They are in the query, as JSON or as text; what makes no sense is refused."""
    engine = create_engine(f"{url}&gtask_timeout=250.5&gtask_logs=false&gtask_max_idle=null&gtask_name=web")
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    [module] = engine.dialect._modules.values()
    config = module._client()._config
    assert (config.timeout, config.logs, config.max_idle, config.name) == (250.5, False, None, "web")
    with pytest.raises(ValueError, match="timeout=-1"), create_engine(f"{url}&gtask_timeout=-1").connect():
        pass
    with pytest.raises(TypeError, match="no_such"), create_engine(f"{url}&gtask_no_such=1").connect():
        pass
    with pytest.raises(sqlalchemy.exc.ArgumentError, match="gtask_name is there 2 times"):
        create_engine(f"{url}&gtask_name=a&gtask_name=b")


def test_a_client_or_a_module_instead_of_an_address(address, connect, create_engine, tmp_path):
    """A program may have its own client, with its options."""
    plain = f"sqlite+gtask:///{tmp_path}/test.db"
    client = connect(address, refork_after_error=False)
    for engine in (
        create_engine(plain, connect_args={"address": client}),
        create_engine(plain, module=dbapi.module(client)),
    ):
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT pid()").scalar() > 1
    with pytest.raises(sqlalchemy.exc.ArgumentError, match="no server is named"), create_engine(plain).connect():
        pass


# --- statements ----------------------------------------------------------------------------------------------


def test_regular_expressions_and_floor(engine):
    """What pysqlite registers with each connection is there in the worker."""
    with engine.connect() as connection:
        name = Account.name
        found = connection.scalars(sqlalchemy.select(name.regexp_match("^a.n"), name.regexp_match("x")))
        assert found.all() == [True]
        assert connection.scalar(sqlalchemy.select(sqlalchemy.null().regexp_match("x"))) is None
        assert connection.scalar(sqlalchemy.select(sqlalchemy.func.floor(-2.5))) == -3


def test_sessions(engine):
    """Objects are stored and come back, with those that belong to them."""
    with orm.Session(engine) as session:
        session.add(Account(name="bob", cents=5, orders=[Order(what="tea"), Order(what="milk")]))
        session.commit()
    with orm.Session(engine) as session:
        bob = session.scalars(sqlalchemy.select(Account).where(Account.cents < 50)).one()
        assert (bob.name, [order.what for order in bob.orders]) == ("bob", ["tea", "milk"])
        session.delete(bob.orders[0])
        with session.begin_nested() as savepoint:
            session.execute(sqlalchemy.delete(Order))
            savepoint.rollback()
        session.commit()
        assert [order.what for order in bob.orders] == ["milk"]


def test_many_rows(engine):
    """More than travel at once, both ways; also as a stream of which not all is read."""
    with orm.Session(engine) as session, session.begin():
        session.add_all(Order(id=number, what="x" * 100, owner="ann") for number in range(3000))
    with engine.connect() as connection:
        ids = sqlalchemy.select(Order.id).order_by(Order.id)
        assert connection.scalars(ids).all() == list(range(3000))
        result = connection.execution_options(yield_per=10).scalars(ids)
        assert [next(result) for _ in range(2)] == [0, 1]


def test_errors(engine):
    """They are SQLAlchemy's, of sqlite3's and of gtask's, and cost neither worker nor connection."""
    with engine.connect() as connection:
        pid = connection.exec_driver_sql("SELECT pid()").scalar()
        with pytest.raises(sqlalchemy.exc.IntegrityError, match="solvency") as caught:
            connection.execute(sqlalchemy.update(Account).values(cents=-1))
        assert isinstance(caught.value.orig, sqlite3.IntegrityError)
        assert isinstance(caught.value.orig, gtask.RemoteError)
        assert not caught.value.connection_invalidated
        with pytest.raises(sqlalchemy.exc.OperationalError, match="no such table"):
            connection.exec_driver_sql("SELECT * FROM none")
        assert connection.exec_driver_sql("SELECT pid()").scalar() == pid


# --- greenlets, and what ends transactions -------------------------------------------------------------------


def test_two_hundred_greenlets_share_four_workers(url, create_engine):
    """Each has a session of its own, from the first use of the engine on."""
    engine = create_engine(f"{url}&gtask_max_workers=4&gtask_timeout=60")
    with contextlib.closing(sqlite3.connect(engine.url.database, isolation_level=None)) as database:
        database.execute("CREATE TABLE account (name TEXT PRIMARY KEY, cents INTEGER)")
        database.execute("INSERT INTO account VALUES ('ann', 100)")

    def earn():
        with orm.Session(engine) as session, session.begin():
            session.execute(sqlalchemy.update(Account).values(cents=Account.cents + 1))
            turn_hub()
            return session.scalar(sqlalchemy.text("SELECT pid()"))

    greenlets = [gevent.spawn(earn) for _ in range(200)]
    assert len({greenlet.get() for greenlet in greenlets}) <= 4
    assert cents(engine) == 300


def test_greenlets_wait_while_another_prepares_the_engine(address, connect, create_engine, tmp_path):
    """An engine's first connection prepares it: those that come meanwhile do not stop the program."""
    client = connect(address, refork_after_error=False)
    engine = create_engine(f"sqlite+gtask:///{tmp_path}/test.db", connect_args={"address": client})
    go_on = Event()
    sqlalchemy.event.listen(engine, "connect", lambda connection, record: go_on.wait())
    greenlets = [gevent.spawn(lambda: engine.connect().close()) for _ in range(3)]
    wait_until(lambda: client.stats().busy == 3, 30, "all to be connected")
    gevent.idle()  # they are at the lock now, or have stopped the program
    go_on.set()
    gevent.joinall(greenlets, raise_error=True)


def test_an_exception_rolls_back(engine):
    """What a session has done is undone, and its worker serves on."""

    def fail():
        with orm.Session(engine) as session, session.begin():
            session.get_one(Account, "ann").cents = 50
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert cents(engine) == 100


@pytest.mark.parametrize("busy", [False, True], ids=["between statements", "in a statement"])
def test_a_killed_greenlet_rolls_back(engine, busy):
    """Whether it is killed between two statements or in one; nobody finds its locks."""
    there = Event()

    def spend():
        with orm.Session(engine) as session, session.begin():
            session.execute(sqlalchemy.update(Account).values(cents=50))
            there.set()
            if busy:
                session.execute(sqlalchemy.text(LONG))
            gevent.sleep(1000)

    greenlet = gevent.spawn(spend)
    there.wait()
    turn_hub()  # it is at what comes next
    greenlet.kill()
    assert cents(engine) == 100
    with orm.Session(engine) as session, session.begin():
        session.execute(sqlalchemy.update(Account).values(cents=1))
    assert cents(engine) == 1


def test_a_time_out_ends_the_connection(url, engine, create_engine):
    """SQLAlchemy knows that the connection is lost, and what was done is undone."""
    impatient = create_engine(f"{url}&gtask_timeout=2")
    with impatient.connect() as connection:
        connection.execute(sqlalchemy.update(Account).values(cents=50))
        with pytest.raises(sqlalchemy.exc.OperationalError, match=r"CallTimeout\) .* 2 s") as caught:
            connection.exec_driver_sql(LONG)
        assert caught.value.connection_invalidated
        assert isinstance(caught.value.orig, gtask.CallTimeout)
        assert isinstance(caught.value.orig, sqlite3.OperationalError)
        with pytest.raises(sqlalchemy.exc.PendingRollbackError):
            connection.exec_driver_sql("SELECT 1")
        connection.rollback()
        assert connection.scalar(sqlalchemy.select(Account.cents)) == 100


def test_a_pool_replaces_connections_whose_workers_died(url, create_engine):
    """With pre_ping before anybody sees it; without, after one error, which says that the connection is gone."""
    for pings in (True, False):
        engine = create_engine(url, poolclass=pool.QueuePool, pool_size=1, pool_pre_ping=pings)
        with engine.connect() as connection:
            pid = connection.exec_driver_sql("SELECT pid()").scalar()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 30, "the worker's end")
        if not pings:
            with pytest.raises(sqlalchemy.exc.OperationalError) as caught, engine.connect() as connection:
                connection.exec_driver_sql("SELECT 1")
            assert caught.value.connection_invalidated
            assert isinstance(caught.value.orig, gtask.WorkerDied)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1
