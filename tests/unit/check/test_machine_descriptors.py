"""Whether descriptors and connects suffice for so many accounts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.check.machine import connects, open_files
from kraken_feed.output import descriptors
from kraken_feed.transport.backoff import Budget

few = st.integers(2, 500)


@given(few, st.integers(1, 2), st.booleans(), st.integers(0, 20_000) | st.none())
def test_too_few_descriptors_fail_and_name_the_number_that_is_enough(
    accounts: int, endpoints: int, state: bool, allowed: int | None
) -> None:
    result = open_files(accounts, endpoints, state=state, allowed=allowed)
    needed = descriptors.needed(accounts, endpoints, state=state)
    assert result.facts == {"needed": needed, "allowed": allowed}
    assert (result.status == "OK") == (allowed is None or needed <= allowed)
    if result.status == "FAIL":
        found = re.search(r"hard limit to (\d+)", result.remedy)
        assert found is not None
        assert open_files(accounts, endpoints, state=state, allowed=int(found[1])).status == "OK"
        assert result.exit_code == 78


def test_two_hundred_accounts_do_not_fit_into_1024_descriptors() -> None:
    assert open_files(200, 1, state=True, allowed=1024).status == "FAIL"
    assert open_files(200, 2, state=True, allowed=4096).status == "OK"


@given(st.integers(1, 500), st.integers(1, 2), st.integers(1, 300), st.booleans())
def test_a_start_that_takes_more_than_is_allowed_is_a_warning_with_its_length(
    accounts: int, endpoints: int, limit: int, public: bool
) -> None:
    budget = Budget(limit, 600.0)
    result = connects(accounts, endpoints, budget, public=public)
    needed, most = accounts * endpoints, min(limit, 150) if public else limit
    assert result.status == ("OK" if needed <= most else "WARN")
    assert result.exit_code == 0
    if result.status == "WARN":
        assert f"{needed} connects, and {'reconnect.budget' if most == limit else 'Kraken'}" in result.what
        assert f"{most} per 600 s" in result.what
        found = re.search(r"after (\d+) s", result.why)
        assert found is not None
        assert int(found[1]) == pytest.approx(budget.span(needed), abs=0.6)
