"""The errors that users see: each names the thing that is wrong and the remedy, in one line."""


class QuasinatError(Exception):
    """A failure with a known cause. The command line prints it as one line and exits with `exit_code`.

    Args:
        problem: what is wrong, and with what.
        remedy: what to do about it.

    Examples:
        >>> from quasinat import UsageError
        >>> print(UsageError("there is no attack 'fsgm'", "did you mean 'fgsm'?"))
        there is no attack 'fsgm'; did you mean 'fgsm'?
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type["QuasinatError"], tuple[str, str]]:
        """How an error gets from one process to another."""
        return type(self), (self.problem, self.remedy)


class InputError(QuasinatError, ValueError):
    """Data that cannot be used: a missing folder, an unreadable file, a tensor of the wrong shape or range."""


class UsageError(QuasinatError, ValueError):
    """A request that makes no sense: an unknown option or value, an output folder that is taken."""

    exit_code = 2


class OutputError(QuasinatError, OSError):
    """An artefact that cannot be written: a full disk, a folder without permission."""

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


class ProcessError(QuasinatError, RuntimeError):
    """One of several processes of a job is gone, and the others with it."""


def did_you_mean(name: str, known: list[str]) -> str:
    """A remedy for a misspelt name: the closest known one first, then all of them.

    Args:
        name: as it was written.
        known: what there is.

    Examples:
        >>> from quasinat.errors import did_you_mean
        >>> did_you_mean("fsgm", ["fgsm", "bim"])
        "did you mean 'fgsm'? Known: fgsm, bim"
    """
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listing = ", ".join(known)
    return f"did you mean {close[0]!r}? Known: {listing}" if close else f"choose one of: {listing}"
