"""A search over all factors of a study at once: trials of one level each, hopeless ones stopped early.

Trials are chosen by Optuna's TPE (imported inside) and judged on validation alone; what they are and how they end
stands in a journal in the study's folder, which any number of processes share. A trial is claimed by a lock of the
operating system, so that one whose process is lost is done by another, from its last checkpoint. The best one is then
an arm of the study like any other, with all seeds and tested.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill import crew
from edgedistill.arms import DISTILLED
from edgedistill.errors import EdgedistillError, MissingExtraError, StoppedError, UsageError
from edgedistill.files import write_atomic
from edgedistill.progress import Face
from edgedistill.recipe import replace
from edgedistill.result import CurvePoint
from edgedistill.rundir import RunDir
from edgedistill.searchresult import FILE, SearchResult, Trial, load
from edgedistill.studybuild import StudyBuild
from edgedistill.studyfactors import DEFAULT
from edgedistill.studyfile import Study, StudyArm

SEARCHED = "searched"
"""The arm that is the best trial."""
FIRST = 8
"""Trials that are chosen at random before others are chosen by them, or stopped beside them."""
JOURNAL = "search.log"


class Hopeless(Exception):
    """A trial that is worse than the half of the others were after as many epochs."""


@dataclass(frozen=True)
class Space:
    """What is searched: each factor's levels, the default among them, and the arm of each level."""

    base: StudyArm
    factors: Mapping[str, Mapping[str, StudyArm]]

    @property
    def levels(self) -> dict[str, list[str]]:
        """Names of the levels by factor."""
        return {factor: [DEFAULT, *arms] for factor, arms in self.factors.items()}

    def arm(self, name: str, levels: Mapping[str, str]) -> StudyArm:
        """The default with one level of each factor; of two that set the same value, the later factor's counts."""
        changes: dict[str, Any] = {}
        for factor, arms in self.factors.items():
            level = levels.get(factor, DEFAULT)
            if level != DEFAULT:
                changes |= arms[level].changes
        why = ", ".join(f"{factor} {level}" for factor, level in levels.items() if level != DEFAULT)
        values = {path: (value, f"searched: {why}") for path, value in changes.items()}
        return StudyArm(name, self.base.kind, replace(self.base.layered, values), changes)


def space_of(study: Study) -> Space:
    """The levels of a study's factors that have a teacher. Raises `UsageError` where there are none."""
    base = next((arm for arm in study.arms if arm.name == DEFAULT), None)
    factors: dict[str, dict[str, StudyArm]] = {}
    for arm in study.arms:
        if arm.factor is not None and arm.kind == DISTILLED:
            factors.setdefault(arm.factor, {})[arm.name] = arm
    if base is None or not factors:
        raise UsageError(
            f"study {study.name} has no factors to search over: name them in its file (factors: ...)."
        )
    return Space(base, factors)


