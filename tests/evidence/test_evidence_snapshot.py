"""What is known of one model: every kind of source, baselines that stay small, and damage that is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from check_parts import bundle_of, classifier, scored_run, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedistill.deploy.bare import bare_bundle
from edgedistill.errors import DocumentError, EdgedistillError, UsageError
from edgedistill.evidence.checks.predictions import MOST_KEPT, Scored, packed, pair, unpacked
from edgedistill.evidence.checks.snapshot import Subject, kept, read_subject, short_name
from edgedistill.result import Result, load


def read(path: Path) -> Subject:
    return read_subject(path, "NEW", baseline=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that no test changes."""
    return scored_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def baseline_of(subject: Subject, path: Path) -> Path:
    path.write_text(kept(subject).dumps(), "utf-8")
    return path


# Each kind of source


def test_a_file_a_bundle_and_a_run_of_the_same_model_have_the_same_facts(
    run: Path, tmp_path: Path
) -> None:
    file = read(run / "bundle/model.float16.onnx").facts
    whole = read(run).facts
    bundle = read(bare_bundle(run / "bundle/model.float16.onnx", tmp_path)).facts
    for facts in (whole, bundle):
        assert (facts.params, facts.opset, facts.operators) == (
            file.params,
            file.opset,
            file.operators,
        )
        assert facts.layers == file.layers
    assert (whole.sha256, whole.size_bytes, whole.files) == (
        file.sha256,
        file.size_bytes,
        file.files,
    )
    assert list(file.layers) == ["blocks.1/conv", "blocks.0/conv", "head"]
    assert whole.name == "mobilenetv4_conv_small float16" and file.name == "model.float16.onnx"


def test_only_a_run_tells_accuracy_and_the_others_say_where_it_is(
    run: Path, tmp_path: Path
) -> None:
    known = read(run)
    assert known.facts.top1 is not None and known.facts.top1.value == 1839 / 2000
    assert known.scored is not None and int(known.scored.right.sum()) == 1839
    for other in (
        run / "bundle/model.float16.onnx",
        bare_bundle(write(tmp_path / "m.onnx"), tmp_path),
    ):
        subject = read(other)
        assert subject.facts.top1 is None and subject.scored is None and "tell it" in subject.lacks


