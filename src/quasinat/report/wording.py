"""How the reports write columns, shares, intervals and lists: in one way everywhere."""

from collections.abc import Mapping, Sequence

from quasinat.data.imagenet10 import wordnet_names

NOT_RUN = "not run"
_NAMES = {"clean": "Clean", "fgsm": "FGSM", "bim": "BIM", "pgd": "PGD", "deepfool": "DeepFool", "cw": "CW"}


def column_title(column: str) -> str:
    """`fgsm-0.08` as `FGSM-0.08`; a name that is not known stays as it is."""
    name, dash, budget = column.partition("-")
    return _NAMES.get(name, name) + dash + budget


def percent(share: float) -> str:
    """`0.6617` as `66.2`."""
    return f"{100 * share:.1f}"


def interval(cell: Mapping[str, float]) -> str:
    """The 95 % interval of a cell in percent, as `[62.9, 69.4]`."""
    return f"[{percent(cell['low'])}, {percent(cell['high'])}]"


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def points(difference: float) -> str:
    """A difference of two shares, without its sign: `10.8 points`."""
    return f"{percent(abs(difference))} points"


def duration(seconds: float) -> str:
    """`4.8 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def decibels(value: float | None) -> str:
    """A PSNR; `no change` where no image differed from its reference."""
    return "no change" if value is None else f"{value:.1f}"


def images_named(name: str, description: str) -> str:
    """What an image set is called in a title: a folder by its own name, which its description has."""
    folder = description.rpartition(" from ")[2].removesuffix(".")
    return folder if name == "folder" and folder else name


def class_name(name: str) -> str:
    """What a class is called under a picture: `n01440764` as `tench`, `363`, which has no name, as `class 363`."""
    return f"class {name}" if name.isdigit() else wordnet_names().get(name, name)
