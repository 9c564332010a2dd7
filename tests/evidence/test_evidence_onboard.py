"""What is sent to a board: it stands on its own, in the Python of old boards, and its files stay in their folder."""

from __future__ import annotations

import ast
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgedistill.evidence.board.onboard import files, talk
from edgedistill.evidence.board.ssh import ONBOARD, onboard_text

FOLDER = Path(files.__file__).parent
BOARD = [sys.executable, "-I", "-S", "-u", "-c", "import sys; exec(sys.stdin.buffer.readline())"]


def asked(op: str, **facts: Any) -> bytes:
    """What is sent to a board."""
    request = {"op": op, "token": "t", "folder": None, "root": None, "wait_s": 5.0, **facts}
    return onboard_text() + json.dumps(request).encode() + b"\n"


def replies(out: bytes) -> list[dict[str, Any]]:
    """What it answers."""
    lines = out.decode().splitlines()
    return [json.loads(s[len(talk.MARK) :]) for s in lines if s.startswith(talk.MARK)]


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
    done = subprocess.run(
        BOARD, input=asked("look", needs=[]), capture_output=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    found = replies(done.stdout)[-1]
    assert found["tried"] and found["machine"]["arch"] and list(tmp_path.iterdir()) == []
    assert {f"{name}.py" for name in ONBOARD} == {p.name for p in FOLDER.glob("*.py")} - {
        "__init__.py"
    }


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", "a//b", "./x"])
def test_a_file_never_leaves_the_bundles_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"x")))
    request: dict[str, Any] = {"root": str(tmp_path / "root"), "files": [[name, 1, "0" * 64, 0]]}
    with pytest.raises(talk.Fault):
        files.put(request)
    assert list(tmp_path.rglob("*")) == []


def test_a_file_that_did_not_arrive_as_it_was_sent_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"xy")))
    with pytest.raises(talk.Fault, match="protocol"):
        files.put({"root": str(tmp_path), "files": [["a", 2, "0" * 64, 0]]})
    assert not (tmp_path / "bundle/a").exists()


def test_a_link_in_an_own_folder_is_replaced_and_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    (tmp_path / "bundle").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "bundle/a").symlink_to(tmp_path / "precious")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"xy")))
    files.put({"root": str(tmp_path), "files": [["a", 2, hashlib.sha256(b"xy").hexdigest(), 0]]})
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "bundle/a").read_bytes() == b"xy" and not (
        tmp_path / "bundle/a"
    ).is_symlink()


def test_a_folder_that_others_may_write_to_or_own_is_no_place_for_a_bundle(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bundle").mkdir(parents=True)
    talk.require_own(str(root))
    for path in (root, root / "bundle"):
        path.chmod(0o777)
        with pytest.raises(talk.Fault) as caught:
            talk.require_own(str(root))
        assert caught.value.facts["place"] == str(path)
        path.chmod(0o700)
    if os.getuid() == 0:
        os.chown(root / "bundle", 65534, 65534)
        with pytest.raises(talk.Fault) as caught:
            talk.require_own(str(root))
        assert caught.value.facts["reason"] == "it belongs to another user"


def test_one_job_at_a_time_and_a_call_whose_line_was_lost_gives_way_to_its_own_session(
    tmp_path: Path,
) -> None:
    root, env = tmp_path / "root", {**os.environ, "TMPDIR": str(tmp_path)}
    (root / "bundle").mkdir(parents=True)
    rows = [["a", 5, "0" * 64, 0]]
    first = subprocess.Popen(BOARD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    assert first.stdin is not None and first.stdout is not None
    first.stdin.write(asked("put", root=str(root), files=rows) + b"abc")
    first.stdin.flush()  # and nothing more: the line is cut, and the board does not know
    begun = time.monotonic()
    while not (root / "bundle/a.part").exists() or not (root / "bundle/a.part").read_bytes():
        assert time.monotonic() - begun < 20
        time.sleep(0.02)

    def ask(**facts: Any) -> list[dict[str, Any]]:
        given = asked("begin", files=[row[:3] for row in rows], **{"root": None, **facts})
        done = subprocess.run(BOARD, input=given, capture_output=True, env=env, check=True)
        return replies(done.stdout)

    other = ask(token="u", wait_s=1.5, folder=str(tmp_path / "other"))
    assert {"busy": True} in other and other[-1]["fault"] == "busy" and first.poll() is None
    own = ask(folder=str(root))
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of abc
    assert own[-1]["missing"] == [[0, 3, digest]], "it goes on from what came"
    assert first.wait(timeout=10) == -signal.SIGTERM
    first.stdin.close()
    first.stdout.close()
    assert not list(tmp_path.glob(".edgedistill-*")), "no file of the lock stays"