def test_result_json_alone_gives_sizes_and_accuracy_but_no_predictions(
    copy: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.json"
    shutil.copy(copy / "result.json", alone)
    subject = read(alone)
    assert subject.file is None and subject.scored is None
    assert "copy the whole run folder" in subject.lacks
    assert subject.facts.size_bytes == read(copy).facts.size_bytes
    assert subject.facts.top1 == read(copy).facts.top1


def test_weights_beside_the_file_are_part_of_it(tmp_path: Path) -> None:
    first = read(write(tmp_path / "a" / "m.onnx", beside=True)).facts
    second = read(write(tmp_path / "b" / "m.onnx", classifier(seed=1), beside=True)).facts
    assert (
        list(first.files) == ["m.onnx", "m.onnx.data"]
        and sum(first.files.values()) == first.size_bytes
    )
    assert (tmp_path / "a/m.onnx").read_bytes() == (tmp_path / "b/m.onnx").read_bytes()
    assert first.sha256 != second.sha256


@pytest.mark.parametrize(
    ("name", "operator", "short"),
    [
        ("/model/blocks/blocks.5/blocks.5.1/conv_pw/Conv", "Conv", "blocks.5.1/conv_pw"),
        ("/model/conv_stem/Conv", "Conv", "conv_stem"),
        ("/Conv", "Conv", "Conv"), ("", "Conv", "Conv"), ("a", "Conv", "a"),
        ("/layer1/layer1.10/conv/Conv_quant", "Conv", "layer1.10/conv/Conv_quant"),
        ("model", "Conv", "model"), ("///", "Gemm", "Gemm"),
    ],
)  # fmt: skip
def test_a_layer_is_named_once(name: str, operator: str, short: str) -> None:
    assert short_name(name, operator) == short


def test_a_file_is_the_file_and_only_a_bundle_or_a_run_knows_its_neighbours(
    tmp_path: Path, run: Path
) -> None:
    both = {"float32": classifier(), "int8": classifier((4,))}
    bundle = bundle_of(tmp_path / "b", both, "int8", "raspberry-pi-5")  # type: ignore[arg-type]
    found, file = read(bundle), read(bundle / "model.float32.onnx")
    assert (found.bundle, found.model) == (bundle, "int8")
    assert found.wanted is not None and found.wanted.kind == "arm_cpu"
    assert (file.bundle, file.model, file.wanted, file.device) == (None, None, None, None)
    assert read(run).bundle is None  # a folder of that name without a manifest
    whole = Path(shutil.copytree(run, tmp_path / "run"))
    bare = bare_bundle(whole / "bundle/model.float16.onnx", tmp_path)
    shutil.copytree(bare, whole / "bundle", dirs_exist_ok=True)
    assert read(whole).bundle is None  # a manifest that does not name the file
    shutil.rmtree(whole / "bundle")
    bundle_of(whole / "bundle", {"float16": classifier()}, "float16")
    data = (run / "bundle/model.float16.onnx").read_bytes()
    assert (whole / "bundle/model.float16.onnx").read_bytes() == data
    assert (read(whole).bundle, read(whole).model) == (whole / "bundle", "float16")
    assert read(whole).wanted is not None and read(whole).wanted.kind == "nvidia_gpu"  # type: ignore[union-attr]


# Pairing


def test_two_runs_are_paired_by_image_whatever_the_order(run: Path, tmp_path: Path) -> None:
    shuffled = read(scored_run(tmp_path / "s", lost=10, order=1)).scored
    both = pair(shuffled, read(run).scored)
    assert both is not None and len(both.new) == 2000
    assert (int((both.old & ~both.new).sum()), int((both.new & ~both.old).sum())) == (10, 0)


def test_only_images_of_both_runs_are_compared(run: Path, tmp_path: Path) -> None:
    both = pair(read(scored_run(tmp_path / "s", drop_images=300)).scored, read(run).scored)
    assert both is not None and len(both.new) == 1700


def test_an_image_whose_class_has_another_name_is_another_image(run: Path, tmp_path: Path) -> None:
    renamed = [f"new {i}" for i in range(10)]
    assert pair(read(scored_run(tmp_path / "s", classes=renamed)).scored, read(run).scored) is None


def test_a_baseline_pairs_with_the_same_test_set_alone(run: Path, tmp_path: Path) -> None:
    old = read(baseline_of(read(run), tmp_path / "b.json")).scored
    both = pair(read(scored_run(tmp_path / "s", lost=7, order=3)).scored, old)
    assert both is not None and int((both.old & ~both.new).sum()) == 7
    assert pair(read(scored_run(tmp_path / "t", drop_images=1)).scored, old) is None


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_bits_come_back_as_they_were(bits: list[bool]) -> None:
    known = Scored(np.array(bits), ("a",), "0" * 64)
    found = packed(known)
    assert found is not None
    assert unpacked(found, "x").right.tolist() == bits


# Baseline files


def test_a_baseline_is_small_sorted_and_a_fact_a_line(run: Path, tmp_path: Path) -> None:
    path = baseline_of(read(run), tmp_path / "b.json")
    text = path.read_text("utf-8")
    assert len(text) < 3000
    facts = json.loads(text)
    assert list(facts)[-1] == "seal"
    ordered = {**{key: facts[key] for key in sorted(facts) if key != "seal"}, "seal": facts["seal"]}
    assert text == json.dumps(ordered, indent=1, ensure_ascii=False) + "\n"
    assert kept(read(path)).dumps() == text
    assert facts["schema"] == "edgedistill.baseline/1" and "null" not in text


def test_a_baseline_of_a_deep_network_names_its_largest_layers_and_adds_up_the_rest(
    tmp_path: Path,
) -> None:
    subject = read(write(tmp_path / "m.onnx", classifier([4] * 150 + [200])))
    path = baseline_of(subject, tmp_path / "b.json")
    assert path.stat().st_size < 10_000
    found = read(path).facts
    assert len(found.layers) == 100 and "blocks.150/conv" in found.layers
    assert sum(found.layers.values()) + found.other_layers_bytes == sum(
        subject.facts.layers.values()
    )


def test_too_many_predictions_are_not_kept() -> None:
    many = Scored(np.ones(MOST_KEPT + 1, bool), (), "0" * 64)
    assert packed(many) is None
    assert packed(None) is None


# What cannot be used


def test_what_is_none_of_these_is_told_with_what_is_allowed(tmp_path: Path, run: Path) -> None:
    for path, words in (
        (tmp_path / "gone.onnx", "does not exist"), (tmp_path, "holds neither result.json nor"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=words) as caught:
            read_subject(path, "NEW", baseline=False)
        assert "a bundle folder, or an ONNX file" in str(caught.value)
    (tmp_path / "x.json").write_text('{"schema": "other/1"}')
    with pytest.raises(DocumentError, match="of schema 'other/1'"):
        read(tmp_path / "x.json")
    path = baseline_of(read(run), tmp_path / "b.json")
    with pytest.raises(UsageError, match="stands for the old model"):
        read_subject(path, "NEW", baseline=False)


def test_a_damaged_bundle_is_no_model(tmp_path: Path) -> None:
    bundle = bare_bundle(write(tmp_path / "m.onnx"), tmp_path)
    path = bundle / "model.float32.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DocumentError, match=r"damaged.*model.float32.onnx"):
        read(bundle)


@pytest.mark.parametrize(
    "file", ["bundle/model.float16.onnx", "tables/files.npz", "tables/split.tsv"]
)
def test_a_file_beside_the_result_with_another_hash_is_an_error(file: str, copy: Path) -> None:
    path = copy / file
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DocumentError, match=r"result\.json speaks of"):
        read(copy)


def change(run: Path, edit: Any) -> None:
    path = run / "result.json"
    document = json.loads(path.read_text("utf-8"))
    edit(document)
    path.write_text(Result.model_validate(document).dumps(), "utf-8")


def chosen(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(a for a in document["artifacts"] if a["name"] == "float16")
    return found


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: d.update(chosen="best"), "none of its files"),
        (lambda d: chosen(d)["top1"].update(value=0.99), "confusion table contradicts"),
        (lambda d: chosen(d)["top1"].update(n=3000), "confusion table contradicts"),
        (lambda d: d["confusion"].pop(), "confusion table contradicts"),
        (lambda d: chosen(d).update(size_bytes=10), "size or hash differs"),
        (
            lambda d: (d.update(confusion=[]), chosen(d)["top1"].update(value=0.99)),
            "its tables 0.9195",
        ),
    ],
)
def test_a_result_that_contradicts_itself_or_its_files_is_an_error(
    edit: Any, words: str, copy: Path
) -> None:
    change(copy, edit)
    with pytest.raises(DocumentError, match=words):
        read(copy)


