"""Kills a build with `kill -9` in every stage, resumes it each time, and compares the weights with an unbroken run.

python -m benchmarks.kill_test [--folder DIR] [--random N [--seed S]]

Two runs of the same small recipe on the built-in images. The first is left alone. The second is killed at each moment
of `MOMENTS`, which are seen from outside, by the files that appear in the run folder; then the same command is given
again. With `--random N` it is killed N times after random seconds instead, in a recipe with stages that have a state of
their own (hard images, influence, averaged weights, changed and mixed views). At the end the weights of the teacher and
of both arms must be the same to the bit, and so must every accuracy.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedistill.result import load
from edgedistill.rundir import sha256_file

COMMAND = (
    sys.executable, "-m", "edgedistill", "build", "--device", "x86-cpu", "--quick",
    "--student", "mobilenetv3_small_050", "--teacher", "bundled:efficientnet_lite0",
    "--set", "name=kill", "--set", "data.max_train=800", "--set", "student.weights=random",
    "--set", "student.input_size=64", "--set", "distill.epochs=2", "--set", "distill.views=2",
    "--set", "teacher.adapt=finetune",
)  # fmt: skip
WEIGHTS = (
    "04-teacher/teacher.safetensors", "07-start/start.safetensors",
    "08-plain/plain.safetensors", "09-distilled/distilled.safetensors",
)  # fmt: skip
STATEFUL = (
    "--set", "distill.epochs=6", "--set", "distill.hard_samples=true", "--set", "distill.influence=true",
    "--set", "distill.ema=0.99", "--set", "data.mix=cutmix", "--set", "data.randaugment=5",
)  # fmt: skip
TRIES = 5
PATIENCE_S = 600.0


@dataclass(frozen=True)
class Moment:
    """A time to kill: `delay_s` after the pattern `sign` matches something in the run folder, with `stage` not done."""

    stage: str
    what: str
    sign: str
    delay_s: float = 0.0


def begun(stage: str, delay_s: float = 0.0) -> Moment:
    """Right after a stage began to work."""
    what = f"{delay_s:g} s after it began" if delay_s else "as it began"
    return Moment(stage, what, f"stages/{stage}.partial", delay_s)


def writing(stage: str, file: str) -> Moment:
    """In the middle of writing a file of a stage."""
    return Moment(stage, f"while it wrote {file}", f"stages/{stage}.partial/.{file}.*tmp")


def checkpointed(stage: str, name: str) -> Moment:
    """In training, with a checkpoint to go on from."""
    return Moment(stage, "in training", f"stages/{stage}.partial/{name}.checkpoint", 0.2)


MOMENTS = (
    begun("01-data"),
    begun("02-plan"),
    writing("03-pixels", "train.npy"),
    begun("04-teacher"),
    checkpointed("04-teacher", "teacher"),
    writing("04-teacher", "teacher.safetensors"),
    writing("06-targets", "*"),
    writing("07-start", "start.safetensors"),
    begun("08-plain"),
    checkpointed("08-plain", "plain"),
    checkpointed("09-distilled", "distilled"),
    writing("09-distilled", "distilled.checkpoint"),
    begun("10-export", 0.5),
    begun("11-quantize", 0.5),
    begun("12-bundle"),
    Moment("13-bench", "while the bundle was put in its place", ".bundle.tmp"),
    begun("13-bench", 1.0),
    begun("14-score", 0.3),
    begun("15-report"),
)


def kill_at(moment: Moment, command: Sequence[str], run: Path) -> bool:
    """Start `command`, kill it at the moment; whether the stage was unfinished then.

    Raises RuntimeError when the process ends before, or the moment does not come within ten minutes.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + PATIENCE_S
        pattern = f"{glob.escape(str(run))}/{moment.sign}"
        while not (glob.glob(pattern) if "*" in pattern else os.path.exists(pattern)):
            if process.poll() is not None:
                break
            if time.monotonic() > end:
                raise RuntimeError(f"{moment.stage}: the moment did not come")
            time.sleep(0.0003)
        time.sleep(moment.delay_s)
    finally:
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[1].decode(errors="replace")
    done = (run / "stages" / moment.stage).exists()
    if process.returncode != -signal.SIGKILL and not done:
        raise RuntimeError(f"{moment.stage}: the build ended by itself\n{said[-2000:]}")
    return not done


def kill_in_stage(moment: Moment, command: Sequence[str], run: Path) -> int:
    """Kill at a moment until a kill falls into the unfinished stage; the number of tries.

    A stage that was faster than the kill is taken away, as if it had never ended, and tried again.
    """
    for attempt in range(1, TRIES + 1):
        if kill_at(moment, command, run):
            return attempt
        shutil.rmtree(run / "stages" / moment.stage)
    raise RuntimeError(f"{moment.stage}: {TRIES} kills came too late")


