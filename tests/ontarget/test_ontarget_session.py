"""A session runs where it was asked to, or says why not; accuracy is that of the file itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
from ontarget import session as module
from ontarget.contract import ContractError, load_bundle
from ontarget.fake import FakeClock, FakeSession
from ontarget.preprocess import to_input
from ontarget.score import check_golden, check_model, evaluate_bundle, logits_of, score, tolerance
from ontarget.session import (
    OrtSession,
    ProviderError,
    Session,
    SessionError,
    cores,
)


def _truth(pixels: np.ndarray) -> np.ndarray:
    weight = np.array([[3, -1, -1, 0], [-1, 3, -1, 0], [-1, -1, 3, 0.5]])
    normal = (pixels / 255 - np.array([0.5, 0.4, 0.3])) / np.array([0.5, 0.25, 0.2])
    return np.asarray(normal.mean(axis=(1, 2)) @ weight)


@pytest.mark.parametrize(("name", "limit"), [("bytes", 1e-5), ("floats", 1e-5), ("float16", 2e-2)])
def test_each_file_gives_the_logits_of_the_function_it_holds(
    shared: Any, name: str, limit: float
) -> None:
    bundle = load_bundle(shared.folder)
    model = bundle.model(name)
    with OrtSession(model) as opened:
        assert opened.provider == "CPUExecutionProvider"
        got = opened.run(to_input(shared.pixels, model, bundle.preprocess))
    assert got.dtype == np.float32
    assert np.abs(got - _truth(shared.pixels)).max() < limit


def test_threads_are_set_and_do_not_spin(shared: Any) -> None:
    model = load_bundle(shared.folder).model()
    with OrtSession(model, threads=2) as opened:
        options = opened._session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert opened.threads == 2
    with OrtSession(model, threads=0) as opened:
        assert opened.threads == cores() >= 1


def test_a_provider_that_is_not_installed_is_refused_with_what_is(shared: Any) -> None:
    model = load_bundle(shared.folder).model()
    with pytest.raises(ProviderError, match="CPUExecutionProvider") as caught:
        OrtSession(model, "cuda")
    assert "onnxruntime-gpu" in str(caught.value)
    assert "--provider cpu" in str(caught.value)
    assert caught.value.fell_back is False
    with pytest.raises(ProviderError, match="Known: cpu, cuda, tensorrt"):
        OrtSession(model, "npu")


def test_a_provider_that_takes_no_node_is_refused_and_never_measured_on_the_cpu(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AzureExecutionProvider is in the plain package, opens, and runs none of this graph itself."""
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this machine has no other provider")
    monkeypatch.setitem(module.PROVIDERS, "cuda", "AzureExecutionProvider")
    with pytest.raises(ProviderError, match="the rest would go to the CPU") as caught:
        OrtSession(load_bundle(shared.folder).model(), "cuda")
    assert caught.value.fell_back is True


def test_another_first_provider_than_the_one_asked_for_is_refused(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        onnxruntime.InferenceSession, "get_providers", lambda self: ["OtherProvider"]
    )
    with pytest.raises(ProviderError, match="on OtherProvider") as caught:
        OrtSession(load_bundle(shared.folder).model())
    assert caught.value.fell_back is True


def test_a_missing_onnxruntime_is_one_sentence_with_the_command(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SessionError, match="pip install onnxruntime") as caught:
        OrtSession(load_bundle(shared.folder).model())
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_model_is_refused(made: Any) -> None:
    bundle = load_bundle(made.folder)
    (made.folder / "model.bytes.onnx").write_bytes(b"\x00nonsense")
    with pytest.raises(SessionError, match="cannot be opened"):
        OrtSession(bundle.model("bytes"))


def test_a_manifest_that_tells_of_another_input_is_refused(shared: Any) -> None:
    bundle = load_bundle(shared.folder)
    wrong = replace(bundle.model("bytes"), input=bundle.model("floats").input)
    with pytest.raises(SessionError, match="do not belong together"):
        OrtSession(wrong)
    wider = replace(bundle.model(), output=replace(bundle.model().output, shape=(None, 9)))
    with OrtSession(wider) as opened, pytest.raises(SessionError, match="9 classes"):
        opened.run(shared.pixels[:1])


def test_a_run_that_fails_is_one_paragraph(shared: Any) -> None:
    opened = OrtSession(load_bundle(shared.folder).model())
    with opened, pytest.raises(SessionError, match="failed to run"):
        opened.run(np.zeros((1, 3), np.uint8))


def test_the_call_that_is_timed_computes_the_same_and_fails_with_the_same_paragraph(
    shared: Any,
) -> None:
    bundle = load_bundle(shared.folder)
    model = bundle.model("floats")
    inputs = to_input(shared.pixels, model, bundle.preprocess)
    with OrtSession(model) as opened:
        logits: Any = opened.bound(inputs)()
        np.testing.assert_array_equal(logits[0], opened.run(inputs))
        with pytest.raises(SessionError, match="failed to run"):
            opened.bound(inputs[..., :1])()


def test_the_fake_gives_its_logits_and_takes_its_time() -> None:
    clock = FakeClock()
    fake: Session = FakeSession([1.0, 2.0], [0.5, 0.25], clock)
    with fake as opened:
        assert opened.run(np.zeros((3, 4))).tolist() == [[1.0, 2.0]] * 3
        opened.run(np.zeros((1, 4)))
        opened.run(np.zeros((1, 4)))
    assert clock() == 1.0
    assert isinstance(fake, FakeSession)
    assert (fake.calls, fake.closed, fake.shapes[0]) == (3, True, (3, 4))


