"""What the tests of hardening share: a call's answer or its refusal, and whether a refusal is one clear line."""

from collections.abc import Callable

from quasinat.errors import QuasinatError


def answer(call: Callable[[], object]) -> object:
    """What the call returns, or the `QuasinatError` that it raises; anything else goes on as it is."""
    try:
        return call()
    except QuasinatError as error:
        return error


def is_clear(error: QuasinatError) -> bool:
    """Whether a refusal is one line that can be printed, with a problem and a remedy."""
    return str(error).isprintable() and bool(error.problem.strip()) and bool(error.remedy.strip())
