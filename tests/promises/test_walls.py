"""The point of this test is to ensure that the walls between the parts of gtask stand.

Who may import whom is the table :data:`ARROWS`; what is dangerous has one home (:data:`HOMES`); what is pure does not
even load what could act. A part that is not in the tables yet fails here: its place is to be decided, and written down.
"""

from __future__ import annotations

import ast
import graphlib
import os
import pathlib
import subprocess
import sys

import msgpack
import pytest

import gtask

PACKAGE = pathlib.Path(gtask.__file__).parent

ARROWS = {
    # module: what else of gtask it imports
    "gtask": "errors",
    "contextbridge": "",
    "current": "",
    "logbridge": "wire.failure wire.plain",
    "logdefer": "wire.failure wire.plain",
    "tracing": "",
    "naming": "",
    "tasks": "current naming",
    "errors": "",
    "address": "",
    "spawn": "address",
    "stats": "",
    "prometheus": "stats",
    "testing": "address spawn",
    "integrations": "",
    "integrations.django": "integrations.django.settings",
    "integrations.django.sqlite3": "",
    "integrations.django.sqlite3.base": "dbapi integrations.django.sqlite3.creation "
    "integrations.django.sqlite3.greenlets",
    "integrations.django.sqlite3.creation": "",
    "integrations.django.sqlite3.greenlets": "",
    "integrations.django.sqlite3.server": "server.dbapi",
    "integrations.configured": "gtask",
    "integrations.wsgi": "gtask",
    "integrations.flask": "gtask logdefer integrations.configured integrations.wsgi",
    "integrations.django.settings": "gtask integrations.configured",
    "integrations.bottle": "gtask integrations.configured integrations.wsgi",
    "integrations.sqlalchemy": "errors client.client dbapi dbapi.known",
    "dbapi": "client.client dbapi.clients dbapi.connection dbapi.cursor dbapi.errors dbapi.known dbapi.module",
    "dbapi.clients": "client.client",
    "dbapi.connection": "errors client.client dbapi.cursor dbapi.driver dbapi.known wire.dbapi",
    "dbapi.cursor": "dbapi.driver wire.dbapi",
    "dbapi.driver": "errors dbapi.errors wire.dbapi",
    "dbapi.errors": "errors wire.dbapi wire.failure",
    "dbapi.sqlite": "dbapi.driver wire.dbapi",
    "dbapi.known": "dbapi.driver dbapi.psycopg2 dbapi.sqlite",
    "dbapi.module": "client.client dbapi.connection dbapi.cursor dbapi.driver",
    "dbapi.psycopg2types": "dbapi.cursor",
    "dbapi.psycopg2": "dbapi.cursor dbapi.driver dbapi.psycopg2types wire.dbapi",
    #
    "wire": "",
    "wire.messages": "errors",
    "wire.agreement": "wire.messages",
    "wire.arrays": "wire.agreement",
    "wire.pickled": "errors wire.agreement",
    "wire.codec": "errors wire.agreement wire.extensions wire.messages wire.pickled",
    "wire.extensions": "errors wire.agreement wire.arrays wire.messages wire.pickled",
    "wire.exchange": "errors wire.messages",
    "wire.jsontext": "errors wire.messages",
    "wire.jsonexchange": "wire.exchange wire.messages",
    "wire.tracebacks": "",
    "wire.plain": "",
    "wire.dbapi": "",
    "wire.failure": "errors wire.plain wire.tracebacks",
    "wire.lastwords": "errors wire.codec wire.messages",
    #
    "client": "",
    "client.backoff": "",
    "client.config": "contextbridge wire.messages",
    "client.counters": "stats",
    "client.ledger": "client.backoff client.config client.counters",
    "client.loop": "",
    "client.refusals": "errors client.ledger",
    "client.verdicts": "errors wire.failure wire.messages",
    "client.story": "logbridge wire.messages",
    "client.calls": "errors wire.agreement wire.messages client.story",
    "client.connection": "errors address logbridge wire.agreement wire.arrays wire.codec wire.exchange wire.lastwords "
    "wire.messages client.calls client.story client.verdicts client.loop",
    "client.jsonconnection": "errors logbridge wire.failure wire.jsonexchange wire.jsontext wire.messages "
    "client.calls client.connection client.story",
    "client.submitted": "errors wire.agreement wire.messages client.calls",
    "client.lease": "errors contextbridge tracing wire.agreement wire.failure wire.messages wire.pickled "
    "client.calls client.connection client.counters client.loop client.story client.submitted",
    "client.checkout": "client.calls client.lease",
    "client.connector": "errors address logbridge spawn wire.agreement wire.codec wire.jsontext wire.messages "
    "client.config client.connection client.jsonconnection client.ledger",
    "client.executor": "naming client.calls client.checkout client.lease client.loop",
    "client.unordered": "client.calls client.checkout client.lease client.loop",
    "client.nesting": "client.lease client.ledger",
    "client.pool": "errors address stats wire.failure wire.messages client.calls client.checkout client.config "
    "client.connection client.counters client.lease client.ledger client.loop client.nesting client.refusals "
    "client.story wire.agreement",
    "client.client": "address contextbridge naming spawn stats wire.messages client.checkout client.config "
    "client.connector client.executor client.pool client.story client.unordered",
    #
    "server": "",
    "server.children": "",
    "server.interface": "",
    "server.functions": "naming",
    "server.process": "",
    "server.succession": "",
    "server.systemd": "",
    "server.pidfile": "",
    "server.logs": "",
    "server.watch": "",
    "server.drivers": "server.drivers.generic server.drivers.postgresql server.drivers.sqlite",
    "server.drivers.generic": "",
    "server.drivers.postgresql": "server.drivers.generic wire.dbapi",
    "server.drivers.sqlite": "server.drivers.generic",
    "server.database": "server.drivers wire.dbapi",
    "server.dbapi": "server.database server.drivers server.interface",
    "server.config": "address wire.messages",
    "server.options": "gtask address server.config",
    "server.completion": "server.options",
    "server.listener": "address server.config",
    "server.scoreboard": "server.children",
    "server.replies": "server.scoreboard",
    "server.story": "errors logbridge logdefer wire.messages server.replies",
    "server.status": "server.children server.interface",
    "server.metrics": "gtask server.status",
    "server.scrapes": "server.listener server.metrics server.process server.status",
    "server.jsonpeer": "wire.jsonexchange wire.jsontext server.interface",
    "server.worker": "errors contextbridge current logdefer tracing wire.codec wire.exchange wire.failure "
    "wire.jsonexchange wire.jsontext wire.messages server.children server.config server.interface server.jsonpeer "
    "server.process server.replies server.scoreboard server.story wire.agreement wire.arrays wire.pickled",
    "server.master": "wire.lastwords wire.messages server.children server.config server.interface server.listener "
    "server.process server.scoreboard server.scrapes server.status server.watch server.worker wire.arrays",
    "server.application": "address server.config server.functions server.interface server.listener server.logs "
    "server.master server.options server.process server.watch",
    "server.embed": "address spawn server.config server.interface server.listener server.master server.process",
    "server.keeper": "server.config server.listener server.process server.succession server.systemd",
    "server.cli": "server.config server.keeper server.listener server.logs server.options server.pidfile "
    "server.process server.systemd",
    #
    "tool": "",
    "tool.tables": "",
    "tool.conversation": "errors address wire.agreement wire.arrays wire.codec wire.exchange wire.failure "
    "wire.lastwords wire.messages",
    "tool.top": "address errors tool.conversation tool.tables",
    "tool.cli": "gtask address errors tool.conversation tool.tables tool.top",
}
"""The arrows. ``client`` never reaches ``server`` nor the other way round, ``tool`` neither of them, and nothing
imports ``testing``. The keeper (``server.cli``) reaches neither the master nor what the application needs."""

