"""numpy's arrays and scalars as plain parts and back: what an item is, shape, order, and the bytes of all items.

This is the only module that knows numpy. Who sends an array has loaded it; who receives one imports it then. What comes
is not trusted: its items are of the kinds in :data:`_ITEM`, never Python objects, and its bytes are as many as they are
said to be.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import sys
from functools import cache, lru_cache
from typing import Any

from gtask.wire.values.in_place import own
from gtask.wire.values.kinds import LARGE, NotTransferable, Packing, too_large
from gtask.wire.values.unpacking import Unpacking

__all__ = [
    "DIMENSIONS",
    "FIELDS",
    "HEAD",
    "NESTED",
    "array_types",
    "build_array",
    "is_installed",
    "lay_out_array",
    "pack_array",
    "pack_scalar",
    "scalar_types",
    "unpack_array",
    "unpack_scalar",
]

HEAD = 64 * 1024
"""Bytes in which an array has to say what it is."""

DIMENSIONS = 32
"""How many an array may have; some versions of numpy know no more."""

FIELDS = 1024
"""How many fields a structure may have."""

NESTED = 16
"""How deep structures may lie in structures."""

_UNITS = r"(\[([1-9][0-9]{0,8})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
_ITEM = re.compile(
    r"\|b1|\|[iu]1|[<>][iu][248]|[<>]f(2|4|8|12|16)|[<>]c(8|16|24|32)"
    rf"|[<>][mM]8{_UNITS}|\|[SV][0-9]{{1,9}}|[<>]U[0-9]{{1,9}}"
)
"""What an item may be, as numpy writes it: byte order, kind, bytes (of U: characters)."""


def is_installed() -> bool:
    """Whether this process has numpy, or could import it."""
    return sys.modules.get("numpy") is not None or _is_found()


@cache
def _is_found() -> bool:
    return importlib.util.find_spec("numpy") is not None


def array_types() -> tuple[type, ...]:
    """The class of arrays, if numpy is loaded; it is not imported for the question."""
    return _types("ndarray")


def scalar_types() -> tuple[type, ...]:
    """The class of scalars, if numpy is loaded."""
    return _types("generic")


def _types(name: str) -> tuple[type, ...]:
    cls = getattr(sys.modules.get("numpy"), name, None)
    return () if cls is None else (cls,)


def pack_array(value: Any, packing: Packing) -> bytes:
    """An array's bytes: ``[item, shape, order]``, then those of all items.

    An item is a text, or, of a structure, a list of ``[name, item]`` and ``[name, item, shape]``.

    Raises:
        NotTransferable: it holds Python objects.
        TypeError: it is of a subclass, or cannot be described in this way.
        EncodeError: it is over the limit.
    """
    head, data = lay_out_array(value, packing)
    if data.nbytes > packing.limit:
        raise too_large(f"an array in it has {data.nbytes} bytes", packing.limit)
    return b"".join((head, data))


def lay_out_array(value: Any, packing: Packing) -> tuple[bytes, memoryview]:
    """The same in two parts, the items where they lie; raises as :func:`pack_array`."""
    item = _item(value)
    numpy = sys.modules["numpy"]
    if type(value) not in (numpy.ndarray, numpy.memmap):
        raise TypeError("only plain arrays travel; if its data alone will do, send numpy.array(it)")
    if value.ndim > DIMENSIONS:
        raise TypeError(f"it has {value.ndim} dimensions, and {DIMENSIONS} can be told")
    value = value.view(numpy.ndarray)
    is_fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    head = [item, list(value.shape), "F" if is_fortran else "C"]
    if not value.size:
        return _told(head, packing), memoryview(b"")
    flat = numpy.ascontiguousarray((value.T if is_fortran else value).reshape(-1))
    return _told(head, packing), flat.view(numpy.uint8).data


def pack_scalar(value: Any, packing: Packing) -> bytes:
    """A scalar's bytes: its item, then those of its value; raises as :func:`pack_array`."""
    return b"".join((_told(_item(value), packing), value.tobytes()))


def _item(value: Any) -> Any:
    dtype = value.dtype
    if dtype.hasobject:
        raise NotTransferable(
            f"its items are Python objects (dtype {dtype!s:.60}): send a list, or an array of another dtype"
        )
    return _tell_item(dtype)


