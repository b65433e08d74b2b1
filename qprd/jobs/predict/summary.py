"""The report of a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qprd.jobs.predict.review_regions import RegionReport, describe_regions
from qprd.jobs.write_back import WriteBackSummary
from qprd.names import counted
from qprd.results.folder import SlideResult
from qprd.settings import Scoring


@dataclass(frozen=True)
class PredictSummary:
    """What a prediction did.

    Attributes:
        project: The project file.
        backend: How it was read.
        bundle: The bundle's folder.
        threshold: Raw score that was used; None if there is none.
        scoring: Scored from large fields, or patch by patch.
        slides: Figures of each slide that has results now.
        problems: Image name and reason of each slide that was not.
        notes: What the user should know of the others.
        index: The page with all pictures.
        write_back: What was written into the project, None if that was not asked for.
        seconds: Time spent.
        review: Regions marked for review, in their order.
        scored: Number of slides that this process scored.
        redrawn: Number of those of them whose scores were kept: only what is made of them is new.
        current: Number of slides that were up to date.
        elsewhere: Names of slides that other processes are scoring.
    """

    project: Path
    backend: str
    bundle: Path
    threshold: float | None
    scoring: Scoring
    slides: tuple[SlideResult, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    index: Path
    write_back: WriteBackSummary | None
    seconds: float
    review: tuple[RegionReport, ...] = ()
    scored: int = 0
    redrawn: int = 0
    current: int = 0
    elsewhere: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """Slides that could not be scored or written back; the last of several processes says."""
        if self.elsewhere:
            return 0
        return len(self.problems) + (self.write_back.failed if self.write_back else 0)

    def lines(self) -> list[str]:
        """The summary for people."""
        lines = [
            f"{slide.image}: {slide.score_text}, {counted(slide.contours, 'contour')}, "
            f"{slide.tumor_um2 / 1e6:.2f} of {slide.tissue_um2 / 1e6:.2f} mm² tissue"
            for slide in self.slides
        ]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"problem: {problem}" for problem in self.problems]
        if self.threshold is None:
            lines.append(
                "The bundle has no threshold, so there are no contours: give --threshold or "
                "--operating-point."
            )
        kept = f", {self.redrawn} of them from scores that were kept" if self.redrawn else ""
        lines.append(f"Predicted {counted(self.scored, 'slide')} in {self.seconds:.0f} s{kept}.")
        if self.current:
            lines.append(up_to_date(self.current, len(self.slides)))
        if self.elsewhere:
            others = counted(len(self.elsewhere), "slide")
            lines.append(
                f"Other processes are scoring {others}; the last one to end completes the results."
            )
        if self.review:
            lines.append(describe_regions(self.review))
        if self.write_back is not None:
            lines += self.write_back.lines()
        lines.append(f"Pictures: {self.index}")
        return lines


def up_to_date(count: int, total: int) -> str:
    """Say how many slides are not scored again."""
    return f"{count} of {total} slides are up to date; --force scores them again."
