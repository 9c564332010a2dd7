"""What a search over a study's factors found, as it is kept in `search.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from edgedistill.document import Count, Fraction, Sealed, Seconds, parse
from edgedistill.document import Document as Part

FILE = "search.json"
SCHEMA: Literal["edgedistill.search/1"] = "edgedistill.search/1"


class Trial(Part):
    """A training: one level of each factor, how it ended, the best validation top-1 of its epochs, and its cost."""

    number: Count
    levels: dict[str, str]
    state: Literal["whole", "stopped", "failed"]
    val_top1: Fraction | None = None
    epochs: Count = 0
    seconds: Seconds = 0.0
    fault: str | None = None


class SearchResult(Sealed):
    """Every trial in its order. `importance` is the share of each factor in what makes a trial one of the best; `None`
    where there are too few.
    """

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgedistill.search/1"] = Field(default=SCHEMA, alias="schema")
    study: str
    factors: dict[str, list[str]]
    trials: list[Trial]
    importance: dict[str, Fraction] | None = None

    @property
    def best(self) -> Trial | None:
        """The whole trial with the highest validation top-1, the first of several; `None` without one."""
        whole = [trial for trial in self.trials if trial.state == "whole"]
        return max(whole, key=lambda trial: trial.val_top1 or 0.0, default=None)


def load(path: Path) -> SearchResult:
    """`search.json` at `path`, or in the folder `path`. Raises `DocumentError`."""
    return parse("search", SearchResult, path / FILE if path.is_dir() else path)
