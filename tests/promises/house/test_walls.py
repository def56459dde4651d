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
    "__main__": "tool.cli",
    "address": "",
    "errors": "",
    "function_names": "",
    "gtask": "errors",
    "loading": "errors",
    "printable": "",
    "logdefer": "wire.exceptions.failure wire.plain",
    "prometheus": "stats",
    "running_call": "",
    "serving": "address",
    "shells": "",
    "spawn": "address loading target",
    "stats": "",
    "target": "",
    "tasks": "function_names running_call",
    "testing": "address spawn",
    #
    "wire": "",
    "wire.bodies": "errors wire.forms wire.limits wire.mark wire.messages wire.values.collisions wire.values.unpacking",
    "wire.conversation": "errors wire.forms wire.messages",
    "wire.dbapi": "",
    "wire.exceptions": "",
    "wire.exceptions.anatomy": "errors",
    "wire.exceptions.failure": "wire.exceptions.anatomy wire.exceptions.making wire.exceptions.telling",
    "wire.exceptions.making": "errors wire.exceptions.anatomy wire.exceptions.rebuilt wire.exceptions.stayed "
    "wire.exceptions.telling wire.exceptions.tracebacks wire.plain",
    "wire.exceptions.rebuilt": "errors wire.exceptions.anatomy wire.exceptions.stayed wire.exceptions.telling",
    "wire.exceptions.stayed": "errors",
    "wire.exceptions.telling": "wire.exceptions.anatomy wire.exceptions.stayed wire.exceptions.tracebacks wire.plain",
    "wire.exceptions.tracebacks": "",
    "wire.forms": "errors printable wire.messages",
    "wire.frames": "wire.bodies wire.limits wire.mark wire.messages wire.named wire.pieces wire.reading "
    "wire.values.agreement wire.values.culprit wire.values.kinds wire.writing",
    "wire.json": "",
    "wire.json.conversation": "wire.conversation wire.messages",
    "wire.json.text": "errors wire.forms wire.json.conversation wire.limits wire.malformed wire.messages "
    "wire.values.bases",
    "wire.lastwords": "errors wire.bodies wire.frames wire.limits wire.malformed wire.mark wire.messages wire.reading "
    "wire.values.agreement wire.values.unpacking",
    "wire.limits": "errors",
    "wire.malformed": "",
    "wire.mark": "",
    "wire.left": "wire.bodies wire.messages wire.values.unpacking",
    "wire.messages": "",
    "wire.named": "wire.bodies wire.forms wire.messages wire.values.culprit wire.values.kinds wire.values.unpacking",
    "wire.pieces": "wire.mark",
    "wire.plain": "wire.values.bases",
    "wire.reading": "errors wire.bodies wire.left wire.limits wire.malformed wire.messages wire.named "
    "wire.values.agreement wire.values.unpacking",
    "wire.shared": "",
    "wire.sparse": "wire.bodies wire.pieces wire.values.kinds",
    "wire.values": "",
    "wire.values.agreement": "errors wire.pieces wire.values.kinds",
    "wire.values.arrays": "wire.values.in_place wire.values.kinds wire.values.unpacking",
    "wire.values.bases": "",
    "wire.values.copies": "errors wire.values.bases wire.values.culprit wire.values.kinds wire.values.remedies",
    "wire.values.culprit": "errors wire.limits wire.values.bases wire.values.kinds",
    "wire.values.collisions": "wire.limits",
    "wire.values.holes": "wire.values.culprit wire.values.kinds",
    "wire.values.in_place": "",
    "wire.values.kinds": "errors wire.values.bases wire.values.collisions",
    "wire.values.offers": "wire.messages wire.shared.word wire.values.agreement wire.values.arrays wire.values.kinds "
    "wire.values.pickles",
    "wire.values.pickles": "errors wire.values.kinds wire.values.unpacking",
    "wire.values.remedies": "",
    "wire.writing": "errors wire.bodies wire.forms wire.left wire.limits wire.mark wire.messages wire.pieces "
    "wire.sparse wire.values.agreement wire.values.copies wire.values.culprit wire.values.holes wire.values.kinds",
    #
    "client": "",
    "client.calls": "client.companions client.elsewhere client.outcomes errors",
    "client.checkout": "client.calls client.lease",
    "client.client": "address aspects.caller aspects.context client.checkout client.config client.many.executor "
    "client.many.unordered client.pool.connector client.pool.pool client.pool.who_serves function_names spawn stats "
    "target wire.limits",
    "client.companions": "wire.messages",
    "client.config": "aspects.context wire.limits",
    "client.connection": "client.deaths client.handshake client.labels client.one_at_a_time client.outcomes "
    "client.overtime client.preamble client.stream errors wire.messages wire.pieces wire.values.agreement",
    "client.counters": "stats",
    "client.deaths": "errors wire.exceptions.failure",
    "client.dialects": "client.dialects.gtask client.dialects.json",
    "client.dialects.dialect": "wire.conversation wire.values.agreement",
    "client.dialects.gtask": "client.dialects.dialect wire.frames wire.lastwords wire.messages wire.shared.channel "
    "wire.values.offers wire.values.pickles",
    "client.dialects.json": "client.dialects.dialect errors wire.json.conversation wire.json.text",
    "client.elsewhere": "client.loop errors",
    "client.forks": "",
    "client.handshake": "client.loop errors wire.values.agreement",
    "client.in_line": "client.outcomes wire.messages wire.values.agreement",
    "client.labels": "address",
    "client.lease": "client.calls client.forks client.in_line client.loop client.outcomes client.refusals "
    "client.submitted errors wire.messages",
    "client.loop": "client.forks",
    "client.many": "",
    "client.many.executor": "client.calls client.checkout client.elsewhere client.lease client.loop client.many.items "
    "function_names",
    "client.many.items": "errors function_names",
    "client.many.lanes": "client.checkout",
    "client.many.unordered": "client.loop client.many.items client.many.lanes",
    "client.one_at_a_time": "wire.messages",
    "client.outcomes": "errors wire.exceptions.failure wire.messages",
    "client.overtime": "client.loop",
    "client.pool": "",
    "client.pool.audit": "client.pool.slots errors",
    "client.pool.backoff": "",
    "client.pool.connector": "address aspects.caller client.config client.connection client.dialects client.forks "
    "client.loop client.pool.slots client.pool.who_serves client.preamble errors serving spawn wire.messages",
    "client.pool.ledger": "client.config client.counters client.pool.backoff client.pool.slots",
    "client.pool.line_clock": "",
    "client.pool.nesting": "",
    "client.pool.news": "client.loop",
    "client.pool.no_worker": "client.pool.slots errors wire.exceptions.failure",
    "client.pool.notices": "",
    "client.pool.ownership": "client.forks client.loop client.pool.no_worker loading spawn",
    "client.pool.pool": "aspects.caller client.checkout client.counters client.forks client.lease client.loop "
    "client.outcomes client.pool.ledger client.pool.nesting client.pool.no_worker client.pool.ownership "
    "client.pool.slots client.pool.stack client.pool.workers client.submitted errors",
    "client.pool.slots": "",
    "client.pool.stack": "",
    "client.pool.who_serves": "address errors",
    "client.pool.workers": "client.counters client.loop client.pool.audit client.pool.line_clock client.pool.nesting "
    "client.pool.news client.pool.no_worker client.pool.notices client.pool.slots errors printable",
    "client.preamble": "errors wire.messages",
    "client.refusals": "client.forks client.outcomes errors",
    "client.stream": "client.forks client.loop errors wire.messages wire.pieces",
    "client.submitted": "client.calls errors wire.messages",
    #
    "server": "",
    "server.capacity": "",
    "server.comm": "",
    "server.config": "address server.option target wire.limits",
    "server.custody": "",
    "server.daemon": "",
    "server.daemon.application": "address loading server.config server.daemon.logs server.daemon.options "
    "server.daemon.orphanage server.daemon.watch server.daemon.words server.descriptors server.functions "
    "server.listener server.master.attendants server.master.master server.originals server.output server.patches "
    "server.process server.remarks server.users server.worker.interface spawn target",
    "server.daemon.cli": "server.config server.daemon.keeper server.daemon.logs server.daemon.options "
    "server.daemon.pidfile server.daemon.systemd server.descriptors server.listener server.output server.process "
    "server.users spawn",
    "server.daemon.completion": "server.daemon.options shells",
    "server.daemon.keeper": "errors server.comm server.config server.daemon.restless server.daemon.succession "
    "server.daemon.systemd server.daemon.words server.descriptors server.listener server.originals server.output "
    "server.process server.users",
    "server.daemon.logs": "aspects.logs.capture printable",
    "server.daemon.options": "address gtask server.config server.custody server.daemon.values server.option shells "
    "target",
    "server.daemon.orphanage": "server.originals server.process",
    "server.daemon.pidfile": "errors server.custody",
    "server.daemon.private": "server.config server.daemon.cli server.daemon.logs server.daemon.options "
    "server.descriptors server.listener server.output server.process spawn",
    "server.daemon.restless": "",
    "server.daemon.succession": "",
    "server.daemon.systemd": "server.originals",
    "server.daemon.values": "address server.config server.option",
    "server.daemon.watch": "installed",
    "server.daemon.words": "printable",
    "server.databases": "",
    "server.databases.cursor": "wire.dbapi",
    "server.databases.database": "server.databases.cursor server.databases.drivers wire.dbapi",
    "server.databases.drivers": "server.databases.drivers.generic server.databases.drivers.postgresql "
    "server.databases.drivers.sqlite",
    "server.databases.drivers.generic": "",
    "server.databases.drivers.postgresql": "server.databases.drivers.generic wire.dbapi",
    "server.databases.drivers.sqlite": "server.databases.drivers.generic",
    "server.dbapi": "server.databases.database server.databases.drivers server.worker.interface",
    "server.descriptors": "server.custody server.originals",
    "server.embed": "address loading server.config server.daemon.logs server.descriptors server.listener "
    "server.master.master server.output server.process server.remarks server.worker.interface spawn",
    "server.estate": "address server.originals",
    "server.functions": "function_names wire.limits",
    "server.listener": "address server.config server.custody server.estate server.originals server.paths server.peers "
    "server.users",
    "server.master": "",
    "server.master.attendants": "server.comm server.daemon.watch server.estate server.listener server.master.children "
    "server.master.workers server.metrics.status server.originals server.output server.paths server.process "
    "server.scoreboard",
    "server.master.children": "server.scoreboard",
    "server.master.crowding": "server.master.attendants server.master.children server.master.workers server.scoreboard",
    "server.master.deaths": "server.config server.master.children server.master.workers server.metrics.status "
    "wire.lastwords wire.messages",
    "server.master.door": "address server.config server.master.attendants server.master.silent server.peers "
    "server.seldom",
    "server.master.idle": "server.master.attendants server.master.children server.master.workers server.scoreboard "
    "server.seldom",
    "server.master.master": "errors loading server.capacity server.comm server.config server.descriptors "
    "server.listener server.master.attendants server.master.children server.master.crowding server.master.deaths "
    "server.master.door server.master.idle server.master.refusals server.master.workers server.metrics.scrapes "
    "server.metrics.status server.originals server.output server.patches server.peers server.process "
    "server.scoreboard server.seldom server.worker.interface server.worker.parts server.worker.serve serving "
    "wire.values.arrays",
    "server.master.refusals": "server.config server.master.attendants wire.exceptions.failure wire.frames "
    "wire.json.text wire.messages",
    "server.master.silent": "",
    "server.master.workers": "server.master.children server.originals server.process server.scoreboard",
    "server.metrics": "",
    "server.metrics.scrapes": "errors server.comm server.descriptors server.listener server.master.attendants "
    "server.master.silent server.metrics.status server.metrics.text server.originals server.process server.seldom",
    "server.metrics.status": "server.master.children server.scoreboard server.worker.interface",
    "server.metrics.text": "gtask server.metrics.status",
    "server.option": "",
    "server.originals": "",
    "server.output": "server.originals",
    "server.patches": "errors",
    "server.paths": "address errors server.config server.custody server.originals server.peers",
    "server.peers": "address server.originals",
    "server.process": "server.descriptors server.originals",
    "server.remarks": "server.worker.discovery server.worker.interface",
    "server.scoreboard": "printable",
    "server.seldom": "",
    "server.users": "",
    "server.worker": "",
    "server.worker.companions": "",
    "server.worker.demands": "",
    "server.worker.dialect": "",
    "server.worker.discovery": "server.worker.demands",
    "server.worker.failures": "errors server.config server.worker.interruption wire.exceptions.failure wire.limits "
    "wire.messages",
    "server.worker.full_names": "function_names wire.limits",
    "server.worker.greeting": "errors server.worker.dialect server.worker.failures wire.bodies "
    "wire.exceptions.failure wire.messages wire.reading",
    "server.worker.gtask": "wire.conversation wire.frames wire.messages wire.shared.channel wire.values.offers",
    "server.worker.hooks": "server.scoreboard",
    "server.worker.interface": "server.worker.discovery",
    "server.worker.interruption": "errors",
    "server.worker.json": "aspects.aspect errors logdefer wire.json.conversation wire.json.text wire.messages",
    "server.worker.methods": "server.scoreboard server.worker.misfits server.worker.replies",
    "server.worker.misfits": "function_names server.worker.full_names wire.limits",
    "server.worker.parts": "aspects.context_worker aspects.current_call aspects.logs.reporter aspects.tracing "
    "aspects.unpickling server.worker.gtask server.worker.json",
    "server.worker.replies": "wire.pieces",
    "server.worker.retirement": "server.process",
    "server.worker.serve": "errors server.descriptors server.originals server.process server.scoreboard "
    "server.worker.greeting server.worker.worker",
    "server.worker.teller": "",
    "server.worker.worker": "errors server.worker.companions server.worker.failures server.worker.hooks "
    "server.worker.interruption server.worker.methods server.worker.misfits server.worker.replies "
    "server.worker.retirement server.worker.teller wire.forms wire.messages",
    #
    "aspects": "",
    "aspects.aspect": "",
    "aspects.caller": "aspects.aspect aspects.context aspects.logs.levels aspects.logs.record aspects.logs.replay "
    "aspects.tracing errors wire.messages wire.values.pickles",
    "aspects.context": "aspects.aspect wire.exceptions.tracebacks",
    "aspects.context_worker": "aspects.aspect installed wire.exceptions.tracebacks",
    "aspects.current_call": "aspects.aspect running_call wire.messages",
    "aspects.logs": "",
    "aspects.logs.capture": "aspects.logs.levels",
    "aspects.logs.levels": "",
    "aspects.logs.record": "wire.exceptions.failure wire.plain",
    "aspects.logs.replay": "aspects.logs.record printable wire.exceptions.failure",
    "aspects.logs.reporter": "aspects.aspect aspects.logs.capture aspects.logs.levels aspects.logs.record errors "
    "logdefer target wire.limits wire.messages",
    "aspects.spans": "aspects.aspect",
    "aspects.tracing": "aspects.aspect",
    "aspects.unpickling": "aspects.aspect wire.values.pickles",
    #
    "dbapi": "client.client dbapi.connection dbapi.cursor dbapi.drivers_known dbapi.errors dbapi.module_stand_in "
    "dbapi.shared_clients",
    "dbapi.connection": "client.client dbapi.cursor dbapi.driver dbapi.drivers_known errors wire.dbapi",
    "dbapi.cursor": "dbapi.driver wire.dbapi",
    "dbapi.driver": "dbapi.errors errors wire.dbapi",
    "dbapi.drivers_known": "dbapi.driver dbapi.psycopg2 dbapi.sqlite",
    "dbapi.errors": "errors wire.dbapi wire.exceptions.failure",
    "dbapi.module_stand_in": "client.client dbapi.connection dbapi.cursor dbapi.driver",
    "dbapi.psycopg2": "dbapi.cursor dbapi.driver dbapi.psycopg2types wire.dbapi",
    "dbapi.psycopg2types": "dbapi.cursor",
    "dbapi.shared_clients": "client.client",
    "dbapi.sqlite": "dbapi.driver wire.dbapi",
    #
    "integrations": "",
    "integrations.bottle": "gtask integrations.configured integrations.wsgi",
    "integrations.configured": "gtask",
    "integrations.django": "integrations.django.settings",
    "integrations.django.settings": "gtask integrations.configured",
    "integrations.django.sqlite3": "",
    "integrations.django.sqlite3.base": "dbapi integrations.django.sqlite3.creation "
    "integrations.django.sqlite3.greenlets",
    "integrations.django.sqlite3.creation": "",
    "integrations.django.sqlite3.greenlets": "",
    "integrations.django.sqlite3.server": "server.dbapi",
    "integrations.flask": "gtask integrations.configured integrations.wsgi logdefer",
    "integrations.sqlalchemy": "client.client dbapi dbapi.drivers_known errors",
    "integrations.wsgi": "gtask",
    #
    "tool": "",
    "tool.cli": "address errors gtask printable shells tool.conversation tool.tables tool.top",
    "tool.conversation": "address errors wire.conversation wire.exceptions.failure wire.frames wire.lastwords "
    "wire.messages wire.values.offers",
    "tool.tables": "printable",
    "tool.top": "address errors printable tool.conversation tool.tables",
    "wire.values.unpacking": "wire.limits wire.values.collisions",
    "installed": "",
    "shared": "wire.shared.born wire.shared.memory",
    "wire.shared.born": "wire.shared.memory wire.values.in_place",
    "wire.shared.channel": "wire.shared.memory wire.shared.word",
    "wire.shared.memory": "wire.values.in_place",
    "wire.shared.word": "wire.limits wire.values.kinds wire.values.unpacking",
}
"""The arrows. ``client`` never reaches ``server`` nor the other way round, ``tool`` neither of them, and nothing
imports ``testing``. The keeper (``server.cli``) reaches neither the master nor what the application needs."""

