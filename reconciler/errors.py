"""Every error that a user can meet.

ReconcilerError
├── ConfigError            bad setting, file or flag                    exit 64
├── AuthorityError         EC2 could not be read whole, or does not know this host
│   ├── IdentityError      neither metadata nor the API says who this host is
│   └── UnbelievableError  a reading that lists none of this host's managed ENIs
├── KernelError            the kernel could not be read
├── CapabilityError        CAP_NET_ADMIN is missing
├── LockError              another daemon runs in this network namespace
├── LabError               the lab cannot be built on this machine
├── Interrupted            Ctrl-C; what was done is reported            exit 130
└── Refused                a guard refused the whole plan               exit 3

Messages say what happened, what was left untouched and what to do.
"""

from typing import ClassVar


class ReconcilerError(Exception):
    """The base; ``code`` names the error in JSON."""

    code: ClassVar[str] = "error"

    @property
    def kind(self) -> str:
        """What makes two failures the same one in a log that counts repeats."""
        return self.code


class ConfigError(ReconcilerError):
    """A setting, file or flag is not acceptable."""

    code = "config"


class AuthorityError(ReconcilerError):
    """The authority could not be read whole. Nothing is believed, nothing is changed."""

    code = "authority"


class IdentityError(AuthorityError):
    """Nobody could say which instance this is."""

    code = "identity"


class UnbelievableError(AuthorityError):
    """The reading does not know this host, so it speaks for some other place."""

    code = "authority_unbelievable"


class KernelError(ReconcilerError):
    """The kernel's tables could not be read whole."""

    code = "kernel"


class CapabilityError(ReconcilerError):
    """This process may not write neighbours here."""

    code = "capability"


class LockError(ReconcilerError):
    """Another daemon holds this network namespace."""

    code = "lock"


class LabError(ReconcilerError):
    """The lab cannot be built on this machine."""

    code = "lab"


class Interrupted(ReconcilerError):  # noqa: N818 - a person's wish, not a fault.
    """Somebody pressed Ctrl-C."""

    code = "interrupted"


class Refused(ReconcilerError):  # noqa: N818 - a guard's refusal is an answer, not a fault.
    """A guard refused the whole plan before the first change.

    ``setting`` names what moves the guard, or None.
    """

    code = "refused"
    guard: ClassVar[str]
    setting: ClassVar[str]

    @property
    def kind(self) -> str:
        """One guard's refusals are one failure."""
        return f"{self.code} {self.guard}"


class RatioRefused(Refused):
    """Too large a share of the table would change."""

    guard = "ratio"
    setting = "guard.max_change_ratio"


class NoMatchRefused(Refused):
    """Not one entry agrees with the authority."""

    guard = "no_match"
    setting = "guard.min_entries"


class ShrunkRefused(Refused):
    """A subnet lost too many ENIs between two readings."""

    guard = "shrunk"
    setting = "guard.max_shrink"


class StaleRefused(Refused):
    """No confirming reading is young enough."""

    guard = "stale"
    setting = "authority.max_age"


class HoldRefused(Refused):
    """The hold file exists, or cannot be checked."""

    guard = "hold"
    setting = "guard.hold_file"
