"""Whether descriptors and connects suffice for so many accounts."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.capacity import connects, descriptors, files_needed
from kraken_feed.config import ReconnectConfig

few = st.integers(1, 500)


@given(few, st.integers(1, 2), st.integers(0, 20_000) | st.none())
def test_too_few_descriptors_fail_and_name_the_number_that_is_enough(
    accounts: int, endpoints: int, allowed: int | None
) -> None:
    finding = descriptors(accounts, endpoints, allowed)
    assert (finding.status == "OK") == (allowed is None or files_needed(accounts, endpoints) <= allowed)
    if finding.status == "FAIL":
        found = re.search(r"LimitNOFILE=(\d+)", finding.remedy)
        assert found is not None
        assert descriptors(accounts, endpoints, int(found[1])).status == "OK"
        assert finding.exit_code == 78


def test_two_hundred_accounts_do_not_fit_into_1024_descriptors() -> None:
    assert descriptors(200, 1, 1024).status == "FAIL"
    assert descriptors(200, 2, 4096).status == "OK"


@given(few, st.integers(1, 2), few)
def test_a_start_that_takes_more_than_the_budget_is_a_warning_with_its_length(
    accounts: int, endpoints: int, budget: int
) -> None:
    finding = connects(accounts, endpoints, ReconnectConfig(budget=budget, window_s=600.0))
    needed = accounts * endpoints
    assert finding.status == ("OK" if needed <= budget else "WARN")
    assert finding.exit_code == 0
    if finding.status == "WARN":
        assert f"after {600 * ((needed - 1) // budget):g} s" in finding.why
