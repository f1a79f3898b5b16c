"""Checks and what they mean for the headline."""

import json
import math

import pytest

from quasinat.evaluation.check import Check, judged, not_run, objections


def test_only_mandatory_checks_that_do_not_pass_object() -> None:
    checks = [
        judged("a", "A holds", True, "1 of 1"),
        judged("b", "B holds", False, "0 of 1"),
        judged("c", "C holds", False, "0 of 2", mandatory=False),
        not_run("d", "D holds", "no D was given"),
        not_run("e", "E holds", "no E was given", mandatory=False),
    ]
    assert objections(checks) == ["B holds: failed (0 of 1)", "D holds: not run (no D was given)"]
    assert objections([checks[0], checks[2], checks[4]]) == []
    assert objections([]) == []
    assert [check.status for check in checks] == ["pass", "fail", "fail", "not run", "not run"]


def test_a_check_is_plain_json_whatever_was_measured() -> None:
    made = judged("a", "A", False, "nan", value=math.nan, each=[1.0, -math.inf], by={"x": [math.inf, 0.5]}, n=3)
    value = made.as_json()
    assert value["values"] == {"value": None, "each": [1.0, None], "by": {"x": [None, 0.5]}, "n": 3}
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert list(value) == ["key", "title", "status", "figure", "mandatory", "values"]


def test_a_check_cannot_be_changed_afterwards() -> None:
    made = Check("a", "A", "fail", "it failed")
    with pytest.raises(AttributeError):
        made.status = "pass"  # type: ignore[misc]
