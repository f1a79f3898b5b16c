"""Reads the data in a pickle file without unpickling it: no code in the file is ever looked up or called.

The opcodes are listed by the standard library's `pickletools`. Those that build plain data are carried out here; a
call becomes an inert `Call` that only records what was named. Any other opcode, and any name that the caller did not
expect, is refused.
"""

import pickletools
import struct
import warnings
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

_LITERALS = ("BININT", "BININT1", "BININT2", "LONG1", "BINSTRING", "SHORT_BINSTRING", "BINUNICODE")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class PlainPickleError(ValueError):
    """The bytes are truncated, corrupt, or more than plain data."""


@dataclass(eq=False)
class Call:
    """A call that the pickle asks for and that was not made: its name, its arguments, the state given afterwards."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True)
class _Name:
    name: str


def read_plain_pickle(data: bytes, expected: Set[str]) -> Any:
    """The data in a binary pickle (protocol 1 or 2), with `Call`s in place of calls; strings of bytes come as latin-1.

    Args:
        data: the whole file.
        expected: the only names ("module name") that may appear.

    Raises:
        PlainPickleError: the bytes are truncated, corrupt, or more than plain data.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how texts are written in it
            return _build(data, expected)
    except PlainPickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as error:
        raise PlainPickleError("truncated or corrupt") from error


def _build(data: bytes, expected: Set[str]) -> Any:
    stack: list[Any] = []
    outer: list[list[Any]] = []  # the stacks below each mark
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, outer.pop()
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
        kind = opcode.name
        if kind == "PROTO":
            continue
        if kind in _LITERALS:
            stack.append(argument)
        elif kind in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif kind in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif kind in _CONSTANTS:
            stack.append(_CONSTANTS[kind])
        elif kind == "MARK":
            outer.append(stack)
            stack = []
        elif kind == "EMPTY_LIST":
            stack.append([])
        elif kind == "EMPTY_DICT":
            stack.append({})
        elif kind == "EMPTY_TUPLE":
            stack.append(())
        elif kind in _TUPLES:
            stack[-_TUPLES[kind] :] = [_last(stack, _TUPLES[kind])]
        elif kind == "TUPLE":
            members = since_mark()
            stack.append(tuple(members))
        elif kind == "APPEND":
            item = stack.pop()
            stack[-1].append(item)
        elif kind == "APPENDS":
            members = since_mark()
            stack[-1].extend(members)
        elif kind == "SETITEM":
            members = list(_last(stack, 2))
            del stack[-2:]
            stack[-1].update(_pairs(members))
        elif kind == "SETITEMS":
            members = since_mark()
            stack[-1].update(_pairs(members))
        elif kind == "GLOBAL":
            if argument not in expected:
                raise PlainPickleError(f"it names {argument[:60]!r}, which is no image data")
            stack.append(_Name(argument))
        elif kind == "REDUCE":
            function, arguments = _last(stack, 2)
            stack[-2:] = [Call(function.name, arguments)]
        elif kind == "BUILD":
            state = stack.pop()
            stack[-1].state = state
        elif kind == "STOP":
            (value,) = stack
            return value
        else:
            raise PlainPickleError(f"it holds the instruction {kind}, which is no image data")
    raise PlainPickleError("truncated or corrupt")


def _last(stack: list[Any], count: int) -> tuple[Any, ...]:
    if len(stack) < count:
        raise IndexError("stack underflow")
    return tuple(stack[-count:])


def _pairs(members: list[Any]) -> list[tuple[str, Any]]:
    """Keys and values; a key must be text, as hashing a deeply nested tuple could exhaust the stack."""
    if not all(type(key) is str for key in members[::2]):
        raise TypeError("a key is no text")
    return list(zip(members[::2], members[1::2], strict=True))
