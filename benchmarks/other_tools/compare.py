"""Runs edgedistill and the other tools at the same work, in turns, and prints the table.

python -m benchmarks.other_tools.compare --work DIR --venvs DIR --dapt DIR --tune          settings, once
python -m benchmarks.other_tools.compare --work DIR --venvs DIR --dapt DIR [--rounds R]    the comparison

`--venvs` holds one virtual environment a tool (README.md beside this file), `--dapt` a checkout of the paper's code. In
each round (one seed) every tool runs once, edgedistill before each of them (or `--once`), so that a drift of the
machine meets all; the order turns from round to round. A ratio is a tool's seconds over the median of edgedistill's in
its round. `--tune` tries memory formats, worker processes and the waiting of OpenMP's threads for each tool and keeps
the fastest in `tuned.json` of the work folder; give it a small work folder, and the file to the comparison. A
comparison that was broken off goes on with the next turn.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.other_tools.common import Work
from edgedistill.metrics import Z95, wilson

OURS = "edgedistill"
WHOLE = "-whole"
"""A tool that divides the epochs between teacher and labels, with all epochs for each instead."""
TOOLS = ("torchdistill", "dapt", "lightly", f"lightly{WHOLE}")
PLAIN: dict[str, Any] = {"workers": 0, "spin": None, "channels_last": False}
"""`workers` load images; `spin` is `GOMP_SPINCOUNT`: with 0 a waiting OpenMP thread gives its core away."""
LOADING: tuple[dict[str, Any], ...] = (
    {"workers": 1, "spin": None}, {"workers": 1, "spin": "0"}, {"workers": 2, "spin": "0"},
)  # fmt: skip
Run = dict[str, Any]


def command(
    tool: str, given: argparse.Namespace, seed: int, setting: Mapping[str, Any]
) -> list[str]:
    """How a tool is started."""
    name = tool.removesuffix(WHOLE)
    module = "run_ours" if tool == OURS else f"run_{name}"
    python = sys.executable if tool == OURS else str(given.venvs / name / "bin" / "python")
    words = [
        python, "-m", f"benchmarks.other_tools.{module}", "--work", str(given.work),
        "--scratch", str(given.scratch / tool), "--seed", str(seed),
    ]  # fmt: skip
    if tool == OURS:
        return [*words, *(["--views", str(given.views)] if given.views else [])]
    words += ["--workers", str(setting["workers"])]
    words += ["--channels-last"] if setting["channels_last"] else []
    words += ["--whole"] if tool.endswith(WHOLE) else []
    return [*words, *(["--source", str(given.dapt)] if tool == "dapt" else [])]


def start(words: Sequence[str], threads: int, spin: str | None) -> Run:
    """Run a runner to its end; the line of JSON that it prints last. Raises RuntimeError with what it said."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    if spin is not None:
        env["GOMP_SPINCOUNT"] = spin
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"tool"')]
    if done.returncode or not lines:
        raise RuntimeError(f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: Run = json.loads(lines[-1])
    return found


def tune(given: argparse.Namespace, tool: str) -> dict[str, Any]:
    """The fastest setting of a tool: the memory format first, then the loading; with what each trial reached."""
    tried: list[dict[str, Any]] = []

    def attempt(setting: dict[str, Any]) -> None:
        words = [*command(tool, given, 0, setting), "--epochs", "2"]
        speed = start(words, given.threads, setting["spin"])["images_per_s"]
        tried.append({**setting, "images_per_s": speed})
        print(f"{tool:<14}{setting!s:<64}{speed:8.1f} images/s", flush=True)

    def fastest() -> dict[str, Any]:
        return max(tried, key=lambda trial: float(trial["images_per_s"]))

    attempt(PLAIN)
    attempt({**PLAIN, "channels_last": True})
    layout = fastest()["channels_last"]
    for loading in LOADING:
        attempt({**loading, "channels_last": layout})
    return {**fastest(), "tried": tried}


def turns(tools: Sequence[str], rounds: int, *, once: bool) -> list[tuple[int, str]]:
    """Who runs when: (round, tool). Ours stands before each tool, or `once` a round; who is first turns."""
    found = []
    runners = (OURS, *tools) if once else tuple(tools)
    for index in range(rounds):
        at = index % len(runners)
        for tool in (*runners[at:], *runners[:at]):
            found += [(index, tool)] if once else [(index, OURS), (index, tool)]
    return found


def collect(given: argparse.Namespace, tuned: Mapping[str, Any]) -> list[Run]:
    """All runs, in the order of their turns; they are saved after each, in case that a later one fails."""
    runs = before(given.out)
    for index, tool in turns(given.tools, given.rounds, once=given.once)[len(runs) :]:
        setting = tuned.get(tool.removesuffix(WHOLE), PLAIN)
        began = time.time()
        run = start(command(tool, given, index, setting), given.threads, setting["spin"])
        slot = {"slot": tool, "round": index, "began": began, "spin": setting["spin"]}
        runs.append({**run, **slot})
        save(given.out, {"runs": runs})
        print(
            f"round {index + 1}  {tool:<14}{run['images_per_s']:8.1f} images/s{run['seconds']:8.1f} s"
            f"{run['hits']:7} of {run['n']}",
            flush=True,
        )
    return runs


def before(path: Path) -> list[Run]:
    """Runs of a comparison that was broken off; none of one that was finished."""
    if not path.is_file():
        return []
    document = json.loads(path.read_text("utf-8"))
    found: list[Run] = [] if "rows" in document else document["runs"]
    return found


def save(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document as JSON."""
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def difference(ours: Sequence[str], theirs: Sequence[str]) -> tuple[float, float, float]:
    """Ours minus theirs in top-1, with its 95 % interval: marks of the same images, one string a seed.

    Seeds are averaged image by image first, since their test images are the same; the interval is the normal one of
    the mean over images.
    """
    seeds = len(ours)
    values = [
        sum(int(mine[i]) - int(other[i]) for mine, other in zip(ours, theirs, strict=True)) / seeds
        for i in range(len(ours[0]))
    ]
    mean = statistics.fmean(values)
    half = Z95 * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def summarise(runs: Sequence[Run], tools: Sequence[str]) -> list[dict[str, Any]]:
    """One row a tool, ours first. Repeats of a seed are the same training: its accuracy counts once."""
    rounds = sorted({run["round"] for run in runs})
    marks = {(run["slot"], run["round"]): run["right"] for run in runs}
    ours_s = {
        index: statistics.median(
            r["seconds"] for r in runs if r["slot"] == OURS and r["round"] == index
        )
        for index in rounds
    }
    rows = []
    for tool in (OURS, *tools):
        own = [run for run in runs if run["slot"] == tool]
        top1 = [marks[tool, index].count("1") / own[0]["n"] for index in rounds]
        n, mean = own[0]["n"], statistics.fmean(top1)
        ratios = [run["seconds"] / ours_s[run["round"]] for run in own]
        stored = [run["storing_s"] for run in own if run["storing_s"] is not None]
        mine, theirs = ([marks[name, index] for index in rounds] for name in (OURS, tool))
        rows.append(
            {
                "tool": own[0]["tool"], "version": own[0]["version"],
                "images_per_s": statistics.median(run["images_per_s"] for run in own),
                "seconds": statistics.median(run["seconds"] for run in own),
                "storing_s": statistics.median(stored) if stored else None,
                "top1": mean, "top1_ci95": wilson(round(mean * n), n), "n": n, "top1_of_seeds": top1,
                "ratio": statistics.median(ratios), "ratios": ratios,
                "ours_minus": None if tool == OURS else difference(mine, theirs),
                "settings": own[0]["settings"], "spin": own[0]["spin"],
            }
        )  # fmt: skip
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| tool | loss, teacher | workers | images/s | seconds | of them storing | x ours | top-1 % (95 %) "
        "| seeds | ours minus, points (95 %) |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|---:|",
    ]
    for row in rows:
        low, high = (f"{100 * edge:.1f}" for edge in row["top1_ci95"])
        gain = row["ours_minus"]
        minus = (
            "" if gain is None else "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * g for g in gain))
        )
        seeds = ", ".join(f"{100 * value:.1f}" for value in row["top1_of_seeds"])
        storing = "" if row["storing_s"] is None else f"{row['storing_s']:.1f}"
        how = row["settings"]
        lines.append(
            f"| {row['tool']} {row['version']} | {how['loss']}, {how['teacher']} | {how['workers']} "
            f"| {row['images_per_s']:.0f} | {row['seconds']:.1f} | {storing} | {row['ratio']:.2f} "
            f"| {100 * row['top1']:.1f} ({low} to {high}) | {seeds} | {minus} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Tune, or compare."""
    given = parse()
    work = Work.open(given.work)
    if given.tune:
        best = {tool: tune(given, tool) for tool in given.tools if not tool.endswith(WHOLE)}
        save(work.folder / "tuned.json", best)
        return
    tuned = json.loads(given.tuned.read_text("utf-8")) if given.tuned else {}
    began = time.time()
    runs = collect(given, tuned)
    rows = summarise(runs, given.tools)
    s = work.settings
    fastest = min(row["ratio"] for row in rows[1:])
    print(
        f"\n{s.train:,} images of {s.source} at {s.size} px, batch {s.batch}, {s.epochs} epochs, {s.student} "
        f"from {s.teacher} ({100 * s.teacher_hits / s.test:.1f} %), {s.test:,} test images, "
        f"{given.rounds} seeds, {given.threads} threads, {(time.time() - began) / 60:.0f} minutes\n"
    )
    print(table(rows))
    print(
        f"\nend to end, the fastest of the others takes {fastest:.2f} times as long as edgedistill"
    )
    machine = {"platform": platform.platform(), "cores": os.cpu_count(), "threads": given.threads}
    save(given.out, {"machine": machine, "tuned": tuned, "rows": rows, "runs": runs})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder that work.py made")
    parser.add_argument("--venvs", type=Path, required=True, help="folder of virtual environments")
    parser.add_argument("--dapt", type=Path, required=True, help="a checkout of sfarhat/dapt")
    parser.add_argument(
        "--scratch", type=Path, help="folder for what the tools write [in the work]"
    )
    parser.add_argument("--out", type=Path, help="JSON to write [compared.json of the work]")
    parser.add_argument(
        "--tools", nargs="+", choices=TOOLS, default=TOOLS[:3], help="the other tools"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each with its seed")
    parser.add_argument("--once", action="store_true", help="edgedistill once a round")
    parser.add_argument("--views", type=int, help="stored views [edgedistill's choice]")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="OMP_NUM_THREADS")
    parser.add_argument("--tuned", type=Path, help="settings that --tune found")
    parser.add_argument("--tune", action="store_true", help="find settings instead")
    given = parser.parse_args()
    given.scratch = given.scratch or given.work / "scratch"
    given.out = given.out or given.work / "compared.json"
    return given


if __name__ == "__main__":
    main()
