"""The demo's endpoint: its maths against the library called directly, its limits, and its one-line errors."""

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageFile
from tests.pages import ROOT
from torch import Tensor, nn

from layers import dictionary_of, universal
from quasinat import attacks
from quasinat.attacks import Dissimilarity, Linf
from quasinat.data import PHOTOGRAPHS, photograph
from quasinat.data.image_files import pixels
from quasinat.defended import Defended
from quasinat.errors import InputError, UsageError
from quasinat.networks import vgg
from quasinat.sparse_coding import Identity, Implicit, SparseCodingProblem, solve
from quasinat.strata import split_bands
from serving.files import many_scans, measures_memory, most_memory

for package in ("fastapi", "uvicorn", "prometheus_client", "httpx"):
    pytest.importorskip(package)

from fastapi.testclient import TestClient  # noqa: E402

from quasinat.serving.demo_answer import likely  # noqa: E402
from quasinat.serving.demo_maths import Attacked, Exhibit, attack_image, show  # noqa: E402
from quasinat.serving.demo_options import ATTACKS_SHOWN, GRAY, NAMES, SIDES, TRUE, DemoOptions, parse_options  # noqa: E402
from quasinat.serving.demo_picture import DEARER, read_image  # noqa: E402
from quasinat.serving.limits import Limits  # noqa: E402
from serving.demo_service import app_of, exhibit, of_uri, patches, png  # noqa: E402
from serving.service import opened  # noqa: E402


def client_of(parts: Exhibit) -> Iterator[TestClient]:
    with TestClient(app_of(parts)) as client:
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    yield from client_of(exhibit())


@pytest.fixture(scope="module")
def bare() -> Iterator[TestClient]:
    """A server with a layer alone."""
    yield from client_of(Exhibit(exhibit().layer))


def ask(client: TestClient, content: bytes, **query: str) -> dict[str, Any]:
    answer = client.post("/v1/demo", content=content, params={k.rstrip("_"): v for k, v in query.items()})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


WAITED_FOR = Event()  # never set


def options(**query: str) -> DemoOptions:
    return parse_options(query, learned=exhibit().layer.sparsity, threats=exhibit().threats)


# The maths.


@pytest.mark.parametrize("threat", ["gray-box", "white-box", "white-box-identity"])
@pytest.mark.parametrize("budget", [Linf(8 / 255), Dissimilarity(0.05)])
def test_the_answer_is_what_the_library_makes(client: TestClient, threat: str, budget: attacks.Budget) -> None:
    parts, image = exhibit(), patches()[3:4]
    sparsity = 0.1
    layer = parts.layer.with_sparsity(sparsity)
    assert parts.model is not None
    assert parts.plain_model is not None
    defended = Defended(layer, parts.model)
    adjoint = Implicit() if threat == "white-box" else Identity()
    model = parts.plain_model if threat == "gray-box" else defended.with_adjoint(adjoint)
    own = model(image).argmax(1)
    moved = attacks.pgd(model, image, own, budget=budget, steps=20).images

    given = {"attack": "pgd", "threat": threat, "budget": attacks.budget_text(budget), "lambda": str(sparsity)}
    answer = ask(client, png(image[0]), **given)

    pictures = {name: of_uri(uri) for name, uri in answer["pictures"].items()}
    assert torch.equal(pictures["clean"], image[0])
    half = 0.5001 / 255  # what rounding to 8 bits may change
    assert (pictures["attacked"] - moved[0]).abs().max() <= half
    assert (pictures["projected"] - layer(moved)[0]).abs().max() <= half
    assert (pictures["projected_clean"] - layer(image)[0]).abs().max() <= half
    factor = answer["difference_factor"]
    assert (pictures["difference"] - (0.5 + factor * (moved - image)[0]).clamp(0, 1)).abs().max() <= half
    assert float(budget.measure(image, moved)) <= budget.size + 1e-6
    assert answer["attack"]["linf"] == pytest.approx(float((moved - image).abs().max()), abs=1e-7)
    assert answer["attack"]["dissimilarity"] == pytest.approx(float((moved - image).norm() / image.norm()), rel=1e-5)

    expected = {
        "plain": {
            "clean": parts.plain_model(image),
            "attacked": parts.plain_model(moved),
            "projected": parts.plain_model(layer(moved)),
        },
        "defended": {"clean": defended(image), "attacked": defended(moved)},
    }
    assert answer["predictions"].keys() == expected.keys()
    for who, rows in expected.items():
        assert answer["predictions"][who].keys() == rows.keys()
        for what, logits in rows.items():
            said, probabilities = answer["predictions"][who][what], logits.softmax(1)[0]
            assert [each["class"] for each in said] == probabilities.topk(3).indices.tolist()
            assert [each["label"] for each in said] == [PHOTOGRAPHS[each["class"]] for each in said]
            torch.testing.assert_close(
                torch.tensor([each["probability"] for each in said]), probabilities.topk(3).values, atol=1e-5, rtol=0
            )


