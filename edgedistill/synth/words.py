"""Two words that a class name writes as one, taken apart by how often English words are used."""

from __future__ import annotations

import importlib.util
from functools import cache
from importlib.resources import files
from typing import Any

LEAST_LETTERS = 3
"""A shorter part is the sign of a word that the dictionary does not hold: `labradoodle` is not "la bra doodle"."""
_DICTIONARY = "frequency_dictionary_en_82_765.txt"


@cache
def _speller() -> Any:
    """symspellpy with its English words, `None` where it is not installed. Takes three seconds."""
    if importlib.util.find_spec("symspellpy") is None:
        return None
    from symspellpy import SymSpell

    found = SymSpell(max_dictionary_edit_distance=0)
    found.load_dictionary(str(files("symspellpy") / _DICTIONARY), 0, 1)
    return found


def apart(word: str) -> list[str]:
    """`grocerystore` as ["grocery", "store"]; a word that is known, or of unknown parts, as it is."""
    speller = _speller() if len(word) >= 2 * LEAST_LETTERS else None
    if speller is None or word in speller.words:
        return [word]
    parts: list[str] = speller.word_segmentation(word, max_edit_distance=0).corrected_string.split()
    known = all(len(part) >= LEAST_LETTERS and part in speller.words for part in parts)
    return parts if known and "".join(parts) == word else [word]