RINGS = [
    # What a call is told by, and what is neutral.
    "errors address stats spawn loading serving target shells function_names printable running_call logdefer gtask "
    "installed "
    "wire. client.loop client.elsewhere client.forks client.counters server.scoreboard server.process server.config "
    "server.option "
    "server.users server.custody server.originals server.descriptors server.worker.demands server.worker.discovery",
    # The call.
    "client.checkout client.lease client.calls client.submitted client.connection client.handshake client.preamble "
    "client.overtime client.stream client.outcomes client.deaths client.companions client.labels "
    "client.in_line client.refusals client.one_at_a_time "
    "server.worker.worker server.worker.interruption server.worker.interface server.worker.replies "
    "server.worker.dialect server.worker.methods server.worker.full_names server.worker.misfits "
    "server.worker.greeting server.worker.companions server.worker.hooks server.worker.retirement "
    "server.worker.failures server.worker.teller",
    # Pools and masters, and who makes and serves them.
    "client. server.",
    # What a call may have beside its value.
    "aspects.",
    # What is built on all that.
    "dbapi. integrations. tool. tasks shared testing prometheus __main__",
]
"""The rings of the house, from within: a module is of the first that names it or a folder that it is in ("wire.").

Rings 0 and 1 import nothing of the rings around them; of 2 and 3 nothing imports the last."""

