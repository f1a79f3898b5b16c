"""Budgets as text: what a text names, that every budget comes back equal, and what is refused in one line."""

import math

import pytest

from quasinat.attacks import L2, Budget, Dissimilarity, Linf
from quasinat.attacks.budget_text import budget_from_text, budget_text
from quasinat.errors import UsageError


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("linf:8/255", Linf(8 / 255)),
        ("linf:0.5/255", Linf(0.5 / 255)),
        (" LINF:0.03 ", Linf(0.03)),
        ("l2:0.5", L2(0.5)),
        ("l2:128/255", L2(128 / 255)),
        ("l2:1e-3", L2(0.001)),
        ("linf:0", Linf(0.0)),
        ("linf:inf", Linf(math.inf)),
        ("dissimilarity:0.03", Dissimilarity(0.03)),
        ("dissimilarity:0.03:sign", Dissimilarity(0.03)),
        ("dissimilarity:0.03:gradient", Dissimilarity(0.03, "gradient")),
    ],
)
def test_what_a_text_names(text: str, budget: Budget) -> None:
    assert budget_from_text(text) == budget


@pytest.mark.parametrize(
    "budget",
    [
        *[Linf(levels / 255) for levels in range(256)],
        *[kind(size) for kind in (Linf, L2, Dissimilarity) for size in (0.0, 1 / 3, 0.03, 1e-30, 2.5, 1e20, math.inf)],
        Linf(math.nextafter(8 / 255, 1)),
        Dissimilarity(0.1, "gradient"),
    ],
)
def test_every_budget_comes_back_equal(budget: Budget) -> None:
    assert budget_from_text(budget_text(budget)) == budget


def test_whole_levels_are_written_as_such() -> None:
    assert budget_text(Linf(8 / 255)) == "linf:8/255"
    assert budget_text(L2(0.5)) == "l2:0.5"
    assert budget_text(Dissimilarity(0.03)) == "dissimilarity:0.03"
    assert budget_text(Dissimilarity(0.03, "gradient")) == "dissimilarity:0.03:gradient"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is no budget; write one such as linf:8/255, l2:0.5 or dissimilarity:0.03"),
        ("0.03", "'0.03' is no budget"),
        ("linf", "'linf' is no budget"),
        ("lnf:0.1", "unknown budget 'lnf' in 'lnf:0.1'; did you mean 'linf'"),
        ("linf:", "'' in the budget 'linf:' is no number of at least 0; write one such as"),
        ("linf:eight", "'eight' in the budget"),
        ("linf:8/0", "'8/0' in the budget"),
        ("linf:8/255/2", "'8/255/2' in the budget"),
        ("linf:-1", "'-1' in the budget"),
        ("linf:nan", "'nan' in the budget"),
        ("linf:0.1:gradient", "has a part too many"),
        ("dissimilarity:0.1:up", "has a part too many; .* or dissimilarity:0.03:gradient"),
        ("dissimilarity:0.1:sign:sign", "has a part too many"),
    ],
)
def test_other_texts_are_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        budget_from_text(text)
    assert "\n" not in str(caught.value)


def test_a_budget_of_another_kind_has_no_text() -> None:
    class Narrow(Linf):
        pass

    with pytest.raises(UsageError, match="of kind Narrow has no text; use one of: linf, l2, dissimilarity"):
        budget_text(Narrow(0.1))
