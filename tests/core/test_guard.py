"""Each guard refuses beyond its limit, and says which setting moves it."""

import pytest

from reconciler.core.guard import check_matches, check_ratio
from reconciler.core.model import Limits
from reconciler.errors import NoMatchRefused, RatioRefused


def test_ratio_refuses_eighty_of_a_hundred() -> None:
    """Eighty wrong entries of a hundred are refused, and the message says how to go on."""
    with pytest.raises(RatioRefused, match=r"80 of 100 .*guard.max_change_ratio.*--force"):
        check_ratio(80, 100, Limits())


def test_ratio_accepts_the_limit_itself() -> None:
    """Exactly half is accepted, one more is not."""
    check_ratio(50, 100, Limits())
    with pytest.raises(RatioRefused):
        check_ratio(51, 100, Limits())


def test_ratio_says_nothing_about_small_tables() -> None:
    """Below min_entries a share means nothing."""
    check_ratio(9, 9, Limits())
    with pytest.raises(RatioRefused):
        check_ratio(10, 10, Limits())


def test_no_match_refuses_a_foreign_reading() -> None:
    """Ten judged entries without one match are refused; one match or nine entries are not."""
    with pytest.raises(NoMatchRefused, match="min_entries"):
        check_matches(10, 0, Limits())
    check_matches(10, 1, Limits())
    check_matches(9, 0, Limits())
