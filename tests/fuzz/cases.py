"""How many cases are tried, and which: a case is a number, and its number makes it again."""

import os
from collections import Counter
from collections.abc import Callable
from random import Random

# Shared out over all fuzz tests; `make fuzz` asks for 100,000.
TOTAL = int(os.environ.get("FUZZ_CASES", "4000"))


def case(number: int) -> Random:
    """Return the dice of one case."""
    return Random(number)  # noqa: S311 - the same number has to throw the same.


def run_cases(share: float, attempt: Callable[[Random], str]) -> Counter[str]:
    """Try a share of all cases; count how they ended, in the attempt's own words.

    A failure names its case: ``attempt(case(number))`` makes it again.
    """
    ended: Counter[str] = Counter()
    for number in range(round(TOTAL * share)):
        try:
            ended[attempt(case(number))] += 1
        except BaseException as error:
            error.add_note(f"fuzz case {number}")
            raise
    return ended
