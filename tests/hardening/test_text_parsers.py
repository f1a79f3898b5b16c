"""Properties of the parsers of the command line's texts: they read, or refuse in one line, whatever they are given."""

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardening.refusals import answer, is_clear
from quasinat.attacks import L2, Budget, Dissimilarity, Linf
from quasinat.attacks.budget_text import budget_from_text, budget_text
from quasinat.cli.evaluate import share
from quasinat.cli.project import worker_range
from quasinat.defences.registry import DEFENCES, NEEDS, defence_from
from quasinat.errors import InputError, QuasinatError, UsageError
from quasinat.experiments.table_places import places
from quasinat.experiments.table_spec import table_named
from quasinat.files import DEPTH, parsed_json

FREE = sorted(set(DEFENCES) - set(NEEDS))
MARKS = ["linf", "l2", "dissimilarity", *":/,=*?[]-.", "8", "255", "0.5", "nan", "inf", "1e999", "none", "yes", "seed"]
PIECES = st.sampled_from([*FREE, *MARKS, "gradient", "\n", "\x1b"])
TEXT = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=8).map("".join))
PARSERS: dict[str, Callable[[str], object]] = {
    "budget": budget_from_text,
    "defence": defence_from,
    "only": lambda text: places([table_named("table1")], text),
    "share": share,
    "workers": worker_range,
}
quick = settings(max_examples=150, deadline=None, derandomize=True)


@pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS.keys())
@quick
@given(text=TEXT)
def test_any_text_is_read_or_refused_in_one_line(parse: Callable[[str], object], text: str) -> None:
    found = answer(lambda: parse(text))
    assert not isinstance(found, QuasinatError) or (isinstance(found, UsageError) and is_clear(found))


@quick
@given(
    budget=st.one_of(
        st.builds(Linf, st.floats(0, allow_nan=False)),
        st.builds(L2, st.floats(0, allow_nan=False)),
        st.builds(Dissimilarity, st.floats(0, allow_nan=False), st.sampled_from(["sign", "gradient"])),
    )
)
def test_a_budgets_text_is_that_budget(budget: Budget) -> None:
    assert budget_from_text(budget_text(budget)) == budget


@quick
@given(numerator=st.integers(0, 10**6), denominator=st.integers(1, 10**6))
def test_a_fraction_is_its_quotient(numerator: int, denominator: int) -> None:
    read = budget_from_text(f"linf:{numerator}/{denominator}").size
    assert read == pytest.approx(float(Fraction(numerator, denominator)), rel=1e-15)


@quick
@given(part=st.integers(1, 10**6), more=st.integers(0, 10**6))
def test_a_share_is_its_two_numbers(part: int, more: int) -> None:
    assert share(f"{part}/{part + more}") == (part, part + more)
    assert worker_range(f"{part},{part + more}") == (part, part + more)


@pytest.mark.parametrize("parse", [share, worker_range])
def test_numbers_of_thousands_of_digits_are_refused(parse: Callable[[str], object]) -> None:
    with pytest.raises(UsageError):
        parse("1" * 5000 + "/" + "1" * 5000)


@quick
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_json_comes_back(value: object) -> None:
    import json

    assert parsed_json(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "[" * (DEPTH + 1) + "]" * (DEPTH + 1)])
def test_deep_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"nested more than {DEPTH} deep"):
        parsed_json(text)


@pytest.mark.parametrize("depth", [1, DEPTH])
def test_json_as_deep_as_we_read_is_read(depth: int) -> None:
    assert str(parsed_json("[" * depth + "]" * depth)) == "[" * depth + "]" * depth


@quick
@given(problem=st.text(max_size=3000), remedy=st.text(max_size=100))
def test_an_error_is_one_printable_line(problem: str, remedy: str) -> None:
    line = str(InputError(problem, remedy))
    assert line.isprintable()
    assert len(line) < 10 * (1000 + 100)
    assert isinstance(InputError(problem, remedy), QuasinatError)


def test_control_characters_are_shown_as_escapes() -> None:
    assert str(InputError("a\n\x1b[2Jb\udcff\u202e", "c")) == r"a \x1b[2Jb\udcff\u202e; c"
    assert str(InputError("x" * 5000, "y")) == f"{'x' * 500} ... {'x' * 500}; y"
