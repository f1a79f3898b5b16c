"""quasinat project: what it prints where, and its exit status."""

import json
from pathlib import Path

import pytest
import typer

from experiments.test_projection import files, layer_of, noise
from quasinat import cli
from quasinat.cli.project import project


@pytest.fixture(autouse=True)
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application of this command alone, run as the whole one is."""
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="rich")
    app.command()(project)
    app.callback()(lambda: None)
    monkeypatch.setattr(cli, "app", app)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """The command on three images."""
    for seed in range(3):
        noise(tmp_path / "in" / "a" / f"{seed}.png", seed)
    layer_of().save(tmp_path / "layer.stl")
    return ["project", str(tmp_path / "in"), str(tmp_path / "out"), "--layer", str(tmp_path / "layer.stl")]


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    return {line[:16].strip(): line[16:] for line in capsys.readouterr().out.splitlines()}


def test_it_writes_and_says_what_it_did(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 0
    first = printed(capsys)
    assert (first["images written"], first["already there"], first["failed"]) == ("3", "0", "0")
    assert first["mean PSNR"].endswith(" dB")
    assert float(first["seconds"]) >= 0
    assert {"a/0.png", "a/1.png", "a/2.png"} < files(tmp_path / "out").keys()
    (tmp_path / "out" / "a" / "1.png").unlink()
    assert cli.run(arguments) == 0
    second = printed(capsys)
    assert (second["images written"], second["already there"]) == ("1", "2")
    assert second["mean PSNR"] == first["mean PSNR"]


def test_json_has_the_psnr_of_every_image(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*arguments, "--json", "--format", "shards", "--shard-size", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["count"], found["written"], found["skipped"], found["failed"]) == (3, 3, 0, [])
    assert list(found["psnr"]) == ["a/0.png", "a/1.png", "a/2.png"]
    assert found["mean_psnr"] == pytest.approx(sum(found["psnr"].values()) / 3)
    assert found["seconds"] >= 0


def test_images_that_failed_are_listed_at_the_end(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in" / "a" / "1.png").write_bytes(b"rubbish")
    for already in ("0", "2"):
        assert cli.run(arguments) == 1
        captured = capsys.readouterr()
        lines = captured.err.strip().splitlines()
        assert lines[-1].startswith("quasinat: left out: ")
        assert "a/1.png cannot be read as an image (no known image format); replace it" in lines[-1]
        assert f"already there   {already}" in captured.out
        assert "failed          1" in captured.out
    assert cli.run([*arguments, "--strict"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "a/1.png cannot be read" in captured.err.strip().splitlines()[-1]


def test_another_lambda_is_another_layer(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*arguments, "--lambda", "0.3"]) == 0
    coarse = float(printed(capsys)["mean PSNR"].split()[0])
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["lambda"] == 0.3
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "holds images projected with another lambda; choose another OUT, or pass --overwrite" in captured.err
    assert cli.run([*arguments, "--overwrite"]) == 0
    assert float(printed(capsys)["mean PSNR"].split()[0]) > coarse
    layer_of(seed=1).save(tmp_path / "layer.stl")
    assert cli.run(arguments) == 2
    assert "projected with another layer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "status", "parts"),
    [
        (["--format", "pgn"], 2, ["pgn", "did you mean 'png'"]),
        (["--batch-size", "0"], 2, ["--batch-size 0"]),
        (["--batch-size", "many"], 2, ["--batch-size", "project --help"]),
        (["--split", "test"], 2, ["--split test", "leave it out"]),
        (["--split", "tset"], 2, ["tset", "did you mean 'test'"]),
        (["--lambda", "nan"], 2, ["--lambda nan"]),
        (["--layer", "nowhere.stl"], 1, ["nowhere.stl is missing"]),
    ],
)
def test_bad_usage_is_one_line_with_a_remedy(
    arguments: list[str], extra: list[str], status: int, parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert cli.run([*arguments, *extra]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert all(part in captured.err for part in parts), captured.err
    assert not (tmp_path / "out").exists()


def test_the_help_names_the_conversions(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["project", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("round(255 x)", "Grey images become RGB", "Transparency is put over white", "quasinat project photos"):
        assert part in text
