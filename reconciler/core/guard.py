"""The guards: accept a whole plan or refuse it, before the first change.

Each is a pure function that returns or raises its own exception. The messages
carry the measured figure, the limit, and the setting that moves it. The two
guards that need the world outside (hold file, age of the reading) are asked by
the one class that writes (``kernel.write``), and raise their exceptions there.
"""

from reconciler.core.model import Limits
from reconciler.errors import NoMatchRefused, RatioRefused

FORCE = "look at `arp-reconciler plan`, and if you are sure run `arp-reconciler apply --force`"


def check_ratio(wrong: int, judged: int, limits: Limits) -> None:
    """Refuse when too large a share of the table is wrong: then it is the authority that is.

    Args:
        wrong: distinct wrong entries within one interval, whatever triggered the look.
        judged: entries of the last full table on which the authority has an opinion.
        limits: the settings.

    Raises:
        RatioRefused: wrong / judged exceeds the limit.
    """
    if judged >= limits.min_entries and wrong > limits.max_change_ratio * judged:
        raise RatioRefused(
            f"{wrong} of {judged} judged entries are wrong ({wrong / judged:.0%}), more than the "
            f"{limits.max_change_ratio:.0%} that guard.max_change_ratio allows. So many at once "
            "usually means that the reading is wrong, not the table; nothing was changed. To go "
            f"on: {FORCE}, or raise guard.max_change_ratio."
        )


def check_matches(judged: int, matches: int, limits: Limits) -> None:
    """Refuse when the authority agrees with not one entry of the last full table.

    Raises:
        NoMatchRefused: ``min_entries`` or more were judged, and none matches.
    """
    if judged >= limits.min_entries and matches == 0:
        raise NoMatchRefused(
            f"not one of {judged} judged entries matches the authority (asked from "
            f"guard.min_entries = {limits.min_entries} on). This looks like a reading of another "
            f"place; nothing was changed. To go on: {FORCE}, or raise guard.min_entries."
        )
