"""From a trained student to the folder that ships: exported, quantized, packed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.data.pixels import read_pixels
from edgedistill.data.split import cap
from edgedistill.learning import Build
from edgedistill.result import Precision
from edgedistill.rundir import Done, Work, now_utc
from edgedistill.target.latency import Prediction, predict
from edgedistill.target.students import find_student

if TYPE_CHECKING:
    from edgedistill.deploy.bundle import Packed
    from edgedistill.deploy.int8 import Found
    from edgedistill.deploy.tensorrt import Answer

FLOATS: tuple[Precision, ...] = ("float32", "float16")
GOLDEN_IMAGES = 8
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
            from edgedistill.deploy.onnx import export_float32, to_float16
            from edgedistill.deploy.stage import check_parity, kit_logits, metadata, packed
            from edgedistill.distill.stage import restore
            from edgedistill.nets import outputs, pick_device
            from edgedistill.teacher.stage import look_of

            learn, shape = self.learn, self.learn.shape
            model = restore(self.learn.chosen, learn.chosen_arm, learn.spec)
            look, device = look_of(learn.start.facts), pick_device()
            about = metadata(shape, learn.spec.model, learn.licences)
            data: dict[Precision, bytes] = {
                "float32": export_float32(model, look, shape.layout, shape.opset, about)
            }
            data["float16"] = to_float16(data["float32"], about)
            pixels = np.asarray(learn.arrays.val[: learn.recipe.export.parity_images])
            if len(pixels) < learn.recipe.export.parity_images:
                more = learn.recipe.export.parity_images - len(pixels)
                pixels = np.concatenate([pixels, self._train_pixels(more)])
            reference = outputs(model.to(device), pixels, look, device)[1]
            facts: dict[str, Any] = {}
            for name in FLOATS:
                item = packed(name, data[name], shape)
                found = check_parity(item, kit_logits(item, pixels, shape, folder), reference)
                folder.write(item.file, data[name])
                facts[name] = {"parity": found}
            worst = facts["float32"]["parity"]["max_abs"]
            return {**facts, "summary": f"float32 differs from torch by {worst:.1e} at most"}

        shape = self.learn.shape
        key = {
            "shape": [shape.layout, shape.opset, shape.runtime, list(shape.classes)],
            "parity_images": self.learn.recipe.export.parity_images,
            "licences": self.learn.licences,
        }
        return self.learn.stage("10-export", 3, key, [self.learn.chosen, self.learn.pixels], work)

    def _train_pixels(self, count: int) -> Any:
        """Up to `count` training images (n, S, S, 3), drawn evenly over the classes, as the device sees them."""
        dataset, size = self.learn.dataset, self.learn.spec.size
        least = max(count, self.learn.spec.classes)
        items = cap(dataset.train, min(least, len(dataset.train)), self.learn.recipe.seed)
        return np.stack([read_pixels(dataset, item, size, size) for item in items])

    @cached_property
    def quantize(self) -> Done:
        """11: INT8 for the device's runtime, and the choice of the file that ships, on validation images."""

        def work(folder: Work) -> dict[str, Any]:
            from edgedistill.deploy.stage import Option, choose, evaluate_options

            learn, shape = self.learn, self.learn.shape
            found = self._int8(folder)
            items = [*self._floats(), found.item]
            folder.write(found.item.file, found.item.data)
            scores = evaluate_options(
                items, np.asarray(learn.arrays.val), learn.arrays.val_labels, shape, folder
            )
            options = [
                Option(p.name, len(p.data), scores[p.name], self._expected(p.name, found))
                for p in items
            ]
            answers = self._asked(items)
            chosen, reasons = choose(
                options, self._natural(), self._runs(),
                self._allowed(),
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
        }
        inputs = [self.export, self.learn.pixels]
        return self.learn.stage("11-quantize", 5, key, inputs, work)

    def _allowed(self) -> float:
        """The validation top-1 that INT8 may lose."""
        recipe = self.learn.recipe
        drops = (recipe.quantize.max_drop, recipe.budget.max_top1_drop)
        return min(drop for drop in drops if drop is not None)

    def _int8(self, folder: Work) -> Found:
        """The INT8 file for the device's runtime: ranges from training images, ways compared on validation images."""
        from edgedistill.deploy.int8 import Pupil, find
        from edgedistill.deploy.search import Asked
        from edgedistill.deploy.stage import kit_logits, metadata
        from edgedistill.distill.stage import restore

        learn, shape, section = self.learn, self.learn.shape, self.learn.recipe.quantize
        float32, pixels = self._floats()[0], np.asarray(learn.arrays.val)
        asked = Asked(
            float32=float32.data, shape=shape,
            metadata=lambda layout: metadata(shape, learn.spec.model, learn.licences, layout),
            calibration=self._train_pixels(section.calibration_images),
            pixels=pixels, labels=np.asarray(learn.arrays.val_labels),
            logits=kit_logits(float32, pixels, shape, folder),
            method=section.method, integers=self.device.takes_integers, allowed=self._allowed(),
        )  # fmt: skip
        pupil = Pupil(
            lambda: restore(learn.chosen, learn.chosen_arm, learn.spec),
            lambda: self._train_pixels(TUNED_ON), section.tune_steps, learn.recipe.seed,
        )  # fmt: skip
        return find(asked, pupil, folder, self.face)

    def _expected(self, name: Precision, found: Found) -> float | None:
        """The latency predicted for a file; an INT8 file that is partly float lies between the two."""
        latency, whole = self._predicted(name), self._predicted("float32")
        if name != "int8" or not found.float_share or latency is None or whole is None:
            return latency
        return latency + found.float_share * (whole - latency)

    @property
    def _builder(self) -> str | None:
        """The version of TensorRT-RTX that is asked about the files; `None` where none is, or the device has no GPU."""
        from edgedistill.deploy.tensorrt import installed

        return installed() if self.device.runtime == "tensorrt" else None

    def _asked(self, items: Sequence[Packed]) -> dict[Precision, Answer]:
        """What NVIDIA's parser and builder say of each file, where they can be asked."""
        from edgedistill.deploy.tensorrt import ask_builder

        if self._builder is None:
            return {}
        accelerator = self.device.accelerator
        sm = accelerator.sm if accelerator is not None else None
        self.face.detail("asking TensorRT-RTX whether it takes the files")
        answers = ask_builder({item.precision: item.data for item in items}, sm)
        silent = [answer for answer in answers.values() if not answer.answered]
        if silent:
            self.face.warn(
                f"TensorRT-RTX could not be asked about {len(silent)} files ({silent[0].reasons[0]}); whether TensorRT "
                "takes them is not known"
            )
        return answers

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
                created_utc=now_utc(),
                shape=learn.shape,
                models=self.packed_files(),
                chosen=self.quantize.facts["chosen"],
                golden=self._train_pixels(GOLDEN_IMAGES),
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
