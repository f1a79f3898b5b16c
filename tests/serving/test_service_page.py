"""docs/service.md: its commands run, its tables are those of the service, its figures those of the result file."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer
from PIL import Image

from pages import page_module
from quasinat.cli import app
from quasinat.data.image_files import read_picture
from quasinat.files import read_json
from serving.service import KEY, Service, coder, eight_bits, page_of, png, serving

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    part = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_its_curl_examples_do_what_they_say(tmp_path: Path) -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("curl ")]
    assert len(lines) == 5
    (tmp_path / "photo.png").write_bytes(png(eight_bits(1)[0]))
    with serving(key=KEY) as service:
        for line in lines:
            command = line.replace("http://127.0.0.1:8000", service.url).replace("curl ", "curl --silent --fail ", 1)
            if "Authorization" not in command:
                command = command.replace("--fail", '--fail -H "Authorization: Bearer $KEY"')
            ran = subprocess.run(
                ["bash", "-c", command], env={"KEY": KEY, "PATH": "/usr/bin:/bin"}, cwd=tmp_path, capture_output=True
            )
            assert ran.returncode == 0, (command, ran.stderr)
            if "projected.png" in line:
                picture = read_picture(tmp_path / "projected.png")
                assert isinstance(picture, Image.Image)
                assert picture.size == (20, 20)
                (tmp_path / "projected.png").unlink()
            elif "classify" in line:
                assert ran.stdout.count(b'"probability"') == 6
            else:
                assert b"quasinat_images_total" in ran.stdout or ran.stdout == b'{"status":"ok"}'


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """As it is started by default."""
    made = coder()
    with serving(made, page=page_of(made)) as running:
        yield running


def test_its_paths_are_those_of_the_service(service: Service) -> None:
    named = set(re.findall(r"`(?:GET|POST) ([^`]+)`", "\n".join(" ".join(row) for row in rows("Paths"))))
    assert named - {"/docs", "/openapi.json", "/"} == set(service.app.openapi()["paths"])


def test_its_statuses_are_those_that_openapi_describes(service: Service) -> None:
    named = {status for row in rows("What is refused, and how") for status in row[0].split(", ")}
    operations = [each for path in service.app.openapi()["paths"].values() for each in path.values()]
    described = {status for operation in operations for status in operation["responses"]}
    assert described - {"200"} == named - {"405"}


def test_its_options_are_those_of_the_command() -> None:
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    options = {parameter.opts[0]: parameter.default for parameter in command.params if parameter.opts[0] != "layer"}
    found: dict[str, str] = {}
    for names, default, _ in rows("Options"):
        options_of_row = re.findall(r"--[a-z-]+", names)
        defaults = default.split(", ")
        found.update(zip(options_of_row, defaults, strict=True))
    assert set(found) == set(options)
    words = {"none": None, "`--model`": None, "off": False}
    for name, default in options.items():
        assert words.get(found[name], found[name]) in (default, str(default)), name


def test_its_metrics_are_those_of_the_service(service: Service) -> None:
    named = {name for row in rows("Metrics") for name in re.findall(r"`([a-z_]+)", row[0])}
    text = service.client.get("/metrics").text
    kinds = dict(re.findall(r"# TYPE (\S+) (\S+)", text))
    assert named <= set(kinds)
    ours = {name for name, kind in kinds.items() if name.startswith("quasinat_") and not name.endswith("_created")}
    assert ours == {name for name in named if name.startswith("quasinat_")}
    reasons = set(re.findall(r'reason="([a-z ]+)"', text))
    assert reasons == set(re.findall(r"`([a-z ]+)`", next(row[1] for row in rows("Metrics") if "refused" in row[0])))


@pytest.fixture(scope="module")
def written() -> ModuleType:
    return page_module("service_page")


def test_its_figures_are_those_of_the_result_file(written: ModuleType) -> None:
    measured = written.sections(ROOT)
    assert written.update(PAGE, measured) == PAGE
    assert measured["soak"].strip() in PAGE
    assert written.update(PAGE, {"soak": measured["soak"].replace("wrong", "false")}) != PAGE


def test_the_run_was_long_enough_and_found_nothing() -> None:
    found = read_json(ROOT / "results" / "reliability" / "soak.json")
    assert found["minutes"] >= 10
    assert (found["wrong answers"], found["stop"]["exit status"]) == (0, 0)
    assert found["good answers"] > 10_000
    assert all(sum(counts.values()) > 100 for counts in found["faults"].values())
    assert found["server"]["in use, MiB"]["slope a minute"] < 0.25
    assert found["server"]["files"]["most"] < found["server"]["files"]["first"] + 60  # the clients' connections


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).is_file(), target
