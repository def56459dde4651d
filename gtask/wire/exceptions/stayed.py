"""What stands in an exception for a part of it that did not travel: asked for anything, it says so."""

from __future__ import annotations

from typing import Any, NoReturn

from gtask.errors import StayedInWorker

__all__ = ["Stayed"]


class Stayed:
    """A part of an exception that stayed in the worker.

    Args:
        name: the part's: that of an attribute, or ``args[0]``.
        type_name: the full name of its class.

    Whatever it is asked for raises :class:`gtask.StayedInWorker`, but for its repr and a copy of it.
    """

    __slots__ = ("_gtask_name", "_gtask_type")

    def __init__(self, name: str, type_name: str) -> None:
        object.__setattr__(self, "_gtask_name", name)
        object.__setattr__(self, "_gtask_type", type_name)

    @property
    def gtask_type(self) -> str:
        """The full name of the part's class."""
        return str(self._gtask_type)

    @property
    def gtask_label(self) -> str:
        """The part's name, and that of its class."""
        return f"{self._gtask_name} ({self._gtask_type})"

    def __repr__(self) -> str:
        return f"<{self.gtask_label} stayed in the worker>"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Stayed, (self._gtask_name, self._gtask_type)

    def __getattr__(self, name: str) -> Any:
        _refuse(self)


def _refuse(stayed: Stayed, *args: object, **kwargs: object) -> NoReturn:
    raise StayedInWorker(
        f"{stayed.gtask_label} stayed in the worker: have the worker put what its callers need of it into the "
        "exception, as plain data"
    )


_ASKING = (
    "setattr delattr call bool len length_hint iter next contains getitem setitem delitem reversed eq ne lt le gt ge "
    "hash int float complex index round trunc floor ceil bytes fspath enter exit await aiter anext aenter aexit "
    "add radd sub rsub mul rmul matmul rmatmul truediv rtruediv floordiv rfloordiv mod rmod divmod rdivmod pow rpow "
    "lshift rlshift rshift rrshift and rand or ror xor rxor neg pos abs invert"
)

for _name in _ASKING.split():
    setattr(Stayed, f"__{_name}__", _refuse)
