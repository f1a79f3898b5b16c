"""Seeded draws that do not depend on one another: one generator for every (seed, name, ...)."""

import hashlib

from torch import Generator


def generator_for(seed: int, *names: str) -> Generator:
    """A generator whose stream is a function of `seed` and `names` alone.

    With one generator per class and split, the draws of a class do not move when another class changes.
    """
    text = "\0".join([str(seed), *names])
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