def _told(told: Any, packing: Packing) -> bytes:
    head = packing.body(told)
    if len(head) > HEAD:
        raise TypeError(f"its dtype takes {len(head)} bytes to tell, and there are {HEAD}")
    return head


def unpack_array(packed: bytes, unpacking: Unpacking) -> Any:
    """The array of these bytes: writable, with memory of its own.

    Raises:
        Exception: it is none; whatever numpy raises.
    """
    head, start = unpacking.head(packed, HEAD, FIELDS)
    if len(packed) - start >= LARGE:
        return _built(head, own(packed, start))
    return _built(head, memoryview(packed)[start:]).copy("K")


def build_array(head: bytes, data: Any, is_writable: bool, unpacking: Unpacking) -> Any:
    """The array that was laid out in these two parts; raises as :func:`unpack_array`.

    Args:
        head: the dtype, shape and order, packed.
        data: the memory that it is to have.
        is_writable: whether it may be changed.
    """
    told, end = unpacking.head(head, HEAD, FIELDS)
    if end != len(head):
        raise ValueError("an array is told by its dtype, shape and order")
    array = _built(told, data)
    array.flags.writeable = is_writable
    return array


def _built(head: Any, data: Any) -> Any:
    if type(head) is not list or len(head) != 3:
        raise ValueError("an array is told by its dtype, shape and order")
    dtype, shape, order = _dtype(head[0]), _shape(head[1]), head[2]
    if order not in ("C", "F"):
        raise ValueError("the order of an array is C or F")
    count = math.prod(shape)
    if not dtype.itemsize or count * dtype.itemsize != len(data):
        raise ValueError(f"an array of {count} times {dtype.itemsize} bytes has come with {len(data)} bytes")
    numpy = importlib.import_module("numpy")
    return numpy.ndarray(shape, dtype, data if count else None, order=order)


def unpack_scalar(packed: bytes, unpacking: Unpacking) -> Any:
    """The same for a scalar."""
    item, start = unpacking.head(packed, HEAD, FIELDS)
    data = memoryview(packed)[start:]
    dtype = _dtype(item)
    if not dtype.itemsize or dtype.itemsize != len(data):
        raise ValueError(f"a scalar of {dtype.itemsize} bytes has come with {len(data)} bytes")
    return importlib.import_module("numpy").ndarray((), dtype, data).copy()[()]


@lru_cache(maxsize=256)
def _tell_item(dtype: Any) -> Any:
    try:
        item = _plain(dtype.str if dtype.names is None else dtype.descr)
        is_exact = _dtype(item) == dtype
    except Exception:  # whatever numpy says of dtypes of others' making, or of fields that overlap
        is_exact = False
    if not is_exact or not dtype.itemsize:
        raise TypeError(f"its dtype {dtype!s:.60} cannot be told")
    return item


def _plain(told: Any) -> Any:
    return [_plain(part) for part in told] if isinstance(told, (list, tuple)) else told


def _dtype(item: Any, depth: int = 0) -> Any:
    """The dtype that is told, made from nothing but names, numbers and the texts of :data:`_ITEM`."""
    numpy = importlib.import_module("numpy")
    if type(item) is str:
        if not _ITEM.fullmatch(item):
            raise ValueError(f"{item!r:.40} is no dtype of an array that can travel")
        return numpy.dtype(item)
    if type(item) is not list or len(item) > FIELDS or depth >= NESTED:
        raise ValueError("the dtype of an array is a text, or a list of fields")
    names, formats, offsets, size = [], [], [], 0
    for field in item:
        if type(field) is not list or len(field) not in (2, 3) or type(field[0]) is not str:
            raise ValueError("a field of a dtype is told by its name, dtype and perhaps its shape")
        dtype = _dtype(field[1], depth + 1)
        if len(field) == 3:
            dtype = numpy.dtype((dtype, _shape(field[2])))
        if field[0]:
            names.append(field[0])
            formats.append(dtype)
            offsets.append(size)
        size += dtype.itemsize  # a field without a name is a gap
    return numpy.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


def _shape(told: Any) -> tuple[int, ...]:
    if type(told) is not list or len(told) > DIMENSIONS or not all(type(n) is int and n >= 0 for n in told):
        raise ValueError(f"a shape is a list of at most {DIMENSIONS} whole numbers, none below 0")
    return tuple(told)