OPTIONAL = (
    "aspects. wire.values.pickles wire.values.arrays wire.shared. wire.json. wire.dbapi client.dialects. "
    "server.worker.json "
    "server.metrics. server.databases. server.dbapi"
)
"""What the call does not know, though some of it is of ring 0."""

PROTOCOLS = {"aspects.aspect", "client.dialects.dialect"}
"""By which it has what it does not know: for its types only."""

HOMES = {
    "msgpack": "wire.bodies wire.shared.word wire.values.holes wire.values.kinds wire.values.unpacking wire.writing",
    "gevent": "client.calls client.connection client.elsewhere client.handshake client.loop client.pool.connector "
    "dbapi.shared_clients integrations.django.sqlite3.greenlets integrations.sqlalchemy integrations.wsgi testing",
    "socket": "address server.daemon.systemd server.listener server.master.attendants server.master.deaths "
    "server.master.door server.master.master server.master.refusals server.master.silent server.master.workers "
    "server.metrics.scrapes server.estate server.originals server.paths server.peers server.worker.dialect "
    "server.worker.failures server.worker.gtask server.worker.json server.worker.replies "
    "server.worker.serve "
    "tool.conversation",
    "select": "integrations.wsgi server.databases.drivers.generic server.databases.drivers.postgresql server.output "
    "tool.conversation tool.top",
    "_signal": "server.originals",
    "posix": "server.embed server.originals spawn",
    "fork": "server.embed server.originals server.process",
    "subprocess": "",
    "ctypes": "server.process wire.shared.memory wire.values.in_place",
    "threading": "server.embed server.remarks server.worker.replies server.worker.teller",
    "random": "client.pool.workers",
    "concurrent": "client.many.executor",
    "importlib": "aspects.tracing dbapi.drivers_known gtask server.daemon.application server.functions "
    "server.originals shared shells tool.cli wire.values.arrays",
    "pickle": "wire.values.pickles",
    "runpy": "server.daemon.options",
    "setproctitle": "server.process",
    "rich": "tool.top",
    "opentelemetry": "aspects.spans",
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
    "aspects.context": "",
    "errors": "",
    "function_names": "",
    "printable": "",
    "tasks": "",
    "address": "socket select",  # for the constants
    "stats": "",
    "target": "",
    "wire.messages": "",
    "wire.limits": "",
    "wire.forms": "",
    "wire.pieces": "",
    "wire.sparse": "msgpack",
    "wire.shared.word": "msgpack",
    "wire.values.agreement": "msgpack",
    "wire.values.arrays": "msgpack",
    "wire.values.bases": "",
    "wire.values.copies": "msgpack",
    "wire.values.collisions": "",
    "wire.values.culprit": "msgpack",
    "wire.values.holes": "msgpack",
    "wire.values.in_place": "",
    "wire.values.offers": "msgpack",
    "wire.values.pickles": "msgpack",
    "wire.values.remedies": "",
    "wire.bodies": "msgpack",
    "wire.frames": "msgpack",
    "wire.named": "msgpack",
    "wire.reading": "msgpack",
    "wire.writing": "msgpack",
    "wire.values.kinds": "msgpack",
    "wire.conversation": "",
    "wire.malformed": "",
    "wire.plain": "",
    "wire.json.text": "",
    "wire.json.conversation": "",
    "wire.exceptions.tracebacks": "",
    "wire.exceptions.anatomy": "",
    "wire.exceptions.failure": "",
    "wire.exceptions.making": "",
    "wire.exceptions.rebuilt": "",
    "wire.exceptions.stayed": "",
    "wire.exceptions.telling": "",
    "wire.lastwords": "msgpack",
    "client.pool.backoff": "",
    "client.counters": "",
    "client.pool.audit": "",
    "client.pool.ledger": "",
    "client.pool.slots": "",
    "client.pool.stack": "",
    "client.pool.line_clock": "",
    "client.pool.nesting": "",
    "client.pool.no_worker": "",
    "client.companions": "",
    "client.deaths": "",
    "client.outcomes": "",
    "client.config": "",
    "server.seldom": "",
    "server.master.children": "signal",  # for the numbers
    "server.functions": "",
    "server.worker.interface": "",
    "server.worker.demands": "",
    "server.worker.discovery": "",
    "server.metrics.text": "signal",  # children's
    "server.daemon.words": "",
    "server.daemon.succession": "",
    "server.daemon.restless": "",
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


def imports(tree, nodes=without_type_checking):
    """The dotted names that a module imports: ``from a import b`` is a.b if that is a module of gtask, else a."""
    for node in nodes(tree):
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


IMPORTS = {name: set(imports(tree)) for name, tree in SOURCES.items()}
WORDS = {name: set(words_of(tree)) for name, tree in SOURCES.items()}


def test_every_module_has_its_place():
    """The table names each module, and no other."""
    assert set(SOURCES) == set(ARROWS)


@pytest.mark.parametrize("name", SOURCES)
def test_imports_are_those_of_the_table(name):
    """A module of gtask imports exactly what the table says of it."""
    assert inner(IMPORTS[name]) == set(ARROWS.get(name, "").split())


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
            assert rooms <= {"wire", "errors", "printable"}
        assert "testing" not in rooms


def is_of(name, listed):
    """Whether a list of names has this one, or a folder that it is in."""
    folders = [f"{name[:at]}." for at, letter in enumerate(f"{name}.") if letter == "."]
    return not {name, *folders}.isdisjoint(listed.split())


def ring_of(name):
    """The number of a module's ring."""
    return next(number for number, listed in enumerate(RINGS) if is_of(name, listed))


@pytest.mark.parametrize("ring", range(len(RINGS)))
def test_rings_know_no_outer_ones(ring):
    """What a ring may import of the others."""
    outermost = {0: 0, 1: 1, 2: 3, 3: 3}.get(ring, len(RINGS))
    names = [name for name in SOURCES if name not in EMPTY and ring_of(name) == ring]
    outer = {name: {other for other in inner(IMPORTS[name]) if ring_of(other) > outermost} for name in names}
    assert {name: others for name, others in outer.items() if others} == {}


def test_the_call_knows_nothing_optional():
    """Not even for its types, but for the protocol of aspects."""
    known = {}
    for name in SOURCES:
        if name not in EMPTY and ring_of(name) == 1:
            types = inner(imports(SOURCES[name], ast.walk)) - PROTOCOLS
            known[name] = {other for other in types | inner(IMPORTS[name]) if is_of(other, OPTIONAL)}
    assert {name: others for name, others in known.items() if others} == {}


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
        users = {name for name, words in WORDS.items() if not {"fork", "forkpty"}.isdisjoint(words)}
    else:
        users = {name for name, names in IMPORTS.items() if thing in {full.split(".")[0] for full in names}}
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


PROBE = """
import os, sys, uuid

for statement in sys.argv[1:]:
    if not os.fork():
        before = set(sys.modules)
        exec(statement)
        print(*set(sys.modules) - before, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


def loads(*statements):
    """For each statement the modules that a bare interpreter, without site's own imports, loads for it.

    Each runs in a child of one interpreter. What ``uuid`` loads is left out: in Python 3.10 that is half of the
    standard library.
    """
    path = os.pathsep.join([str(PACKAGE.parent), LIBRARIES])
    command = [sys.executable, "-S", "-c", PROBE, *statements]
    done = subprocess.run(command, env={"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [set(line.split()) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def loaded_by():
    """A pure module to all that its import loads."""
    return dict(zip(PURE, loads(*[f"import gtask.{name}" for name in PURE]), strict=True))


@pytest.mark.parametrize("name", PURE)
def test_what_is_pure_loads_nothing_that_acts(loaded_by, name):
    """Imported alone, it brings neither gevent nor sockets, signals, processes, threads nor chance with it."""
    modules = loaded_by[name]
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
    assert inner(loads("import gtask")[0]) == {"gtask", "errors"}


def test_each_name_loads_its_own_side():
    """A client does not load the server's side, nor a server the client's and with it gevent."""
    sides = ("Server", "fork_server", "Interface", "spawn_server")
    client, *servers = loads("from gtask import Client, Checkout", *[f"from gtask import {name}" for name in sides])
    assert not {name for name in client if name.startswith("gtask.server")}
    for loaded in servers:
        assert not {name for name in loaded if name.startswith("gtask.client")}
        assert not {"gevent", "greenlet", "gtask.testing"} & loaded
    assert "gtask.testing" not in client


def test_the_servers_side_never_loads_gevent():
    """All its modules together do not."""
    names = ", ".join(f"gtask.{name}" for name in SOURCES if is_of_the_server(name))
    assert not {"gevent", "greenlet"} & loads(f"import {names}")[0]


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
    "__main__", "aspects", "aspects.logs", "client", "client.dialects", "client.many", "client.pool", "integrations",
    "integrations.django.sqlite3", "server", "server.daemon", "server.databases", "server.master", "server.metrics",
    "server.worker", "tool", "wire", "wire.exceptions", "wire.json", "wire.shared", "wire.values",
}  # fmt: skip
"""Packages that are no more than their modules, and what nobody imports."""


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