@pytest.mark.parametrize("attack", [name for name in ATTACKS_SHOWN if name != "none"])
@pytest.mark.parametrize("budget", [Linf(6 / 255), Dissimilarity(0.04)])
def test_every_attack_stays_within_its_budget_and_moves_the_image(attack: str, budget: attacks.Budget) -> None:
    image = patches()[0]
    moved = attack_image(exhibit(), image, options(attack=attack, budget=attacks.budget_text(budget)), WAITED_FOR)
    size = float(budget.measure(image[None], moved[None]))
    assert size <= budget.size * (1 + 1e-5)
    assert size > 0.7 * budget.size  # the rest is what clipping to [0, 1] takes
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1


def test_an_attack_leads_away_from_what_the_attacked_classifier_says() -> None:
    """PGD at 16/255 changes the class of nearly all images on the attacked network, which noise does not."""
    plain = exhibit().plain_model
    assert plain is not None
    changed = {"pgd": 0, "random-noise": 0}
    for image in patches()[:10]:
        for attack in changed:
            moved = attack_image(exhibit(), image, options(attack=attack, budget="linf:16/255"), WAITED_FOR)
            before, after = plain(torch.stack([image, moved])).argmax(1).tolist()
            changed[attack] += before != after
    assert changed["pgd"] >= 8
    assert changed["random-noise"] < changed["pgd"]


def test_no_attack_changes_nothing(client: TestClient) -> None:
    answer = ask(client, png(patches()[1]), attack="none")
    pictures = answer["pictures"]
    assert pictures["clean"] == pictures["attacked"]
    assert pictures["projected"] == pictures["projected_clean"]
    assert answer["attack"]["linf"] == answer["attack"]["dissimilarity"] == 0
    assert answer["difference_factor"] == 1
    assert answer["codes"]["clean"] == answer["codes"]["attacked"]


def test_the_codes_are_those_of_the_layer(client: TestClient) -> None:
    image = patches()[2:3]
    codes = ask(client, png(image[0]), attack="none")["codes"]["clean"]
    layer = exhibit().layer
    stratum = int(layer.stratum(image)[0])
    _, coded = split_bands(image, layer.split)
    z = solve(SparseCodingProblem(coded, layer.filters[stratum], layer.sparsity), layer.solver).codes[0]
    assert codes["stratum"] == stratum
    assert codes["codes"] == z.numel()
    assert codes["atoms"] == int((z != 0).sum())
    error = float((layer(image) - image).square().mean())
    assert codes["psnr"] == pytest.approx(-10 * torch.tensor(error).log10().item(), abs=1e-3)
    use = z.abs().sum((1, 2))
    assert [one["filter"] for one in codes["strongest"]] == use.topk(min(8, int((use > 0).sum()))).indices.tolist()
    middle = layer.filters.shape[-1] // 2
    for one in codes["strongest"]:
        own = z[one["filter"]].roll((middle, middle), (0, 1))
        red, _, blue, opacity = of_uri(one["map"])
        assert one["atoms"] == int((own != 0).sum())
        assert torch.equal(opacity > 0, own != 0)
        assert bool((red > blue)[own > 0].all())
        assert bool((red < blue)[own < 0].all())
        tile, filters = of_uri(one["tile"]), layer.filters[stratum][one["filter"]]
        assert (tile - (0.5 + 0.5 * filters / filters.abs().max())).abs().max() <= 0.5001 / 255


