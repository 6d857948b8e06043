"""The broker's two subnets and its name, and a clock for its tests."""

from reconciler.testing.vpc import subnet

HOME = subnet(1, ["10.0.0.0/24", "2001:db8::/64"])
AWAY = subnet(2, ["10.0.1.0/24"])
US = "i-broker"


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Read the time in seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
