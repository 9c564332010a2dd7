"""What a generator's name stands for: a bundled one, a folder, or a model of a hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedistill.errors import UsageError
from edgedistill.synth.naming import FOR_DATA, HOME, folder_of, kind_of, shown


def test_a_name_stands_for_a_bundled_generator_a_folder_or_a_model_of_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert folder_of("mine") == Path("mine") and folder_of("~/mine") == tmp_path / "mine"
    assert folder_of("./not-there") == Path("not-there"), "a path that does not exist is no hub id"
    assert folder_of("stabilityai/sd-turbo") is None
    for name in FOR_DATA.values():
        found = folder_of(name)
        assert found is not None and found.parent == HOME and kind_of(name) == "class_conditional"
    assert [shown(name) for name in ("~/mine", "owner/model", *FOR_DATA.values())] == [
        "mine", "owner/model", *FOR_DATA.values(),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["bundled:", "bundled:..", "bundled:fashion", "bundled:x/../y"])
def test_an_unknown_bundled_generator_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match="unknown bundled generator") as caught:
        folder_of(name)
    assert all(known in str(caught.value) for known in FOR_DATA.values())
