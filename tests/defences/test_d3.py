"""D3 against loops over patches; exact on what the dictionary holds; every pixel covered."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quasinat import Identity
from quasinat.data.photographs import photograph
from quasinat.defences.d3 import D3, d3, overlapped, starts
from quasinat.defences.natural_patches import PatchDictionary, learn_patch_dictionary
from quasinat.defended import Defended
from quasinat.errors import InputError, UsageError


@pytest.fixture(scope="module")
def tiles() -> Tensor:
    whole = photograph("coffee", colour=True)
    return torch.stack([whole[:, 60:95, 80:121], whole[:, 100:135, 20:61]])


@pytest.fixture(scope="module")
def dictionary(tiles: Tensor) -> PatchDictionary:
    return learn_patch_dictionary(tiles[:1], size=150, patch=6, least_distance=0.05)


@pytest.fixture(scope="module")
def centred(tiles: Tensor) -> PatchDictionary:
    return learn_patch_dictionary(tiles[:1], size=150, patch=6, least_distance=0.3, centred=True)


def patch_by_patch(image: Tensor, dictionary: PatchDictionary, sparsity: int, stride: int) -> Tensor:
    """The definition, in float64, one patch after another."""
    image, side = image.double(), dictionary.patch
    atoms = dictionary.atoms.double().flatten(1)
    total, times = torch.zeros_like(image), torch.zeros_like(image)
    height, width = image.shape[1:]
    for top in sorted({*range(0, height - side, stride), height - side}):
        for left in sorted({*range(0, width - side, stride), width - side}):
            patch = image[:, top : top + side, left : left + side]
            mean = patch.mean((1, 2), keepdim=True) if dictionary.centred else torch.zeros(3, 1, 1).double()
            rest = (patch - mean).flatten()
            residual = rest
            for _ in range(sparsity):
                products = atoms @ residual
                best = int(products.abs().argmax())
                residual = residual - products[best] * atoms[best]
            total[:, top : top + side, left : left + side] += (rest - residual).view_as(patch) + mean
            times[:, top : top + side, left : left + side] += 1
    return (total / times).clamp(0, 1)


@pytest.mark.parametrize("which", ["dictionary", "centred"])
@pytest.mark.parametrize(("sparsity", "stride"), [(1, 6), (5, 4), (4, 5)])
def test_it_is_the_loop_of_its_definition(
    tiles: Tensor, which: str, sparsity: int, stride: int, request: pytest.FixtureRequest
) -> None:
    chosen = request.getfixturevalue(which)
    truth = patch_by_patch(tiles[1], chosen, sparsity, stride)
    found = d3(tiles.double(), chosen, sparsity=sparsity, stride=stride)[1]
    assert torch.allclose(found, truth, rtol=0, atol=1e-10)
    assert (found - tiles[1]).abs().mean() > 0.003


@pytest.mark.parametrize("sparsity", [1, 5])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_image_of_dictionary_patches_comes_back(
    tiles: Tensor, sparsity: int, centred: bool, orthogonal: bool, dtype: torch.dtype
) -> None:
    """The dictionary holds every patch of the image that D3 looks at."""
    side, stride = 8, 4
    image = tiles[:1, :, :32, :40].to(dtype)
    patches = image.unfold(2, side, stride).unfold(3, side, stride).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    rest = patches - patches.mean((2, 3), keepdim=True) if centred else patches
    atoms = F.normalize(rest.flatten(1)).view_as(patches)
    found = d3(image, PatchDictionary(atoms, centred=centred), sparsity=sparsity, stride=stride, orthogonal=orthogonal)
    assert torch.allclose(found, image, rtol=0, atol=2e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("orthogonal", [False, True])
def test_more_atoms_are_nearer_to_the_image(tiles: Tensor, dictionary: PatchDictionary, orthogonal: bool) -> None:
    """Without overlap an image's error is that of its patches, which falls with every atom."""
    images = tiles[:, :, : 36 - 6, :36]
    errors = [
        (d3(images, dictionary, sparsity=k, stride=6, orthogonal=orthogonal) - images).square().sum()
        for k in (1, 2, 4, 8)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.7 * errors[0]


@pytest.mark.parametrize(("length", "side", "stride"), [(35, 6, 4), (41, 6, 6), (32, 8, 4), (33, 8, 3), (8, 8, 2)])
def test_every_pixel_is_covered_up_to_the_edge(length: int, side: int, stride: int) -> None:
    covered = {pixel for first in starts(length, side, stride) for pixel in range(first, first + side)}
    assert covered == set(range(length))
    assert starts(length, side, stride)[:-1] == list(range(0, length - side, stride))


def test_overlaps_are_averaged(generator: torch.Generator) -> None:
    down, across = starts(23, 7, 3), starts(19, 7, 5)
    grid = torch.rand(2, len(down), len(across), 7, 7, generator=generator, dtype=torch.float64)
    total, times = torch.zeros(2, 23, 19).double(), torch.zeros(2, 23, 19).double()
    for i, top in enumerate(down):
        for j, left in enumerate(across):
            total[:, top : top + 7, left : left + 7] += grid[:, i, j]
            times[:, top : top + 7, left : left + 7] += 1
    assert torch.allclose(overlapped(grid, down, across, 23, 19), total / times, rtol=0, atol=1e-14)


def test_an_image_does_not_depend_on_its_batch(tiles: Tensor, dictionary: PatchDictionary) -> None:
    together = d3(tiles, dictionary)
    assert together.equal(torch.cat([d3(tiles[i : i + 1], dictionary) for i in (0, 1)]))
    assert together.equal(d3(tiles, dictionary))


def test_one_channel_other_types_and_no_images(tiles: Tensor) -> None:
    grey = tiles[:, :1].double()
    learned = learn_patch_dictionary(grey.float(), size=40, patch=5, least_distance=0.03)
    found = d3(grey, learned)
    assert found.shape == grey.shape
    assert found.dtype == torch.float64
    assert 0 <= found.min() < found.max() <= 1
    assert d3(grey[:0], learned).shape == (0, 1, 35, 41)
    assert d3(grey[:0], learned).dtype == torch.float64


def test_the_module_is_the_function(tiles: Tensor, dictionary: PatchDictionary) -> None:
    module = D3(dictionary, sparsity=3, stride=2, orthogonal=True)
    assert module(tiles).equal(d3(tiles, dictionary, sparsity=3, stride=2, orthogonal=True))
    assert module.settings() == {"sparsity": 3, "stride": 2, "orthogonal": True}
    assert "dictionary.atoms" in module.state_dict()
    with pytest.raises(UsageError, match="no gradient is named for D3"):
        module(tiles.clone().requires_grad_())


def test_a_named_gradient(tiles: Tensor, dictionary: PatchDictionary) -> None:
    watched = tiles.clone().requires_grad_()
    classifier = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    logits = Defended(D3(dictionary), classifier).with_adjoint(Identity())(watched)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), watched)
    assert (gradient[:, 0, :17, :20] > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0}, "the sparsity is 0"),
        ({"stride": 0}, "a stride of 0 makes no sense for patches of 6 pixels"),
        ({"stride": 7}, "give one from 1 to 6"),
    ],
)
def test_options_that_make_no_sense(
    tiles: Tensor, dictionary: PatchDictionary, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        d3(tiles, dictionary, **options)
    with pytest.raises(UsageError, match=message):
        D3(dictionary, **options)


def test_images_that_do_not_fit(tiles: Tensor, dictionary: PatchDictionary) -> None:
    with pytest.raises(InputError, match="the images have 1 channels, the dictionary's patches 3"):
        d3(tiles[:, :1], dictionary)
    with pytest.raises(InputError, match="5 x 41 pixels hold no patch of 6"):
        d3(tiles[:, :, :5], dictionary)
