"""The point of this test is to ensure that a gevent program which uses Django keeps its database in workers: the ORM,
its transactions and its errors are as ever, queries of several greenlets run side by side, and a connection is a
worker's until it is closed.

Each test is a program of its own, for this process is never patched. What Django's own tests say of the backend, see
tests/compliance.
"""

from __future__ import annotations

import textwrap

import pytest

from tests.support.program import run_program

SERVER = """
    import os, sqlite3, time
    from gtask.integrations.django.sqlite3.server import register
    from gtask.server.dbapi import wrap

    def hang(path):
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(3600)

    def prepare(connection):
        register(connection)
        connection.create_function("pid", 0, os.getpid)
        connection.create_function("hang", 1, hang)

    interface = wrap(sqlite3, init=prepare)
    ignorant = wrap(sqlite3)
"""

PATCHED = "from gevent import monkey; monkey.patch_all()"

PROJECT = """
import os, signal, sqlite3, sys, threading
import django, gevent, gtask
from django.conf import settings
from gtask import testing
from tests.support.waiting import wait_until

OPTIONS = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "client": {"min_workers": 0, "max_workers": int(sys.argv[2])},
}
DATABASE = {
    "ENGINE": "gtask.integrations.django.sqlite3",
    "HOST": sys.argv[1],
    "NAME": "app.sqlite3",
    "OPTIONS": OPTIONS,
}
settings.configure(DATABASES={"default": DATABASE}, USE_TZ=True, TIME_ZONE="UTC")
django.setup()
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, OperationalError, close_old_connections, connection, connections, models
from django.db import transaction
from django.db.utils import ConnectionHandler

class Account(models.Model):
    name = models.CharField(max_length=20, unique=True)
    cents = models.IntegerField(default=0)
    opened = models.DateTimeField(null=True)
    rate = models.DecimalField(max_digits=9, decimal_places=4, null=True)
    extra = models.JSONField(null=True)
    photo = models.BinaryField(null=True)
    frozen = models.BooleanField(default=False)

    class Meta:
        app_label = "bank"

class Transfer(models.Model):
    account = models.ForeignKey(Account, models.CASCADE)

    class Meta:
        app_label = "bank"

with connection.schema_editor() as editor:
    editor.create_model(Account)
    editor.create_model(Transfer)

def pid():
    with connection.cursor() as cursor:
        return cursor.execute("SELECT pid()").fetchone()[0]

"""


@pytest.fixture
def run(tmp_path, serve):
    """``run(source, max_workers=4)`` runs a program of that project, monkey-patched; all warnings are errors."""
    server = serve(SERVER, attribute="interface")

    def run(source, max_workers=4, beginning=PATCHED):
        source = beginning + PROJECT + textwrap.dedent(source)
        run_program(source, server.address, max_workers, directory=tmp_path)

    return run


def test_the_orm_and_its_transactions(run):
    """Values come back as they went, functions and aggregates of Django's are there, and blocks roll back."""
    run(
        """
        import datetime, decimal
        from django.db.models import F, StdDev
        from django.db.models.functions import TruncMonth
        from django.utils.safestring import mark_safe

        opened = datetime.datetime(2026, 3, 4, 5, 6, 7, 8, datetime.timezone.utc)
        values = dict(
            opened=opened, rate=decimal.Decimal("1.2500"), extra={"a": [1, None]}, photo=b"\\0\\xff", frozen=True
        )
        Account.objects.create(name=mark_safe("ann"), cents=4, **values)
        ann = Account.objects.get(name__regex="^A?a")
        assert {name: getattr(ann, name) for name in values} == values
        assert type(ann.name) is str and ann.frozen is True
        Account.objects.bulk_create([Account(name=f"n{number}") for number in range(1500)])
        assert Account.objects.aggregate(StdDev("cents"))["cents__stddev"] > 0
        assert Account.objects.annotate(month=TruncMonth("opened")).get(pk=ann.pk).month == opened.replace(
            day=1, hour=0, minute=0, second=0, microsecond=0
        )
        assert len({account.name for account in Account.objects.iterator(chunk_size=200)}) == 1501
        with connection.cursor() as cursor:
            update = "UPDATE bank_account SET photo = {} WHERE name = {} AND '%%' = '%%'"
            cursor.executemany(update.format("%s", "%s"), ((b"p", f"n{number}") for number in range(3)))
            cursor.executemany(update.format("%(p)s", "%(n)s"), [{"n": "n3", "p": b"p"}])
            cursor.executemany(update.format("%s", "%s"), [])
        assert Account.objects.filter(photo=b"p").count() == 4

        try:
            with transaction.atomic():
                Account.objects.update(cents=F("cents") + 1)
                with transaction.atomic():
                    Account.objects.filter(frozen=False).delete()
                    transaction.set_rollback(True)
                assert Account.objects.count() == 1501
                raise KeyError("no")
        except KeyError:
            pass
        assert Account.objects.get(pk=ann.pk).cents == 4
        with transaction.atomic():
            Account.objects.update(cents=F("cents") + 1)
        connection.close()
        with sqlite3.connect("app.sqlite3") as plain:
            assert plain.execute("SELECT cents FROM bank_account WHERE name = 'ann'").fetchone() == (5,)
        plain.close()
        """
    )


