"""The runs of a study: which are done, which one is next, and the document of them all.

Runs go seed by seed, so that an early stop leaves whole seeds. Several processes may be at work in the folder: each
claims the next run that nobody has, and a claim ends with the process that holds it, so that what a lost one had in
hand is done by another, which goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedistill import crew
from edgedistill.errors import EdgedistillError
from edgedistill.evidence.view.figures import duration
from edgedistill.ledgering import keep
from edgedistill.progress import Face
from edgedistill.rundir import NotDone, RunDir
from edgedistill.studybuild import StudyBuild, naming
from edgedistill.studyfile import Study
from edgedistill.studyproof import Run, assemble
from edgedistill.studyresult import FILE, StudyResult, load

POLL_S = 1.0
"""How often a process that has nothing left to do looks for what the others have done, in seconds."""


@dataclass(frozen=True)
class StudyRequest:
    """What a person asked for: the study, its folder, the command to go on, the arms to run (all where empty), and the
    trials of a search over its factors.
    """

    study: Study
    out: Path
    command: str
    only: tuple[str, ...] = ()
    search: int = 0


@dataclass(frozen=True)
class Unit:
    """One run to do."""

    name: str
    kind: str
    seed: int

    @property
    def words(self) -> str:
        """What a person calls it."""
        return f"arm {self.name}, seed {self.seed}"


class Progress:
    """The runs of a study that are done, and those to do."""

    def __init__(
        self, request: StudyRequest, builds: Mapping[str, StudyBuild], run: RunDir, face: Face
    ) -> None:
        self.request, self.builds, self.run, self.face = request, builds, run, face
        study = request.study
        self.units = [Unit(a.name, a.kind, seed) for seed in study.seeds for a in study.arms]
        self.found: dict[Unit, Run] = {}
        self.todo: list[Unit] = []

    def work(self, chosen: Sequence[str], engine: Engine | None = None) -> StudyResult:
        """Do every run of the `chosen` arms that is not done, here or by an `engine`, and write what there is."""
        self._look({*chosen, *_told(self.request.out)})
        self.todo = [unit for unit in self.units if unit.name in chosen and unit not in self.found]
        for name in dict.fromkeys(unit.name for unit in self.todo):
            with naming(f"arm {name}"):
                _ = self.builds[name].resolved
        if before := len(self.found):
            every = "all" if before == len(self.units) else f"{before} of"
            self.face.say(f"{every} {len(self.units)} runs were done before")
        if self.todo:
            (engine or here)(self)
        return self.write()

    def left(self) -> list[Unit]:
        """The runs to do that are not done, as far as is known."""
        return [unit for unit in self.todo if unit not in self.found]

    @contextlib.contextmanager
    def claimed(self, todo: Sequence[Unit]) -> Iterator[Unit | None]:
        """The first run that no other process has claimed, claimed; `None` where all are."""
        with contextlib.ExitStack() as held:
            place = -1
            for index, unit in enumerate(todo if crew.leads() else ()):
                if held.enter_context(self.run.locks.claimed(f"runs/{unit.name}@{unit.seed}")):
                    place = index
                    break
            place = crew.told(place)
            if place >= 0:
                self._look({todo[place].name})  # it may have been finished a moment ago
            yield todo[place] if place >= 0 else None

    def do(self, unit: Unit) -> None:
        """Do one run in this process."""
        with naming(unit.words):
            self.found[unit] = done = self.builds[unit.name].finish(unit.seed)
        if crew.leads():
            keep([done.row], self.face)
        self.tell(unit)

    def tell(self, unit: Unit) -> None:
        """Write the document anew, and say what a run that is done has given."""
        self.write()
        done = self.found[unit]
        left = seconds_left(self.left(), self.found)
        more = f"; about {duration(left) if left >= 60 else f'{left:.0f} s'} to go" if left else ""
        self.face.say(
            f"[{len(self.found)}/{len(self.units)}] {unit.words}: test top-1 "
            f"{done.tested.facts['top1']:.3f}, validation {done.trained.facts['val_top1']:.3f}, "
            f"trained in {duration(done.trained.facts['training_seconds'])}{more}"
        )

    def look(self) -> None:
        """Find the runs that other processes have done by now."""
        self._look({unit.name for unit in self.todo})

    def _look(self, needed: Collection[str]) -> None:
        """Find the runs that are in the folder by now; an arm that is not `needed` may lack what it takes."""
        with _looking(self.run):
            new = self._seen(needed) if crew.leads() else {}
            for unit in crew.told(list(new)):
                self.found[unit] = (
                    new[unit] if unit in new else self.builds[unit.name].finish(unit.seed)
                )

    def _seen(self, needed: Collection[str]) -> dict[Unit, Run]:
        new = {}
        for unit in self.units:
            if unit not in self.found:
                lacks = () if unit.name in needed else (EdgedistillError,)
                with contextlib.suppress(NotDone, *lacks), naming(f"arm {unit.name}"):
                    new[unit] = self.builds[unit.name].finish(unit.seed)
        return new

    def write(self) -> StudyResult:
        """The document and its views, of all that any process has finished; one process writes at a time."""
        leads = crew.leads()
        with self.run.locks.holding("document") if leads else contextlib.nullcontext():
            self._look(())
            result = self._document()
            return self._written(result) if leads else result

    def _document(self) -> StudyResult:
        study, found = self.request.study, self.found
        runs = {
            entry.name: [found[u] for u in self.units if u.name == entry.name and u in found]
            for entry in study.arms
        }
        with _looking(self.run):
            return assemble(study, self.builds, runs, self.request.command)

    def _written(self, result: StudyResult) -> StudyResult:
        """The same findings keep the document of before."""
        from edgedistill.evidence.study import write_views
        from edgedistill.files import write_atomic

        file = self.request.out / FILE
        if file.is_file():
            with contextlib.suppress(EdgedistillError):
                old = load(file)
                same = {"created_utc": old.created_utc, "command": old.command}
                if old == result.model_copy(update=same):
                    result = old
        write_atomic(file, result.dumps())
        write_views(result, self.request.out)
        return result


Engine = Callable[[Progress], None]
"""Does every run that is to do, or waits until others have done it."""


def here(progress: Progress) -> None:
    """One run after the other in this process, each that no other process at work in the folder has claimed."""
    told = False
    while todo := progress.left():
        with progress.claimed(todo) as unit:
            if unit is not None and unit not in progress.found:
                progress.do(unit)
        if unit is None:
            if not told:
                progress.face.say(f"{len(todo)} runs are being done by other processes")
            told = True
            time.sleep(POLL_S)
            progress.look()


def _told(out: Path) -> list[str]:
    """Arms of which the study's document has runs, which must not get lost."""
    with contextlib.suppress(EdgedistillError):
        return [arm.name for arm in load(out / FILE).arms if arm.runs]
    return []


@contextlib.contextmanager
def _looking(run: RunDir) -> Iterator[None]:
    """Nothing is made inside."""
    run.looking = True
    try:
        yield
    finally:
        run.looking = False


def seconds_left(todo: Sequence[Unit], found: Mapping[Unit, Run]) -> float | None:
    """What the runs to do will take: as long as finished ones of the arm, else of its kind, else any."""
    if not found:
        return None
    total = 0.0
    for unit in todo:
        own = [r for u, r in found.items() if u.name == unit.name]
        kind = [r for u, r in found.items() if u.kind == unit.kind]
        like = own or kind or list(found.values())
        total += sum(r.trained.seconds + r.tested.seconds for r in like) / len(like)
    return total