HOMES = {
    "msgpack": "wire.codec wire.extensions",
    "gevent": "client.calls client.connection client.connector client.loop dbapi.clients "
    "integrations.django.sqlite3.greenlets integrations.sqlalchemy integrations.wsgi testing",
    "socket": "address server.jsonpeer server.listener server.master server.replies server.scrapes server.systemd "
    "server.worker tool.conversation",
    "select": "server.drivers.generic server.drivers.postgresql server.keeper server.listener server.master "
    "server.process server.scrapes tool.conversation tool.top integrations.wsgi",
    "fork": "server.embed server.process",
    "subprocess": "",
    "ctypes": "server.process",
    "threading": "server.embed server.story",
    "random": "client.pool",
    "concurrent": "client.executor",
    "importlib": "gtask dbapi.known server.application server.functions wire.arrays",
    "pickle": "wire.pickled",
    "runpy": "server.options",
    "setproctitle": "server.process",
    "shtab": "server.completion",
    "rich": "tool.top",
    "opentelemetry": "tracing",
    "prometheus_client": "prometheus",
    "flask": "integrations.flask",
    "django": "integrations.django.settings integrations.django.sqlite3.base integrations.django.sqlite3.creation "
    "integrations.django.sqlite3.server",
    "bottle": "integrations.bottle",
}
"""The one home, or the few, of what is dangerous: libraries, forking, chance, and importing by name."""

BANISHED = {
    "marshal", "shelve", "multiprocessing", "asyncio", "eval", "exec", "compile", "__import__",
}  # fmt: skip
"""What has no home in gtask at all."""

