"""The result document: a round trip without loss, and damage that is always one clear error."""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedistill.document import describe, parse
from edgedistill.errors import DocumentError
from edgedistill.evidence.report import html, markdown, model_card
from edgedistill.result import Limits, Proportion, Result, load

sys.path.insert(0, str(Path(__file__).parent / "evidence"))
from evidence_samples import HOSTILE, make_result

RELAXED = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
TREE: dict[str, Any] = json.loads(make_result().dumps())


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()  # fmt: skip
    for key, value in items:
        yield from _paths(value, (*path, key))


PATHS = sorted(_paths(TREE), key=str)


def _parent(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        tree = tree[key]
    return tree


def _write(folder: Path, tree: Any) -> Path:
    (folder / "result.json").write_text(json.dumps(tree))
    return folder


@pytest.mark.parametrize("status", ["pass", "fail", "unconfirmed"])
def test_a_result_is_the_same_after_writing_and_reading(tmp_path: Path, status: Any) -> None:
    result = make_result(status)
    (tmp_path / "result.json").write_text(result.dumps())
    assert load(tmp_path) == load(tmp_path / "result.json") == result
    assert load(tmp_path).dumps() == result.dumps()


def test_hostile_class_names_survive_the_round_trip(tmp_path: Path) -> None:
    result = make_result(classes=HOSTILE)
    (tmp_path / "result.json").write_text(result.dumps())
    assert load(tmp_path).data.classes == list(HOSTILE)


def test_a_result_is_ascii_with_units_in_its_names_and_null_for_unknown() -> None:
    text = make_result().dumps()
    assert text.isascii()
    assert text.endswith("}\n")
    keys = {str(part) for path in PATHS for part in path}
    assert not {key for key in keys if key.endswith(("_ms", "_mb"))}
    assert TREE["environment"]["gpu"] is None
    assert TREE["schema"] == "edgedistill.result/1"


def test_an_artifact_is_found_by_its_name() -> None:
    result = make_result()
    assert result.artifact(result.chosen).name == result.chosen


def test_a_missing_result_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="does not exist"):
        load(tmp_path)
    with pytest.raises(DocumentError, match="does not exist"):
        load(tmp_path / "x.json")


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e999", "-1e400"])
@pytest.mark.parametrize("where", ["bundle_bytes", "device"])
def test_a_number_that_is_not_finite_is_refused_wherever_it_stands(
    tmp_path: Path, number: str, where: str
) -> None:
    tree = {**TREE, where: "HERE"} if where != "device" else {**TREE, "device": {"x": "HERE"}}
    (tmp_path / "result.json").write_text(json.dumps(tree).replace('"HERE"', number))
    with pytest.raises(DocumentError, match=f"{number} is no number"):
        load(tmp_path)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -0.1, 1.1])
def test_a_fraction_lies_between_0_and_1(value: float) -> None:
    with pytest.raises(ValueError, match="1 validation error"):
        Proportion(value=value, n=1)


def test_limits_are_seconds_and_bytes_of_zero_or_more() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Limits(latency_s=-1.0)
    with pytest.raises(ValueError, match="finite"):
        Limits(latency_s=float("inf"))


def test_each_problem_is_named_with_its_path_at_most_twenty(tmp_path: Path) -> None:
    tree = copy.deepcopy(TREE)
    tree["teacher"]["params"] = -1
    tree["arms"][0]["top1"]["value"] = 2
    tree["extra"] = "x" * 10_000
    del tree["chosen"]
    with pytest.raises(DocumentError) as caught:
        load(_write(tmp_path, tree))
    lines = str(caught.value).splitlines()
    assert {line.split()[0] for line in lines[1:]} == {
        "teacher.params",
        "arms.0.top1.value",
        "extra",
        "chosen",
    }
    assert all(len(line) < 250 for line in lines)
    tree["examples"] = [{}] * 500
    with pytest.raises(DocumentError) as caught:
        load(_write(tmp_path, tree))
    assert len(str(caught.value).splitlines()) == 21