def test_many_greenlets_and_few_workers(run):
    """Each transaction is alone, other greenlets run meanwhile, and no more than max_workers are there."""
    run(
        """
        Account.objects.create(name="ann")
        connection.close()
        inside, most, pids = 0, 0, set()

        def earn():
            global inside, most
            with transaction.atomic():
                ann = Account.objects.get(name="ann")
                pids.add(pid())
                inside, most = inside + 1, max(most, inside + 1)
                gevent.sleep(0)
                Account.objects.filter(name="ann").update(cents=ann.cents + 1)
                inside -= 1
            connection.close()

        def look():
            Account.objects.get(name="ann")
            gevent.sleep(0)
            pids.add(pid())
            connection.close()

        greenlets = [gevent.spawn(kind) for kind in [earn, look] * 25]
        gevent.joinall(greenlets, raise_error=True)
        assert Account.objects.get(name="ann").cents == 25
        assert most == 1
        assert 1 < len(pids) <= 4, pids
        """
    )


def test_errors_are_djangos(run):
    """A constraint raises Django's IntegrityError, by that of sqlite3, which says what happened in which worker."""
    run(
        """
        connection.close()  # for what making the tables has set of it
        Account.objects.create(name="ann")
        worker = pid()
        for number in range(3):
            try:
                with transaction.atomic():
                    Account.objects.create(name="ann")
                raise AssertionError("it did not raise")
            except IntegrityError as error:
                assert str(error) == "UNIQUE constraint failed: bank_account.name"
                assert isinstance(error.__cause__, sqlite3.IntegrityError)
                assert isinstance(error.__cause__, gtask.RemoteError)
        try:
            Transfer.objects.create(account_id=4)
            raise AssertionError("it did not raise")
        except IntegrityError as error:
            assert str(error) == "FOREIGN KEY constraint failed"
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT missing")
            raise AssertionError("it did not raise")
        except OperationalError as error:
            assert "no such column" in str(error)
        close_old_connections()
        assert (Account.objects.count(), pid()) == (1, worker)
        """
    )


def test_a_killed_greenlet_leaves_nothing(run):
    """Its transaction is rolled back, whether it was killed in a query or between two, and its worker serves others."""
    run(
        """
        def spend(is_hanging):
            with transaction.atomic():
                Account.objects.create(name="ann")
                begun.set()
                if is_hanging:
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT hang(%s)", [os.path.abspath("hangs")])
                gevent.sleep(3600)

        connection.close()
        for is_hanging in (False, True):
            begun = gevent.event.Event()
            greenlet = gevent.spawn(spend, is_hanging)
            begun.wait()
            if is_hanging:
                testing.wait_until(lambda: os.path.exists("hangs") and os.path.getsize("hangs"), 30)
            greenlet.kill()
            assert Account.objects.count() == 0  # it waits for the only worker
            connection.close()
        """,
        max_workers=1,
    )


def test_a_connection_that_is_closed_returns_its_worker(run):
    """At the end of a request, and when the greenlet ends that had it; and the worker keeps the database open."""
    run(
        """
        from django.core import signals

        first = pid()
        signals.request_finished.send(None)
        assert connection.connection is None
        assert gevent.spawn(pid).get() == first  # it does not close its connection
        assert gevent.spawn(pid).get() == first
        """,
        max_workers=1,
    )


def test_a_worker_that_died_is_replaced(run):
    """The query fails, the connection says that it is not usable, and the next request has another one."""
    run(
        """
        from django.core import signals

        first = pid()
        assert connection.is_usable()
        os.kill(first, signal.SIGKILL)
        try:
            testing.wait_until(lambda: not pid(), 30)
        except OperationalError as error:
            assert isinstance(error.__cause__, gtask.WorkerDied)
            assert isinstance(error.__cause__, sqlite3.OperationalError)
        assert not connection.is_usable()
        signals.request_started.send(None)
        assert pid() != first
        """
    )