class Search:
    """The trials of a study in its folder; `trials` are how many there shall be in all."""

    def __init__(self, study: Study, out: Path, command: str, trials: int) -> None:
        self.study, self.out, self.command, self.wanted = study, out, command, trials
        self.space = space_of(study)

    def work(self, run: RunDir, face: Face) -> SearchResult:
        """Do every trial that nobody else does, and write what is known after each."""
        if crew.size() > 1:
            raise UsageError(
                "--search is shared by processes that each train alone: start the command without accelerate launch"
            )
        journal = self._journal()
        while True:
            with self._next(journal, run) as trial:
                if trial is None:
                    break
                self._do(journal, trial, run, face)
                self._write(journal, run)
        return self._write(journal, run)

    def _journal(self) -> Any:
        """The journal of trials. Raises `UsageError` for one of other factors."""
        try:
            import optuna
        except ImportError:
            raise MissingExtraError("--search", "search") from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        backend = optuna.storages.journal.JournalFileBackend(str(self.out / JOURNAL))
        journal = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=FIRST, n_warmup_steps=0),
            study_name=self.study.name, direction="maximize", load_if_exists=True,
        )  # fmt: skip
        source = self.study.arms[0].layered.recipe.data.source
        for what, own in (("factors", self.space.levels), ("images", source)):
            if journal.user_attrs.get(what, own) != own:
                raise UsageError(
                    f"{self.out / JOURNAL} is a search over other {what} than those of study {self.study.name}. Give "
                    "another folder with --out; nothing of this one was changed."
                )
            journal.set_user_attr(what, own)
        return journal

    @contextlib.contextmanager
    def _next(self, journal: Any, run: RunDir) -> Iterator[Any]:
        """A trial to do, claimed: one that a lost process has left, else a new one; `None` when there are enough."""
        import optuna
        from optuna.trial import TrialState

        with contextlib.ExitStack() as held:
            found = None
            with run.locks.holding("search"):
                known = journal.get_trials(deepcopy=False)
                for old in known:
                    lost = old.state in (TrialState.RUNNING, TrialState.WAITING)
                    if lost and held.enter_context(run.locks.claimed(f"trials/{old.number}")):
                        found = optuna.trial.Trial(journal, old._trial_id)
                        break
                if found is None and len(known) < self.wanted:
                    found = journal.ask()
                    held.enter_context(run.locks.claimed(f"trials/{found.number}"))
                if found is not None:
                    self._choose(journal, found)
            yield found

    def _choose(self, journal: Any, trial: Any) -> None:
        """Give a trial the levels it lacks: all of a new one, the rest of one whose process was lost between two.

        The sampler is of trial and factor, so that a level does not depend on who asks for it, and no two trials
        begin alike.
        """
        import optuna

        for k, (factor, levels) in enumerate(self.space.levels.items()):
            seed = np.random.SeedSequence([self.study.seeds[0], trial.number, k]).generate_state(1)
            journal.sampler = optuna.samplers.TPESampler(
                seed=int(seed[0]), n_startup_trials=FIRST, constant_liar=True
            )
            trial.suggest_categorical(factor, levels)

    def _do(self, journal: Any, trial: Any, run: RunDir, face: Face) -> None:
        from optuna.trial import TrialState

        arm = self.space.arm(f"trial{trial.number}", trial.params)
        watched, seen = Face(0, face.console), _Watch(trial)
        watched.watch = seen
        said = ", ".join(f"{f} {level}" for f, level in trial.params.items() if level != DEFAULT)
        words = f"trial {trial.number + 1} of {self.wanted}: {said or 'the default'}"
        try:
            build = StudyBuild(arm, self.out, self.command, run, watched)
            done = build.arm(build.arm_of(self.study.seeds[0]))
        except Hopeless:
            trial.set_user_attr("epochs", seen.epochs)
            journal.tell(trial, state=TrialState.PRUNED)
            face.say(f"{words}: stopped after {seen.epochs} epochs at {seen.best:.3f}")
            return
        except StoppedError:
            raise
        except EdgedistillError as error:
            trial.set_user_attr("fault", str(error)[:500])
            journal.tell(trial, state=TrialState.FAIL)
            face.say(f"{words}: {error}")
            return
        trial.set_user_attr("epochs", int(done.facts["epochs"]))
        trial.set_user_attr("seconds", float(done.facts["training_seconds"]))
        journal.tell(trial, float(done.facts["val_top1"]))
        face.say(f"{words}: validation {done.facts['val_top1']:.3f}")

    def _write(self, journal: Any, run: RunDir) -> SearchResult:
        found = SearchResult(
            study=self.study.name,
            factors=self.space.levels,
            trials=[one for old in journal.get_trials(deepcopy=False) if (one := _trial(old))],
            importance=_importance(journal),
        )
        with run.locks.holding("search-document"):
            write_atomic(self.out / FILE, found.dumps())
        return found


class _Watch:
    """Tells Optuna of each epoch, and ends a training that is hopeless."""

    def __init__(self, trial: Any) -> None:
        self.trial, self.epochs, self.best = trial, 0, 0.0

    def __call__(self, name: str, points: Sequence[CurvePoint]) -> None:
        """The course of a training so far; that of a teacher is let alone."""
        if name != DISTILLED:
            return
        last = points[-1]
        self.epochs, self.best = last.epoch, max(self.best, last.val_top1 or 0.0)
        self.trial.report(self.best, last.epoch)
        if self.trial.should_prune():
            raise Hopeless


def _trial(old: Any) -> Trial | None:
    """A trial of the journal that has ended; `None` for one at work."""
    state = {"COMPLETE": "whole", "PRUNED": "stopped", "FAIL": "failed"}.get(old.state.name)
    if state is None:
        return None
    reached = max(old.intermediate_values.values(), default=None)
    top1 = old.value if old.value is not None else reached
    return Trial(
        number=old.number, levels=dict(old.params), state=state, val_top1=top1,
        epochs=int(old.user_attrs.get("epochs", 0)), seconds=float(old.user_attrs.get("seconds", 0.0)),
        fault=old.user_attrs.get("fault"),
    )  # fmt: skip


def _importance(journal: Any) -> dict[str, float] | None:
    import optuna

    whole = [t for t in journal.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
    if len(whole) < 2 * FIRST:
        return None
    found = optuna.importance.get_param_importances(
        journal, evaluator=optuna.importance.PedAnovaImportanceEvaluator(evaluate_on_local=False)
    )
    return {name: min(1.0, max(0.0, float(share))) for name, share in found.items()}


def with_searched(study: Study, out: Path, face: Face) -> Study:
    """The study with the best trial of a search in its folder as one more arm, where there was one."""
    if not (out / FILE).is_file():
        return study
    try:
        best, space = load(out / FILE).best, space_of(study)
        if best is None:
            return study
        arm = space.arm(SEARCHED, best.levels)
    except (EdgedistillError, KeyError) as error:
        face.warn(f"the search in {out} is left out: {error}")
        return study
    return dataclasses.replace(study, arms=(*study.arms, arm))
