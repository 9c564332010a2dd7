"""The second half of the story: what was learned is packed, measured, scored and judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from edgedistill.arms import Arm
from edgedistill.attempts import missed
from edgedistill.data.dataset import labels
from edgedistill.ledgering import keep, logits_in, row_of
from edgedistill.measuring import machine_key
from edgedistill.packing import Packing
from edgedistill.result import Result
from edgedistill.rundir import STAGES, Done, Work, write_atomic
from edgedistill.tables import apart
from edgedistill.target.measured import HOST

if TYPE_CHECKING:
    from edgedistill.learning import Build
    from edgedistill.nets import Look


class Shipping(Packing):
    """From the bundle to the verdict; each property is a finished stage, as in `Build`."""

    @cached_property
    def bench(self) -> Done:
        """13: latency of every file here, each in a fresh process of the kit."""

        def work(folder: Work) -> dict[str, Any]:
            from edgedistill.evidence.bench import bench

            document = bench(
                self.bundle.folder / "bundle", folder.path("latency.json"),
                self.learn.recipe.bench, self.face, self.learn.recipe.export.batch,
            )  # fmt: skip
            for row in document["rows"]:
                row.pop("samples_s")
            fastest = min(document["rows"], key=lambda row: row["p50_s"] or 1e9)
            return {
                "document": document,
                "summary": f"fastest here: {fastest['model']}, p50 {1e3 * fastest['p50_s']:.2f} ms "
                f"with {fastest['threads']} thread{'s' if fastest['threads'] != 1 else ''}",
            }

        key = {"bench": self.learn.recipe.bench.model_dump(), "machine": machine_key()}
        return self.learn.stage("13-bench", 1, key, [self.bundle], work)

    def missed(self) -> list[str]:
        """Limits on size, latency and memory that the file which ships misses for certain; accuracy is judged later."""
        chosen = self.quantize.facts["chosen"]
        rows = [r for r in self.bench.facts["document"]["rows"] if r["model"] == chosen]
        size = next(len(p.data) for p in self.packed_files() if p.name == chosen)
        limits = self.learn.recipe.budget.limits()
        return missed(limits, size, rows, self.device.name == HOST)

    @cached_property
    def score(self) -> Done:
        """14: the test split, read once: every file through the kit, the teacher and both arms through torch."""

        def work(folder: Work) -> dict[str, Any]:
            from edgedistill.evidence.bench import evaluate
            from edgedistill.nets import outputs, pick_device
            from edgedistill.teacher import stage as teachers

            learn, device = self.learn, pick_device()
            look, taught = (
                teachers.look_of(learn.start.facts),
                teachers.look_of(learn.teacher.facts),
            )
            jobs: dict[str, Callable[[], Any]] = {
                "teacher": lambda: (
                    teachers.restore(learn.teacher), learn.arrays.teacher_test, taught, True,
                ),
            }  # fmt: skip
            for arm, done in learn.trained.items():
                jobs[arm.key] = partial(_arm_to_score, learn, arm, done, look)
            found = {}
            with self.face.bar("scoring", len(jobs) * len(learn.arrays.test)) as advance:
                for name, load in jobs.items():
                    model, pixels, its_look, fast = load()
                    found[name] = outputs(
                        model.to(device), pixels, its_look, device, fast=fast, advance=advance
                    )[1]
            evaluate(
                self.bundle.folder / "bundle", learn.pixels.folder / "test",
                folder.path("accuracy.json"), folder.path("files.npz"), self.face,
            )  # fmt: skip
            from edgedistill.deploy.bundle import npz_bytes

            folder.write("networks.npz", npz_bytes(found))
            return {"images": len(learn.dataset.test), "summary": "test split read"}

        learn = self.learn
        inputs = [learn.pixels, learn.teacher, *learn.trained.values(), self.bundle]
        return learn.stage("14-score", 2, {}, inputs, work)

    @cached_property
    def result(self) -> Result:
        """15: the result document and its views, which compute nothing new; what boards measured is folded in."""
        from edgedistill.assemble import Inputs, assemble
        from edgedistill.evidence.report import write_views
        from edgedistill.recorded import fold
        from edgedistill.recording import records_of

        learn = self.learn

        def work(folder: Work) -> dict[str, Any]:
            place = f"{STAGES}/15-report"
            document, tables = apart(assemble(Inputs(learn, self)), place)
            for name, text in tables.items():
                folder.write(name, text)
            folder.write("result.json", document.dumps())
            return {}

        every = [
            learn.data, learn.planned, learn.teacher, learn.targets, learn.start,
            *learn.trained.values(), self.export, self.quantize, self.bundle, self.bench, self.score,
        ]  # fmt: skip
        key = {"recipe": learn.resolved.sha256(), "name": learn.recipe.name}
        done = learn.stage("15-report", 4, key, every, work)
        built = json.loads((done.folder / "result.json").read_text("utf-8"))
        result = Result.model_validate(built)
        result = fold(result, records_of(self.run.path, result, self.face.warn))
        if done.fresh:
            networks = self.score.folder / "networks.npz"
            keep(
                [row_of(learn, arm, logits_in(networks, arm.key)) for arm in learn.arms], learn.face
            )
        text = result.dumps()
        whole = all((self.run.path / n).is_file() for n in VIEWS)
        if done.fresh or not whole or (self.run.path / "result.json").read_text("utf-8") != text:
            write_atomic(self.run.path / "result.json", text)
            write_views(result, self.run.path)
        return result

    def test_labels(self) -> Any:
        """Labels (N,) of the test images."""
        return labels(self.learn.dataset.test)


def _arm_to_score(learn: Build, arm: Arm, done: Done, look: Look) -> Any:
    """Network, test pixels, look and whether it may be quick, of an arm."""
    from edgedistill.distill import stage as students

    return students.restore(done, arm.name, learn.spec_of(arm)), learn.arrays.test, look, False


VIEWS = ("result.json", "report.html", "report.md", "model_card.md")
