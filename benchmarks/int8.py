"""Does INT8 pay here? Four trained networks: ours against float32, onnxruntime's defaults, NNCF and OpenVINO.

Fashion-MNIST: 10,000 training images, 500 for validation, the 10,000 test images. Each network is trained at --size and
all files are scored there; then every tool makes its file again from the same weights at --latency-size, ours the way
that was found before, and all are timed in turns, each in a process of its own on one thread. NNCF and OpenVINO run in
an environment of their own (--other PYTHON, with nncf, openvino, onnxruntime, onnx):

    python -m benchmarks.int8 --work DIR --other VENV/bin/python [--only NAME ...] [--json FILE]

What lies in --work is not made again. Half an hour a network on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.files import write_atomic
from edgedistill.metrics import correct, paired_gain, proportion
from edgedistill.progress import Face
from edgedistill.rundir import Work

IMAGES = Path("/usr/share/datasets/fashion-mnist")
NETWORKS = {
    "mobilenetv4_conv_small": 6,
    "tf_efficientnet_lite0": 2,
    "mobilenetv2_100": 4,
    "mobilenetv3_large_100": 5,
}
"""Epochs of training; the last starts from ImageNet's weights, the others from random ones."""
TRAINED, VALIDATED, CALIBRATED, CALIBRATED_LARGE = 10_000, 500, 256, 64
ROUNDS, RUNS = 30, 5
FLOATS = "ours, pixels as floats"
HERE = Path(__file__).parent / "other_tools" / "run_int8.py"
CLASSES = tuple(f"class {k}" for k in range(10))


def images(part: str, count: int, start: int = 0) -> tuple[Any, Any]:
    """Grey images (N, 28, 28) and labels (N,) of a split."""
    from edgedistill.data.idx import read_idx

    files = [next(IMAGES.glob(f"{part}-{kind}-idx*")) for kind in ("images", "labels")]
    return tuple(np.asarray(read_idx(file)[start : start + count]) for file in files)  # type: ignore[return-value]


def pixels(grey: Any, size: int) -> Any:
    """The same as pixels (N, size, size, 3)."""
    from edgedistill.synthesis import resized

    return resized(np.repeat(grey[..., None], 3, axis=3), size)


def network(name: str) -> tuple[Any, Any]:
    """A network with its first weights, and its mean and std."""
    import timm
    import torch

    from edgedistill.teacher.hub import load_bundled

    torch.manual_seed(0)
    net: Any
    if name == "tf_efficientnet_lite0":
        net = load_bundled("efficientnet_lite0").model
        net.reset_classifier(10)
    else:
        net = timm.create_model(name, num_classes=10, exportable=True)
    return net, (net.pretrained_cfg["mean"], net.pretrained_cfg["std"])


