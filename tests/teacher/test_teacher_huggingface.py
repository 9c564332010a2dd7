"""Teachers of transformers: real models from small configs, saved as they are saved, sound and hostile."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from teacher_parts import Tuner, done_of, taught
from timm.models import group_parameters
from torch import Tensor, nn

from edgedistill.errors import MissingExtraError, TeacherError
from edgedistill.nets import Look, forward, state_bytes
from edgedistill.recipe import TeacherSection
from edgedistill.teacher import huggingface as room
from edgedistill.teacher.hub import load_pretrained
from edgedistill.teacher.processor import eye_of
from edgedistill.teacher.restore import restore
from edgedistill.teacher.shape import shape_of

VIT: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
DINO = {key: value for key, value in VIT.items() if key != "intermediate_size"}
FREE = {key: value for key, value in VIT.items() if key != "image_size"} | {"num_patches": 16}
TEXT = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
STAGES: dict[str, Any] = {"depths": [1, 1], "hidden_sizes": [8, 16]}
NAMES = {0: "red", 1: "green", 2: "blue", 3: "grey"}
t = transformers


@pytest.fixture(autouse=True)
def _quiet() -> None:
    t.utils.logging.set_verbosity(t.utils.logging.CRITICAL)
    t.utils.logging.disable_progress_bar()


def classifier(name: str) -> Any:
    """A small untrained classifier with four named classes."""
    named = {"id2label": NAMES, "label2id": {v: k for k, v in NAMES.items()}}
    torch.manual_seed(0)
    configs = {
        "ViT": lambda: t.ViTConfig(**VIT, **named),
        "DeiT": lambda: t.DeiTConfig(**VIT, **named),
        "Dinov2": lambda: t.Dinov2Config(**DINO, **named),
        "Siglip": lambda: t.SiglipConfig(text_config=TEXT, vision_config=VIT, **named),
        "CLIP": lambda: t.CLIPConfig(text_config=TEXT, vision_config=VIT, **named),
        "ConvNext": lambda: t.ConvNextConfig(**STAGES, num_stages=2, **named),
        "ResNet": lambda: t.ResNetConfig(
            **STAGES, embedding_size=8, layer_type="basic", image_size=32, **named
        ),
        "MobileViT": lambda: t.MobileViTConfig(
            hidden_sizes=[16, 20, 24], neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32],
            num_attention_heads=2, image_size=64, **named,
        ),
        "Swin": lambda: t.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2],
            window_size=4, **named,
        ),
    }  # fmt: skip
    return getattr(t, f"{name}ForImageClassification")(configs[name]()).eval()


def backbone(name: str) -> Any:
    """A small untrained vision backbone, or a model of two towers."""
    torch.manual_seed(0)
    two = {"text_config": TEXT, "vision_config": VIT}
    made = {
        "ViTModel": lambda: t.ViTModel(t.ViTConfig(**VIT)),
        "Dinov2Model": lambda: t.Dinov2Model(t.Dinov2Config(**DINO)),
        "Dinov2WithRegistersModel": lambda: t.Dinov2WithRegistersModel(
            t.Dinov2WithRegistersConfig(**DINO)
        ),
        "SiglipVisionModel": lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**VIT)),
        "SiglipModel": lambda: t.SiglipModel(t.SiglipConfig(**two)),
        "Siglip2VisionModel": lambda: t.Siglip2VisionModel(t.Siglip2VisionConfig(**FREE)),
        "CLIPVisionModel": lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**VIT)),
        "CLIPModel": lambda: t.CLIPModel(t.CLIPConfig(**two)),
        "ConvNextModel": lambda: t.ConvNextModel(t.ConvNextConfig(**STAGES, num_stages=2)),
    }
    return made[name]().eval()


def section(folder: Path, **more: Any) -> TeacherSection:
    return TeacherSection(model=f"hf:{folder}", **more)


def refused(what: TeacherSection) -> str:
    with pytest.raises(TeacherError) as caught:
        load_pretrained(what)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 900
    return text


def images(size: int, n: int = 3) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


# Outputs are transformers' own


@pytest.mark.parametrize(
    "name", ["ViT", "DeiT", "Dinov2", "Siglip", "CLIP", "ConvNext", "ResNet", "MobileViT", "Swin"]
)
def test_a_classifier_says_what_transformers_says(name: str, tmp_path: Path) -> None:
    model = classifier(name)
    model.save_pretrained(tmp_path)
    found = load_pretrained(section(tmp_path))
    assert (found.kind, found.classes, found.labels) == ("hf", 4, tuple(NAMES.values()))
    x = images(found.size)
    with torch.inference_mode():
        features, logits = forward(found.model, x)
        want = model(pixel_values=x).logits
        head: Any = found.model.get_classifier()  # type: ignore[operator]
        assert torch.equal(logits, found.model(x))
        torch.testing.assert_close(logits, want, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(head(features), want, atol=1e-5, rtol=1e-5)
    assert features.shape == (3, found.features) and isinstance(head, nn.Linear)


@pytest.mark.parametrize(
    "name",
    [
        "ViTModel", "Dinov2Model", "Dinov2WithRegistersModel", "SiglipVisionModel", "SiglipModel",
        "CLIPVisionModel", "CLIPModel", "ConvNextModel",
    ],
)  # fmt: skip
def test_a_backbone_gives_the_features_that_its_family_is_probed_on(
    name: str, tmp_path: Path
) -> None:
    model = backbone(name)
    model.save_pretrained(tmp_path)
    found = load_pretrained(section(tmp_path))
    assert (found.classes, found.labels) == (0, None)
    x = images(found.size)
    tower = getattr(model, "vision_model", model) if name in ("SiglipModel", "CLIPModel") else model
    with torch.inference_mode():
        features = forward(found.model, x)[0]
        out = tower(pixel_values=x)
        want = out.last_hidden_state[:, 0] if name == "ViTModel" else out.pooler_output.flatten(1)
    torch.testing.assert_close(features, want, atol=1e-5, rtol=1e-5)
    assert not any("text" in key for key, _ in found.model.named_parameters())


def test_siglip_2_of_free_shapes_sees_the_patches_that_its_processor_cuts(tmp_path: Path) -> None:
    from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

    model = backbone("Siglip2VisionModel")
    model.save_pretrained(tmp_path)
    found = load_pretrained(section(tmp_path))
    assert (found.size, found.fixed_size) == (32, False)
    x = images(32)
    with torch.inference_mode():
        want = model(
            pixel_values=torch.stack([convert_image_to_patches(image, 8) for image in x]),
            pixel_attention_mask=torch.ones(3, 16, dtype=torch.long),
            spatial_shapes=torch.tensor([[4, 4]] * 3),
        ).pooler_output
        got = forward(found.model, x)[0]
        assert forward(found.model, images(48))[0].shape == got.shape
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_another_size_is_taken_where_positions_can_be_interpolated(tmp_path: Path) -> None:
    backbone("Dinov2Model").save_pretrained(tmp_path)
    assert shape_of(section(tmp_path)) == (32, False)
    found = load_pretrained(section(tmp_path))
    with torch.inference_mode():
        assert forward(found.model, images(64))[0].shape == (3, 32)


def test_layers_are_grouped_from_the_input_on(tmp_path: Path) -> None:
    for name in ("ViT", "Siglip", "ConvNext"):
        folder = tmp_path / name
        classifier(name).save_pretrained(folder)
        net: Any = load_pretrained(section(folder)).model
        groups = group_parameters(net, net.group_matcher())
        order = [groups[i] for i in sorted(groups)]
        assert len(order) >= 4 and any("head.weight" in n for n in order[-1])
        assert "embed" in order[0][0] and not any("embed" in n for g in order[1:] for n in g)


# What an image processor does


PROCESSORS: dict[str, Any] = {
    "vit": lambda: t.ViTImageProcessor(size={"height": 32, "width": 32}),
    "clip": lambda: t.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ),
    "no scale": lambda: t.ViTImageProcessor(
        size={"height": 32, "width": 32}, do_rescale=False, image_mean=[120, 110, 100], image_std=[60, 61, 62]
    ),
    "mobilevit": lambda: t.MobileViTImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ),
    "efficientnet": lambda: t.EfficientNetImageProcessor(size={"height": 32, "width": 32}),
    "offset": lambda: t.EfficientNetImageProcessor(
        size={"height": 32, "width": 32}, rescale_factor=1 / 127.5, rescale_offset=True, include_top=False
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_arrive_as_the_image_processor_makes_them(name: str, tmp_path: Path) -> None:
    processor = PROCESSORS[name]()
    processor.save_pretrained(tmp_path)
    eye = eye_of(json.loads((tmp_path / "preprocessor_config.json").read_text()), object())
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    want = torch.as_tensor(np.asarray(processor(Image.fromarray(pixels))["pixel_values"][0]))
    got = Look(eye.size, eye.mean, eye.std).tensor(pixels[None], torch.device("cpu"))[0]
    got = got.flip(0) if eye.flip else got
    assert eye.size == 32 and eye.flip == (name == "mobilevit")
    torch.testing.assert_close(got, want.float(), atol=2e-5, rtol=1e-5)


def test_colours_that_come_as_blue_green_red_are_turned_inside(tmp_path: Path) -> None:
    model = classifier("MobileViT")
    model.save_pretrained(tmp_path)
    t.MobileViTImageProcessor(crop_size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    found = load_pretrained(section(tmp_path))
    x = images(64)
    with torch.inference_mode():
        torch.testing.assert_close(found.model(x), model(pixel_values=x.flip(1)).logits)
    assert (found.mean, found.std, found.size) == ((0, 0, 0), (1, 1, 1), 64)


def test_without_an_image_processor_the_reason_says_what_is_assumed(tmp_path: Path) -> None:
    classifier("ViT").save_pretrained(tmp_path)
    assert "ImageNet's mean and std are assumed" in load_pretrained(section(tmp_path)).note


def test_the_image_processor_inside_a_processor_counts(tmp_path: Path) -> None:
    backbone("CLIPVisionModel").save_pretrained(tmp_path)
    inner = {"do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": 0.5, "size": 48}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": inner}))
    found = load_pretrained(section(tmp_path))
    assert (found.mean, found.std, found.size) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5), 48)


ANY = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["height", "shortest_edge"]), inner),
    max_leaves=5,
)  # fmt: skip
KEYS = (
    "size", "crop_size", "do_center_crop", "image_mean", "image_std", "do_normalize", "do_rescale",
    "rescale_factor", "rescale_offset", "include_top", "do_flip_channel_order",
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(KEYS), ANY, max_size=6))
def test_any_image_processor_gives_sound_numbers_or_is_refused(processor: dict[str, Any]) -> None:
    try:
        eye = eye_of(processor, object())
    except (ValueError, TypeError, OverflowError):
        return
    assert 8 <= eye.size <= 4096 and all(s > 0 for s in eye.std)
    assert all(np.isfinite([*eye.mean, *eye.std]))


# The stage


def test_a_backbone_is_probed_stored_and_comes_back(tmp_path: Path) -> None:
    backbone("Dinov2Model").save_pretrained(tmp_path / "m")
    facts, work = taught(tmp_path, section(tmp_path / "m", adapt="probe"), Tuner(), size=48)
    assert (facts["kind"], facts["adaptation"], facts["look"]["size"]) == ("hf", "linear probe", 48)
    assert facts["val_top1"] >= 0.9 and facts["flops"] > 0
    facts = json.loads(json.dumps(facts))
    model = restore(done_of(work, facts))
    assert state_bytes(model) == work.path("teacher.safetensors").read_bytes()


def test_a_classifier_of_transformers_can_be_fine_tuned_and_its_classes_found(
    tmp_path: Path,
) -> None:
    classifier("ResNet").save_pretrained(tmp_path / "m")
    zero = section(tmp_path / "m", adapt="zero_shot")
    facts, _ = taught(tmp_path, zero, Tuner(), names=("blue", "red", "green"))
    assert facts["adaptation"] == "zero-shot head"
    (tmp_path / "b").mkdir()
    tuned = section(tmp_path / "m", adapt="finetune", epochs=1)
    assert taught(tmp_path / "b", tuned, Tuner())[0]["adaptation"] == "fine-tuned"


def test_a_backbone_has_no_classes_of_its_own(tmp_path: Path) -> None:
    backbone("ViTModel").save_pretrained(tmp_path / "m")
    for adapt_as, words in (("none", "has no classes"), ("zero_shot", "0 classes")):
        with pytest.raises(TeacherError, match=words):
            taught(tmp_path, section(tmp_path / "m", adapt=adapt_as), Tuner(), size=32)


# What is refused


def test_a_model_of_text_is_refused_in_words(tmp_path: Path) -> None:
    config = t.BertConfig(**{k: v for k, v in TEXT.items() if not k.startswith(("bos", "eos"))})
    t.BertModel(config).save_pretrained(tmp_path)
    text = refused(section(tmp_path))
    assert 'its config says "bert"' in text and "DINOv2" in text
    with pytest.raises(TeacherError, match="no model of images"):
        shape_of(section(tmp_path))


def test_a_model_that_draws_at_random_is_refused(tmp_path: Path) -> None:
    t.ViTMAEModel(t.ViTMAEConfig(**VIT)).save_pretrained(tmp_path)
    assert "says something else each time" in refused(section(tmp_path))


def test_tensors_that_are_missing_are_never_random_numbers(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    classifier("ViT").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    gone = next(key for key in state if "attention" in key)
    save_file({k: v for k, v in state.items() if k != gone}, file, {"format": "pt"})
    assert "1 tensors are missing" in refused(section(tmp_path))
    save_file({**state, "classifier.weight": torch.zeros(9, 32)}, file, {"format": "pt"})
    refused(section(tmp_path))


class RunsCode:
    """A pickle that makes a file when it is read without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused_not_run(zipped: bool, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    classifier("ViT").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state = {"classifier.weight": RunsCode(mark)}
    if zipped:
        torch.save(state, tmp_path / "pytorch_model.bin")
    else:
        (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(state))
    refused(section(tmp_path))
    assert not mark.exists()


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    backbone("ViTModel").save_pretrained(tmp_path)
    mark = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass C: ...\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "ours", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.C"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    refused(section(tmp_path))
    assert not mark.exists()


@pytest.mark.parametrize(
    "config",
    [
        "", "{", "[]", "null", "{}", '{"model_type": 5}', '{"model_type": "timm_wrapper"}',
        '{"model_type": "vit", "hidden_size": "many"}', '{"model_type": "vit", "hidden_size": -3}',
        '{"model_type": "clip", "vision_config": 7}', '{"model_type": "vit", "image_size": 1000000}',
        '{"model_type": "vit", "architectures": ["Trainer", "__doc__", 4]}', "\udcff",
    ],
)  # fmt: skip
def test_a_damaged_or_hostile_folder_is_one_paragraph(config: str, tmp_path: Path) -> None:
    classifier("ViT").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes(config.encode("utf-8", "surrogateescape"))
    assert "hf:" in refused(section(tmp_path))


@pytest.mark.parametrize(
    "processor",
    [
        "{",
        "[1]",
        '{"do_normalize": 1, "image_std": [0, 1, 1]}',
        '{"size": 0}',
        '{"rescale_factor": -1}',
    ],
)
def test_a_damaged_image_processor_is_one_paragraph(processor: str, tmp_path: Path) -> None:
    classifier("ViT").save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(processor)
    refused(section(tmp_path))
    with pytest.raises(TeacherError):
        shape_of(section(tmp_path))


def test_what_is_not_there_says_what_to_give(tmp_path: Path) -> None:
    assert "has no config.json" in refused(TeacherSection(model=f"hf:{tmp_path}"))
    assert "has no config.json" in refused(TeacherSection(model="hf:./nowhere"))
    for name in ("hf:facebook/no-such-model-here", "hf:", "hf:a/b/c"):
        text = refused(TeacherSection(model=name))
        assert "hf:./folder" in text or "config.json" in text
    model = TeacherSection(model="hf:./x", weights="f.pth")
    assert "teacher.weights" in refused(model)


def test_a_missing_transformers_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "edgedistill\[hf\]"'):
        load_pretrained(TeacherSection(model="hf:facebook/dinov2-small"))


def test_a_model_in_the_hubs_cache_loads_pinned_with_its_commit_and_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's client reads its settings at import, so its cache is put in place there."""
    from huggingface_hub import constants

    commits = ("a" * 40, "b" * 40)
    root = tmp_path / "hub" / "models--someone--eyes"
    models = []
    for seed, commit in enumerate(commits):
        torch.manual_seed(seed)
        models.append(t.Dinov2Model(t.Dinov2Config(**DINO)).eval())
        models[-1].save_pretrained(root / "snapshots" / commit)
        (root / "snapshots" / commit / "README.md").write_text("---\nlicense: mit\n---\n# eyes\n")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commits[1])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("TRANSFORMERS_CACHE", "HF_HUB_CACHE", "PYTORCH_TRANSFORMERS_CACHE"):
        monkeypatch.setattr(f"transformers.utils.hub.{name}", str(tmp_path / "hub"), raising=False)
    x = images(32)
    for which, pinned in enumerate(("hf:someone/eyes@" + commits[0], "hf:someone/eyes")):
        found = load_pretrained(TeacherSection(model=pinned))
        assert (found.origin.revision, found.origin.licence) == (commits[which], "mit")
        with torch.inference_mode():
            want = models[which](pixel_values=x).pooler_output
            torch.testing.assert_close(forward(found.model, x)[0], want)
    assert shape_of(TeacherSection(model="hf:someone/eyes")) == (32, False)
