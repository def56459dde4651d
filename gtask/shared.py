"""Arrays in memory that a worker and its client can both have, so that a large one is never copied on its way.

>>> image = gtask.shared.empty((4000, 5000), "u1")
>>> image[:] = ...
>>> client.call("blur", image)

numpy is needed: ``pip install numpy``.
"""

from __future__ import annotations

import importlib
import math
import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, SupportsIndex

from gtask.wire.shared.born import new_memory
from gtask.wire.shared.memory import is_here

if TYPE_CHECKING:
    import numpy
    import numpy.typing

__all__ = ["empty"]


def empty(
    shape: SupportsIndex | Iterable[int], dtype: numpy.typing.DTypeLike = float
) -> numpy.ndarray[Any, numpy.dtype[Any]]:
    """A new array of zeros, to be filled and then sent: as an argument, or as the result of a call.

    At a unix socket it is not copied, however large it is, and arrives as a read-only array of the same memory. With
    its first call it becomes read-only where it was made, too; it may be sent any number of times. What is still
    written by a view that was made before is not seen by the peer, and the array is copied from then on. Anywhere else
    (TCP, a server without ``limit_shared``, an array of less than a MiB) it travels as any array does.

    A fork has it copied, too: always in the forked process, and in this one until the forked process has ended.

    Each such array has a descriptor for as long as it or a view of it is there.

    Args:
        shape: the length of each dimension; a number for a single one.
        dtype: of its items; default float64.

    Raises:
        ImportError: there is no numpy.
        TypeError, ValueError: the shape or the dtype makes no sense, or its items are Python objects.
        OSError: there is no memory or no descriptor left.
    """
    np: Any = importlib.import_module("numpy")
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"dtype={dtype!r}: Python objects cannot lie in shared memory")
    lengths = (operator.index(shape),) if isinstance(shape, SupportsIndex) else tuple(shape)
    if any(length < 0 for length in lengths):
        raise ValueError(f"shape={shape!r}: write lengths of at least 0")
    size = math.prod(lengths) * kind.itemsize
    if not size or not is_here():
        return np.zeros(lengths, kind)  # type: ignore[no-any-return]
    return np.ndarray(lengths, kind, new_memory(size))  # type: ignore[no-any-return]