def test_what_makes_no_sense_is_said(run):
    """The settings, and a server that does not know Django."""
    run(
        """
        def complaint(**settings):
            connections = ConnectionHandler({"default": {**DATABASE, **settings}})
            try:
                connections["default"].ensure_connection()
            except ImproperlyConfigured as error:
                return str(error)

        says = "settings.DATABASES['default']: "
        assert complaint() is None
        assert complaint(HOST="").startswith(f"{says}HOST must be the address of a gtask-server, such as 'unix:")
        assert complaint(HOST="localhost").startswith(f"{says}HOST or OPTIONS['client'] makes no sense: 'localhost'")
        assert "max_workers=-1" in complaint(OPTIONS={"client": {"max_workers": -1}})
        for name in (":memory:", "file:shared?mode=memory&cache=shared"):
            assert complaint(NAME=name).startswith(f"{says}NAME is {name!r}, but each worker of gtask has a memory")
        assert "Please supply the NAME" in complaint(NAME="")
        django.db.backends.base.base.RAN_DB_VERSION_CHECK.clear()
        ignorant = "spawn:" + sys.argv[1].rpartition("/")[2].removesuffix(".sock") + ":ignorant"
        assert complaint(HOST=ignorant).startswith(f"{says}HOST is a server that does not know Django: serve")
        """
    )


def test_a_connection_that_cannot_be_made_ready_holds_no_worker(run):
    """What the settings want of it is an error in the worker, which is free again although the error is kept."""
    run(
        """
        connection.close()
        options = {**OPTIONS, "init_command": "SELECT missing"}
        connections = ConnectionHandler({"default": {**DATABASE, "OPTIONS": options}})
        try:
            connections["default"].ensure_connection()
            raise AssertionError("it did not raise")
        except OperationalError as error:
            kept = error
        assert "no such column" in str(kept)
        assert Account.objects.count() == 0
        """,
        max_workers=1,
    )


def test_test_databases_are_files(run):
    """Beside the usual one unless TEST names another; made, cloned, and removed, and never in memory."""
    run(
        """
        import multiprocessing
        from pathlib import Path

        multiprocessing.set_start_method("spawn")  # for which Django's own backend works otherwise

        def name(**settings):
            connections = ConnectionHandler({"default": {**DATABASE, **settings}})
            try:
                return str(connections["default"].creation._get_test_db_name())
            except ImproperlyConfigured as error:
                assert "['TEST']['NAME'] must be a file" in str(error)

        assert name(NAME=Path("/a/b.db")) == "/a/test_b.db"
        assert name(TEST={"NAME": "/tmp/c.db"}) == "/tmp/c.db"
        assert name(TEST={"NAME": ":memory:"}) is name(NAME=":memory:") is name(NAME="file:/a/b.db?mode=ro") is None

        for again in range(2):  # the second time in place of the file that was removed
            connection.creation.create_test_db(verbosity=0, autoclobber=True)
            with connection.schema_editor() as editor:
                editor.create_model(Account)
            Account.objects.create(name="ann")
            connection.close()
            connection.creation.clone_test_db("1", verbosity=0, autoclobber=True)
            test, clone = Path("test_app.sqlite3").resolve(), Path("test_app_1.sqlite3").resolve()
            assert test.exists()
            before = dict(connection.settings_dict)
            connection.creation.setup_worker_connection(1)
            Account.objects.create(name="bob")
            with connection.cursor() as cursor:
                assert cursor.execute("PRAGMA database_list").fetchone()[2] == str(clone)
            connection.close()
            connection.settings_dict.update(before)
            assert [account.name for account in Account.objects.all()] == ["ann"]
            connection.creation.destroy_test_db(verbosity=0, suffix="1")
            connection.creation.destroy_test_db("app.sqlite3", verbosity=0)
            assert not clone.exists() and not test.exists()
        assert Account.objects.count() == 0
        """
    )


def test_real_threads_have_their_own(run):
    """Also if they share one of Django's: each opens it anew, but not amid a transaction."""
    run(
        """
        Account.objects.create(name="ann")
        connection.inc_thread_sharing()
        shared, said = connections["default"], []

        def count():
            connections["default"] = shared
            try:
                said.append(Account.objects.count())
            except OperationalError as error:
                said.append(type(error.__cause__).__name__)

        def in_thread():
            thread = threading.Thread(target=count)
            thread.start()
            thread.join()
            return said.pop()

        assert in_thread() == 1
        assert Account.objects.count() == 1
        with transaction.atomic():
            assert in_thread() == "WrongThread"
            Account.objects.create(name="bob")
        assert Account.objects.count() == 2
        connection.close()
        """,
        beginning="",
    )
