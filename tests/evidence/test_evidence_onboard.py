"""What is sent to a board: it stands on its own, in the Python of old boards, and its files stay in their folder."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgedistill.evidence.board.onboard import files, talk
from edgedistill.evidence.board.ssh import ONBOARD, onboard_text

FOLDER = Path(files.__file__).parent


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda p: p.name)
def test_it_is_written_in_the_python_of_old_boards_with_nothing_but_the_standard_library(
    path: Path,
) -> None:
    tree = ast.parse(path.read_text("utf-8"), feature_version=(3, 5))
    assert not [
        n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr | ast.AnnAssign | ast.NamedExpr)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            name = node.names[0].name if isinstance(node, ast.Import) else node.module or ""
            own = name.startswith("edgedistill.evidence.board.onboard.")
            assert own or name.split(".")[0] in sys.stdlib_module_names, name


def test_all_of_it_is_sent_and_starts_where_nothing_is_installed(tmp_path: Path) -> None:
    """`-I -S`: no site-packages, and so no edgedistill."""
    request = json.dumps({"op": "look", "needs": []}).encode() + b"\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-u", "-c", "import sys; exec(sys.stdin.buffer.readline())"],
        input=onboard_text() + request, capture_output=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    (line,) = [s for s in done.stdout.decode().splitlines() if s.startswith(talk.MARK)]
    found = json.loads(line[len(talk.MARK) :])
    assert found["tried"] and found["machine"]["arch"] and list(tmp_path.iterdir()) == []
    assert {f"{name}.py" for name in ONBOARD} == {p.name for p in FOLDER.glob("*.py")} - {
        "__init__.py"
    }


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", "a//b", "./x"])
def test_a_file_never_leaves_the_bundles_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"x")))
    request: dict[str, Any] = {"root": str(tmp_path / "root"), "files": [[name, 1, "0" * 64]]}
    with pytest.raises(talk.Fault):
        files.put(request)
    assert list(tmp_path.rglob("*")) == []


def test_a_file_that_did_not_arrive_as_it_was_sent_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"xy")))
    with pytest.raises(talk.Fault, match="protocol"):
        files.put({"root": str(tmp_path), "files": [["a", 2, "0" * 64]]})
    assert not (tmp_path / "bundle/a").exists()


def test_a_link_in_an_own_folder_is_replaced_and_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    (tmp_path / "bundle").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "bundle/a").symlink_to(tmp_path / "precious")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"xy")))
    files.put({"root": str(tmp_path), "files": [["a", 2, hashlib.sha256(b"xy").hexdigest()]]})
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "bundle/a").read_bytes() == b"xy" and not (
        tmp_path / "bundle/a"
    ).is_symlink()
