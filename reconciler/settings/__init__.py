"""Settings: one table of them, three places to give them, one error that names all mistakes."""

from reconciler.settings.forms import format_duration, parse_duration
from reconciler.settings.schema import (
    SETTINGS,
    AuthoritySettings,
    GuardSettings,
    LinkSettings,
    LogSettings,
    PolicySettings,
    Setting,
    Settings,
)
from reconciler.settings.sources import DEFAULT_FILE, Effective, Origin, Row, load

__all__ = [
    "DEFAULT_FILE",
    "SETTINGS",
    "AuthoritySettings",
    "Effective",
    "GuardSettings",
    "LinkSettings",
    "LogSettings",
    "Origin",
    "PolicySettings",
    "Row",
    "Setting",
    "Settings",
    "format_duration",
    "load",
    "parse_duration",
]
