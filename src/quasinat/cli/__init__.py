"""The command line: one file per command, no logic; errors in one line, exit 2 for bad usage and 1 for a failure."""

import sys

from quasinat.cli.app import app
from quasinat.errors import QuasinatError

INTERRUPTED = 130


def main() -> None:
    """The `quasinat` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs the command line `arguments` and returns the exit status."""
    try:
        status = app(arguments, prog_name="quasinat", standalone_mode=False)
    except QuasinatError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except OSError as error:
        return _complain(f"{error}; check the path and the space left", 1)
    except Exception as error:
        if hasattr(error, "format_message"):  # the option parser's own: an unknown option, a value of the wrong type
            message = " ".join(error.format_message().split()).rstrip(".")
            command = getattr(getattr(error, "ctx", None), "command_path", "quasinat")
            return _complain(f"{message}; see {command} --help", 2) if message else 2
        if type(error).__name__ != "Abort":
            raise
        status = INTERRUPTED
    if status == INTERRUPTED:  # some releases of the option parser return it, some raise
        return _complain("interrupted; the same command continues where it can", INTERRUPTED)
    return status if isinstance(status, int) else 0


def _complain(message: str, status: int) -> int:
    print("quasinat: " + " ".join(message.split()), file=sys.stderr)
    return status


__all__ = ["app", "main", "run"]
