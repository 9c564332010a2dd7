"""The code of the papers' authors to compare with: from clones at fixed commits, imported unchanged, never kept."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORIES = {
    "ssnl/align_uniform": (
        "78ccdb19af60126564ef60c84443722ae2fda28d",
        ["align_uniform/__init__.py"],
    ),
    "sfarhat/dapt": (
        "ccdbeb1f753f33bdf877b390ddcccd18fd8e5fe3",
        ["kd_losses/align_uniform.py", "kd_losses/kd.py", "models/projector.py"],
    ),
    "HobbitLong/RepDistiller": (
        "b84f547c5db6a35318d4671d7d5c4de74c822403",
        ["crd/criterion.py", "crd/memory.py", "distiller_zoo/KD.py", "distiller_zoo/FitNet.py"],
    ),
    "megvii-research/mdistiller": (
        "a08d46f10d6102bd6e3f258ca5ac880b020ea259",
        [f"mdistiller/distillers/{name}.py" for name in ("_base", "DKD", "KD")],
    ),
    "hunto/image_classification_sota": (
        "6f7a70a1dd57fd88413d83909d3d53243068f701",
        [f"lib/models/losses/{name}.py" for name in ("dist_kd", "cross_entropy")],
    ),
    "mlfoundations/open_clip": (
        "89fb801f1e6087880e951fc8354b8a2077b79c6d",
        ["src/open_clip/loss.py"],
    ),
    "facebookresearch/deit": ("7e160fe43f0252d17191b71cbb5826254114ea5b", ["losses.py"]),
}


def fetch(repos: Path, into: Path) -> None:
    """Write the files named above to `into/<repository>/<path>`, read at their commits by git."""
    for repository, (commit, paths) in REPOSITORIES.items():
        name = repository.split("/")[1]
        for path in paths:
            command = ["git", "-C", str(repos / name), "show", f"{commit}:{path}"]
            result = subprocess.run(command, capture_output=True, check=False)
            if result.returncode:
                raise SystemExit(
                    f"{repos / name} has no {path} at commit {commit}. "
                    f"Give it: git clone https://github.com/{repository} {repos / name}"
                )
            file = into / name.replace("-", "_") / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(result.stdout)


@dataclass(frozen=True)
class Authors:
    """The authors' modules."""

    align_uniform: Any
    dapt: Any
    projector: Any
    dapt_kd: Any
    crd: Any
    kd: Any
    fitnet: Any
    mdistiller_dkd: Any
    mdistiller_kd: Any
    dist: Any
    entropy: Any
    clip: Any
    deit: Any


def authors(root: Path) -> Authors:
    """Import the files. Two things that are not theirs are put in: a wandb that does nothing, a memory off the GPU."""
    sys.path.insert(0, str(root))
    sys.modules.setdefault("wandb", types.ModuleType("wandb"))
    package = "mdistiller.mdistiller.distillers"
    found = Authors(
        importlib.import_module("align_uniform.align_uniform"),
        importlib.import_module("dapt.kd_losses.align_uniform"),
        importlib.import_module("dapt.models.projector"),
        importlib.import_module("dapt.kd_losses.kd"),
        importlib.import_module("RepDistiller.crd.criterion"),
        importlib.import_module("RepDistiller.distiller_zoo.KD"),
        importlib.import_module("RepDistiller.distiller_zoo.FitNet"),
        importlib.import_module(f"{package}.DKD"),
        importlib.import_module(f"{package}.KD"),
        importlib.import_module("image_classification_sota.lib.models.losses.dist_kd"),
        importlib.import_module("image_classification_sota.lib.models.losses.cross_entropy"),
        importlib.import_module("open_clip.src.open_clip.loss"),
        importlib.import_module("deit.losses"),
    )
    importlib.import_module("RepDistiller.crd.memory").AliasMethod.cuda = lambda self: None
    return found