def test_fewer_codes_at_a_larger_lambda(client: TestClient) -> None:
    atoms = [
        ask(client, png(patches()[2]), attack="none", lambda_=str(value))["codes"]["clean"]["atoms"]
        for value in (0.0125, 0.05, 0.2)
    ]
    assert atoms[0] > atoms[1] > atoms[2]


def test_a_gray_box_attack_is_not_repeated_for_another_lambda() -> None:
    kept, image = Attacked(), patches()[0]
    gray = [kept.image(exhibit(), image, options(**{"lambda": value}), WAITED_FOR) for value in ("0.05", "0.1")]
    aware = [options(threat=TRUE, **{"lambda": value}) for value in ("0.05", "0.1")]
    white = [kept.image(exhibit(), image, each, WAITED_FOR) for each in aware]
    assert gray[0] is gray[1]
    assert not torch.equal(white[0], white[1])
    assert len(kept.kept) == 3
    assert not torch.equal(kept.image(exhibit(), patches()[1], options(), WAITED_FOR), gray[0])


def test_the_networks_are_left_as_they_were() -> None:
    network = vgg("vgg-small", classes=10).train()
    parts = replace(exhibit(), plain_model=network)
    image = patches()[0]
    show(parts, image, options(), attack_image(parts, image, options(), WAITED_FOR))
    assert all(module.training for module in network.modules())


def test_labels_without_names_are_numbers() -> None:
    said = likely(torch.tensor([0.2, 0.7, 0.1]), None)
    assert [(each["class"], each["label"]) for each in said] == [(1, "class 1"), (0, "class 0"), (2, "class 2")]


# What is not there.


def test_a_layer_alone_gives_pictures_and_says_why_there_are_no_labels(bare: TestClient) -> None:
    settings = bare.get("/v1/demo").json()
    assert "no classifier" in settings["missing"]
    assert not any(threat["here"] for threat in settings["threats"].values())
    answer = ask(bare, png(patches()[0]))
    assert answer["attack"]["name"] == "random-noise"
    assert answer["attack"]["linf"] == pytest.approx(8 / 255)
    assert answer["predictions"] == {"plain": {}, "defended": {}}
    assert refused(bare, png(patches()[0]), 400, attack="pgd").startswith("there is no classifier here")


@pytest.mark.parametrize(("kept", "threat", "word"), [("plain_model", TRUE, "defended"), ("model", GRAY, "plain")])
def test_one_classifier_allows_what_it_allows(kept: str, threat: str, word: str) -> None:
    parts = Exhibit(exhibit().layer, **{kept: getattr(exhibit(), kept)})
    for client in client_of(parts):
        assert f"no {word} classifier" in client.get("/v1/demo").json()["missing"]
        answer = ask(client, png(patches()[0]))
        assert answer["attack"]["threat"] != threat
        assert f"{word} classifier" in refused(client, png(patches()[0]), 400, threat=threat)


def test_a_grey_layer_reads_colour_files() -> None:
    for client in client_of(Exhibit(universal(channels=1).eval())):
        answer = ask(client, png(patches()[0]))
        assert of_uri(answer["pictures"]["projected"]).shape == (1, 32, 32)
        assert answer["codes"]["clean"]["stratum"] is None


def test_a_layer_of_other_channels_is_refused() -> None:
    layer = exhibit().layer.__class__(None, [dictionary_of(2)], 0.1)
    with pytest.raises(UsageError, match="2 channels"):
        app_of(Exhibit(layer))


# The file.