def kill_at_random(
    command: Sequence[str], run: Path, count: int, seed: int, whole_s: float
) -> None:
    """Kill the command `count` times after random seconds; a try lasts a third of a whole run at most.

    Raises RuntimeError when the run fails by itself, or ends before half of the kills.
    """
    rng = random.Random(seed)
    for attempt in range(count):
        delay = rng.uniform(0.5, max(10.0, whole_s / 3))
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            if (code := process.wait(delay)) != 0 or 2 * attempt < count:
                raise RuntimeError(
                    f"kill {attempt + 1}: the run ended before, with exit code {code}"
                )
            print(f"the run ended before kill {attempt + 1}")
            return
        process.send_signal(signal.SIGKILL)
        process.wait()
        partial = [p.name for p in (run / "stages").glob("*.partial")]
        place = ", ".join(partial) or "between stages"
        print(f"kill {attempt + 1} after {delay:5.1f} s: {place}", flush=True)


def differences(reference: Path, run: Path, weights: Sequence[str] = WEIGHTS) -> list[str]:
    """Weights that are not the same to the bit, by name."""
    pairs = [(name, reference / "stages" / name, run / "stages" / name) for name in weights]
    return [name for name, one, other in pairs if sha256_file(one) != sha256_file(other)]


def accuracies(run: Path) -> dict[str, float | None]:
    """Every top-1 on the test images that the result states."""
    result = load(run)
    found: dict[str, float | None] = {"teacher": result.teacher.top1.value}
    found |= {arm.name: arm.top1.value for arm in result.arms}
    found |= {a.name: a.top1.value if a.top1 else None for a in result.artifacts}
    return found


def exported(run: Path) -> list[str]:
    """SHA-256 of each exported file."""
    return [artifact.sha256 for artifact in load(run).artifacts]


def to_the_end(command: Sequence[str]) -> float:
    """Run a command that must end well; its seconds."""
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def kill_at_moments(command: Sequence[str], run: Path) -> None:
    """Kill the command at each of `MOMENTS`."""
    print(f"{'stage':<14}{'killed':<42}{'tries':>5}{'s':>7}")
    for moment in MOMENTS:
        start = time.monotonic()
        tries = kill_in_stage(moment, command, run)
        spent = time.monotonic() - start
        print(f"{moment.stage:<14}{moment.what:<42}{tries:>5}{spent:>7.1f}", flush=True)


def compare(folder: Path, kills: int | None, seed: int) -> bool:
    """Both runs, the table, and the verdict; with `kills`, as many at random moments."""
    reference, run = folder / "unbroken", folder / "killed"
    whole = COMMAND if kills is None else (*COMMAND, *STATEFUL)
    seconds = to_the_end([*whole, "--out", str(reference)])
    print(f"unbroken run: {seconds:.0f} s\n")
    command = [*whole, "--out", str(run)]
    if kills is None:
        kill_at_moments(command, run)
    else:
        kill_at_random(command, run, kills, seed, seconds)
    print(f"\nthe rest, to the end: {to_the_end(command):.0f} s\n")
    wrong = differences(reference, run)
    for name in WEIGHTS:
        sha256 = sha256_file(run / "stages" / name)
        print(f"{'DIFFERS' if name in wrong else 'same':<9}{sha256[:16]}  {name}")
    files = exported(reference) == exported(run)
    print(f"{'same' if files else 'DIFFERS':<9}exported float32, float16 and int8 files")
    same = accuracies(reference) == accuracies(run)
    print(f"{'same' if same else 'DIFFERS':<9}top-1 of teacher, arms and files: {accuracies(run)}")
    litter = [
        p for p in run.rglob("*") if p.name.endswith((".tmp", ".partial")) or "trash" in p.name
    ]
    print(f"{'LITTER' if litter else 'none':<9}{len(litter)} half-written files left")
    return same and files and not wrong and not litter


def main() -> int:
    """Exit code 0 when nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to keep both runs [a temporary folder]")
    parser.add_argument("--random", type=int, metavar="N", help="kill N times after random seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the random seconds")
    given = parser.parse_args()
    if given.folder is not None:
        good = compare(given.folder, given.random, given.seed)
    else:
        with tempfile.TemporaryDirectory(prefix="kill-") as made:
            good = compare(Path(made), given.random, given.seed)
    print("\nOK" if good else "\nFAIL")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
