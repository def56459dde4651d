"""A client made from what a web application's configuration says; what is wrong there is said in its own words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gtask

__all__ = ["make_client"]


def make_client(
    address: object, address_key: str, options: Mapping[str, Any], written: Callable[[str], str]
) -> gtask.Client:
    """Make the client that a configuration describes. That does nothing yet; it connects at its first use.

    Args:
        address: what the configuration has as the address; None if it has none.
        address_key: how the address is called there.
        options: options of :class:`gtask.Client` by their names, with their values.
        written: how an option is called there, given its name.

    Raises:
        ValueError: there is no address, an option is unknown, or a value makes no sense.
        TypeError: a value is of the wrong type.
    """
    if address is None:
        raise ValueError(f"{address_key} is not set: write the server's address, like 'unix:/run/jobs.sock'")
    if not isinstance(address, str):
        raise TypeError(f"{address_key} is {address!r}: write the server's address, like 'unix:/run/jobs.sock'")
    known = [
        name
        for name, parameter in inspect.signature(gtask.Client).parameters.items()
        if parameter.kind.name == "KEYWORD_ONLY"
    ]
    for name in options:
        if name not in known:
            raise ValueError(
                f"{written(name)} is no option of gtask.Client; there are {', '.join(map(written, known))}"
            )
    try:
        return gtask.Client(address, **options)
    except (ValueError, TypeError) as error:
        where = ", ".join([address_key, *map(written, options)])
        raise type(error)(f"{error} (from {where})") from error
