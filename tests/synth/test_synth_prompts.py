"""Prompts: names as people say them, every prompt a function of its seed, and files with mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.errors import EdgedistillError, RecipeError, UsageError
from edgedistill.synth.prompts import DOMAINS, PromptBook, bare_book, book_for, clean, with_article


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("grocerystore", "grocery store"),
        ("Faces_easy", "faces"),
        ("001.Black_footed_Albatross", "black footed albatross"),
        ("T-shirt/top", "T-shirt or top"),
        ("10-ankle-boot", "ankle boot"),
        ("labradoodle", "labradoodle"),
        ("sneaker", "sneaker"),
        ("BMW", "BMW"),
        ("fastfoodrestaurant", "fast food restaurant"),
        ("kitchenInside", "kitchen inside"),
        ("7", "7"),
    ],
)
def test_a_class_name_is_said_as_people_say_it(name: str, said: str) -> None:
    assert clean(name) == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ankle boot", "an ankle boot"),
        ("sneaker", "a sneaker"),
        ("trousers", "trousers"),
        ("dress", "a dress"),
        ("umbrella", "an umbrella"),
        ("cactus", "a cactus"),
    ],
)
def test_a_name_gets_its_article(name: str, said: str) -> None:
    assert with_article(name) == said


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_prompt_of_a_domain_names_its_class_and_nothing_in_braces(domain: str) -> None:
    book = book_for(["ankle boot", "bag"], domain)
    for number in range(60):
        text = book.prompt(0, number % 2, number)
        assert ("ankle boot", "bag")[number % 2] in text
        assert not set("{}") & set(text)


def test_a_prompt_is_a_function_of_seed_class_and_number() -> None:
    book = book_for(["cat", "dog"], "photo")
    again = book_for(["cat", "dog"], "photo")
    first = [book.prompt(3, 0, n) for n in range(40)]
    assert first == [again.prompt(3, 0, n) for n in range(40)]
    assert first != [book.prompt(4, 0, n) for n in range(40)]
    assert len(set(first)) > 15


def _book(tmp_path: Path, text: str) -> PromptBook:
    file = tmp_path / "prompts.yaml"
    file.write_text(text, "utf-8")
    return book_for(["n02124075", "boot"], "photo", file)


def test_a_file_says_templates_attributes_and_names(tmp_path: Path) -> None:
    book = _book(
        tmp_path,
        'templates: ["{a class} in {light} light"]\nattributes: {light: [red, blue], size: ["", huge]}\n'
        "classes: {n02124075: Egyptian cat, boot: [ankle boot, leather boot]}\nnegative: text\n",
    )
    found = {book.prompt(0, label, n) for n in range(100) for label in (0, 1)}
    assert found == {
        f"{name} in {light} light{size}"
        for name in ("an Egyptian cat", "an ankle boot", "a leather boot")
        for light in ("red", "blue")
        for size in ("", ", huge")
    }
    assert book.negative == "text"


def test_a_wordnet_number_without_a_name_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"n02124075 are WordNet numbers.*classes: \{n02124075"):
        book_for(["n02124075", "boot"], "photo")


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        _book(
            tmp_path,
            'template: [x]\ntemplates: ["a photo", "{a class} {lihgt}", "{class"]\nattributes: {class: [a], light: 3}\n'
            "classes: {boots: [ankle boot], n02124075: cat}\nnegative: [1]\n",
        )
    text = str(caught.value)
    for part in (
        'template  unknown key; did you mean "templates"?',
        "'a photo' names no class",
        "has {lihgt}",
        "'{class' cannot be read",
        "attributes.class  must be called",
        "attributes.light  must be text",
        'classes.boots  the images have no such class; did you mean "boot"?',
        "negative  must be text",
    ):
        assert part in text


@given(st.text(max_size=200))
def test_a_hostile_file_is_a_fault_in_words(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "prompts.yaml"
        file.write_text(text, "utf-8", errors="surrogatepass")
        try:
            book = book_for(["boot"], "photo", file)
        except EdgedistillError:
            return
        assert "boot" in book.prompt(0, 0, 0)


def test_a_value_is_never_read_as_a_template(tmp_path: Path) -> None:
    book = _book(
        tmp_path, 'classes: {boot: "{light}", n02124075: "a {class} b"}\ntemplates: ["{class}"]'
    )
    assert book.prompt(0, 1, 0).startswith("{light}")
    assert book.prompt(0, 0, 0).startswith("a {class} b")


def test_an_unknown_domain_names_the_known_ones() -> None:
    with pytest.raises(
        UsageError, match=r'unknown domain of prompts "fotos"; did you mean "photo"'
    ):
        book_for(["boot"], "fotos")


def test_a_generator_that_is_asked_by_number_gets_names_as_they_are() -> None:
    book = bare_book(["n02124075", "a {b} c"])
    assert [book.prompt(3, k, 7) for k in (0, 1)] == ["n02124075", "a {b} c"]
