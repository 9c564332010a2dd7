"""The library datasets, asked for a data set: from the Hugging Face hub, from `save_to_disk`, from Parquet files.

No code of a data set is run: the library stopped doing that with version 4, the oldest that is allowed.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedistill.data.dataset import printable
from edgedistill.data.fetch import Say
from edgedistill.data.kinds import Source, need_extra
from edgedistill.data.labelling import splits_of
from edgedistill.errors import DataError, EdgedistillError

MAX_STATE_BYTES = 64_000_000


def load_rows(
    source: Source, folder: Path, labelled: bool, say: Say
) -> tuple[Mapping[str, Any], str | None, Path | None]:
    """The data sets of a source by name, its licence, and the folder of files that rows may name."""
    need_extra(f"the data source {printable(source.shown)}", "datasets")
    import datasets
    import huggingface_hub

    trusted = None
    try:
        with _hushed(datasets):
            if source.kind == "hub":
                say(f"asking the Hugging Face hub for {printable(source.name)}")
                found = datasets.load_dataset(source.name, source.config, revision=source.revision)
                trusted = Path(huggingface_hub.constants.HF_HUB_CACHE)
            elif source.kind == "saved":
                _check_saved(source.root)
                found = datasets.load_from_disk(str(source.root))
                for one in found.values() if isinstance(found, dict) else (found,):
                    one.data.validate(full=True)
            else:
                files: dict[str, list[str]] = {}
                splits = splits_of(source.files, source.shown) if labelled else {}
                for name in source.files:
                    files.setdefault(splits.get(name) or "train", []).append(
                        str(source.root / name)
                    )
                found = datasets.load_dataset("parquet", data_files=files, cache_dir=str(folder))
    except EdgedistillError:
        raise
    except Exception as error:  # the library and pyarrow raise many kinds, none of them ours
        raise _failed(source, error) from None
    named = dict(found) if isinstance(found, dict) else {"train": found}
    if not named:
        raise DataError(f"{printable(source.shown)} has no rows.")
    licence = next(iter(named.values())).info.license or None
    return named, licence, trusted


def _failed(source: Source, error: Exception) -> DataError:
    text = printable(" ".join(str(error).split()))[:300]
    shown = printable(source.shown)
    if source.kind == "hub":
        return DataError(
            f"{shown} could not be loaded from the Hugging Face hub or its cache ({type(error).__name__}: {text}). "
            "Check the name, the network and, for a data set behind a gate, your token (HF_TOKEN); or bring it here by "
            "other means and give its folder: one of .parquet files, or one that datasets.save_to_disk wrote."
        )
    what = "a Parquet file" if source.kind == "parquet" else "a folder of datasets.save_to_disk"
    return DataError(
        f"{shown} cannot be read as {what} ({type(error).__name__}: {text}). Fetch it or write it again."
    )


@contextlib.contextmanager
def _hushed(datasets: Any) -> Iterator[None]:
    """Keep the library's bars and log lines off the screen; what counts is in the error."""
    bars = datasets.utils.are_progress_bars_disabled()
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def _check_saved(root: Path) -> None:
    """Raise DataError when a folder of `save_to_disk` names files or splits outside itself."""
    folders = [root]
    if (root / "dataset_dict.json").is_file():
        names = _json(root / "dataset_dict.json").get("splits")
        folders = [root / name for name in _plain(root, names)]
    for folder in folders:
        files = _json(folder / "state.json").get("_data_files")
        entries = files if isinstance(files, list) else []
        _plain(root, [e.get("filename") if isinstance(e, dict) else None for e in entries])


def _json(path: Path) -> dict[str, Any]:
    """A JSON object of the folder. Raises OSError and ValueError."""
    with path.open("rb") as file:
        document = json.loads(file.read(MAX_STATE_BYTES))
    if not isinstance(document, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return document


def _plain(root: Path, names: Any) -> Sequence[str]:
    """Names without a folder in them. Raises DataError for others."""
    for name in names if isinstance(names, list) else [None]:
        if not isinstance(name, str) or Path(name).name != name or name == "..":
            raise DataError(
                f"{printable(str(root))} names {printable(repr(name))[:80]} as its file, which lies outside of it. "
                "Only folders that datasets.save_to_disk wrote can be read."
            )
    return list(names)