def trained(name: str, size: int, work: Path) -> tuple[Any, Any]:
    """The network after training, in evaluation mode; and its mean and std."""
    import torch
    from torch import nn

    from edgedistill.distill.depthwise import speed_up
    from edgedistill.nets import Look

    net, means = network(name)
    file = work / f"{name}.{size}.pt"
    if file.exists():
        net.load_state_dict(torch.load(file, weights_only=True))
        return net.eval(), means
    grey, labels = images("train", TRAINED)
    look, truth = Look(size, *means), torch.from_numpy(labels.astype(np.int64))
    data, epochs, batch = pixels(grey, size), NETWORKS[name], 64
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)
    steps = epochs * (TRAINED // batch)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    torch.nn.init.normal_(net.get_classifier().weight, std=0.01)
    net.train().to(memory_format=torch.channels_last)
    undo = speed_up(net)
    for epoch in range(epochs):
        for rows in torch.randperm(TRAINED)[: TRAINED // batch * batch].view(-1, batch):
            taken = np.ascontiguousarray(data[rows.numpy()])
            if torch.rand(1) < 0.5:
                taken = taken[:, :, ::-1]
            loss = nn.functional.cross_entropy(
                net(look.tensor(taken, torch.device("cpu"))), truth[rows], label_smoothing=0.1
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rate.step()
        print(f"{name}: epoch {epoch + 1} of {epochs}, loss {loss.item():.3f}", flush=True)
    undo()
    torch.save(net.state_dict(), file)
    return net.eval(), means


def by_onnxruntime(float32: Path, fed: Any, out: Path) -> None:
    """onnxruntime's static quantization as its guide gives it: prepared, then all defaults."""
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader:
        def __init__(self) -> None:
            self.left = iter(fed[i : i + 1] for i in range(len(fed)))

        def get_next(self) -> Any:
            one = next(self.left, None)
            return None if one is None else {"images": one}

    ready = out.with_suffix(".ready.onnx")
    with contextlib.redirect_stdout(None):
        quant_pre_process(str(float32), str(ready), skip_symbolic_shape=True)
        quantize_static(str(ready), str(out), Reader())


def made(name: str, size: int, given: argparse.Namespace, way: Any) -> tuple[dict[str, Path], Any]:
    """Every tool's file at a size, and the way of ours: found on validation images where it is not given."""
    from edgedistill.deploy.int8 import asked
    from edgedistill.deploy.onnx import export_float32
    from edgedistill.deploy.search import Search, Way
    from edgedistill.deploy.stage import Shape, packed, preprocess_of
    from edgedistill.nets import Look

    work: Path = given.work
    stem = work / f"{name}.{size}"
    net, means = trained(name, given.size, work)
    count = CALIBRATED if way is None else CALIBRATED_LARGE
    fed = pixels(images("train", count)[0], size)
    np.save(f"{stem}.calibration.npy", fed)
    shape = Shape("uint8_nhwc", CLASSES, preprocess_of(size, *means), 17, "onnxruntime", "x86")
    files = {"float32": stem.with_name(f"{stem.name}.float32.onnx")}
    data = export_float32(net, Look(size, *means), shape.layout, shape.opset, {})
    files["float32"].write_bytes(data)
    ours, told = stem.with_name(f"{stem.name}.ours.onnx"), stem.with_name(f"{stem.name}.way.json")
    floats = stem.with_name(f"{stem.name}.floats.onnx")
    if not told.exists():
        grey, labels = images("train", VALIDATED, TRAINED)
        validation = pixels(grey[:16] if way else grey, size)
        question = asked(
            packed("float32", data, shape), shape, lambda layout: {}, fed, validation,
            labels.astype(np.int64)[: len(validation)], Work(work),
            method="auto", integers=True, allowed=0.005,
        )  # fmt: skip
        search = Search(question, Work(work), Face(2))
        found = search.make(way) if way else search.best()
        ours.write_bytes(found.data)
        floats.write_bytes(search.make(replace(found.way, integers=False)).data)
        told.write_text(json.dumps({**vars(found.way), "words": found.way.words(search.products)}))
    told_way = json.loads(told.read_text())
    words = told_way.pop("words")
    chosen = Way(**{**told_way, "float_nodes": tuple(told_way["float_nodes"])})
    print(f"{name} at {size}: {words}", flush=True)
    files |= {"ours": ours, FLOATS: floats}
    files["onnxruntime, defaults"] = stem.with_name(f"{stem.name}.ort.onnx")
    if not files["onnxruntime, defaults"].exists():
        by_onnxruntime(files["float32"], fed, files["onnxruntime, defaults"])
    for kind, file in (("nncf-onnx", "nncf.onnx"), ("openvino", "openvino.xml")):
        out = stem.with_name(f"{stem.name}.{file}")
        if given.other and not out.exists():
            command = [given.other, str(HERE), kind, str(files["float32"])]
            subprocess.run([*command, f"{stem}.calibration.npy", str(out)], check=True)
        if out.exists():
            files["NNCF, by onnxruntime" if kind == "nncf-onnx" else "NNCF, by OpenVINO"] = out
    if given.other:
        files |= {"ours, by OpenVINO": ours, "float32, by OpenVINO": files["float32"]}
    return files, chosen


class Server:
    """A file that is loaded in a process of its own; `openvino` in the other environment."""

    def __init__(self, file: Path, python: str, openvino: bool) -> None:
        model = str(file)
        if openvino and file.suffix == ".onnx":
            model = str(file.with_suffix(".float.xml"))
            convert = f"import openvino as o; o.save_model(o.convert_model({str(file)!r}), {model!r}, False)"
            subprocess.run([python, "-c", convert], check=True)
        self._process = subprocess.Popen(
            [python, str(HERE), "serve", model],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, **wish: Any) -> Any:
        """One request and its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def served(files: dict[str, Path], other: str | None) -> Iterator[dict[str, Server]]:
    """All files, each in its process."""
    servers = {}
    for name, file in files.items():
        openvino = "OpenVINO" in name
        servers[name] = Server(file, str(other) if openvino else sys.executable, openvino)
    try:
        yield servers
    finally:
        for server in servers.values():
            server.close()


def timed(files: dict[str, Path], other: str | None, batch: Path) -> dict[str, float]:
    """The median over rounds of the fastest of a few runs, in seconds; all files in turns."""
    found: dict[str, list[float]] = {name: [] for name in files}
    with served(files, other) as servers:
        for server in servers.values():
            server.ask(time=10, images=str(batch))
        for _ in range(ROUNDS):
            for name, server in servers.items():
                found[name].append(min(server.ask(time=RUNS, images=str(batch))))
    return {name: float(np.median(times)) for name, times in found.items()}


def row(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Everything about a network."""
    files, way = made(name, given.size, given, None)
    grey, labels = images("t10k", 10_000)
    test = given.work / f"test.{given.size}.npy"
    if not test.exists():
        np.save(test, pixels(grey, given.size))
    right = {}
    with served(files, given.other) as servers:
        for file, server in servers.items():
            out = given.work / f"{name}.{given.size}.{file.replace(' ', '-')}.npy"
            if not out.exists():
                server.ask(logits=str(out), images=str(test))
            right[file] = correct(np.load(out), labels.astype(np.int64))
    large, _ = made(name, given.latency_size, given, way)
    one = given.work / f"one.{given.latency_size}.npy"
    np.save(one, pixels(grey[:1], given.latency_size))
    seconds = timed(large, given.other, one)
    small = timed(files, given.other, test)
    integers = paired_gain(right["ours"], right[FLOATS], FLOATS)
    found: dict[str, Any] = {
        "network": name, "files": {}, "integers": [integers.value, *integers.ci95],
        "integers_latency": [of["ours"] / of[FLOATS] for of in (seconds, small)],
    }  # fmt: skip
    for file in files:
        gain = paired_gain(right[file], right["float32"], "float32")
        found["files"][file] = {
            "top1": proportion(right[file]).value, "gain": gain.value, "ci95": list(gain.ci95),
            "seconds": seconds[file], "times": seconds["float32"] / seconds[file],
            "times_small": small["float32"] / small[file], "bytes": weight(files[file]),
        }  # fmt: skip
    return found


def weight(file: Path) -> int:
    """Bytes of a model with what belongs to it."""
    return sum(p.stat().st_size for p in {file, file.with_suffix(".bin")} if p.exists())


def table(rows: list[dict[str, Any]], size: int, large: int) -> str:
    """The table of docs/export.md."""
    lines = [
        f"| network | file | MB | top-1 % at {size} px | against float32, points | ms at {large} px | times float32 "
        f"at {large} px | at {size} px |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        for name, file in one["files"].items():
            low, high = (100 * v for v in file["ci95"])
            lines.append(
                f"| {one['network']} | {name} | {file['bytes'] / 1e6:.2f} | {100 * file['top1']:.2f} | "
                f"{100 * file['gain']:+.2f} ({low:+.2f} to {high:+.2f}) | {1e3 * file['seconds']:.2f} | "
                f"{file['times']:.2f} | {file['times_small']:.2f} |"
            )
    for one in rows:
        value, low, high = (100 * v for v in one["integers"])
        most, least = one["integers_latency"]
        lines += [
            "",
            f"{one['network']}: pixels as integers against floats {value:+.2f} points ({low:+.2f} to {high:+.2f}), "
            f"latency {most:.3f} of theirs at {large} px, {least:.3f} at {size} px",
        ]
    return "\n".join(lines)


def main() -> None:
    """Train, make, score, time; print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--other", help="Python with nncf, openvino and onnxruntime")
    parser.add_argument("--only", nargs="*", choices=NETWORKS)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--latency-size", type=int, default=224)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.work = given.work.absolute()
    given.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in given.only or NETWORKS:
        rows.append(row(name, given))
        print(table(rows[-1:], given.size, given.latency_size), flush=True)
        if given.json is not None:
            write_atomic(given.json, json.dumps(rows, indent=1) + "\n")
    print(table(rows, given.size, given.latency_size))


if __name__ == "__main__":
    main()