@pytest.mark.parametrize("place", ["../../x", "/etc/passwd", "a\0b", "y" * 5000, ""])
def test_a_path_out_of_the_run_folder_is_never_read(place: str, copy: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        chosen(document)["path"] = place
        document["tables"]["split"]["path"] = place

    (copy.parent.parent / "x").write_text("secret")
    change(copy, edit)
    subject = read(copy)
    assert subject.file is None and subject.scored is None


@pytest.mark.parametrize(
    "arrays",
    [
        {"logits_int8": np.zeros((2000, 10), np.float32)},
        {"logits_float16": np.zeros((2000, 9), np.float32)},
        {"logits_float16": np.zeros((2000, 10), np.int32)},
        {"logits_float16": np.zeros((1, 2000, 10), np.float32)},
        {"logits_float16": np.asfortranarray(np.zeros((2000, 10), np.float32))},
        {"logits_float16": np.zeros((2000, 10), object)},
    ],
)
def test_a_table_of_another_shape_or_kind_is_an_error(arrays: dict[str, Any], copy: Path) -> None:
    from edgedistill.files import sha256_file

    path = copy / "tables/files.npz"
    np.savez(path, **arrays)
    change(copy, lambda d: d["tables"]["file_logits"].update(sha256=sha256_file(path)))
    with pytest.raises(DocumentError, match=r"files\.npz"):
        read(copy)


# Damage of any kind


def _damaged(data: bytes, at: int, value: bytes, cut: bool) -> bytes:
    at %= len(data)
    return data[:at] if cut else data[:at] + value + data[at + len(value) :]


DAMAGE = {
    "at": st.integers(0, 10**6),
    "value": st.binary(min_size=1, max_size=4),
    "cut": st.booleans(),
}
FUZZ = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(**DAMAGE)
@pytest.mark.parametrize(
    "file", ["tables/files.npz", "tables/split.tsv", "bundle/model.float16.onnx"]
)
def test_any_damage_to_a_file_of_a_run_is_an_error(
    file: str, at: int, value: bytes, cut: bool, run: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "run"
    if not whole.exists():
        shutil.copytree(run, whole)
    data = (run / file).read_bytes()
    changed = _damaged(data, at, value, cut)
    (whole / file).write_bytes(changed)
    try:
        if changed == data:
            assert read(whole).facts == read(run).facts
        else:
            with pytest.raises(DocumentError):
                read(whole)
    finally:
        (whole / file).write_bytes(data)


@FUZZ
@given(**DAMAGE)
def test_a_damaged_result_is_an_error_or_says_the_same(
    at: int, value: bytes, cut: bool, run: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "run"
    if not whole.exists():
        shutil.copytree(run, whole)
    data = (run / "result.json").read_bytes()
    (whole / "result.json").write_bytes(_damaged(data, at, value, cut))
    try:
        found = load(whole)
    except EdgedistillError as error:
        assert error.exit_code == 2
    else:
        assert found == load(run)


@FUZZ
@given(**DAMAGE, tables=st.booleans())
def test_a_damaged_baseline_is_an_error_or_says_the_same(
    at: int, value: bytes, cut: bool, tables: bool, run: Path, tmp_path: Path
) -> None:
    """Also one of a run whose tables are gone, whose top-1 nothing else in it holds."""
    path = tmp_path / "b.json"
    whole = kept(read(run if tables else run / "result.json"))
    if not tables:
        whole = whole.model_copy(update={"predictions": None})
    data = whole.dumps().encode()
    path.write_bytes(_damaged(data, at, value, cut))
    try:
        facts = read(path).facts
    except EdgedistillError as error:
        assert error.exit_code == 2 and str(path) in str(error)
    else:
        assert facts == whole


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["top1"].update(value=0.8), lambda d: d.update(name="x"), lambda d: d.pop("seal"),
        lambda d: d.update(seal=None), lambda d: d["layers"].popitem(), lambda d: d.pop("opset"),
    ],
)  # fmt: skip
def test_a_baseline_that_was_edited_or_has_no_seal_is_an_error(
    edit: Any, run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "b.json"
    facts = json.loads(kept(read(run)).model_copy(update={"predictions": None}).dumps())
    edit(facts)
    path.write_text(json.dumps(facts), "utf-8")
    with pytest.raises(DocumentError, match="its seal does not fit"):
        read(path)


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
                    max_leaves=8))  # fmt: skip
@FUZZ
def test_any_json_with_the_schema_of_a_baseline_is_read_or_refused(
    value: Any, tmp_path: Path
) -> None:
    path = tmp_path / "b.json"
    base = json.loads(kept(read(write(tmp_path / "m.onnx"))).dumps())
    for key in base:
        if key == "schema":
            continue
        path.write_text(json.dumps({**base, key: value}), "utf-8")
        try:
            read(path)
        except EdgedistillError as error:
            assert error.exit_code == 2


def test_a_graph_that_the_runtime_would_refuse_for_its_names_is_told(tmp_path: Path) -> None:
    model = classifier(names=["::error::x", "a\nb"])
    facts = read(write(tmp_path / "m.onnx", model)).facts
    assert {"::error::x", "a\nb"} <= set(facts.layers)
    assert onnx.load(str(tmp_path / "m.onnx")).graph.node[0].name == "::error::x"
