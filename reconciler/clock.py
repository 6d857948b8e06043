"""The one clock of decisions."""

import time


def boottime() -> float:
    """Read CLOCK_BOOTTIME in seconds: it goes on through suspend (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
