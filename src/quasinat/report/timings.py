"""How long a run took, its steps summed by what they do."""

from collections.abc import Mapping

# A step belongs to the first group one of whose beginnings its name has.
_GROUPS = (
    ("training the classifiers", ("classifier-",)),
    ("learning the autoencoder, strata and dictionaries", ("learn", "dictionar", "layer", "strata", "autoencoder")),
    ("projecting", ("projected-",)),
    ("attacking the vanilla classifier and, white-box, the defended ones", ("attack-",)),
    ("measuring and pictures", ("",)),
)


def seconds_by_group(seconds: Mapping[str, float]) -> dict[str, float | None]:
    """The seconds of each group; None where the run recorded no step of it."""
    steps: dict[str, list[float]] = {group: [] for group, _ in _GROUPS}
    for step, value in seconds.items():
        group = next(group for group, beginnings in _GROUPS if step.startswith(beginnings))
        steps[group].append(value)
    return {group: sum(values) if values else None for group, values in steps.items()}
