"""Findings of the doctor: passed, a warning or a failure, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from qprd.errors import QprdError


class Status(str, Enum):
    """How a check ended."""

    PASS = "PASS"  # noqa: S105
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        status: Whether it stands in the way of the main job.
        subject: What was looked at.
        finding: What was seen.
        fix: What to do, for WARN and FAIL.
        images: Names of the images that it is about.
    """

    status: Status
    subject: str
    finding: str
    fix: str | None = None
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examination:
    """All findings of the doctor."""

    checks: tuple[Check, ...]

    @property
    def failed(self) -> int:
        """Number of checks that ended in FAIL."""
        return sum(check.status is Status.FAIL for check in self.checks)

    def lines(self) -> list[str]:
        """A line for each finding, and one for its fix."""
        lines = []
        for check in self.checks:
            lines.append(f"{check.status.value}  {check.subject}: {check.finding}")
            if check.fix:
                lines.append(f"      fix: {check.fix}")
        return lines


def passed(subject: str, finding: str) -> Check:
    """A check that found nothing to mend."""
    return Check(Status.PASS, subject, finding)


def warning(
    subject: str, finding: str, fix: str | None = None, images: Iterable[str] = ()
) -> Check:
    """A check that found what is worth mending."""
    return Check(Status.WARN, subject, finding, fix, tuple(images))


def failure(subject: str, finding: str | QprdError, fix: str | None = None) -> Check:
    """A check that found what stands in the way, in words or as an error."""
    if isinstance(finding, QprdError):
        where = f" ({finding.where})" if finding.where else ""
        return Check(Status.FAIL, subject, f"{finding.problem}{where}", finding.fix)
    return Check(Status.FAIL, subject, finding, fix)
