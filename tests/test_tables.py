"""Large tables beside the document: what was written comes back, and nothing else does."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from evidence_samples import make_result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedistill import tables
from edgedistill.errors import DocumentError
from edgedistill.result import Result, Table

PLACE = "stages/15-report"


def counts(classes: int, each: int = 50) -> list[list[int]]:
    """A confusion matrix with mistakes among neighbours."""
    rng = random.Random(0)
    table = [[0] * classes for _ in range(classes)]
    for i, row in enumerate(table):
        for _ in range(each):
            row[i if rng.random() < 0.8 else rng.randrange(max(0, i - 9), min(classes, i + 9))] += 1
    return table


def many(classes: int = 120) -> Result:
    return make_result("pass", [f"kind {i}" for i in range(classes)], confusion=counts(classes))


def put(run: Path, result: Result) -> tuple[Result, Path]:
    """The document without its tables, which lie in `run`."""
    small, files = tables.apart(result, PLACE)
    folder = run / PLACE
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    return small, folder / "confusion.tsv"


def test_few_classes_stay_in_the_document() -> None:
    result = make_result()
    assert tables.apart(result, PLACE) == (result, {})
    assert tables.with_tables(result, Path("nowhere")) == result


def test_many_classes_go_beside_it_and_come_back(tmp_path: Path) -> None:
    result = many()
    small, path = put(tmp_path, result)
    assert small.confusion == [] and small.tables["confusion"].path == f"{PLACE}/confusion.tsv"
    whole = tables.with_tables(small, tmp_path)
    assert whole.confusion == result.confusion
    assert path.read_text("utf-8").startswith("true\tpredicted\timages\n0\t0\t")


def test_a_document_of_a_thousand_classes_and_50_000_images_stays_small(tmp_path: Path) -> None:
    result = many(1000)
    small, path = put(tmp_path, result)
    assert sum(map(sum, result.confusion)) == 50_000
    assert len(small.dumps()) < len(result.dumps()) / 4
    assert path.stat().st_size < 600_000
    assert tables.with_tables(small, tmp_path).confusion == result.confusion


def test_a_table_that_is_not_there_is_missed_and_no_more(tmp_path: Path) -> None:
    small, path = put(tmp_path, many())
    path.unlink()
    assert tables.with_tables(small, tmp_path) == small


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 1500), other=st.binary(max_size=2), cut=st.booleans())
def test_a_changed_or_cut_table_is_refused(
    tmp_path: Path, at: int, other: bytes, cut: bool
) -> None:
    small, path = put(tmp_path, many())
    raw = path.read_bytes()
    changed = raw[:at] if cut else raw[:at] + other + raw[at + 1 :]
    path.write_bytes(changed)
    if changed == raw:
        return
    with pytest.raises(DocumentError, match="its hash is another"):
        tables.with_tables(small, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "", "true\tpredicted\n", "true\tpredicted\timages\n0\t0\n", "true\tpredicted\timages\n0\t0\tx\n",
        "true\tpredicted\timages\n-1\t0\t2\n", "true\tpredicted\timages\n0\t500\t2\n",
        "true\tpredicted\timages\n0\t0\t2\n0\t0\t3\n", "true\tpredicted\timages\n0\t0\t-2\n",
    ],
)  # fmt: skip
def test_a_table_with_the_right_hash_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    small, path = put(tmp_path, many())
    path.write_text(text, "utf-8")
    table = small.tables["confusion"].model_copy(
        update={"sha256": hashlib.sha256(text.encode()).hexdigest()}
    )
    with pytest.raises(DocumentError, match="does not hold"):
        tables.with_tables(small.model_copy(update={"tables": {"confusion": table}}), tmp_path)


@pytest.mark.parametrize("place", ["../secret.tsv", "/etc/passwd", "stages/../../x"])
def test_no_table_outside_the_run_folder_is_read(tmp_path: Path, place: str) -> None:
    small, _ = put(tmp_path, many())
    table = Table(path=place, sha256="0" * 64, what="")
    with pytest.raises(DocumentError, match="does not lie in the run folder"):
        tables.with_tables(small.model_copy(update={"tables": {"confusion": table}}), tmp_path)
