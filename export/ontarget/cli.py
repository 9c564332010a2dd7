"""The commands of the kit; `timing.py` has those that time. Parses, calls one
function, prints, ends.

Exit codes: 0 all is well; 1 a check failed; 2 bad usage or a damaged bundle; 3 a measurement that
is not valid, or interrupted.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import textwrap
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from ontarget import timing
from ontarget.apart import open_apart, serve
from ontarget.bench import each
from ontarget.builder import Wanted
from ontarget.contract import (
    Bundle,
    load_bundle,
    load_evalset,
    load_golden,
    load_images,
    require_packed,
    verify_hashes,
)
from ontarget.document import write_npz
from ontarget.fields import ContractError
from ontarget.machine import machine, require_room
from ontarget.measure import Timing
from ontarget.options import parser
from ontarget.preprocess import DecodeError, to_input, to_pixels
from ontarget.saying import failed, names_of, progress, stop, write
from ontarget.score import GoldenCheck, check_golden, evaluate_bundle, score
from ontarget.session import ProviderError, SessionError
from ontarget.trt import import_tensorrt
from ontarget.views import clean, megabytes, table


def main(argv: list[str] | None = None) -> int:
    """Run one command; every fault of the user is one paragraph on stderr."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["_worker"]:
        from ontarget import worker

        return worker.main()
    if arguments[:1] == ["_session"]:
        return serve()
    if arguments[:1] == ["_turns"]:
        from ontarget import turns

        return turns.serve()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    options = parser().parse_args(arguments)
    try:
        code = _COMMANDS[options.command](options, load_bundle(options.bundle))
        sys.stdout.flush()
        return code
    except ProviderError as error:
        return stop(str(error), 3 if error.fell_back else 2)
    except (ContractError, SessionError, DecodeError) as error:
        return stop(str(error), 2)
    except KeyboardInterrupt:
        return stop("interrupted; no file was written. Give the same command again.", 3)
    except MemoryError:
        return stop("out of memory; close other programs or use a smaller --batch.", 3)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        code = 3 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 2
        return stop(f"{error.filename or 'a file'}: {error.strerror}.", code)


def _info(options: argparse.Namespace, bundle: Bundle) -> int:
    facts = machine()
    pre = bundle.preprocess
    names = ", ".join(clean(name, 30) for name in bundle.classes[:12])
    more = f" and {len(bundle.classes) - 12} more" if len(bundle.classes) > 12 else ""
    print(f"{clean(bundle.name)} for {clean(bundle.device)}, made {clean(bundle.created_utc)}")
    lines = [f"{len(bundle.classes)} classes: {names}{more}"]
    lines.append(
        f"images: shorter side to {pre.resize} px ({pre.resample}), centre {pre.crop} px, "
        f"{pre.color}"
    )
    lines.extend(f"licence of the {k}: {clean(v, 300)}" for k, v in bundle.licences.items() if v)
    print("\n".join(textwrap.fill(line, 100, subsequent_indent="  ") for line in lines) + "\n")
    head = ["model", "file", "MB", "precision", "input", "opset", "made for"]
    rows = []
    for m in bundle.models:
        name = m.name + (" *" if m.name == bundle.chosen else "")
        kind = f"{m.input.layout} {m.input.dtype}"
        size = megabytes(m.size_bytes)
        rows.append([name, clean(m.file), size, m.precision, kind, str(m.opset), m.runtime])
    print(table(head, rows) + "\n* the chosen one\n")
    known = [[key, clean(str(value), 90)] for key, value in facts.items() if value is not None]
    print("\n".join(f"{key:<14} {value}" for key, value in known))
    write(options, bundle)
    return 0


def _check(options: argparse.Namespace, bundle: Bundle) -> int:
    problems = verify_hashes(bundle)
    for problem in problems:
        print(f"FAIL  {clean(problem, 300)}")
    if not problems:
        print("ok    every file is the one that was packed")
    names, _ = ([], {}) if problems else names_of(options, bundle)
    rows: list[GoldenCheck] = []
    failures = []
    if not problems:
        load_golden(bundle)
        failures = each(
            bundle,
            names,
            lambda m: rows.extend(check_golden(bundle, [m], options.provider, open_apart)),
        )
    for row in rows:
        mark = "ok  " if row.ok else "FAIL"
        print(
            f"{mark}  {row.model} on {row.provider}: same class for {row.agree} of {row.n}; "
            f"{row.text}"
        )
    ok = not problems and not failures and all(row.ok for row in rows)
    code = failed(failures)
    write(
        options,
        bundle,
        failures=failures,
        check={"ok": ok, "problems": problems, "golden": [asdict(row) for row in rows]},
    )
    return code or (0 if ok else 1)


