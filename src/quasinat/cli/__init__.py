"""The command line: one file per command, no logic; errors in one line, exit 2 for bad usage and 1 for a failure."""

import os
import sys

from quasinat.cli.app import app
from quasinat.errors import QuasinatError, UsageError

INTERRUPTED = 130
TOGETHER = ("learn", "train")  # the commands that several processes share


def main() -> None:
    """The `quasinat` command."""
    status = run(sys.argv[1:])
    if status == 0 and os.environ.get("WORLD_SIZE", "1") != "1":
        # DistributedDataParallel leaves gloo's threads behind, even after the group is destroyed. Where one of them
        # wants the interpreter as that takes itself apart, the process aborts, and torchrun takes the job for failed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Runs the command line `arguments` and returns the exit status."""
    try:
        _check_processes(arguments)
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


def _check_processes(arguments: list[str]) -> None:
    """Refuses what several processes would each do alone, and into the same files."""
    started, command = os.environ.get("WORLD_SIZE", "1"), next(iter(arguments), "")
    if started != "1" and not command.startswith("-") and command not in TOGETHER:
        raise UsageError(f"{command} is the work of one process, not of {started}", "start it without torchrun")


def _complain(message: str, status: int) -> int:
    print("quasinat: " + " ".join(message.split()), file=sys.stderr)
    return status


__all__ = ["app", "main", "run"]
