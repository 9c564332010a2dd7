"""`edgedistill export`: a student of a run, or a checkpoint of one's own, as the bundle that a build ships.

Nothing is trained. The files are made, held against torch, quantized and chosen by what a build's stages call.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgedistill.classnames import Names, names_for, read_names
from edgedistill.data.dataset import Dataset, labels
from edgedistill.data.pixels import golden_pixels, open_pixels, train_pixels, write_pixels
from edgedistill.data.sources import open_source
from edgedistill.deploy.archive import require_place
from edgedistill.derive import export_values, limits_from, resolve
from edgedistill.errors import DocumentError, EdgedistillError, UsageError
from edgedistill.evidence.bench import Here
from edgedistill.exported import Exported, Row
from edgedistill.files import remove, replace_folder
from edgedistill.measuring import time_files
from edgedistill.progress import Face
from edgedistill.provenance import made_utc
from edgedistill.recipe import DataSection, Layered, Recipe
from edgedistill.result import Precision
from edgedistill.rundir import Work
from edgedistill.stages import number
from edgedistill.target.device import Device, load_device
from edgedistill.target.latency import Network, Prediction, predict
from edgedistill.target.students import network_of
from edgedistill.trained import classifier_of

if TYPE_CHECKING:
    from edgedistill.deploy.bundle import Packed
    from edgedistill.deploy.classifier import Classifier, Sight
    from edgedistill.deploy.int8 import Found
    from edgedistill.deploy.stage import Pixels, Shape

PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
SAMPLE = "the built-in sample (Fashion-MNIST), not of this model's classes"
NO_INT8 = "no INT8 file: its ranges come from training images of the model's classes; give them with --data"
T = TypeVar("T")


@dataclass(frozen=True)
class ExportRequest:
    """What a person asked for: a model, its recipe (device, data, export, quantize) and what ships.

    `data`: the recipe names images of the model's classes; without them the built-in sample takes their place, and no
    INT8 file is made. `architecture` is the timm name of a checkpoint file, `precisions` are the files to ship.
    """

    model: str
    layered: Layered
    out: Path
    data: bool
    sight: Sight
    architecture: str | None = None
    licence: str | None = None
    labels: Path | None = None
    precisions: tuple[Precision, ...] = PRECISIONS


@dataclass(frozen=True)
class Images:
    """Pixels (n, S, S, 3) as the network takes them: to compare on, that go with the bundle, and, where they are of its
    classes, to calibrate INT8 with and to choose on. `words` say what the golden ones are.
    """

    parity: Pixels
    golden: Pixels
    words: str
    calibration: Pixels | None = None
    val: Pixels | None = None
    val_labels: npt.NDArray[np.int64] | None = None


def export(request: ExportRequest, face: Face) -> Exported:
    """Write the bundle; an older one in its place stays until the new one is whole.

    Raises `UsageError`, `DataError`, `TeacherError`, `DeviceError`, or `ParityError`.
    """
    device, created_utc = load_device(request.layered.recipe.device), made_utc()
    require_place(request.out)
    if not request.data and request.precisions == ("int8",):
        raise UsageError(f"{NO_INT8}, or ask for another file")
    values = limits_from(request.layered, device) | export_values(request.layered.recipe, device)
    recipe = resolve(request.layered, values).recipe
    found = classifier_of(
        request.model, recipe, request.sight, request.architecture, request.licence
    )
    out = request.out.absolute()
    aside = out.with_name(f".{out.name}.tmp")
    remove(aside)
    aside.mkdir(parents=True)
    try:
        making = _Making(request, recipe, device, found, Work(aside), face)
        exported = making.bundle(created_utc)
        replace_folder(aside / "bundle", out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return exported


class _Making:
    """One export: from the classifier to the folder that ships, in a working folder."""

    def __init__(
        self,
        request: ExportRequest,
        recipe: Recipe,
        device: Device,
        found: Classifier,
        work: Work,
        face: Face,
    ) -> None:
        self.request, self.recipe, self.device = request, recipe, device
        self.found, self.work, self.face = found, work, face
        self.notes = list(found.notes)
        self.network: Network | None = None
        self.int8: Found | None = None

    def bundle(self, created_utc: str) -> Exported:
        """Every step in order."""
        from edgedistill.deploy.stage import pack, with_batch

        dataset = self._dataset()
        names = self._names(dataset if self.request.data else None)
        images = self._images(dataset, names.rows)
        licences = self._licences(dataset)
        shape = self._shape(names.outputs)
        items, parity = self._files(shape, images, partial(self._about, shape, licences))
        scores = self._scores(items, images, shape)
        chosen, reasons = self._choice(items, scores, shape, images.parity)
        batch = self.recipe.export.batch
        facts = pack(
            self.work, name=self.found.title, device=self.device.name, created_utc=created_utc,
            shape=shape, models=items if batch is None else [with_batch(i, batch) for i in items],
            chosen=chosen, golden=images.golden, licences=licences, evalset=None,
            golden_words=None if self.request.data else images.words,
        )  # fmt: skip
        lines = [
            Row(i.file, len(i.data), i.name, parity[i.name], scores.get(i.name), reasons[i.name])
            for i in items
        ]
        return Exported(
            self.request.out, self.found.title, self.device.name, tuple(lines), chosen, images.words,
            0 if images.val is None else len(images.val), tuple(self.notes), facts["bundle_bytes"],
        )  # fmt: skip

    def _dataset(self) -> Dataset:
        section = self.recipe.data if self.request.data else DataSection()
        seed = self.recipe.seed
        return open_source(section, seed, None, self.face.counter("images"), self.face.say)

    def _names(self, dataset: Dataset | None) -> Names:
        """What the outputs are called, and which of them each class of the data is."""
        found, own = self.found, self.found.labels
        if self.request.labels is not None:
            own = read_names(self.request.labels, found.classes)
        classes, source = (dataset.classes, dataset.source) if dataset is not None else (None, "")
        names = names_for(found.name, found.classes, own, classes, source)
        self.notes += [names.note] if names.note is not None else []
        return names

    def _images(self, dataset: Dataset, rows: Sequence[int]) -> Images:
        """What files are compared, calibrated and chosen on."""
        see, seed = self.found.preprocess, self.recipe.seed
        count = self.recipe.export.parity_images
        train = partial(train_pixels, dataset, resize=see.resize, crop=see.crop, seed=seed)
        golden = golden_pixels(dataset, see.resize, see.crop, seed)
        val = dataset.val if self.request.data else dataset.val[:count]
        path = self.work.path("val.npy")
        write_pixels(dataset, val, see.resize, see.crop, path, self.face.counter("pixels"))
        pixels = open_pixels(path)
        from edgedistill.deploy.files import parity_pixels

        parity = parity_pixels(pixels, count, train)
        int8 = "int8" in self.request.precisions
        if not self.request.data:
            self.notes += [NO_INT8] if int8 else []
            return Images(parity, golden, SAMPLE)
        calibration = train(self.recipe.quantize.calibration_images) if int8 else None
        truth = np.asarray(rows, np.int64)[labels(val)]
        words = f"training images of {dataset.name}"
        return Images(parity, golden, words, calibration, pixels, truth)

    def _licences(self, dataset: Dataset) -> dict[str, str | None]:
        found = dict(self.found.licences)
        if not self.request.data:
            return found
        return {**found, "data": self.recipe.data.licence or dataset.licence}

    def _shape(self, names: tuple[str, ...]) -> Shape:
        from edgedistill.deploy.stage import shape_for

        section = self.recipe.export
        return shape_for(
            self.device, names, self.found.preprocess, section.input, number(section.opset)
        )

    def _about(
        self, shape: Shape, licences: Mapping[str, str | None], layout: str | None = None
    ) -> dict[str, str]:
        from edgedistill.deploy.stage import metadata

        return metadata(shape, self.found.name, licences, layout)

    def _files(
        self, shape: Shape, images: Images, about: Callable[..., dict[str, str]]
    ) -> tuple[list[Packed], dict[Precision, dict[str, Any]]]:
        """The files that are asked for and can be made, and how far each lies from torch."""
        from edgedistill.deploy.files import float_files, look_of, parities
        from edgedistill.nets import logits_of, pick_device

        self.face.say(f"exporting {self.found.name} for {self.device.name}")
        items = self._made("ONNX", lambda: float_files(self.found.model, shape, about()))
        self.network = self._costs(items[0].data)
        if images.calibration is not None:
            items.append(self._made("INT8", lambda: self._int8(items[0], shape, images, about)))
        reference = logits_of(self.found.model, images.parity, look_of(shape), pick_device())
        if not np.isfinite(reference).all():
            raise UsageError(
                f"{self.found.name} gives outputs that are not finite on real images: its weights are damaged, or it "
                "was trained on another mean and std (--mean, --std)."
            )
        found = parities(items, images.parity, reference, shape, self.work)
        return [item for item in items if item.name in self.request.precisions], found

    def _int8(
        self, float32: Packed, shape: Shape, images: Images, about: Callable[..., dict[str, str]]
    ) -> Packed:
        """The INT8 file, the best that is found without training."""
        from edgedistill.deploy.int8 import asked, find

        assert images.calibration is not None and images.val is not None
        assert images.val_labels is not None
        self.face.say(f"INT8: calibrating on {len(images.calibration):,} training images")
        question = asked(
            float32, shape, about, images.calibration, images.val, images.val_labels, self.work,
            method=self.recipe.quantize.method, integers=self.device.takes_integers,
            allowed=self.recipe.int8_drop(),
        )  # fmt: skip
        self.int8 = find(question, None, self.work, self.face)
        self.notes.append(f"int8: {self.int8.facts['made']}")
        return self.int8.item

    def _costs(self, float32: bytes) -> Network | None:
        """What a latency is predicted from, `None` where the graph does not tell."""
        try:
            return network_of(
                self.found.name, self.found.preprocess.crop, self.found.classes, float32
            )
        except DocumentError:
            return None

    def _made(self, what: str, make: Callable[[], T]) -> T:
        """What `make` gives; what a converter says of a network that it cannot take is one paragraph."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # torch prints the whole graph
                return make()
        except (EdgedistillError, OSError, MemoryError):
            raise
        except Exception as error:  # the converters raise many kinds, each in its own way
            text = " ".join(str(error).split())[:300]
            raise UsageError(
                f"{self.found.name} cannot be made into {what} at opset {self.recipe.export.opset} "
                f"({type(error).__name__}: {text}). Try another --opset, or leave the file out with --precision."
            ) from None

    def _scores(self, items: Sequence[Packed], images: Images, shape: Shape) -> dict[str, float]:
        """Validation top-1 of each file; empty without labels."""
        from edgedistill.deploy.stage import evaluate_options

        if images.val is None or images.val_labels is None:
            return {}
        self.face.say(f"scoring {len(items)} files on {len(images.val):,} validation images")
        return evaluate_options(items, images.val, images.val_labels, shape, self.work)

    def _choice(
        self,
        items: Sequence[Packed],
        scores: Mapping[str, float],
        shape: Shape,
        pixels: Pixels,
    ) -> tuple[Precision, dict[str, str]]:
        """Which file ships and why, as a build decides it."""
        from edgedistill.deploy.stage import choose, options_of
        from edgedistill.deploy.tensorrt import ask_device

        if len(items) == 1:
            return items[0].name, {items[0].name: "the only file"}
        timed = time_files(items, shape, pixels, self.device, Here(), self.face)
        options = options_of(items, scores, timed, self._predicted)
        answers = ask_device(self.device, items, self.face)
        made = [i.name for i in items]
        natural = self.device.natural_precision
        if natural not in made:
            natural = next((p for p in self.device.precisions if p in made), made[0])
        return choose(
            options, natural, self.device.precisions, self.recipe.int8_drop(),
            {p: " ".join(a.reasons) for p, a in answers.items() if a.refused},
            self.recipe.budget.limits().size_bytes,
        )  # fmt: skip

    def _predicted(self, precision: Precision) -> float | None:
        """Seconds that a file is expected to take on the device; `None` where nothing is known."""
        if precision not in self.device.precisions or self.network is None:
            return None
        found = predict(self.device, precision, self.network)
        latency = found.latency_s if isinstance(found, Prediction) else None
        if precision != "int8" or self.int8 is None:
            return latency
        from edgedistill.deploy.int8 import expected

        return expected(latency, self._predicted("float32"), self.int8)
