"""Quilting against a plain loop with every boundary tried, and against images made of the bank's own patches."""

import copy
from itertools import product

import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from quasinat.defences import quilting
from quasinat.defences.boundary_cut import takes_new
from quasinat.defences.patch_bank import PatchBank, build_patch_bank
from quasinat.defences.quilting import Quilting, quilt
from quasinat.defences.transformation import with_seed
from quasinat.defended import Defended
from quasinat.errors import InputError, UsageError
from quasinat.sparse_coding import Identity

from .test_boundary_cut import cheapest


def starts(side: int, size: int, stride: int) -> list[int]:
    """Where windows are: every `stride` pixels while they fit, and at the end."""
    return sorted({*range(0, side - size + 1, stride), side - size})


def bank_of(images: Tensor, size: int, overlap: int) -> PatchBank:
    """All patches that the windows of some images show."""
    places = [starts(side, size, size - overlap) for side in images.shape[2:]]
    patches = [images[:, :, top : top + size, left : left + size].flatten(1) for top, left in product(*places)]
    return PatchBank(torch.cat(patches), channels=images.shape[1])


def by_loop(image: Tensor, bank: PatchBank, overlap: int) -> Tensor:
    """The image quilted patch by patch in raster order, each boundary the best of all that there are."""
    size = bank.size
    tops, lefts = (starts(side, size, size - overlap) for side in image.shape[1:])
    stored = bank.patches.double() / (255 if bank.patches.dtype == torch.uint8 else 1)
    canvas = torch.full_like(image, torch.nan)
    for top, left in product(tops, lefts):
        window = canvas[:, top : top + size, left : left + size]
        sought = image[:, top : top + size, left : left + size].flatten().double()
        new = bank.values((stored - sought).square().sum(1).argmin(), image.dtype)
        known = window.isnan().logical_not().all(0)
        columns, rows = int(known[-1].sum()), int(known[:, -1].sum())
        errors = ((new.double() - window.double()).nan_to_num() * 255 * 256).round().square().sum(0).long()
        kept = takes_new(errors[None], torch.tensor([columns]), torch.tensor([rows]))[0]  # where several are as cheap
        assert any(kept.equal(one) for one in cheapest(errors, columns, rows)[1])
        window[:] = torch.where(kept, new, window)
    return canvas


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (34, 36), (5, 6)])
@pytest.mark.parametrize("overlap", [1, 2, 3, 4])
def test_an_image_whose_patches_are_in_the_bank_stays_as_it_is(
    channels: int, height: int, width: int, overlap: int, generator: torch.Generator
) -> None:
    images = torch.randint(256, (2, channels, height, width), generator=generator).float() / 255
    bytes_kept = PatchBank((255 * bank_of(images, 5, overlap).patches).round().to(torch.uint8), channels=channels)
    for bank in (bytes_kept, bank_of(images, 5, overlap)):
        for search in ("exact", "fast"):
            assert quilt(images, bank, overlap=overlap, search=search).equal(images)


@pytest.mark.parametrize(
    ("shape", "size", "overlap"),
    [((3, 17, 20), 5, 2), ((1, 18, 19), 5, 2), ((2, 13, 12), 4, 1), ((1, 12, 12), 3, 2), ((1, 11, 12), 4, 3)],
)
def test_it_is_the_plain_loop(shape: tuple[int, int, int], size: int, overlap: int, generator: torch.Generator) -> None:
    images = torch.rand(2, *shape, generator=generator)
    bank = build_patch_bank(torch.rand(1, shape[0], 40, 40, generator=generator), count=200, size=size)
    found = quilt(images, bank, overlap=overlap)
    for image, one in zip(images, found, strict=True):
        assert one.equal(by_loop(image, bank, overlap))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 40), (64, 37)])
def test_it_consists_of_the_banks_pixels_only(height: int, width: int, generator: torch.Generator) -> None:
    images = torch.rand(2, 3, height, width, generator=generator)
    bank = build_patch_bank(torch.rand(2, 3, 16, 16, generator=generator), count=100)
    held = {tuple(pixel) for pixel in bank.patches.unflatten(1, (3, 25)).mT.flatten(0, 1).tolist()}
    result = quilt(images, bank, neighbours=4)
    pixels = {tuple(pixel) for pixel in result.permute(0, 2, 3, 1).flatten(0, 2).tolist()}
    assert pixels <= held
    assert len(pixels) > 50


