"""What every defence of a table makes of the same adversarial images (the paper's figures 3, 4 and 11 to 14)."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor, nn

from quasinat.arrays import Images
from quasinat.errors import UsageError, did_you_mean
from quasinat.experiments.table_parts import Parts
from quasinat.experiments.table_spec import Row, Table
from quasinat.experiments.workspace import Step


@dataclass(frozen=True, eq=False)
class Strip:
    """What one transformation makes of the images.

    Attributes:
        label: the defence's.
        images: `B C H W`; random resizing makes them larger.
        seen: the number of the class that the classifier behind it sees in each.
    """

    label: str
    images: Tensor  # may be of another size than the other strips'
    seen: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class DefencePictures:
    """Strips of the same images: the adversarial ones first, the clean ones last, as in the paper's figures.

    Attributes:
        labels: the number of each image's own class.
        classes: the names of all.
        column: the attack.
    """

    strips: tuple[Strip, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    column: str


def defence_pictures(parts: Parts, table: Table, column: str, count: int, only: str | None = None) -> DefencePictures:
    """The images that each transformation of a table makes of `count` adversarial ones.

    Of each class in turn the first test image is shown that the vanilla classifier is right about and the attack makes
    it wrong about; where a class has none, its first. Behind a transformation stands the classifier of the table's
    threat: its own, retrained one, or the vanilla one.

    Args:
        table: whose transformations are shown; the networks among its rows have no picture.
        column: the attack on the vanilla classifier, one of the table's columns but "clean".
        only: the keys of the transformations that are shown, `*` matching any text; all by default.

    Raises:
        UsageError: the column is not the table's, the table is a white-box one, there are fewer images than wanted, or
            no transformation is meant.
    """
    attacks = [name for name in table.columns if name != "clean"]
    if column not in attacks or table.threat == "white-box":
        known = "a table of gray-box attacks" if table.threat == "white-box" else f"one of {', '.join(attacks)}"
        raise UsageError(f"{table.name} has no images under {column}", f"name {known}")
    if not 1 <= count <= len(parts.labels()):
        raise UsageError(f"--images {count} of {len(parts.labels())} test images", "give at least one, and no more")
    rows = sorted((row for row in table.all_rows if row.defence), key=lambda row: row.key.startswith("stl"))
    kept = [row for row in rows if only is None or fnmatchcase(row.key, only)]
    if not kept:
        raise UsageError(f"--only {only} means no row", did_you_mean(str(only), [row.key for row in rows]))
    clean, adversarial, labels = parts.data.test_images, parts.adversarial(column), parts.labels()
    vanilla = parts.vanilla()
    right, survived = (_seen(vanilla, images, parts.device) == labels for images in (clean, adversarial))
    shown = _shown(right & ~survived, labels, count)
    strips = [_strip("Adversarial", adversarial[shown], vanilla, parts)]
    for row in kept:  # the layers' last, beside the clean images
        images = _transformed(parts, row, column, adversarial[shown], shown)
        classifier = parts.retrained(row) if table.threat == "retrained" else vanilla
        strips.append(_strip(row.label, images, classifier, parts))
    strips.append(_strip("Clean", clean[shown], vanilla, parts))
    return DefencePictures(tuple(strips), tuple(labels[shown].tolist()), tuple(map(str, parts.data.classes)), column)


def _shown(fooled: Tensor, labels: Tensor, count: int) -> Tensor:
    """The numbers of the images: the first of each class, then the second of each, and so on; fooled ones first."""
    order = sorted(range(len(labels)), key=lambda i: (not bool(fooled[i]), i))
    taken: dict[int, int] = {}
    places = []
    for i in order:
        label = int(labels[i])
        places.append((taken.setdefault(label, 0), label, i))
        taken[label] += 1
    return torch.tensor([i for _, _, i in sorted(places)[:count]])


def _transformed(parts: Parts, row: Row, column: str, images: Images, shown: Tensor) -> Tensor:
    compute: Callable[[], Step] = partial(_compute, parts, row, images)
    name = f"picture-{row.key}-{column}-{'-'.join(map(str, shown.tolist()))}"
    return parts.workspace.step(name, compute)[0]["images"]


def _compute(parts: Parts, row: Row, images: Images) -> Step:
    with parts.progress.task(f"{row.label} of {len(images)} images", len(images)) as report:
        made = parts.transform(row).project(images, any_size=True)
        report(len(images))
    return {"images": made}, {}


def _strip(label: str, images: Tensor, classifier: nn.Module, parts: Parts) -> Strip:
    return Strip(label, images, tuple(_seen(classifier, images, parts.device).tolist()))


@torch.no_grad()
def _seen(classifier: nn.Module, images: Tensor, device: str) -> Tensor:
    return torch.cat([classifier(part.to(device)).argmax(1).cpu() for part in images.split(100)])
