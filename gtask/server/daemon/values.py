"""The values of options as the command line writes them: a parser for each kind.

A text that makes no sense is refused with a hint at what to write. :class:`gtask.server.config.ServerConfig` checks the
bounds of a value.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable

from gtask import address as addresses
from gtask.server.config import OpenSocket
from gtask.server.option import Kind

__all__ = ["PARSERS"]


def _number(text: str) -> int:
    with contextlib.suppress(ValueError):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: write a whole number")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}: write a number of seconds")


def _seconds_or_none(text: str) -> float | None:
    return _seconds(text) or None


def _size(text: str) -> int:
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper(), 1)
    with contextlib.suppress(ValueError, OverflowError):
        return int(float(text if factor == 1 else text[:-1]) * factor)
    raise argparse.ArgumentTypeError(f"{text!r}: write a number of bytes, such as 500M or 2G")


def _octal(text: str) -> int:
    with contextlib.suppress(ValueError):
        return int(text, 8)
    raise argparse.ArgumentTypeError(f"{text!r}: write permissions in octal, such as 660")


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=VALUE")
    return name, value


def _address(text: str) -> addresses.Address | OpenSocket:
    return OpenSocket(_number(text[len("fd:") :])) if text.startswith("fd:") else _new_address(text)


def _new_address(text: str) -> addresses.Address:
    try:
        return addresses.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


PARSERS: dict[Kind, Callable[[str], object]] = {
    Kind.COUNT: _number,
    Kind.SIZE: _size,
    Kind.SECONDS: _seconds,
    Kind.SECONDS_OR_NONE: _seconds_or_none,
    Kind.MODE: _octal,
    Kind.VARIABLE: _variable,
    Kind.ADDRESS: _new_address,
    Kind.SOCKET: _address,
}
"""A kind that is not in here is text as it stands."""