def test_the_neighbours_are_drawn_uniformly_and_no_others_are(generator: torch.Generator) -> None:
    levels = torch.tensor([0, 30, 80, 100, 110, 125, 200, 255], dtype=torch.uint8)
    bank = PatchBank(levels[:, None].expand(8, 25).contiguous(), channels=1)
    image = torch.full((1, 1, 128, 128), 100 / 255)
    inner = quilt(image, bank, neighbours=4)[0, 0, 2::3, 2::3]  # pixels that one window alone covers
    values, counts = (255 * inner).round().unique(return_counts=True)
    assert values.tolist() == [80, 100, 110, 125]
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert (quilt(image, bank) == image).all()


def test_draws_are_an_images_own(generator: torch.Generator) -> None:
    images = torch.rand(3, 3, 32, 34, generator=generator)
    bank = build_patch_bank(torch.rand(2, 3, 32, 32, generator=generator), count=300)
    options = {"neighbours": 5, "search": "fast"}
    first = quilt(images, bank, seed=3, **options)
    assert quilt(images, bank, seed=3, **options).equal(first)
    assert torch.cat([quilt(one, bank, seed=3, **options) for one in images.split(1)]).equal(first)
    assert not quilt(images, bank, seed=4, **options).equal(first)
    torch.manual_seed(0)
    afresh = [quilt(images, bank, seed=None, **options) for _ in range(2)]
    assert not afresh[0].equal(afresh[1])
    assert quilt(images, bank, seed=3).equal(quilt(images, bank, seed=None))  # of one neighbour nothing is drawn


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_types_and_sizes(
    channels: int, dtype: torch.dtype, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(5, channels, 33, 38, generator=generator, dtype=dtype)
    bank = build_patch_bank(torch.rand(2, channels, 24, 24, generator=generator), count=200)
    together = quilt(images, bank)
    assert (together.dtype, together.shape) == (dtype, images.shape)
    assert 0 <= together.amin() <= together.amax() <= 1
    assert torch.cat([quilt(one, bank) for one in images.split(1)]).equal(together)
    assert quilt(images[:0], bank).shape == (0, channels, 33, 38)
    assert quilt(images[:0], bank, neighbours=2).shape == (0, channels, 33, 38)
    monkeypatch.setattr(quilting, "_PATCHES_AT_ONCE", 300)  # two images at once
    assert quilt(images, bank).equal(together)


def test_the_module_is_the_function(generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 32, 32, generator=generator)
    bank = build_patch_bank(torch.rand(2, 3, 24, 24, generator=generator), count=200)
    options = {"overlap": 3, "neighbours": 3, "search": "fast", "seed": 5}
    module = Quilting(bank, **options)
    expected = quilt(images, bank, **options)
    assert module(images).equal(expected)
    assert module.settings() == options
    assert list(module.state_dict()) == ["bank.patches"]
    assert copy.deepcopy(module)(images).equal(expected)
    other = Quilting(PatchBank(torch.zeros_like(bank.patches), channels=3), **options)
    other.load_state_dict(module.state_dict())
    assert other(images).equal(expected)
    seeded = with_seed(module, 6)
    assert seeded.bank.patches is bank.patches
    assert seeded.bank._search is bank._search
    assert seeded(images).equal(quilt(images, bank, **{**options, "seed": 6}))
    assert not seeded(images).equal(expected)


def test_its_gradient_has_to_be_named(generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 32, 32, generator=generator).requires_grad_()
    module = Quilting(build_patch_bank(torch.rand(1, 3, 24, 24, generator=generator), count=50))
    with pytest.raises(UsageError, match="no gradient is named for Quilting"):
        module(images)
    defended = Defended(module, nn.Flatten()).with_adjoint(Identity())
    (gradient,) = torch.autograd.grad(defended(images).sum(), images)
    assert (gradient == 1).all()


def test_what_makes_no_sense_is_refused(generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 32, 32, generator=generator)
    bank = build_patch_bank(images, count=20)
    for options, message in [
        ({"overlap": 0}, "overlap is 0"),
        ({"overlap": 5}, "overlap is 5"),
        ({"neighbours": 0}, "neighbours is 0"),
        ({"neighbours": 21}, "no 21 neighbours"),
    ]:
        for call in (lambda options=options: quilt(images, bank, **options), lambda o=options: Quilting(bank, **o)):
            with pytest.raises(UsageError, match=message):
                call()
    with pytest.raises(InputError, match="1 channels, the bank's patches 3"):
        quilt(images[:, :1], bank)
    with pytest.raises(InputError, match="no patch of 5"):
        quilt(images[..., :4], bank)
    with pytest.raises(InputError, match="too small"):
        Quilting(bank)(images[..., :31])
