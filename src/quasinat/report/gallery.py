"""The pictures of a run, ready for the page: what each one is, its text alternative and its data URI."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from quasinat.report.pictures import amplification, data_uri, difference_image, filter_tiles, mosaic, psnr
from quasinat.report.result_file import Results, layers
from quasinat.report.wording import decibels


@dataclass(frozen=True)
class Picture:
    """A picture of the page: its caption, its text alternative, its data URI and its size in pixels."""

    caption: str
    alt: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class PatchGrid:
    """Patches beside each other: the kinds of picture, and of each patch its name and one picture of each kind."""

    kinds: list[str]
    factor: int
    strips: list[tuple[str, list[Picture]]]


@dataclass(frozen=True)
class Stratum:
    """A dictionary: its title, a sentence on its images, samples of them and the filters learnt from them."""

    title: str
    note: str
    samples: Picture | None
    filters: Picture


def patch_grid(results: Results, pictures: Mapping[str, Tensor]) -> PatchGrid | None:
    """One patch of each class: clean, adversarial, their difference, and T of the adversarial one."""
    clean, adversarial = pictures.get("patches/clean"), pictures.get("patches/adversarial")
    if clean is None or adversarial is None or not len(clean):
        return None
    factor = amplification(adversarial - clean)
    titles = {name: f"T(x_adv), {title}" for name, title in layers(results).items() if f"patches/{name}" in pictures}
    kinds = ["Clean", "Adversarial", f"Difference ×{factor}", *titles.values()]
    classes = results["data"]["classes"]
    named = len(clean) == min(10, len(classes))
    strips = []
    for i in range(len(clean)):
        difference = difference_image(adversarial[i], clean[i], factor)
        images = [clean[i], adversarial[i], difference, *(pictures[f"patches/{name}"][i] for name in titles)]
        name = str(classes[i]) if named else f"image {i + 1}"
        strips.append((name, [_picture(kind, f"{name}: {kind}", x) for kind, x in zip(kinds, images, strict=True)]))
    return PatchGrid(kinds, factor, strips)


def photographs(results: Results, pictures: Mapping[str, Tensor]) -> list[tuple[str, list[Picture]]]:
    """Whole photographs by name, in the same kinds, each with its PSNR to the clean one."""
    names = list(dict.fromkeys(key.split("/")[1] for key in sorted(pictures) if key.startswith("photograph/")))
    shown = []
    for name in names:
        clean, adversarial = pictures[f"photograph/{name}/clean"], pictures[f"photograph/{name}/adversarial"]
        factor = amplification((adversarial - clean)[None])
        kinds = {"Clean": clean, f"Adversarial, {_quality(adversarial, clean)}": adversarial}
        kinds[f"Difference ×{factor}"] = difference_image(adversarial, clean, factor)
        for layer, title in layers(results).items():
            seen = pictures.get(f"photograph/{name}/{layer}")
            if seen is not None:
                kinds[f"T(x_adv), {title}, {_quality(seen, clean)}"] = seen
        shown.append((name, [_picture(kind, f"{name}, whole: {kind}", image) for kind, image in kinds.items()]))
    return shown


def dictionaries(results: Results, pictures: Mapping[str, Tensor]) -> list[Stratum]:
    """The filters of every layer, those of a stratum with samples of its training images."""
    sizes, test = results["strata"]["sizes"], results["data"]["test"]
    shown = []
    for name, title in layers(results).items():
        filters = pictures.get(f"filters/{name}")
        for m in range(0 if filters is None else len(filters)):
            assert filters is not None
            alone = len(filters) == 1
            label = f"{title}: one dictionary for every image" if alone else f"{title}: stratum {m}"
            samples = None if alone else pictures.get(f"strata/{m}")
            known = not alone and m < len(sizes)
            note = f"{sizes[m]} of {test} clean test images." if known else "Learnt from training images of every kind."
            shown.append(Stratum(label, note, _samples(label, samples), _filters(label, filters[m])))
    return shown


def _quality(image: Tensor, clean: Tensor) -> str:
    value = psnr(image, clean)
    return decibels(value) if value is None else f"{decibels(value)} dB"


def _picture(caption: str, alt: str, image: Tensor) -> Picture:
    return Picture(caption, alt, data_uri(image), image.shape[-1], image.shape[-2])


def _samples(label: str, images: Tensor | None) -> Picture | None:
    if images is None or not len(images):
        return None
    columns, scale = 6, max(1, 48 // images.shape[-1])
    return _tiles("Training images", f"{len(images)} training images of {label}", images, columns, scale)


def _filters(label: str, filters: Tensor) -> Picture:
    scale = max(1, 32 // filters.shape[-1])
    return _tiles("Filters", f"the {len(filters)} filters of {label}", filter_tiles(filters), 8, scale)


def _tiles(caption: str, alt: str, images: Tensor, columns: int, scale: int) -> Picture:
    count, _, height, width = images.shape
    columns = min(columns, count)
    size = [scale * (n * (side + 1) - 1) for n, side in ((columns, width), (-(-count // columns), height))]
    return Picture(caption, alt, mosaic(images, columns=columns, scale=scale), *size)
