"""From a trained student to the folder that ships: exported, quantized, packed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.data.pixels import golden_pixels, train_pixels
from edgedistill.data.split import cap
from edgedistill.evidence.bench import Here
from edgedistill.learning import Build
from edgedistill.measuring import machine_key, time_files
from edgedistill.result import Precision
from edgedistill.rundir import Done, Work, made_utc
from edgedistill.target.latency import Prediction, predict
from edgedistill.target.measured import HOST
from edgedistill.target.students import find_student

if TYPE_CHECKING:
    from edgedistill.deploy.bundle import Packed
    from edgedistill.deploy.int8 import Found
    from edgedistill.deploy.tensorrt import Answer

FLOATS: tuple[Precision, ...] = ("float32", "float16")
TUNED_ON = 10_000
"""Training images at most that training in INT8 draws from."""


class Packing:
    """From two trained arms to the bundle; each property is a finished stage, as in `Build`."""

    def __init__(self, learn: Build) -> None:
        self.learn = learn
        self.run, self.face, self.device = learn.run, learn.face, learn.device

    @cached_property
    def export(self) -> Done:
        """10: ONNX in float32 and float16, compared with torch on real images."""

        def work(folder: Work) -> dict[str, Any]:
            from edgedistill.deploy.files import float_files, look_of, parities, parity_pixels
            from edgedistill.distill.stage import restore
            from edgedistill.nets import logits_of, pick_device

            learn, shape = self.learn, self.learn.shape
            model = restore(self.learn.chosen, learn.chosen_arm, learn.spec)
            items = float_files(model, shape, self._about())
            count = learn.recipe.export.parity_images
            pixels = parity_pixels(learn.arrays.val, count, self._train_pixels)
            reference = logits_of(model, pixels, look_of(shape), pick_device())
            found = parities(items, pixels, reference, shape, folder)
            for item in items:
                folder.write(item.file, item.data)
            worst = found["float32"]["max_abs"]
            return {
                **{name: {"parity": numbers} for name, numbers in found.items()},
                "summary": f"float32 differs from torch by {worst:.1e} at most",
            }

        shape = self.learn.shape
        key = {
            "shape": [shape.layout, shape.opset, shape.runtime, list(shape.classes)],
            "parity_images": self.learn.recipe.export.parity_images,
            "licences": self.learn.licences,
        }
        return self.learn.stage("10-export", 3, key, [self.learn.chosen, self.learn.pixels], work)

    def _train_pixels(self, count: int) -> Any:
        """Up to `count` training images (n, S, S, 3), drawn evenly over the classes, as the device sees them."""
        size = self.learn.spec.size
        return train_pixels(self.learn.dataset, count, size, size, self.learn.recipe.seed)

    def _about(self, layout: str | None = None) -> dict[str, str]:
        from edgedistill.deploy.stage import metadata

        learn = self.learn
        return metadata(learn.shape, learn.spec.model, learn.licences, layout)

    @cached_property
    def quantize(self) -> Done:
        """11: INT8 for the device's runtime, and the choice of the file that ships, on validation images."""

        def work(folder: Work) -> dict[str, Any]:
            from edgedistill.deploy.stage import choose, evaluate_options, options_of

            learn, shape = self.learn, self.learn.shape
            found = self._int8(folder)
            items = [*self._floats(), found.item]
            folder.write(found.item.file, found.item.data)
            scores = evaluate_options(
                items, np.asarray(learn.arrays.val), learn.arrays.val_labels, shape, folder
            )
            timed = time_files(items, shape, learn.arrays.val, self.device, Here(), self.face)
            options = options_of(items, scores, timed, partial(self._expected, found=found))
            answers = self._asked(items)
            chosen, reasons = choose(
                options, self._natural(), self._runs(),
                learn.recipe.int8_drop(),
                {p: " ".join(a.reasons) for p, a in answers.items() if a.refused},
                learn.recipe.budget.limits().size_bytes,
            )  # fmt: skip
            reasons |= dict.fromkeys(self._tried(), "built before, and it missed a limit")
            return {
                "chosen": chosen,
                "reasons": reasons,
                "val_top1": scores,
                "builder": {name: a.document() for name, a in answers.items() if a.answered},
                "flavour": self.flavour,
                "int8": found.facts,
                "summary": f"{chosen} ships: {reasons[chosen]}",
            }

        budget = self.learn.recipe.budget
        key = {
            "quantize": self.learn.recipe.quantize.model_dump(),
            "drop": budget.max_top1_drop,
            "size": budget.limits().size_bytes,
            "device": [self.device.name, self.device.natural_precision, self.flavour],
            "tried": list(self._tried()),
            "predicted": [self._predicted(p) for p in (*FLOATS, "int8")],
            "seed": self.learn.recipe.seed,
            "builder": self._builder,
            "machine": machine_key() if self.device.name == HOST else None,
        }
        inputs = [self.export, self.learn.pixels]
        return self.learn.stage("11-quantize", 6, key, inputs, work)

    def _int8(self, folder: Work) -> Found:
        """The INT8 file for the device's runtime: ranges from training images, ways compared on validation images."""
        from edgedistill.deploy.int8 import Pupil, asked, find
        from edgedistill.distill.stage import restore

        learn, section = self.learn, self.learn.recipe.quantize
        question = asked(
            self._floats()[0], learn.shape, self._about, self._train_pixels(section.calibration_images),
            np.asarray(learn.arrays.val), np.asarray(learn.arrays.val_labels), folder,
            method=section.method, integers=self.device.takes_integers, allowed=learn.recipe.int8_drop(),
        )  # fmt: skip
        pupil = Pupil(
            lambda: restore(learn.chosen, learn.chosen_arm, learn.spec),
            lambda: self._train_pixels(TUNED_ON), section.tune_steps, learn.recipe.seed,
        )  # fmt: skip
        return find(question, pupil, folder, self.face)

    def _expected(self, name: Precision, found: Found) -> float | None:
        """The latency predicted for a file."""
        from edgedistill.deploy.int8 import expected

        latency = self._predicted(name)
        return expected(latency, self._predicted("float32"), found) if name == "int8" else latency

    @property
    def _builder(self) -> str | None:
        from edgedistill.deploy.tensorrt import builder_for

        return builder_for(self.device)

    def _asked(self, items: Sequence[Packed]) -> dict[Precision, Answer]:
        from edgedistill.deploy.tensorrt import ask_device

        return ask_device(self.device, items, self.face)

    @property
    def flavour(self) -> str:
        """The kind of INT8 file to make; where the device has no fast INT8, the one that runs here."""
        return str(self.learn.shape.flavour)

    def _runs(self) -> tuple[Precision, ...]:
        """Precisions that the device computes fast and that were not tried before."""
        return tuple(p for p in self.device.precisions if p not in self._tried())

    def _natural(self) -> Precision:
        """The precision that the device is for; where that was tried before, the one that planning went on to."""
        natural = self.device.natural_precision
        return self.learn.plan.chosen.precision if natural in self._tried() else natural

    def _tried(self) -> tuple[Precision, ...]:
        """Precisions in which this student missed a limit before, with this input or a smaller one."""
        spec = self.learn.spec
        return tuple(
            one.candidate.precision
            for one in self.learn.tried
            if one.candidate.model == spec.model and one.candidate.input_size <= spec.size
        )

    def prediction(self, precision: Precision) -> Prediction | None:
        """The latency predicted for the device, `None` for a precision that it does not run fast."""
        if precision not in self._runs():
            return None
        spec = self.learn.spec
        network = find_student(spec.model).network(spec.size, spec.classes)
        found = predict(self.device, precision, network)
        return found if isinstance(found, Prediction) else None

    def _predicted(self, precision: Precision) -> float | None:
        found = self.prediction(precision)
        return found.latency_s if found else None

    def _floats(self) -> list[Packed]:
        from edgedistill.deploy.stage import packed

        folder = self.export.folder
        return [
            packed(name, (folder / f"model.{name}.onnx").read_bytes(), self.learn.shape)
            for name in FLOATS
        ]

    def packed_files(self) -> list[Packed]:
        """Every model file that goes into the bundle."""
        from edgedistill.deploy.stage import packed, with_batch

        data = (self.quantize.folder / "model.int8.onnx").read_bytes()
        layout = self.quantize.facts["int8"]["layout"]
        items = [*self._floats(), packed("int8", data, self.learn.shape, layout)]
        batch = self.learn.recipe.export.batch
        return items if batch is None else [with_batch(item, batch) for item in items]

    @cached_property
    def bundle(self) -> Done:
        """12: the folder that ships, with the kit; and the test images for a board, beside it."""
        from edgedistill.deploy.stage import publish

        def work(folder: Work) -> dict[str, Any]:
            from edgedistill.deploy.stage import pack

            facts = pack(
                folder,
                name=str(learn.recipe.name),
                device=self.device.name,
                created_utc=made_utc(),
                shape=learn.shape,
                models=self.packed_files(),
                chosen=self.quantize.facts["chosen"],
                golden=golden_pixels(
                    learn.dataset, learn.spec.size, learn.spec.size, learn.recipe.seed
                ),
                licences=learn.licences,
                evalset=self._evalset(),
            )
            return {**facts, "summary": f"{facts['bundle_bytes'] / 1e6:.1f} MB in bundle/"}

        from edgedistill.deploy.bundle import kit_hash

        learn = self.learn
        key = {
            "name": learn.recipe.name,
            "seed": learn.recipe.seed,
            "eval_images": learn.recipe.export.eval_images,
            "batch": learn.recipe.export.batch,
            "chosen": self.quantize.facts["chosen"],
            "licences": learn.licences,
            "kit": kit_hash(),
        }
        done = learn.stage("12-bundle", 1, key, [self.export, self.quantize, learn.pixels], work)
        publish(done.folder, self.run.path)
        return done

    def _evalset(self) -> Any:
        """Test pixels, labels and the size of the whole split, evenly over the classes; `None` when left out."""
        learn = self.learn
        count = min(learn.recipe.export.eval_images, len(learn.dataset.test))
        if count == 0:
            return None
        test = learn.dataset.test
        position = {item.key: i for i, item in enumerate(test)}
        items = cap(test, count, learn.recipe.seed) if count < len(test) else list(test)
        rows = sorted(position[item.key] for item in items)
        return np.asarray(learn.arrays.test[rows]), learn.arrays.test_labels[rows], len(test)
