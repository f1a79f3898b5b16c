"""The errors that users see: each names the thing that is wrong and the remedy, in one line."""

_LISTED = 40  # names in a remedy
LONGEST = 1000  # characters of a problem: what a file says of itself may be of any length


class QuasinatError(Exception):
    """A failure with a known cause. The command line prints it as one line and exits with `exit_code`.

    Names and values of files are part of it, so that whatever could end the line or steer a terminal is shown as its
    escape, and what is too long is cut in its middle.

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
        problem, remedy = one_line(problem), one_line(remedy)
        if len(problem) > LONGEST:
            problem = f"{problem[: LONGEST // 2]} ... {problem[-LONGEST // 2 :]}"
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


def one_line(text: str) -> str:
    """The text with its white space as single blanks and what cannot be printed as escapes."""
    text = " ".join(text.split())
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def did_you_mean(name: str, known: list[str]) -> str:
    """A remedy for a misspelt name: the closest known one first, then all of them, or the first of many.

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
    left = len(known) - _LISTED
    listing = ", ".join(known[:_LISTED]) + (f" and {left} more" if left > 0 else "")
    return f"did you mean {close[0]!r}? Known: {listing}" if close else f"choose one of: {listing}"