@pytest.mark.parametrize(("size", "side", "expected"), [((200, 100), 64, (64, 32)), ((30, 31), 32, (30, 31))])
def test_large_images_are_scaled_down_and_small_ones_left(
    client: TestClient, size: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    answer = ask(client, file_of(Pillow.linear_gradient("L").resize(size).convert("RGB")), side=str(side))
    image = answer["image"]
    assert (image["width"], image["height"]) == expected
    assert (image["given_width"], image["given_height"]) == size
    assert of_uri(answer["pictures"]["clean"]).shape == (3, expected[1], expected[0])


def in_colour(image: Tensor) -> Pillow.Image:
    return Pillow.fromarray((image * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def file_of(picture: Pillow.Image, kind: str = "PNG", **keywords: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **keywords)
    return file.getvalue()


def test_transparent_parts_lie_over_white_and_exif_turns() -> None:
    image, _ = read_image(file_of(Pillow.new("RGBA", (9, 9), (0, 0, 0, 0))), 3, 32, 300)
    assert torch.equal(image, torch.ones(3, 9, 9))
    exif = Pillow.Exif()
    exif[0x0112] = 6  # a quarter turn
    image, given = read_image(file_of(Pillow.new("RGB", (20, 10)), "JPEG", exif=exif), 1, 32, 200)
    assert image.shape == (1, 20, 10)
    assert given == (10, 20)


@measures_memory
def test_a_telephones_photograph_is_decoded_small_and_looks_the_same() -> None:
    """24 million pixels, turned: as all of them decoded and scaled, in a fraction of their memory."""
    photo = in_colour(photograph("chelsea", colour=True)).resize((4000, 6000), Pillow.Resampling.BICUBIC)
    exif = Pillow.Exif()
    exif[0x0112] = 8
    content = file_of(photo, "JPEG", exif=exif, quality=60)
    before = most_memory(start=True)
    image, given = read_image(content, 3, 96, Limits().page_pixels)
    assert most_memory(start=False) - before < photo.width * photo.height
    assert given == (6000, 4000)
    small = opened(content).resize((64, 96), Pillow.Resampling.LANCZOS).transpose(Pillow.Transpose.ROTATE_90)
    assert (image - pixels(small) / 255).abs().max() < 2.5 / 255  # two steps, for both are rounded twice


@measures_memory
@pytest.mark.parametrize("keywords", [{}, {"progressive": True}, {"lossless": True, "method": 0}, {"transparency": 3}])
def test_a_file_takes_no_more_memory_than_documented(keywords: dict[str, Any]) -> None:
    kind = {"lossless": "WEBP", "transparency": "PNG"}.get(next(iter(keywords), ""), "JPEG")
    picture = in_colour(torch.rand(3, 90, 90)).resize((1200, 1000))
    content = file_of(picture.convert({"PNG": "P", "WEBP": "RGBA"}.get(kind, "CMYK")), kind, **keywords)
    limit = 1200 * 1000 * (1 if kind == "JPEG" else 3)
    before = most_memory(start=True)
    read_image(content, 3, 96, limit)
    assert most_memory(start=False) - before < 10 * limit
    with pytest.raises(InputError, match="pixels, more than"):
        read_image(content, 3, 96, limit - 1)


@pytest.mark.parametrize(("kind", "most"), [("PNG", Limits().page_pixels // 3), ("JPEG", Limits().page_pixels)])
def test_too_many_millionsare_refused_before_they_are_decoded(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, kind: str, most: int
) -> None:
    content = bytearray(file_of(Pillow.new("L", (2, 2)), kind))
    at = content.index(b"\xff\xc0") + 5 if kind == "JPEG" else 16
    width = most // 4000 + 1
    content[at : at + (4 if kind == "JPEG" else 8)] = struct.pack(
        *((">HH", 4000, width) if kind == "JPEG" else (">II", width, 4000))
    )
    decoded: list[object] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded.append)
    said = refused(client, bytes(content), 422)
    assert said == f"the image has 4000 x {width} pixels, more than {most} in all; scale it down"
    assert decoded == []


def test_too_many_scans_are_refused_by_the_page_too(client: TestClient) -> None:
    """Of a small image by their number, of a large one by the time that all of them take."""
    assert "more than 100 scans" in refused(client, many_scans(200), 422)
    content = bytearray(many_scans(30))
    at = content.index(b"\xff\xc2") + 5
    content[at : at + 4] = struct.pack(">HH", 4000, 6000)
    assert "more than 22 scans" in refused(client, bytes(content), 422)


def test_too_many_bytes_are_refused(client: TestClient) -> None:
    most = Limits().max_bytes
    assert f"more than {most} bytes" in refused(client, bytes(most + 1), 413)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the body is empty"),
        (b"GIF89a, they say", "no image of a known format"),
        (b"<svg/>", "no image of a known format"),
        (png(torch.rand(3, 32, 32))[:300], "cannot be decoded"),
        (png(torch.rand(3, 3, 3)), "smaller than the filters"),
        (file_of(Pillow.new("I;16", (40, 40))), "more than 8 bits"),
    ],
    ids=["empty", "damaged header", "vector", "truncated", "tiny", "16 bits"],
)
def test_what_is_no_image_is_refused_in_one_line(client: TestClient, content: bytes, words: str) -> None:
    assert words in refused(client, content, 422)


def test_a_classifier_of_one_size_says_so() -> None:
    rigid = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    for client in client_of(Exhibit(exhibit().layer, None, rigid)):
        assert ask(client, png(patches()[0]))["predictions"]["plain"]
        said = refused(client, png(torch.rand(3, 20, 24)), 422)
        assert re.match(r"the attacked classifier cannot read an image of 24 x 20 pixels", said)


# The options.


def refused(client: TestClient, content: bytes, status: int, **query: str) -> str:
    answer = client.post("/v1/demo", content=content, params=query)
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error", "remedy"}
    said = f"{body['error']}; {body['remedy']}"
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"atack": "pgd"}, "did you mean 'attack'"),
        ({"attack": "pdg"}, "did you mean 'pgd'"),
        ({"threat": "black-box"}, "unknown threat"),
        ({"side": "4096"}, "unknown side"),
        ({"budget": "linf:64/255"}, "at most linf:32/255"),
        ({"budget": "dissimilarity:inf"}, "at most dissimilarity:0.3"),
        ({"budget": "l2:1"}, "not one of the page's"),
        ({"budget": "8/255"}, "is no budget"),
        ({"lambda": "0.01"}, "give one from 0.0125 to 0.2"),
        ({"lambda": "nan"}, "too far"),
        ({"lambda": "much"}, "is no number"),
    ],
)
def test_bad_options_are_refused_in_one_line(client: TestClient, query: dict[str, str], words: str) -> None:
    assert words in refused(client, png(patches()[0]), 400, **query)


