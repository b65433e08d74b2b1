"""A clock that stands still."""

from __future__ import annotations

from datetime import datetime, tzinfo


class OneSecond(datetime):
    """The clock of trainings that all end in the same second."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> OneSecond:
        return cls(2026, 1, 1, tzinfo=tz)
