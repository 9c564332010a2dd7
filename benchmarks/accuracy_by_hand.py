"""Top-1 of every file of a bundle, by hand: numpy, onnxruntime and what `manifest.json` says. Nothing of edgedistill.

python benchmarks/accuracy_by_hand.py runs/quickstart/bundle [runs/quickstart/evalset]
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

bundle = Path(sys.argv[1])
evalset = Path(sys.argv[2]) if len(sys.argv) > 2 else bundle.parent / "evalset"
manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
pixels = np.load(evalset / "pixels.npy", mmap_mode="r")  # (N, crop, crop, 3) bytes
labels = np.load(evalset / "labels.npy")  # (N,) indices into `classes`
mean, std = (np.float32(manifest["preprocess"][key]) for key in ("mean", "std"))

for model in manifest["models"]:
    session = ort.InferenceSession(bundle / model["file"], providers=["CPUExecutionProvider"])
    right = 0
    for start in range(0, len(pixels), 64):
        batch = np.ascontiguousarray(pixels[start : start + 64])
        if model["input"]["layout"] == "float_nchw":
            batch = ((batch / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
            batch = batch.astype(model["input"]["dtype"])
        logits = session.run([model["output"]["name"]], {model["input"]["name"]: batch})[0]
        right += int((logits.argmax(1) == labels[start : start + 64]).sum())
    print(f"{model['name']} {right}/{len(pixels)} {right / len(pixels)!r}")