def test_the_usual_options() -> None:
    assert options() == DemoOptions("pgd", GRAY, Linf(8 / 255), 0.05, SIDES[0])
    assert options(attack="none", threat=TRUE).threat is None


# The rest of the router.


def test_the_photographs_are_square_and_named(client: TestClient) -> None:
    assert client.get("/v1/demo").json()["photographs"] == list(PHOTOGRAPHS)
    for name in PHOTOGRAPHS:
        image, given = read_image(client.get(f"/page/photographs/{name}").content, 3, 96, 3 * 96 * 96)
        assert image.shape == (3, 96, 96)
        assert given == (96, 96)
    assert client.get("/page/photographs/mona-lisa").status_code == 404


def test_the_pages_files_come_with_their_headers(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' data:;")
    for name in re.findall(r'(?:href|src)="(page/[^"]+)"', page.text):
        file = client.get(f"/{name}")
        assert file.status_code == 200
        assert file.headers["x-content-type-options"] == "nosniff"
    assert client.get("/page/index.html").status_code == 404


def test_the_documentation_lists_the_attacks_with_their_options() -> None:
    page = (ROOT / "docs" / "demo-page.md").read_text(encoding="utf-8")
    for attack, settings in ATTACKS_SHOWN.items():
        listed = ", ".join(f"{name} {value}" for name, value in settings.items())
        assert f"| `{attack}` | {listed} |".replace("|  |", "| |") in page


def test_the_documentation_names_the_usual_bounds() -> None:
    page = " ".join((ROOT / "docs" / "demo-page.md").read_text(encoding="utf-8").split())
    mebibytes, millions = Limits().max_bytes // 2**20, Limits().page_pixels / 10**6
    assert f"{mebibytes} MiB, {millions:g} million and {millions / DEARER:.1f} million" in page


def test_the_interface_is_described(client: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v1/demo"]["post"]
    assert {each["name"] for each in operation["parameters"]} == set(NAMES)
    assert "image/png" in operation["requestBody"]["content"]
