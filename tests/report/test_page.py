import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from quasinat.errors import InputError
from quasinat.files import write_json, write_tensors
from quasinat.report import page, write_page

from .builder import build_pictures, build_results

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Reader(HTMLParser):
    """Checks that tags are balanced, and keeps every start tag and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(("channels", "classes", "strata"), [(1, 3, 2), (3, 2, 1), (3, 12, 10)])
def test_the_page_needs_nothing_beside_it(channels: int, classes: int, strata: int) -> None:
    shape = {"channels": channels, "classes": classes, "strata": strata}
    text = page(build_results(**shape), build_pictures(**shape))
    reader = Reader(text)
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert len(images) >= 5 * classes + 10
    assert all((image["src"] or "").startswith("data:image/png;base64,") and image["alt"] for image in images)
    assert not [tag for tag, _ in reader.tags if tag in ("script", "link", "iframe")]
    links = [a[key] or "" for _, a in reader.tags for key in ("src", "href", "xlink:href") if key in a]
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "http://" not in text
    assert "https://" not in text
    identifiers = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(identifiers)
    named = [a["aria-labelledby"] for _, a in reader.tags if "aria-labelledby" in a]
    assert set(named) <= set(identifiers)


def test_every_header_of_a_table_has_a_scope(results: dict[str, Any], pictures: dict[str, Tensor]) -> None:
    headers = [attributes for tag, attributes in Reader(page(results, pictures)).tags if tag == "th"]
    assert headers
    assert all(header.get("scope") in ("col", "row", "rowgroup") for header in headers)


def test_what_the_page_says(results: dict[str, Any], pictures: dict[str, Tensor]) -> None:
    text = " ".join(Reader(page(results, pictures)).text.split())
    for said in (
        "Nothing real.",
        "not run",
        "What holds",
        "What does not hold",
        "only through the identity gradient (BPDA)",
        "no change",
        "1 min 1 s",
        "not recorded",
        "0.62 GB",
        "STL (cluster): stratum 1",
    ):
        assert said in text


def test_it_is_a_pure_function(results: dict[str, Any], pictures: dict[str, Tensor]) -> None:
    assert page(results, pictures) == page(build_results(), build_pictures())


def test_names_are_escaped(results: dict[str, Any], pictures: dict[str, Tensor]) -> None:
    evil = "<script>alert('&')</script>\"x"
    results["data"] |= {"classes": [evil, "b", "c"], "name": evil, "description": evil}
    results["settings"]["root"] = evil
    for row in results["rows"]:
        row["label"] += evil
    text = page(results, pictures)
    assert "<script" not in text
    assert "alert" in Reader(text).text


def test_pictures_and_curves_may_be_missing(results: dict[str, Any]) -> None:
    results |= {"trade_off": [], "curves": {}, "seconds": {}, "peak_memory": 0}
    text = Reader(page(results, {})).text
    assert "Curves" not in text
    assert "Filters and strata" not in text
    assert "not known on this system" in text


def test_writing(tmp_path: Path, results: dict[str, Any], pictures: dict[str, Tensor]) -> None:
    write_json(tmp_path / "results.json", results)
    with pytest.raises(InputError, match="pictures"):
        write_page(tmp_path)
    write_tensors(tmp_path / "steps" / "pictures.safetensors", pictures)
    path = write_page(tmp_path)
    assert path == tmp_path / "page.html"
    assert path.read_text(encoding="utf-8") == page(results, pictures)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.html", "results.json", "steps"]
    write_json(tmp_path / "results.json", results | {"schema": 7})
    with pytest.raises(InputError, match="schema 7"):
        write_page(tmp_path)
