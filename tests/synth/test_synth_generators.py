"""Generators: real pipelines with random weights through `from_pretrained`, and every fault of a folder in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers")

import tiny_pipelines as tiny
import torch

from edgedistill.errors import GeneratorError, StoppedError
from edgedistill.synth.generators import DiffusersSource, FakeSource, Pixels, Wish, open_source
from edgedistill.synth.pipelines import Making

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of diffusers' schedulers
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
CLASSES = ("boot", "bag")


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from diffusers import EulerAncestralDiscreteScheduler

    home = tmp_path_factory.mktemp("pipelines")
    return {
        "sd": tiny.stable_diffusion(home / "sd"),
        "xl": tiny.stable_diffusion_xl(home / "xl"),
        "turbo": tiny.stable_diffusion(
            home / "turbo", EulerAncestralDiscreteScheduler(timestep_spacing="trailing")
        ),
        "classes": tiny.class_conditional(home / "classes", CLASSES),
    }


def _wishes(count: int, start: Pixels | None = None) -> list[Wish]:
    return [
        Wish(n, n % 2, f"a photo of a {CLASSES[n % 2]}, {n}", 1000 + n, start) for n in range(count)
    ]


def _making(pipelines: dict[str, Path], name: str, **more: Any) -> Making:
    return Making(**{"kind": "text_to_image", "model": str(pipelines[name]), "steps": 2, **more})


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("sd", {"guidance": 5.0, "negative": "text"}),
        ("xl", {"guidance": 5.0, "negative": "text"}),
        ("turbo", {"steps": 1, "guidance": 0.0}),
        ("sd", {"scheduler": "DPMSolverMultistepScheduler"}),
    ],
)
def test_a_text_to_image_pipeline_makes_the_same_bytes_again(
    pipelines: dict[str, Path], name: str, more: dict[str, Any]
) -> None:
    making = _making(pipelines, name, size=tiny.SIDE, **more)
    source = open_source(making, CLASSES)
    first = source.make(_wishes(3))
    assert [image.shape for image in first] == [(tiny.SIDE, tiny.SIDE, 3)] * 3
    assert all(image.dtype == np.uint8 for image in first)
    assert not np.array_equal(first[0], first[2]), "another seed is another image"
    again = open_source(making, CLASSES).make(_wishes(3))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    alone = source.make(_wishes(3)[1:2])[0].astype(int)
    assert np.abs(alone - first[1].astype(int)).max() <= 2, "an image hardly depends on its batch"
    if "scheduler" in more:
        assert source.facts.scheduler == more["scheduler"]


def test_prompt_and_guidance_reach_the_pipeline(pipelines: dict[str, Path]) -> None:
    wish = Wish(0, 0, "a boot", 5)
    other = Wish(0, 0, "something else, with many more words", 5)
    weak, strong = (open_source(_making(pipelines, "sd", guidance=g), CLASSES) for g in (1.0, 9.0))
    assert not np.array_equal(weak.make([wish])[0], strong.make([wish])[0])
    assert not np.array_equal(strong.make([wish])[0], strong.make([other])[0])


def test_variations_begin_with_an_image(pipelines: dict[str, Path]) -> None:
    start = np.zeros((40, 40, 3), dtype=np.uint8)
    start[:20] = 255
    near, far = (
        open_source(
            _making(pipelines, "sd", kind="image_to_image", steps=10, strength=s, size=tiny.SIDE),
            CLASSES,
        ).make(_wishes(2, start))
        for s in (0.2, 1.0)
    )
    assert [image.shape for image in near] == [(tiny.SIDE, tiny.SIDE, 3)] * 2
    assert not np.array_equal(near[0], far[0])


def test_a_class_conditional_pipeline_makes_classes_by_number(pipelines: dict[str, Path]) -> None:
    making = _making(pipelines, "classes", kind="class_conditional", steps=4, guidance=2.0)
    source = open_source(making, CLASSES)
    images = source.make(_wishes(4))
    assert [image.shape for image in images] == [(12, 12, 3)] * 4
    assert all((image[..., :1] == image).all() for image in images), "grey stays grey"
    one, other = (source.make([Wish(0, label, "", 7)])[0] for label in (0, 1))
    assert not np.array_equal(one, other), "the same noise, another class"
    assert source.facts.pipeline == "ClassConditionalPipeline"
    assert (source.facts.steps, source.facts.guidance, source.facts.device) == (4, 2.0, "cpu")


def test_the_folder_of_a_class_conditional_network_is_one_of_diffusers(
    pipelines: dict[str, Path],
) -> None:
    from diffusers import DPMSolverMultistepScheduler, UNet2DModel

    folder = pipelines["classes"]
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").is_file()
    assert UNet2DModel.from_pretrained(folder, subfolder="unet").config.num_class_embeds == 3
    DPMSolverMultistepScheduler.from_pretrained(folder, subfolder="scheduler")


def test_facts_tell_one_generator_from_another(pipelines: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "sd"
    shutil.copytree(pipelines["sd"], copy)
    same = open_source(Making("text_to_image", str(copy)), CLASSES).facts
    assert same.sha256 == open_source(_making(pipelines, "sd"), CLASSES).facts.sha256
    assert (same.steps, same.guidance, same.revision) == (50, 7.5, None)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert open_source(Making("text_to_image", str(copy)), CLASSES).facts.sha256 != same.sha256


def test_nan_is_named_and_not_drawn_black(pipelines: dict[str, Path]) -> None:
    source = DiffusersSource(_making(pipelines, "classes", kind="class_conditional"), CLASSES)
    with torch.no_grad():
        source.pipe.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(
        GeneratorError, match=r"made numbers that are no pixels \(NaN\) for image 0"
    ):
        source.make(_wishes(2))


@pytest.mark.parametrize(
    ("kind", "more", "start"),
    [("text_to_image", {"size": 30}, None), ("image_to_image", {"steps": 1, "strength": 0.1}, 40)],
)
def test_what_a_pipeline_refuses_is_one_paragraph(
    pipelines: dict[str, Path], kind: str, more: dict[str, Any], start: int | None
) -> None:
    begin = None if start is None else np.zeros((start, start, 3), np.uint8)
    source = open_source(_making(pipelines, "sd", kind=kind, **more), CLASSES)
    with pytest.raises(
        GeneratorError, match=r"cannot make what it was asked for.*Mend the settings"
    ):
        source.make(_wishes(2, begin))


def test_a_batch_that_does_not_fit_says_what_to_make_smaller(
    pipelines: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = DiffusersSource(_making(pipelines, "classes", kind="class_conditional"), CLASSES)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(source.pipe.unet, "forward", full)
    with pytest.raises(StoppedError, match=r"2 images at once of classes do not fit.*--batch"):
        source.make(_wishes(2))


def test_the_licence_is_that_of_the_card(pipelines: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "sd"
    shutil.copytree(pipelines["sd"], copy)
    assert open_source(Making("text_to_image", str(copy)), CLASSES).facts.licence is None
    (copy / "README.md").write_text("---\nlicense: openrail++\n---\n# A model\n")
    assert open_source(Making("text_to_image", str(copy)), CLASSES).facts.licence == "openrail++"


def test_other_classes_are_refused(pipelines: dict[str, Path]) -> None:
    making = _making(pipelines, "classes", kind="class_conditional")
    with pytest.raises(GeneratorError, match=r"does not know dress.*edgedistill synth train"):
        open_source(making, ("boot", "dress"))


def test_classes_in_another_order_are_asked_for_by_name(pipelines: dict[str, Path]) -> None:
    making = _making(pipelines, "classes", kind="class_conditional")
    boot, bag = open_source(making, ("boot", "bag")).make([Wish(0, k, "", 5) for k in (0, 1)])
    other = open_source(making, ("Bag", "BOOT")).make([Wish(0, k, "", 5) for k in (0, 1)])
    assert np.array_equal(bag, other[0]) and np.array_equal(boot, other[1])
    assert not np.array_equal(boot, bag)


def _folder(path: Path, index: str | None) -> Path:
    path.mkdir()
    if index is not None:
        (path / "model_index.json").write_text(index)
    return path


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (None, "is no generator: it has no model_index.json"),
        ("{", "cannot be read"),
        ("[1]", "cannot be read"),
        (
            json.dumps({"_class_name": "ClassConditionalPipeline"}),
            "knows classes by number, so its kind is",
        ),
        (json.dumps({"_class_name": "StableDiffusionPipeline"}), "cannot be loaded"),
        (json.dumps({"_class_name": "Nonsense"}), "cannot be loaded"),
    ],
)
def test_a_folder_that_is_no_generator_is_one_paragraph(
    tmp_path: Path, index: str | None, words: str
) -> None:
    folder = _folder(tmp_path / "folder", index)
    with pytest.raises(GeneratorError, match=words) as caught:
        open_source(Making("text_to_image", str(folder)), CLASSES)
    assert "\n" not in str(caught.value)


def test_a_folder_that_does_not_exist_is_said_so() -> None:
    with pytest.raises(GeneratorError, match="is no folder that exists"):
        open_source(Making("text_to_image", "./nowhere"), CLASSES)


def test_the_fake_makes_grey_of_the_class() -> None:
    levels = [float(FakeSource().make([Wish(0, k, "", 1)])[0].mean()) for k in range(10)]
    assert levels == sorted(levels)
