"""A check of an evaluation: what was asked, whether it held, and with what figure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["pass", "fail", "not run"]


@dataclass(frozen=True)
class Check:
    """One line of the table of checks.

    Attributes:
        key: a short name, unique in the table.
        title: what must hold.
        status: whether it did.
        figure: what was found, in words and numbers; of a check that was not run, why.
        mandatory: whether the headline stands or falls with it.
        values: the numbers behind the figure.
    """

    key: str
    title: str
    status: Status
    figure: str
    mandatory: bool = True
    values: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The check as JSON holds it, which knows no NaN and no infinity: they are `None`."""
        return {name: _finite(value) for name, value in asdict(self).items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def judged(key: str, title: str, held: bool, figure: str, *, mandatory: bool = True, **values: Any) -> Check:
    """A check that was run."""
    return Check(key, title, "pass" if held else "fail", figure, mandatory, values)


def not_run(key: str, title: str, why: str, *, mandatory: bool = True) -> Check:
    """A check that was not run; a mandatory one counts against the headline as a failed one does."""
    return Check(key, title, "not run", why, mandatory)


def objections(checks: Iterable[Check]) -> list[str]:
    """Why the headline must be withheld: the mandatory checks that did not pass; empty if it may be printed.

    Examples:
        >>> from quasinat.evaluation.check import judged, not_run, objections
        >>> held = judged("gradients", "gradients agree", True, "cosine 1")
        >>> objections([held, not_run("square", "square is weaker", "no images")])
        ['square is weaker: not run (no images)']
    """
    return [
        f"{check.title}: {'failed' if check.status == 'fail' else 'not run'} ({check.figure})"
        for check in checks
        if check.mandatory and check.status != "pass"
    ]
