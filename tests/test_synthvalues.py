"""What a recipe that asks for synthetic images leaves open, and why each value is what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgedistill.data.idx import FASHION_CLASSES
from edgedistill.errors import GeneratorError, RecipeError, UsageError
from edgedistill.recipe import Recipe
from edgedistill.synth.naming import classes_of, kind_of, places
from edgedistill.synthvalues import (
    FEW,
    MOST_SHARE,
    TIMES,
    check_classes,
    check_generator,
    synth_values,
)


@pytest.fixture
def by_class(tmp_path: Path) -> str:
    """The folder of a generator that is asked by class, as far as it can be known without loading it."""
    about = {"_class_name": "ClassConditionalPipeline", "classes": ["Bag", "Ankle boot"]}
    (tmp_path / "model_index.json").write_text(json.dumps(about))
    return str(tmp_path)


def values(images: int = 1000, **tree: Any) -> dict[str, Any]:
    """Each value of a recipe for ten classes, without its section's name."""
    found = synth_values(Recipe.model_validate(tree), images, 10)
    return {path.removeprefix("synth."): value for path, (value, _) in found.items()}


def test_nothing_is_made_unless_it_is_asked_for_and_no_generator_is_needed() -> None:
    assert values() == {"kind": "text_to_image", "share": MOST_SHARE}


def test_few_images_get_synthetic_ones_and_many_get_none() -> None:
    few = values(10 * (FEW - 1), synth={"images": "auto", "generator": "sd"})
    assert few["images"] == TIMES * 10 * (FEW - 1)
    assert values(10 * FEW, synth={"images": "auto"})["images"] == 0
    with pytest.raises(UsageError, match="no generator is named"):
        values(10 * (FEW - 1), synth={"images": "auto"}, data={"source": "./mine"})


def test_the_built_in_images_have_a_generator_of_their_own_where_none_is_named(
    by_class: str,
) -> None:
    found = values(synth={"images": 50})
    assert (found["generator"], found["kind"]) == ("bundled:fashion-mnist", "class_conditional")
    assert "generator" not in values(synth={"images": 50, "generator": by_class})
    built_in = Recipe.model_validate({"synth": {"images": 50}})
    check_generator(built_in)
    resolved = {"images": 50, "generator": found["generator"], "kind": found["kind"]}
    check_classes(Recipe.model_validate({"synth": resolved}), FASHION_CLASSES)


@pytest.mark.parametrize(("count", "share"), [(250, 0.2), (1000, 0.5), (5000, MOST_SHARE)])
def test_the_share_of_a_batch_is_that_of_the_images_up_to_a_half(count: int, share: float) -> None:
    assert values(1000, synth={"images": count, "generator": "sd"})["share"] == share


def test_a_generator_is_asked_by_what_its_folder_says_it_is(tmp_path: Path, by_class: str) -> None:
    assert kind_of("stabilityai/sd-turbo") == "text_to_image"
    assert kind_of(by_class) == "class_conditional"
    assert values(synth={"images": 9, "generator": by_class})["kind"] == "class_conditional"
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert kind_of(by_class) == "text_to_image"
    for damaged in ("[", "[]", "{}", "\xff"):
        (tmp_path / "model_index.json").write_text(damaged, encoding="latin-1")
        assert kind_of(by_class) == "text_to_image" and classes_of(by_class) == []


def test_a_share_of_very_few_images_is_small_and_above_zero() -> None:
    assert 0 < values(60_000, synth={"images": 20, "generator": "sd"})["share"] < 0.001


def test_classes_are_found_by_name_whatever_their_order_and_signs() -> None:
    known = ["Ankle boot", "T-shirt/top", "Bag"]
    assert places("g", known, ["bag", "t_shirt_top"]) == [2, 1]
    with pytest.raises(GeneratorError, match=r"does not know Hat\. Its classes: Ankle boot"):
        places("g", known, ["Bag", "Hat"])


def test_the_same_name_stands_for_itself_also_where_only_signs_tell_it_from_others() -> None:
    assert places("g", ["C", "C++", "C#", "+"], ["C#", "+", "C", "C++"]) == [2, 3, 0, 1]
    with pytest.raises(GeneratorError, match="does not know c"):
        places("g", ["C", "C++"], ["c"])
    with pytest.raises(GeneratorError, match="does not know T shirt, T-Shirt"):
        places("g", ["tshirt"], ["T shirt", "T-Shirt"])


def _recipe(**synth: Any) -> Recipe:
    return Recipe.model_validate({"synth": {"images": 10, **synth}, "data": {"source": "./mine"}})


def test_auto_needs_no_generator_before_the_images_are_known() -> None:
    check_generator(_recipe(images="auto"))
    with pytest.raises(UsageError, match="no generator is named"):
        check_generator(_recipe())


def test_prompts_and_classes_are_checked_as_soon_as_the_images_are_known(
    tmp_path: Path, by_class: str
) -> None:
    classes = ["boot", "n02124075"]
    with pytest.raises(UsageError, match="WordNet numbers"):
        check_classes(_recipe(kind="text_to_image", generator="sd"), classes)
    file = tmp_path / "prompts.yaml"
    file.write_text("templtes: []")
    with pytest.raises(RecipeError, match="templtes"):
        check_classes(_recipe(kind="text_to_image", generator="sd", prompts=str(file)), ["boot"])
    for_classes = _recipe(kind="class_conditional", generator=by_class)
    with pytest.raises(GeneratorError, match="does not know hat"):
        check_classes(for_classes, ["bag", "hat"])
    check_classes(for_classes, ["bag"])
    check_classes(_recipe(images=0, kind="text_to_image"), classes)
