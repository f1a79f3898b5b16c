"""Without a browser the tests of the page skip, unless one has to be there."""

import shutil

import pytest

from serving.browser import chromium


@pytest.mark.parametrize(
    ("said", "outcome"),
    [("required", pytest.fail.Exception), ("", pytest.skip.Exception), (None, pytest.skip.Exception)],
)
def test_a_missing_browser_skips_or_fails(
    said: str | None, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    if said is None:
        monkeypatch.delenv("QUASINAT_BROWSER", raising=False)
    else:
        monkeypatch.setenv("QUASINAT_BROWSER", said)
    with pytest.raises(outcome, match="no chromium on the PATH"), chromium():
        pass
