"""The slides that wait to be scored, shared by all processes that predict in a project."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qprd.errors import DiskError, QprdError
from qprd.events import is_logged
from qprd.files.claims import Claims
from qprd.files.layout import ProjectLayout
from qprd.jobs.predict.inputs import Inputs
from qprd.jobs.predict.predictor import Predictor
from qprd.jobs.predict.slide_scores import log_failure, log_slide, save_slide
from qprd.predictions import ScoreMap
from qprd.qupath.entry_slides import open_slide
from qprd.qupath.project import Entry, Project
from qprd.results.arrays import load_score_map
from qprd.results.folder import SLIDE, keep_earlier, load_slide_result
from qprd.settings import PredictConfig


@dataclass(frozen=True)
class Work:
    """A prediction as all of its processes know it; can be sent to another one.

    Attributes:
        project: The project.
        config: Settings of the prediction.
        entries: The entries to predict, in order.
        score_before: Results saved before this time, by the clock of the disk, are scored again
            even if they are up to date; None scores none again.
    """

    project: Project
    config: PredictConfig
    entries: Sequence[Entry]
    score_before: float | None


class SlideQueue:
    """The slides of a prediction, of which each process takes the next that nobody else has.

    Args:
        work: The prediction.
        inputs: What its results are made from.
        claims: The claims of this process.

    Attributes:
        scored: Slides that this process scored.
        redrawn: Those of them whose scores were kept, and only what is made of them is new.
        at: The slide that it scores now, or scored last.
        problems: By the entry's id, why this process could not score a slide.
    """

    def __init__(self, work: Work, inputs: Inputs, claims: Claims) -> None:
        self._work = work
        self._inputs = inputs
        self._claims = claims
        self._current: set[str] = set()
        self._keep_scores: set[str] = set()
        self.scored: list[Entry] = []
        self.redrawn: list[Entry] = []
        self.at: Entry | None = None
        self.problems: dict[str, str] = {}
        for entry in work.entries:
            self._is_current(entry)
        self._from_before = frozenset(self._current)
        if is_logged():
            for entry in self.current:
                log_slide(load_slide_result(self._folder(entry)), "up to date")

    @property
    def current(self) -> list[Entry]:
        """The slides that are known to have results which are up to date."""
        return [entry for entry in self._work.entries if entry.id in self._current]

    @property
    def left(self) -> list[Entry]:
        """The slides that are neither up to date nor known to make problems."""
        known = self._current | self.problems.keys()
        return [entry for entry in self._work.entries if entry.id not in known]

    def made(self) -> list[Entry]:
        """The slides that were scored since the queue was made, by whichever process."""
        for entry in self.left:
            self._is_current(entry)
        return [entry for entry in self.current if entry.id not in self._from_before]

    def elsewhere(self) -> list[Entry]:
        """The slides that other processes are at work on."""
        at_work = set(self._claims.others_at_work(entry.id for entry in self.left))
        return [entry for entry in self.left if entry.id in at_work]

    def problems_elsewhere(self) -> list[str]:
        """Why slides were not scored that other processes tried to score."""
        problems = []
        for entry in self.left:
            problem = self._claims.problem_of(entry.id)
            if problem is not None:
                has_name = problem.startswith(f"{entry.name}: ")
                problems.append(problem if has_name else f"{entry.name}: {problem}")
                log_failure(entry, problems[-1])
        return problems

    def score(self, predictor: Predictor) -> Iterator[Entry]:
        """Score slides and save their results until none is left that nobody is at work on.

        Slides of processes that have died meanwhile are taken up at the end. A slide that cannot
        be read is a problem, and the others go on.

        Yields:
            Each slide whose results were saved.

        Raises:
            QprdError: the model cannot be loaded, or the disk is full.
        """
        for entry in self.take():
            self.at = entry
            kept = self._kept_scores(entry)
            if kept is None:
                _ = predictor.scorer
            try:
                self._score(predictor, entry, kept)
            except DiskError:
                raise
            except QprdError as error:
                self.problems[entry.id] = error.line_about(entry.name)
                self._claims.fail(entry.id, self.problems[entry.id])
                log_failure(entry, self.problems[entry.id])
                continue
            if kept is not None:
                self.redrawn.append(entry)
            self.done(entry)
            yield entry

    def done(self, entry: Entry) -> None:
        """Give up the claim on a slide whose results this process has saved."""
        self._claims.release(entry.id)
        self._current.add(entry.id)
        self.scored.append(entry)

    def take(self) -> Iterator[Entry]:
        """Claim one slide after the other, until none is left that nobody is at work on."""
        took = True
        while took:
            took = False
            for entry in self.left:
                if self._is_current(entry) or not self._claims.take(entry.id):
                    continue
                # Another process may have scored it just before.
                if self._is_current(entry):
                    self._claims.release(entry.id)
                    continue
                took = True
                yield entry

    def _kept_scores(self, entry: Entry) -> ScoreMap | None:
        """The scores of a slide, if only what is made of them is out of date."""
        if entry.id not in self._keep_scores or self._work.score_before is not None:
            return None
        try:
            return load_score_map(self._folder(entry))
        except QprdError:
            return None

    def _score(self, predictor: Predictor, entry: Entry, kept: ScoreMap | None) -> None:
        project = self._work.project
        annotations = project.annotations(entry) if predictor.tissue_class else ()
        with open_slide(entry, assume_mpp=self._work.config.assume_mpp) as slide:
            found = predictor.score(slide, entry.name, entry, annotations, kept)
        earlier = ProjectLayout(project.path).earlier(entry.id)
        keep_earlier(self._folder(entry), earlier, found.model.name)
        save_slide(found, self._folder(entry))

    def _is_current(self, entry: Entry) -> bool:
        """Whether the results of a slide are up to date; it is remembered if they are."""
        found = self._inputs.freshness(self._work.project, entry)
        # Judged again under its claim: what has changed since then counts.
        (self._keep_scores.add if found.keeps_scores else self._keep_scores.discard)(entry.id)
        if found.is_fresh:
            before = self._work.score_before
            if before is None or (self._folder(entry) / SLIDE).stat().st_mtime >= before:
                self._current.add(entry.id)
        return entry.id in self._current

    def _folder(self, entry: Entry) -> Path:
        return ProjectLayout(self._work.project.path).result(entry.id)
