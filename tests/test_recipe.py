"""Recipes: three layers, hostile YAML, all problems at once, and `recipe.yaml` as a recipe again."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgedistill.errors import EdgedistillError, RecipeError, UsageError
from edgedistill.plainyaml import read_plain
from edgedistill.recipe import (
    MAX_RECIPE_BYTES,
    Layered,
    Recipe,
    Resolved,
    autos,
    compose,
    known_paths,
    leaves,
    parse_set,
    read_yaml,
    replace,
    validate,
)

RELAXED = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _file(folder: Path, text: str | bytes) -> Path:
    path = folder / "my.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _problems(text: str, folder: Path) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        compose(_file(folder, text), {}, {})
    return list(caught.value.problems)


# -- what a recipe may say -----------------------------------------------------------------------


def test_an_empty_recipe_is_all_defaults(tmp_path: Path) -> None:
    assert compose(_file(tmp_path, ""), {}, {}) == Layered(Recipe(), {})
    assert compose(None, {}, {}) == Layered(Recipe(), {})


def test_every_key_has_a_sentence_that_describes_it() -> None:
    models = [f.annotation for f in Recipe.model_fields.values()]
    sections = [m for m in models if isinstance(m, type) and hasattr(m, "model_fields")]
    assert len(sections) >= 7
    for section in sections:
        for name, found in section.model_fields.items():
            if isinstance(found.annotation, type) and hasattr(found.annotation, "model_fields"):
                sections.append(found.annotation)  # a section says itself what it is
                continue
            assert found.description, f"{section.__name__}.{name}"
            assert found.description.endswith("."), f"{section.__name__}.{name}"


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().seed = 3  # type: ignore[misc]


def test_the_file_overrides_defaults_options_the_file_and_set_all(tmp_path: Path) -> None:
    file = _file(tmp_path, "seed: 1\ndevice: jetson\ndistill: {epochs: 5, lr: 0.01}\n")
    options = {"device": "pi5", "data.source": None, "distill.epochs": 6}
    layered = compose(file, options, {"distill.epochs": 7})
    recipe = layered.recipe
    assert (recipe.seed, recipe.device, recipe.distill.lr) == (1, "pi5", 0.01)
    assert recipe.distill.epochs == 7
    assert dict(layered.reasons) == {
        "seed": "from my.yaml",
        "distill.lr": "from my.yaml",
        "device": "from the command line",
        "distill.epochs": "from --set",
    }


def test_an_option_that_is_none_was_not_given_but_a_set_null_takes_the_limit_away() -> None:
    layered = compose(None, {"budget.latency_s": None}, {"budget.size_bytes": None})
    assert dict(layered.reasons) == {"budget.size_bytes": "from --set"}
    file_value = compose(None, {"data.max_train": 50}, {"data.max_train": None})
    assert file_value.recipe.data.max_train is None


def test_a_mapping_given_to_set_merges_and_each_of_its_leaves_has_a_reason(tmp_path: Path) -> None:
    file = _file(tmp_path, "distill: {epochs: 5, lr: 0.01}\n")
    layered = compose(file, {}, dict([parse_set("distill={epochs: 9, weights: {kd: 0.5}}")]))
    distill = layered.recipe.distill
    assert (distill.epochs, distill.lr, distill.weights.kd) == (9, 0.01, 0.5)
    assert layered.reasons["distill.weights.kd"] == "from --set"
    assert layered.reasons["distill.lr"] == "from my.yaml"


# -- problems ------------------------------------------------------------------------------------


def test_all_problems_are_named_at_once_each_with_its_path_and_the_nearest_name(
    tmp_path: Path,
) -> None:
    text = """
    seed: x
    distil: {epoch: 3, temprature: 4}
    budget: {latency_s: -1, size_mb: 3}
    student: {weights: pretraind, input_size: 5}
    """
    found = _problems(text, tmp_path)
    assert [line.split("  ")[0] for line in found] == [
        "budget.size_mb",
        "distil.epoch",
        "distil.temprature",
        "seed",
        "budget.latency_s",
        "student.weights",
        "student.input_size",
    ]
    assert 'did you mean "distill.epochs"?' in found[1]
    assert 'did you mean "distill.temperature"?' in found[2]
    assert "got 'x'" in found[3]
    assert "greater than 0; got -1" in found[4]
    assert "'pretrained'" in found[5]
    assert "'random'" in found[5]
    assert "got 'pretraind'" in found[5]


def test_a_value_that_may_also_be_auto_gives_one_line_that_says_both() -> None:
    with pytest.raises(RecipeError) as caught:
        validate({"distill": {"epochs": "many", "views": 0}}, "x")
    epochs, views = caught.value.problems
    assert epochs.startswith("distill.epochs  input should be a valid integer")
    assert epochs.endswith("or input should be 'auto'; got 'many'")
    assert "greater than or equal to 1" in views
    assert "'auto'" in views
    assert views.endswith("got 0")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("distil: 3", 'distil  unknown key; did you mean "distill"?'),
        ("devise: jetson", 'devise  unknown key; did you mean "device"?'),
        ("temperature: 3", 'temperature  unknown key; did you mean "distill.temperature"?'),
        ("data.source: x", "data.source  unknown key; write it nested: data: {source: ...}"),
        ("qqqqqq: 1", "qqqqqq  unknown key"),
        ("data: {}\nstudent: 5", "student  must be a mapping; got 5"),
    ],
)
def test_a_problem_says_what_to_write_instead(tmp_path: Path, text: str, words: str) -> None:
    assert _problems(text, tmp_path) == [words]


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize(
    "key", ["distill.weights.ce", "distill.clip", "distill.lr", "budget.latency_s"]
)
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, key: str, value: str) -> None:
    section, *names = key.split(".")
    text = value
    for name in reversed(names):
        text = f"{{{name}: {text}}}"
    (line,) = _problems(f"{section}: {text}", tmp_path)
    assert line.startswith(f"{key}  input should be a finite number")
    assert line.endswith(f"; got {value[-3:] if value[0] == '.' else '-inf'}")


@pytest.mark.parametrize("key", ["distill.epochs", "distill.lr", "seed", "budget.size_bytes"])
def test_yes_is_no_number(key: str) -> None:
    with pytest.raises(RecipeError, match="true and false are no values here"):
        compose(None, {}, dict([parse_set(f"{key}=yes")]))
    assert compose(None, {}, dict([parse_set("data.flip=no")])).recipe.data.flip is False


def test_a_size_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"budget\.size_bytes"):
        compose(None, {}, {"budget.size_bytes": int("9" * 400)})
    with pytest.raises(UsageError, match="not valid YAML"):
        parse_set("budget.size_bytes=" + "9" * 5000)


# -- hostile YAML --------------------------------------------------------------------------------


def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    (line,) = _problems("device: jetson\nseed: 1\ndevice: host\n", tmp_path)
    assert line.endswith('"device" stands twice, on lines 1 and 3')
    (line,) = _problems("data: {flip: yes, flip: no}\n", tmp_path)
    assert '"flip" stands twice' in line


def test_keys_that_are_not_words_are_named(tmp_path: Path) -> None:
    found = _problems("1: a\nnull: b\n2020-01-01: c\n2.5: d\n", tmp_path)
    assert len(found) == 4
    assert all("keys should be strings" in line for line in found)


BOMB = "\n".join(["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)])
MAPPINGS = "\n".join(
    ["a0: &a0 {k: 1}"] + [f"a{i}: &a{i} {{l: *a{i - 1}, r: *a{i - 1}}}" for i in range(1, 60)]
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        MAPPINGS,
        "name: &x {a: *x}",
        "[" * 30_000,
        "- " * 30_000,
        "{a: " * 15_000,
        "? " * 30_000,
        "a: " + "!!str " * 10_000 + "x",
        "\n".join(f"k{i}: 1" for i in range(5_000)),
        "a: " + "x" * 60_000,
        "x" * 60_000 + ": 1",
        "z: 1\n" * 12_000,
        "#" * (MAX_RECIPE_BYTES + 1),
    ],
    ids=lambda text: text[:12].encode("unicode_escape").decode(),
)
def test_a_yaml_bomb_is_refused_quickly_and_in_few_words(tmp_path: Path, text: str) -> None:
    path = _file(tmp_path, text)
    start = time.process_time()
    with pytest.raises(RecipeError) as caught:
        compose(path, {}, {})
    assert time.process_time() - start < 8
    assert len(str(caught.value)) < 70_000


def test_a_recipe_without_an_end_is_not_read_to_its_end() -> None:
    with pytest.raises(RecipeError, match="larger than"):
        read_yaml(Path("/dev/zero"))


@pytest.mark.parametrize(
    "text",
    [
        "a: [", "a: b: c", "\t- x", "- x", "5", "just words", "--- {a: 1}\n--- {b: 2}",
        "name: !!python/object/apply:os.system [echo]", "name: !!bool foo", "seed: !!int ''",
        "name: !!timestamp foo", "seed: !!float x", "? [a]\n: 1", "a: *nowhere", "name: \x00",
        "a: !!binary '\xff'", "name: 2020-13-45", "%YAML 9.9\n---\na: 1", "name: 2020-01-01",
    ],
)  # fmt: skip
def test_broken_or_lying_yaml_is_a_recipe_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError):
        compose(_file(tmp_path, text), {}, {})


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", b"name: \xe9", b"\x00\x01\x02"])
def test_bytes_that_are_no_text_are_a_recipe_error(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(RecipeError, match="cannot be read as YAML"):
        compose(_file(tmp_path, raw), {}, {})


def test_a_recipe_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert compose(_file(tmp_path, b"\xef\xbb\xbfseed: 4\n"), {}, {}).recipe.seed == 4


def test_a_recipe_that_is_missing_or_a_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        compose(tmp_path / "none.yaml", {}, {})
    with pytest.raises(UsageError, match="--data"):
        compose(tmp_path, {}, {})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "distill", "epochs", "seed", "x"]) | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
tops = st.dictionaries(st.sampled_from([*Recipe.model_fields, "distil"]), values, max_size=5)


@given(tops)
@RELAXED
def test_whatever_tree_a_file_holds_it_is_a_recipe_or_a_recipe_error(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    path = _file(tmp_path, yaml.safe_dump(tree, allow_unicode=True))
    try:
        layered = compose(path, {"distill.epochs": 3}, {"data.flip": False})
    except EdgedistillError as error:
        assert isinstance(error, RecipeError | UsageError)
        assert error.exit_code == 2
    else:
        assert layered.recipe.distill.epochs == 3


@given(st.text(alphabet=st.sampled_from("abc:{}[]&*!|>-?'\"#%@`,\n\t \\=~1.e"), max_size=40))
@example("!!omap [a]")
@example("!!set x")
@example("- &a\n  - *a")
@RELAXED
def test_whatever_text_a_file_holds_only_usage_errors_come_out(tmp_path: Path, text: str) -> None:
    try:
        compose(_file(tmp_path, text), {}, {})
    except EdgedistillError as error:
        assert isinstance(error, UsageError)
    try:
        key, value = parse_set(text)
        compose(None, {}, {key: value})
    except EdgedistillError as error:
        assert isinstance(error, UsageError)


@given(st.binary(max_size=40))
@RELAXED
def test_whatever_bytes_a_file_holds_only_recipe_errors_come_out(
    tmp_path: Path, raw: bytes
) -> None:
    try:
        compose(_file(tmp_path, raw), {}, {})
    except EdgedistillError as error:
        assert isinstance(error, RecipeError)


@given(values.filter(lambda v: not isinstance(v, dict)))
@RELAXED
def test_plain_yaml_reads_what_pyyaml_reads(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    if "*id" in text:
        return
    assert repr(read_plain(text)) == repr(yaml.safe_load(text))


# -- --set ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("distill.epochs=30", ("distill.epochs", 30)),
        ("student.model=auto", ("student.model", "auto")),
        ("data.flip=false", ("data.flip", False)),
        ("data.licence=a=b", ("data.licence", "a=b")),
        (" seed = 3", ("seed", 3)),
        ("budget.latency_s=null", ("budget.latency_s", None)),
    ],
)
def test_set_reads_values_as_they_look(text: str, pair: tuple[str, object]) -> None:
    assert parse_set(text) == pair


@pytest.mark.parametrize(
    "text", ["", "=", "=3", "seed", "  =1", "x=[", "x=&a [*a]", "x=" + "[" * 99]
)
def test_a_set_that_is_no_key_and_value_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        parse_set(text)


def test_a_set_of_an_unknown_key_is_named_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r'distill.epoch  unknown key; did you mean "distill.ep'):
        compose(None, {}, {"distill.epoch": 3})


# -- the resolved recipe -------------------------------------------------------------------------

hostile_text = st.text(
    alphabet=st.characters(codec=None) | st.sampled_from("\n\r\t\"'#:{}[]&*!|>%@`\\\x00\x7f\x85\u2028\ufeff"),
    max_size=30,
)  # fmt: skip
AWKWARD = "a\nb\r\t\"c' # d: {e} \\ \x00\x07\x7f\x85\u2028\u2029\ufeff\ufffe \U0001f600 é \ud800"


@given(
    source=hostile_text,
    licence=st.none() | hostile_text,
    lr=st.floats(min_value=0, max_value=1, exclude_min=True),
    kd=st.floats(min_value=0, allow_infinity=False),
    seed=st.integers(0, 2**31 - 1),
    epochs=st.integers(1, 10_000) | st.just("auto"),
    size=st.none() | st.integers(1, 10**15),
    reason=hostile_text,
)
@example(AWKWARD, AWKWARD, 1e-5, 1e22, 0, "auto", None, AWKWARD)
@example("null", "1e5", 5e-324, 0.0, 1, 1, 1, "# x")
@RELAXED
def test_a_dumped_recipe_is_a_recipe_with_equal_values_and_the_same_hash(
    tmp_path: Path, source: str, licence: str | None, lr: float, kd: float, seed: int,
    epochs: int | str, size: int | None, reason: str,
) -> None:  # fmt: skip
    recipe = Recipe.model_validate(
        {
            "name": None,
            "seed": seed,
            "data": {"source": source, "licence": licence},
            "distill": {"lr": lr, "weights": {"kd": kd}, "epochs": epochs},
            "budget": {"size_bytes": size},
        }
    )
    resolved = Resolved(recipe, {"data.source": reason, "seed": f"from {source}"})
    path = tmp_path / "recipe.yaml"
    path.write_text(resolved.dump(), "utf-8")
    again = compose(path, {}, {})
    assert again.recipe == recipe
    assert Resolved(again.recipe, {}).sha256() == resolved.sha256()
    assert Resolved(again.recipe, resolved.reasons).dump() == resolved.dump()


def test_every_value_of_a_dumped_recipe_stands_beside_its_reason() -> None:
    reasons = {path: f"because {i} of {path}" for i, path in enumerate(known_paths())}
    lines = Resolved(Recipe(), reasons).dump().splitlines()
    for path, reason in reasons.items():
        key = path.rpartition(".")[2]
        (line,) = [line for line in lines if line.endswith(f"# {reason}")]
        assert line.strip().startswith(f"{key}: ")
    assert len([line for line in lines if "  # " in line]) == len(reasons)
    assert "seed: 0  # default" in Resolved(Recipe(), {}).dump()


def test_the_hash_follows_every_value_but_the_name() -> None:
    base = Resolved(Recipe(), {}).sha256()
    assert Resolved(Recipe(name="x"), {"seed": "y"}).sha256() == base
    hashes = {
        Resolved(validate({"seed": 1}, "x"), {}).sha256(),
        Resolved(validate({"data": {"flip": False}}, "x"), {}).sha256(),
        Resolved(validate({"distill": {"lr": 0.002}}, "x"), {}).sha256(),
    }
    assert len(hashes | {base}) == 4


def test_replace_fills_what_is_auto_with_a_reason() -> None:
    layered = Layered(Recipe(), {})
    assert "student.model" in autos(layered.recipe)
    filled = replace(layered, {"student.model": ("lcnet_050", "it fits")})
    assert "student.model" not in autos(filled.recipe)
    assert filled.recipe.student.model == "lcnet_050"
    assert filled.reasons == {"student.model": "it fits"}


def test_leaves_name_every_value_once() -> None:
    paths = [path for path, _ in leaves(Recipe().model_dump())]
    assert len(paths) == len(set(paths)) > 40
    assert not any(isinstance(v, float) and math.isnan(v) for _, v in leaves(Recipe().model_dump()))
