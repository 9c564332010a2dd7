"""What a recipe that asks for synthetic images leaves open, and why each value is what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgedistill.data.idx import FASHION_CLASSES
from edgedistill.errors import GeneratorError, RecipeError, UsageError
from edgedistill.recipe import Recipe
from edgedistill.synth import bundled
from edgedistill.synth.bundled import classes_of, kind_of, local_name, places
from edgedistill.synthvalues import (
    FEW,
    MOST_SHARE,
    TIMES,
    check_classes,
    check_generator,
    synth_values,
)


@pytest.fixture(autouse=True)
def bundled_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator of the package that knows the built-in classes."""
    folder = tmp_path / "home" / "fashion-mnist"
    folder.mkdir(parents=True)
    about = {"_class_name": "ClassConditionalPipeline", "classes": list(FASHION_CLASSES)}
    (folder / "model_index.json").write_text(json.dumps(about))
    monkeypatch.setattr(bundled, "HOME", tmp_path / "home")


def values(images: int = 1000, **tree: Any) -> dict[str, Any]:
    """Each value of a recipe for ten classes, without its section's name."""
    found = synth_values(Recipe.model_validate(tree), images, 10)
    return {path.removeprefix("synth."): value for path, (value, _) in found.items()}


def test_nothing_is_made_unless_it_is_asked_for_and_no_generator_is_needed() -> None:
    found = values(data={"source": "./flowers"})
    assert found["generator"] == "none" and "images" not in found


def test_few_images_get_synthetic_ones_and_many_get_none() -> None:
    few = values(10 * (FEW - 1), synth={"images": "auto"})
    assert few["images"] == TIMES * 10 * (FEW - 1) and few["generator"] == "bundled:fashion-mnist"
    many = values(10 * FEW, synth={"images": "auto"})
    assert many["images"] == 0 and many["generator"] == "none"


@pytest.mark.parametrize(("count", "share"), [(250, 0.2), (1000, 0.5), (5000, MOST_SHARE)])
def test_the_share_of_a_batch_is_that_of_the_images_up_to_a_half(count: int, share: float) -> None:
    assert values(1000, synth={"images": count})["share"] == share


def test_other_images_need_a_generator_that_is_named() -> None:
    with pytest.raises(UsageError, match="--generator stabilityai/sd-turbo"):
        values(synth={"images": 10}, data={"source": "./flowers"})


def test_a_recipe_that_was_resolved_without_synthetic_images_can_ask_for_some() -> None:
    found = values(synth={"images": 10, "generator": "none", "kind": "text_to_image", "share": 0.5})
    assert found["generator"] == "bundled:fashion-mnist"
    assert found["kind"] == "class_conditional" and "share" not in found


def test_a_generator_is_asked_by_what_its_folder_says_it_is(tmp_path: Path) -> None:
    assert kind_of("stabilityai/sd-turbo") == "text_to_image"
    assert kind_of("bundled:fashion-mnist") == "class_conditional"
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert kind_of(str(tmp_path)) == "text_to_image"
    for damaged in ("[", "[]", "{}", "\xff"):
        (tmp_path / "model_index.json").write_text(damaged, encoding="latin-1")
        assert kind_of(str(tmp_path)) == "text_to_image"


def test_an_unknown_bundled_generator_is_named_with_what_there_is() -> None:
    with pytest.raises(UsageError, match='did you mean "fashion-mnist"'):
        local_name("bundled:fashion-mnits")
    assert local_name("stabilityai/sd-turbo") == "stabilityai/sd-turbo"


def test_a_share_of_very_few_images_is_small_and_above_zero() -> None:
    assert 0 < values(60_000, synth={"images": 20})["share"] < 0.001


def test_classes_are_found_by_name_whatever_their_order_and_signs() -> None:
    known = ["Ankle boot", "T-shirt/top", "Bag"]
    assert places("g", known, ["bag", "t_shirt_top"]) == [2, 1]
    with pytest.raises(GeneratorError, match=r"does not know Hat\. Its classes: Ankle boot"):
        places("g", known, ["Bag", "Hat"])
    with pytest.raises(GeneratorError, match="does not know bag"):
        places("g", ["Bag", "bag"], ["bag"])
    assert classes_of("bundled:fashion-mnist") == list(FASHION_CLASSES)
    assert classes_of("stabilityai/sd-turbo") == []


def _recipe(**synth: Any) -> Recipe:
    return Recipe.model_validate({"synth": {"images": 10, **synth}, "data": {"source": "./mine"}})


def test_auto_needs_no_generator_before_the_images_are_known() -> None:
    check_generator(_recipe(images="auto"))
    with pytest.raises(UsageError, match="no generator is named"):
        check_generator(_recipe())


def test_prompts_and_classes_are_checked_as_soon_as_the_images_are_known(tmp_path: Path) -> None:
    classes = ["boot", "n02124075"]
    with pytest.raises(UsageError, match="WordNet numbers"):
        check_classes(_recipe(kind="text_to_image", generator="sd"), classes)
    file = tmp_path / "prompts.yaml"
    file.write_text("templtes: []")
    with pytest.raises(RecipeError, match="templtes"):
        check_classes(_recipe(kind="text_to_image", generator="sd", prompts=str(file)), ["boot"])
    with pytest.raises(GeneratorError, match="does not know hat"):
        check_classes(
            _recipe(kind="class_conditional", generator="bundled:fashion-mnist"), ["bag", "hat"]
        )
    check_classes(_recipe(kind="class_conditional", generator="bundled:fashion-mnist"), ["bag"])
    check_classes(_recipe(images=0, kind="text_to_image"), classes)
