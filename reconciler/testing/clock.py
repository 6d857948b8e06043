"""Time that passes only when a test says so."""


class ManualClock:
    """A clock to inject in place of CLOCK_BOOTTIME, and a sleep that goes with it.

    Each look at it takes a microsecond, so that "strictly after" means something
    and a loop that waits for a deadline comes to its end.
    """

    TICK = 1e-6

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Read the clock, in seconds."""
        self.now += self.TICK
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    sleep = advance


__all__ = ["ManualClock"]
