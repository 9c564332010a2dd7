"""How long `edgedistill check` takes in a bare virtual environment: the base install alone, made as action.yml does.

    python -m benchmarks.check_speed OLD.onnx NEW.onnx --json check_speed.json

Each check is a process of its own and measures no latency. Needs a package index for the installation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import yaml

HOME = Path(__file__).resolve().parents[1]
REPEATS = 15
LIMIT_S = 2.0


def install(folder: Path) -> Path:
    """Run the action's first step as a runner would; gives the folder of the programs."""
    action = yaml.safe_load((HOME / "action.yml").read_text("utf-8"))
    env = {
        **os.environ,
        "RUNNER_TEMP": str(folder),
        "GITHUB_ACTION_PATH": str(HOME),
        "MEASURE": "false",
    }
    subprocess.run(["bash", "-c", action["runs"]["steps"][0]["run"]], env=env, check=True)
    return folder / "edgedistill" / "bin"


def bare(programs: Path) -> bool:
    """Whether neither torch nor a runtime is there."""
    code = (
        "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('torch', 'onnxruntime'))))"
    )
    return subprocess.run([programs / "python", "-c", code], check=False).returncode == 0


def seconds(programs: Path, old: Path, new: Path) -> list[float]:
    """Seconds of each check, the first one (which compiles the modules) included."""
    taken = []
    with tempfile.TemporaryDirectory() as empty:
        for _ in range(REPEATS + 1):
            began = time.perf_counter()
            done = subprocess.run(
                [programs / "edgedistill", "check", new.resolve(), "--baseline", old.resolve()],
                cwd=empty, capture_output=True, check=False,
            )  # fmt: skip
            taken.append(time.perf_counter() - began)
            if done.returncode not in (0, 1):
                raise SystemExit(done.stderr.decode())
    return taken


def main() -> int:
    """Exit code 0 when the slowest check but the first is under two seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--json", type=Path, help="write the seconds there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="check-speed-") as made:
        programs = install(Path(made))
        if not bare(programs):
            raise SystemExit("torch or onnxruntime came along: this is no base install")
        first, *rest = seconds(programs, given.old, given.new)
    sizes = ", ".join(f"{path.stat().st_size / 1e6:.1f} MB" for path in (given.old, given.new))
    print(f"files of {sizes}; base install, no torch, no onnxruntime")
    print(
        f"first check {first:.2f} s; then {REPEATS}: median {statistics.median(rest):.2f} s, slowest {max(rest):.2f} s"
    )
    if given.json is not None:
        given.json.write_text(json.dumps({"first_s": first, "rest_s": rest}, indent=1) + "\n")
    return 0 if max(rest) < LIMIT_S else 1


if __name__ == "__main__":
    raise SystemExit(main())