def _eval(options: argparse.Namespace, bundle: Bundle) -> int:
    labels = None
    if options.images is not None:
        pixels = load_images(options.images, bundle.preprocess.crop)
    else:
        folder = options.evalset or bundle.folder.resolve().parent / "evalset"
        pixels, labels = load_evalset(folder)
        if pixels.shape[1] != bundle.preprocess.crop:
            raise ContractError(
                f"{folder}: images of {pixels.shape[1]} px, the bundle takes "
                f"{bundle.preprocess.crop}."
            )
    logits: dict[str, np.ndarray] = {}
    names, provider, threads = names_of(options, bundle)[0], options.provider, options.threads

    def run(name: str) -> None:
        given = (bundle, pixels, [name], provider, threads, options.batch, open_apart, progress)
        logits.update(evaluate_bundle(*given))

    failures = each(bundle, names, run, threads)
    progress("")
    rows: list[dict[str, Any]] = []
    for name, value in logits.items():
        found = (
            {"n": len(value), "correct": None, "top1": None}
            if labels is None
            else score(value, labels)
        )
        rows.append({"model": name, **found})
    if labels is None:
        print(f"{len(pixels)} images without labels: no accuracy")
    else:
        body = [
            [r["model"], f"{r['top1'] * 100:.2f}", str(r["correct"]), str(r["n"])] for r in rows
        ]
        print(table(["model", "top-1 %", "right", "images"], body))
    if options.logits is not None:
        write_npz(options.logits, {"logits_" + name: value for name, value in logits.items()})
    code = failed(failures)
    write(options, bundle, evals=rows, failures=failures)
    return code


def _predict(options: argparse.Namespace, bundle: Bundle) -> int:
    try:
        pixels = to_pixels(options.image, bundle.preprocess)
    except DecodeError as error:
        raise DecodeError(f"{options.image}: {error}.") from None
    model = bundle.model(options.model)
    require_packed(model)
    fixed = model.input.shape[0] or 1
    require_room(fixed, bundle.preprocess.crop, np.dtype(model.input.dtype).itemsize)
    with open_apart(model, options.provider, options.threads) as session:
        logits = session.run(to_input(np.stack([pixels] * fixed), model, bundle.preprocess))[0]
    if not np.isfinite(logits).all():
        raise SessionError(f"{model.file} gave outputs that are not finite on {options.provider}.")
    shares = np.exp(logits.astype(np.float64) - float(logits.max()))
    shares /= shares.sum()
    best = np.argsort(-shares, kind="stable")[:5]
    print("\n".join(f"{shares[i] * 100:5.1f} %  {clean(bundle.classes[i])}" for i in best))
    found = [
        {"index": int(i), "class": bundle.classes[i], "probability": float(shares[i])} for i in best
    ]
    write(
        options,
        bundle,
        predictions={"model": model.name, "image": str(options.image), "top": found},
    )
    return 0


def _build_engine(options: argparse.Namespace, bundle: Bundle) -> int:
    from ontarget.building import by_python, by_script, kept, report, to_build

    models, mib = to_build(bundle, options.model), options.workspace_mib or 0
    try:
        import_tensorrt()
    except SessionError as error:
        if options.batch != 1:
            raise SessionError(f"{error} With trtexec alone, a batch is given by -s.") from None
        print(f"{error}\nbuilding with trtexec:", flush=True)
        asked = {"-d": options.dla, "-w": options.workspace_mib}
        given = [x for k, v in asked.items() if v is not None for x in (k, str(v))]
        return by_script(models, bundle, [*given, *(["-r"] if options.again else [])])
    wanted = Wanted(options.batch, options.dla, mib << 20)
    engines, rows, faults = by_python(models, bundle, wanted, options.again, Timing(), progress)
    progress("")
    for fault in faults:
        print("ontarget: " + fault, file=sys.stderr)
    keep = kept(engines, options.max_drop / 100)
    if engines:
        print(table(*report(engines, keep)))
    if keep is None:
        print(
            "ontarget: no engine is accurate enough; the models run without one.", file=sys.stderr
        )
    write(
        options,
        bundle,
        rows=rows,
        engines=[{**asdict(e), "kept": e is keep} for e in engines],
    )
    return 0 if keep is not None else 1


_COMMANDS: dict[str, Callable[[argparse.Namespace, Bundle], int]] = {
    "info": _info,
    "check": _check,
    "bench": timing.bench,
    "compare": timing.against,
    "eval": _eval,
    "predict": _predict,
    "build-engine": _build_engine,
}