PURE = {
    # module: what of ACTORS it may load
    "contextbridge": "",
    "errors": "",
    "naming": "",
    "tasks": "",
    "address": "socket select",  # for the constants
    "stats": "",
    "wire.messages": "",
    "wire.agreement": "",
    "wire.arrays": "",
    "wire.pickled": "",
    "wire.codec": "msgpack",
    "wire.extensions": "msgpack",
    "wire.exchange": "",
    "wire.plain": "",
    "wire.jsontext": "",
    "wire.jsonexchange": "",
    "wire.tracebacks": "",
    "wire.failure": "",
    "wire.lastwords": "msgpack",
    "client.backoff": "",
    "client.counters": "",
    "client.ledger": "",
    "client.refusals": "",
    "client.verdicts": "",
    "client.config": "",
    "server.children": "signal",  # for the numbers
    "server.functions": "",
    "server.interface": "",
    "server.metrics": "signal",  # children's
    "server.succession": "",
    "tool.tables": "",
}
"""What decides and does not act, and can be tested without a socket, a process or a clock."""

ACTORS = {
    "gevent", "greenlet", "msgpack", "socket", "_socket", "select", "selectors", "ssl", "signal", "subprocess", "fcntl",
    "threading", "multiprocessing", "asyncio", "concurrent", "random", "tempfile", "logging",
}  # fmt: skip


# --- looking at the source -------------------------------------------------------------------------------


def name_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "gtask"


