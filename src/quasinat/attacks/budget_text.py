"""Budgets as text: "linf:8/255", "l2:0.5", "dissimilarity:0.03", "dissimilarity:0.03:gradient"; there and back."""

from quasinat.attacks.budget import L2, Budget, Dissimilarity, Linf
from quasinat.errors import UsageError, did_you_mean

_KINDS: dict[str, type[Budget]] = {"linf": Linf, "l2": L2, "dissimilarity": Dissimilarity}
_USUAL = "write one such as linf:8/255, l2:0.5 or dissimilarity:0.03"
_LEVELS = 255


def budget_from_text(text: str) -> Budget:
    """The budget that a text names: its measure, a colon, and its size as a number or a fraction.

    A third part names the step of an L2-dissimilarity, `sign` (as without it) or `gradient`.

    Args:
        text: such as `linf:8/255`, `l2:0.5`, `dissimilarity:0.03`.

    Raises:
        UsageError: a text that names none; with the remedy.

    Examples:
        >>> from quasinat.attacks import budget_from_text
        >>> budget_from_text("l2:0.5"), budget_from_text("dissimilarity:0.03:gradient")
        (L2(radius=0.5), Dissimilarity(value=0.03, step='gradient'))
    """
    kind, *rest = text.strip().lower().split(":")
    if not rest:
        raise UsageError(f"{text!r} is no budget", _USUAL)
    if kind not in _KINDS:
        raise UsageError(f"unknown budget {kind!r} in {text!r}", did_you_mean(kind, list(_KINDS)))
    size = _number(rest[0])
    if size is None:
        raise UsageError(f"{rest[0]!r} in the budget {text!r} is no number of at least 0", _USUAL)
    if len(rest) == 1:
        return _KINDS[kind](size)  # type: ignore[call-arg]
    if kind != "dissimilarity" or len(rest) > 2 or rest[1] not in ("sign", "gradient"):
        raise UsageError(f"the budget {text!r} has a part too many", f"{_USUAL}, or dissimilarity:0.03:gradient")
    return Dissimilarity(size, "sign" if rest[1] == "sign" else "gradient")


def budget_text(budget: Budget) -> str:
    """The text that `budget_from_text` reads as this budget, exactly; whole 255ths are written as such.

    Args:
        budget: an `Linf`, `L2` or `Dissimilarity`.

    Raises:
        UsageError: a budget of a kind that has no text.

    Examples:
        >>> from quasinat.attacks import Linf, budget_text
        >>> budget_text(Linf(8 / 255))
        'linf:8/255'
    """
    kinds = [kind for kind, made in _KINDS.items() if type(budget) is made]
    if not kinds:
        raise UsageError(f"a budget of kind {type(budget).__name__} has no text", f"use one of: {', '.join(_KINDS)}")
    gradient = isinstance(budget, Dissimilarity) and budget.step == "gradient"
    return f"{kinds[0]}:{_size_text(budget)}" + (":gradient" if gradient else "")


def _number(text: str) -> float | None:
    """A number of at least 0, perhaps infinite, written as such or as a fraction of two; None where it is none."""
    try:
        parts = [float(part) for part in text.split("/")]
        size = parts[0] if len(parts) == 1 else parts[0] / parts[1]
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return size if len(parts) <= 2 and size >= 0 else None


def _size_text(budget: Budget) -> str:
    """The size, as 255ths where that is how pixels are counted and it is exact."""
    size = budget.size
    if isinstance(budget, Linf) and 0 < size <= 1:
        levels = round(size * _LEVELS)
        if levels and levels / _LEVELS == size:
            return f"{levels}/{_LEVELS}"
    return repr(float(size))