def test_a_document_with_very_many_problems_is_refused_quickly(tmp_path: Path) -> None:
    start = time.process_time()
    with pytest.raises(DocumentError):
        load(_write(tmp_path, {**TREE, "examples": [{"png": "x" * 50}] * 30_000}))
    with pytest.raises(DocumentError):
        load(_write(tmp_path, {"x": "y" * 5_000_000}))
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xfe", b"[" * 200_000, b"{}", b"5", b"nul", b'{"a": 1' + b"0" * 9999 + b"}"]
)
def test_a_file_that_is_no_result_is_a_document_error(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "result.json").write_bytes(raw)
    with pytest.raises(DocumentError, match=r"result .*result\.json"):
        load(tmp_path)


def test_a_file_without_an_end_is_not_read_to_its_end() -> None:
    with pytest.raises(DocumentError, match="more than the 1,000 bytes"):
        parse("result", Result, Path("/dev/zero"), 1_000)


values = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=6),
    st.just([]), st.just({}), st.just("\ud800"), st.just([{"x": None}]),
)  # fmt: skip


def _views(result: Result) -> None:
    """Whatever `load` lets in can be shown and written."""
    for view in (html, markdown, model_card):
        view(result).encode("utf-8")
    assert json.loads(result.dumps())["run"] == result.run


@given(st.data())
@RELAXED
def test_a_result_with_a_changed_value_is_read_and_shown_or_a_document_error(
    tmp_path: Path, data: st.DataObject
) -> None:
    tree = copy.deepcopy(TREE)
    path = data.draw(st.sampled_from(PATHS))
    _parent(tree, path)[path[-1]] = data.draw(values)
    try:
        result = load(_write(tmp_path, tree))
    except DocumentError as error:
        assert "result.json" in str(error)
    else:
        assert isinstance(result, Result)


@given(st.data())
@RELAXED
def test_a_result_with_a_missing_or_added_value_is_read_or_a_document_error(
    tmp_path: Path, data: st.DataObject
) -> None:
    tree = copy.deepcopy(TREE)
    path = data.draw(st.sampled_from(PATHS))
    parent = _parent(tree, path)
    if data.draw(st.booleans()):
        del parent[path[-1]]
    elif isinstance(parent, dict):
        parent[data.draw(st.text(max_size=5))] = 1
    else:
        parent.append(data.draw(values))
    try:
        load(_write(tmp_path, tree))
    except DocumentError as error:
        assert str(error).startswith("result ")


@given(st.integers(0, 10**6), st.binary(max_size=4))
@RELAXED
def test_a_result_with_damaged_bytes_is_read_or_a_document_error(
    tmp_path: Path, at: int, new: bytes
) -> None:
    raw = bytearray(make_result().dumps().encode())
    at %= len(raw)
    raw[at : at + len(new)] = new
    (tmp_path / "result.json").write_bytes(bytes(raw))
    try:
        load(tmp_path)
    except DocumentError as error:
        assert "result.json" in str(error)


STRINGS = [path for path in PATHS if isinstance(_parent(TREE, path)[path[-1]], str)]


def test_lone_surrogates_in_every_free_text_can_still_be_shown(tmp_path: Path) -> None:
    tree = copy.deepcopy(TREE)
    for path in STRINGS:
        old = _parent(tree, path)[path[-1]]
        _parent(tree, path)[path[-1]] = old + "\ud800\x00"
        try:
            load(_write(tmp_path, tree))
        except DocumentError:
            _parent(tree, path)[path[-1]] = old
    _views(load(_write(tmp_path, tree)))


def test_a_problem_is_described_by_its_path_and_what_was_got() -> None:
    try:
        Limits.model_validate({"latency_s": "fast", "what": 1})
    except ValueError as error:
        lines = describe(error)  # type: ignore[arg-type]
        assert lines == [
            "latency_s  input should be a valid number, unable to parse string as a number; "
            "got 'fast'",
            "what  extra inputs are not permitted; got 1",
        ]