SOURCES = {name_of(path): ast.parse(path.read_text(), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}


def without_type_checking(tree):
    """All nodes but those under ``if TYPE_CHECKING:``, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for other in node.orelse:
                yield other
                yield from without_type_checking(other)
            continue
        yield node
        yield from without_type_checking(node)


def imports(tree):
    """The dotted names that a module imports: ``from a import b`` is a.b if that is a module of gtask, else a."""
    for node in without_type_checking(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "write imports in full"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full.removeprefix("gtask.") in SOURCES else node.module


def inner(names):
    """Those of gtask, without the package's name."""
    return {name.removeprefix("gtask.") for name in names if name.split(".")[0] == "gtask"}


def words_of(tree):
    """Every name that a module uses, as a variable, an attribute or an import."""
    for node in without_type_checking(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.name for alias in node.names)


def test_every_module_has_its_place():
    """The table names each module, and no other."""
    assert set(SOURCES) == set(ARROWS)


@pytest.mark.parametrize("name", SOURCES)
def test_imports_are_those_of_the_table(name):
    """A module of gtask imports exactly what the table says of it."""
    assert inner(imports(SOURCES[name])) == set(ARROWS.get(name, "").split())


def test_imports_run_one_way():
    """There is no circle in the table, and so none in the code."""
    graphlib.TopologicalSorter({name: set(arrows.split()) for name, arrows in ARROWS.items()}).prepare()


def is_of_the_server(name):
    """Whether a server may load it: also what an integration has its workers run."""
    return name.startswith("server") or name.endswith(".server")


def test_the_two_sides_never_meet():
    """Nothing that a client imports leads to the server's side, nor the other way round; nothing leads to testing."""

    def reach(name):
        found = {name}
        for arrow in ARROWS[name].split():
            found |= reach(arrow)
        return found

    for name in ARROWS:
        rooms = {reached.split(".")[0] for reached in reach(name) - {name}}
        if name.startswith(("client", "dbapi", "integrations")) and not is_of_the_server(name):
            assert "server" not in rooms
        else:
            assert "client" not in rooms
        if not is_of_the_server(name):
            assert "server" not in rooms
        if name.startswith("wire"):
            assert rooms <= {"wire", "errors"}
        assert "testing" not in rooms


def nodes(*kinds):
    """Each node of these kinds in all of gtask, with where it stands."""
    for name, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield node, f"{name}, line {node.lineno}"


def test_imports_stand_at_the_top():
    """None hides in a function or class; only the front door loads names later, by importlib."""
    for node, place in nodes(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef):
        assert not [inside for inside in ast.walk(node) if isinstance(inside, (ast.Import, ast.ImportFrom))], place


@pytest.mark.parametrize("thing", HOMES)
def test_what_is_dangerous_has_its_home(thing):
    """Only the modules of the table import it (``fork``: use it under any name)."""
    if thing == "fork":
        users = {name for name, tree in SOURCES.items() if not {"fork", "forkpty"}.isdisjoint(words_of(tree))}
    else:
        users = {name for name, tree in SOURCES.items() if thing in {full.split(".")[0] for full in imports(tree)}}
    assert users == set(HOMES[thing].split())


def test_what_is_banished_is_nowhere():
    """No eval, no second kind of concurrency."""
    for node, place in nodes(ast.Name):
        assert node.id not in BANISHED, place
    for name, tree in SOURCES.items():
        assert BANISHED.isdisjoint(full.split(".")[0] for full in imports(tree)), name


DATED = {"logdefer"}
"""What tells people and tools when something was: it may ask for the time of day, for nothing else."""


def test_clocks_are_monotonic():
    """Nobody asks for the time of day, which may jump."""
    for node, place in nodes(ast.Attribute):
        if node.attr in {"time", "time_ns", "now", "utcnow", "today"}:
            assert ast.unparse(node) == "datetime.time", place  # that one is a type
    for node, place in nodes(ast.ImportFrom):
        allowed = {"monotonic", "time"} if place.split(",")[0] in DATED else {"monotonic"}
        assert node.module != "time" or {alias.name for alias in node.names} <= allowed, place


# --- looking at what is loaded ---------------------------------------------------------------------------

LIBRARIES = str(pathlib.Path(msgpack.__file__).parent.parent)


def loads(statement):
    """The modules that a bare interpreter, without site's own imports, loads for this statement.

    What ``uuid`` loads is left out: in Python 3.10 that is half of the standard library.
    """
    code = f"import sys, uuid; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    path = os.pathsep.join([str(PACKAGE.parent), LIBRARIES])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("name", PURE)
def test_what_is_pure_loads_nothing_that_acts(name):
    """Imported alone, it brings neither gevent nor sockets, signals, processes, threads nor chance with it."""
    modules = loads(f"import gtask.{name}")
    assert f"gtask.{name}" in modules
    loaded = {module.split(".")[0] for module in modules}
    allowed = set(PURE[name].split())
    if "socket" in allowed:
        allowed |= {"_socket", "selectors"}
    assert loaded & ACTORS <= allowed


def test_what_is_pure_reads_no_clock():
    """It is told the time. (That ``time`` is loaded says nothing: every interpreter has it.)"""
    assert {name for name in PURE if "time" in set(imports(SOURCES[name]))} == set()


def test_the_front_door_loads_neither_side():
    """``import gtask`` alone costs the errors, and nothing else of gtask."""
    assert inner(loads("import gtask")) == {"gtask", "errors"}


def test_each_name_loads_its_own_side():
    """A client does not load the server's side, nor a server the client's and with it gevent."""
    client = loads("from gtask import Client, Checkout")
    assert not {name for name in client if name.startswith("gtask.server")}
    for names in ("Server", "fork_server", "Interface", "spawn_server"):
        loaded = loads(f"from gtask import {names}")
        assert not {name for name in loaded if name.startswith("gtask.client")}
        assert not {"gevent", "greenlet", "gtask.testing"} & loaded
    assert "gtask.testing" not in client


def test_the_servers_side_never_loads_gevent():
    """All its modules together do not."""
    names = ", ".join(f"gtask.{name}" for name in SOURCES if is_of_the_server(name))
    assert not {"gevent", "greenlet"} & loads(f"import {names}")


SERVED = """
    import sys

    def loaded(name):
        return sorted(module for module in sys.modules if module.split(".")[0] == name)
"""


def test_a_worker_of_a_running_server_has_no_gevent(unmeasured, serve, connect):
    """Asked inside a worker of a real gtask-server, which has loaded and run all that it needs."""
    client = connect(serve(SERVED))
    assert client.call("loaded", "gevent") == []
    assert client.call("loaded", "greenlet") == []
    assert not [name for name in client.call("loaded", "gtask") if name.startswith(("gtask.client", "gtask.testing"))]


def test_every_public_name_can_be_had():
    """Each of ``gtask.__all__`` loads, is listed by dir(), and stays the same; others are an AttributeError."""
    assert sorted(gtask.__all__) == gtask.__all__
    for name in gtask.__all__:
        value = getattr(gtask, name)
        assert value is getattr(gtask, name)
        assert value.__name__ == name
        assert name in dir(gtask)
    assert set(gtask.errors.__all__) <= set(gtask.__all__)
    with pytest.raises(AttributeError, match="module 'gtask' has no attribute 'no_such_name'"):
        gtask.no_such_name  # noqa: B018


EMPTY = {
    "wire", "client", "server", "tool", "integrations", "integrations.django.sqlite3",
}  # fmt: skip
"""Packages that are no more than their modules."""


def test_every_module_says_what_is_public():
    """In its ``__all__``; and no module imports the private names of another."""
    for name, tree in SOURCES.items():
        listed = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets) == "__all__"]
        assert listed or name in EMPTY, name
        for node in listed:
            public = ast.literal_eval(node.value)
            assert not [each for each in public if each.startswith("_")], name
            assert len(public) == len(set(public)), name
        for node in without_type_checking(tree):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "gtask":
                assert not [alias.name for alias in node.names if alias.name.startswith("_")], name
