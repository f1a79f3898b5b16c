"""The key that clients have to send, from a file or from the environment."""

import os
from pathlib import Path

from quasinat.errors import InputError, UsageError

VARIABLE = "QUASINAT_API_KEY"
_LEAST = 16  # characters


def read_key(file: Path | None) -> str | None:
    """The key in a file, else that of the environment, else None; without the white space around it.

    Raises:
        InputError: a file that cannot be read.
        UsageError: a key that is short, or not of printable ASCII characters without spaces.
    """
    if file is None:
        if VARIABLE not in os.environ:
            return None
        text, origin = os.environ[VARIABLE], VARIABLE
    else:
        origin = str(file)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise InputError(f"{file} cannot be read ({error})", "check the path, and who may read it") from None
    key = text.strip()
    if len(key) < _LEAST or not (key.isascii() and key.isprintable()) or " " in key:
        remedy = f"make one with: openssl rand -hex 32; at least {_LEAST} characters"
        raise UsageError(f"{origin} holds no usable key", remedy)
    return key
