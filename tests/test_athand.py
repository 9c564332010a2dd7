"""Which weights can be loaded here."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest

from edgedistill import athand
from edgedistill.athand import at_hand
from edgedistill.target.students import load_students

LITE = "tf_efficientnet_lite0"


def test_without_a_hub_only_bundled_weights_are_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(athand, "hub_answers", lambda: False)
    monkeypatch.setattr(athand, "_cached", lambda _: False)
    monkeypatch.setattr(athand, "bundled_for", lambda name: "x" if name == LITE else None)
    known = at_hand()
    assert [s.name for s in load_students() if known(s.name)] == [LITE]
    assert not known("no_such_student")


def test_with_a_hub_every_student_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(athand, "hub_answers", lambda: True)
    monkeypatch.setattr(athand, "_cached", lambda _: False)
    known = at_hand()
    assert all(known(s.name) for s in load_students())
    assert not known("no_such_student")


ASK = """
import sys, time
from edgedistill.athand import at_hand, hub_answers
from edgedistill.target.students import load_students
start = time.monotonic()
answers = hub_answers()
spent = time.monotonic() - start
known = at_hand()
print(answers, spent < 2.5, *[s.name for s in load_students() if known(s.name)])
assert "torch" not in sys.modules
"""


def _asked(cache: Path, **env: str) -> list[str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE_"))}
    done = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, timeout=60, check=False,
        env={**own, "HF_HOME": str(cache), "no_proxy": "*", **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def _cache(folder: Path, repo: str) -> None:
    """A hub cache as its client lays it out: refs/main names the commit, snapshots/ holds the file."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    root = folder / "hub" / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    (root / "snapshots" / commit).mkdir(parents=True)
    (root / "snapshots" / commit / "model.safetensors").write_bytes(b"weights")


def test_offline_a_student_in_the_hub_s_cache_is_at_hand(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="comes with the extra that trains")
    student = next(s for s in load_students() if s.name == "mobilenetv4_conv_small")
    without = _asked(tmp_path / "empty", HF_HUB_OFFLINE="1")
    assert without[:2] == ["False", "True"]
    assert student.name not in without
    assert set(without[2:]) <= {"tf_efficientnet_lite0", "tf_efficientnet_lite2"}
    _cache(tmp_path / "full", f"timm/{student.name}.{student.pretrained_tag}")
    found = _asked(tmp_path / "full", HF_HUB_OFFLINE="1")
    assert set(found[2:]) == {*without[2:], student.name}


def test_a_hub_that_refuses_is_noticed_at_once(tmp_path: Path) -> None:
    found = _asked(tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert found[:2] == ["False", "True"]


def test_what_speaks_no_http_or_has_no_address_is_no_hub(tmp_path: Path) -> None:
    class Mumble(BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(b"hello\r\n\r\n")

    with ThreadingTCPServer(("127.0.0.1", 0), Mumble) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for endpoint in (f"http://127.0.0.1:{server.server_address[1]}", "http://no host", "none"):
            assert _asked(tmp_path, HF_ENDPOINT=endpoint)[:2] == ["False", "True"]
        server.shutdown()


def test_a_hub_that_answers_with_a_fault_is_there(tmp_path: Path) -> None:
    class Refuse(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(403)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = _asked(tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert found[:2] == ["True", "True"]