def test_every_model_is_evaluated_in_batches_with_the_same_logits(shared: Any) -> None:
    bundle = load_bundle(shared.folder)
    told: list[str] = []
    logits = evaluate_bundle(bundle, shared.pixels, batch=7, threads=1, progress=told.append)
    assert list(logits) == ["bytes", "floats", "float16"]
    for value in logits.values():
        assert value.shape == (40, 4)
        assert score(value, shared.labels) == {"n": 40, "correct": 36, "top1": 0.9}
    assert np.abs(logits["bytes"] - _truth(shared.pixels)).max() < 1e-5
    assert told[-1] == "eval float16: 40 of 40 images"


def test_a_changed_model_file_is_not_evaluated(made: Any) -> None:
    bundle = load_bundle(made.folder)
    with (made.folder / "model.floats.onnx").open("ab") as file:
        file.write(b"\x00")
    with pytest.raises(ContractError, match="sha256 differs"):
        evaluate_bundle(bundle, made.pixels)


def test_a_fixed_batch_is_filled_up_and_the_fill_is_dropped(shared: Any) -> None:
    bundle = load_bundle(shared.folder)
    model = bundle.model()
    fixed = replace(model, input=replace(model.input, shape=(16, 8, 8, 3)))
    fake = FakeSession(lambda inputs: inputs.reshape(len(inputs), -1)[:, :4])
    got = logits_of(fake, fixed, bundle, shared.pixels)
    assert fake.shapes == [(16, 8, 8, 3)] * 3
    assert np.array_equal(got, shared.pixels.reshape(40, -1)[:, :4].astype(np.float32))


def test_no_images_give_no_logits_and_no_accuracy(shared: Any) -> None:
    bundle = load_bundle(shared.folder)
    got = logits_of(FakeSession([0] * 4), bundle.model(), bundle, shared.pixels[:0])
    assert got.shape == (0, 4)
    assert score(got, np.zeros(0, np.int64)) == {"n": 0, "correct": 0, "top1": None}


def test_logits_that_are_not_finite_count_as_wrong_and_labels_must_have_a_class() -> None:
    logits = np.array([[np.nan, 0], [np.inf, 0], [1, 0], [0, 1]], np.float32)
    assert score(logits, np.zeros(4, np.int64))["correct"] == 1
    with pytest.raises(ContractError, match="outside 0 to 1"):
        score(logits, np.array([0, 0, 0, 2]))
    with pytest.raises(ContractError, match="3 labels for 4"):
        score(logits, np.zeros(3, np.int64))


def test_a_sound_bundle_reproduces_its_golden_outputs(shared: Any) -> None:
    rows = check_golden(load_bundle(shared.folder))
    assert [(r.model, r.ok, r.agree, r.n) for r in rows] == [
        (name, True, 5, 5) for name in ("bytes", "floats", "float16")
    ]
    assert [r.tolerance for r in rows] == [1e-4, 1e-4, 2e-2]


@pytest.mark.parametrize(
    ("precision", "error", "ok"),
    [
        ("float32", 0.5e-4, True),
        ("float32", 2e-4, False),
        ("float16", 1e-2, True),
        ("float16", 3e-2, False),
        ("int8", 0.08, True),
        ("int8", 0.25, True),
        ("int8", 0.35, False),
    ],
)
def test_the_tolerance_is_relative_to_the_largest_golden_logit(
    shared: Any, precision: str, error: float, ok: bool
) -> None:
    bundle = load_bundle(shared.folder)
    model = replace(bundle.model(), precision=precision)
    want = _truth(np.load(shared.folder / "golden.npz")["pixels"])
    moved = want + np.eye(4)[want.argmax(axis=1)] * error * np.abs(want).max()
    got = check_model(FakeSession(lambda inputs: moved), model, bundle)
    assert got.agree == 5
    assert got.error == pytest.approx(error, rel=1e-2)
    assert got.ok is ok


def test_int8_with_a_changed_class_fails_beyond_its_tolerance(shared: Any) -> None:
    bundle = load_bundle(shared.folder)
    model = replace(bundle.model(), precision="int8")
    want = _truth(np.load(shared.folder / "golden.npz")["pixels"])
    moved = want.copy()
    moved[0] = 0
    moved[0, (want[0].argmax() + 1) % 4] = 0.15 * np.abs(want).max()
    got = check_model(FakeSession(lambda inputs: moved), model, bundle)
    assert (got.ok, got.agree) == (False, 4)


def test_outputs_that_are_not_finite_or_have_no_golden_values_fail(shared: Any) -> None:
    bundle = load_bundle(shared.folder)
    assert check_model(FakeSession([np.nan] * 4), bundle.model(), bundle).ok is False
    other = replace(bundle.model(), name="other")
    got = check_model(FakeSession([0] * 4), other, bundle)
    assert (got.ok, got.text) == (False, "no golden outputs for it")


def test_a_gpu_may_round_float32_as_tensorfloat() -> None:
    assert tolerance("float32", "cpu") == 1e-4
    assert tolerance("float32", "cuda") == 1e-2
