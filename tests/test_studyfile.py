"""A study file: what it asks for, and every fault of it in one paragraph with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedistill.errors import EdgedistillError, RecipeError, UsageError
from edgedistill.studyfile import KINDS, Study, load_study, merged


def written(folder: Path, tree: Any) -> Path:
    path = folder / "losses.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree, sort_keys=False))
    return path


def problems(folder: Path, tree: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_study(written(folder, tree))
    return list(caught.value.problems)


WHOLE = {
    "name": "which-loss",
    "recipe": {"seed": 7, "distill": {"epochs": 4, "weights": {"ce": 0.5}}},
    "seeds": 3,
    "baseline": "kd",
    "arms": {
        "plain": {"arm": "plain"},
        "kd": {"distill": {"method": "kd", "weights": {"kd": 2.0}}},
        "probe": {"arm": "linear_probe", "student": {"model": "tf_efficientnet_lite0"}},
    },
}


def test_an_arm_is_the_shared_recipe_with_its_own_values_in_place(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, WHOLE))
    assert study.name == "which-loss"
    assert study.seeds == (7, 8, 9)
    assert study.baseline == "kd"
    assert [(arm.name, arm.kind) for arm in study.arms] == [
        ("plain", "plain"), ("kd", "distilled"), ("probe", "linear_probe"),
    ]  # fmt: skip
    kd = study.arms[1]
    assert kd.layered.recipe.distill.epochs == 4
    assert kd.layered.recipe.distill.weights.ce == 0.5
    assert kd.layered.recipe.distill.weights.kd == 2.0
    assert kd.changes == {"distill.method": "kd", "distill.weights.kd": 2.0}
    assert kd.layered.reasons["distill.method"] == "arm kd of losses.yaml"
    assert kd.layered.reasons["distill.epochs"] == "from losses.yaml"


def test_a_probe_and_fine_tuning_start_from_pretrained_weights(tmp_path: Path) -> None:
    base = {"student": {"weights": "random"}, "synth": {"images": 9}}
    tree = {"recipe": base, "arms": {k: {"arm": k} for k in KINDS}}
    study = load_study(written(tmp_path, tree))
    assert {arm.name: arm.layered.recipe.student.weights for arm in study.arms} == {
        "plain": "random", "distilled": "random", "distilled+synthetic": "random",
        "linear_probe": "pretrained", "finetune": "pretrained",
    }  # fmt: skip
    assert all(not arm.changes for arm in study.arms)


def test_little_is_needed_and_the_rest_has_defaults(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, "arms:\n  b:\n  a: {arm: plain}\n"))
    assert (study.name, study.seeds, study.baseline) == ("losses", (0,), "b")
    assert [arm.kind for arm in study.arms] == ["distilled", "plain"]
    assert load_study(tmp_path / "losses.yaml", seeds=2).seeds == (0, 1)


def test_the_recipe_may_be_a_file_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.yaml").write_text("distill: {epochs: 9}\nproof: {seeds: 2}\n")
    study = load_study(written(tmp_path / "sub", {"recipe": "../base.yaml", "arms": {"a": {}}}))
    assert study.arms[0].layered.recipe.distill.epochs == 9
    assert study.arms[0].layered.recipe.proof.seeds == 1, "what a build does for proof is not ours"


def test_every_problem_is_told_at_once_with_its_path(tmp_path: Path) -> None:
    tree = {
        "recipe": {"distill": {"epochs": 0}},
        "seeds": 0,
        "baseline": "plian",
        "distill": {"epochs": 3},
        "sedes": 2,
        "arms": {
            "plain": {"arm": "plane"},
            "kd": {"distill": {"temprature": 2}, "seed": 1},
            "two words": {},
            "list": [1],
            "probe": {"arm": "linear_probe", "student": {"weights": "random"}},
        },
    }
    found = problems(tmp_path, tree)
    for start, words in (
        ("recipe.distill.epochs  ", "greater than or equal to 1"),
        ("seeds  ", "greater than or equal to 1"),
        ("baseline  ", 'unknown arm "plian"; did you mean "plain"?'),
        ("distill  ", "recipe keys stand under recipe: {distill: ...}"),
        ("sedes  ", 'did you mean "seeds"?'),
        ("arms.plain.arm  ", 'unknown kind of arm "plane"; did you mean "plain"?'),
        ("arms.kd.distill.temprature  ", 'did you mean "distill.temperature"?'),
        ("arms.kd.seed  ", "an arm has the seeds of the study"),
        ("arms.two words  ", "a name has 1 to 40 letters"),
        ("arms.list  ", "must be a mapping of recipe keys"),
        ("arms.probe.student.weights  ", "linear_probe starts from pretrained weights"),
    ):
        assert [line for line in found if line.startswith(start) and words in line], (start, found)
    assert len(found) == 11, "and the fault of the shared recipe once, not for each arm"


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ("", "arms  a study has at least one arm, or factors"),
        ("arms: {}", "arms  a study has at least one arm, or factors"),
        ("[1, 2]", "must be a mapping"),
        ("arms: {a: &x {}, b: *x}", "aliases"),
        ("arms: {a: {}, a: {}}", "stands twice"),
        ({"arms": {f"a{i}": {"seed": i} for i in range(101)}}, "101 are more than the 100 allowed"),
        ({"arms": {1: {}}}, "arms.1  input should be a valid string"),
        ({"arms": {"a": {}}, "seeds": True}, "seeds  true and false are no values here"),
        ({"arms": {"a": {}}, "recipe": 3}, "recipe  must be a mapping of recipe keys, or a recipe's path"),
        ({"arms": {"a": {}}, "recipe": "no.yaml"}, "no.yaml does not exist"),
        ({"arms": {"a": {}}, "recipe": {"proof": {"seeds": 3}}}, "recipe.proof  a study has seeds"),
        ({"arms": {"a": {"arm": ["plain"]}}}, "arms.a.arm  unknown kind of arm"),
        ({"arms": {"a": {"arm": "distilled+synthetic"}}}, "arms.a.synth.images  distilled+synthetic needs"),
        ({"arms": {"a": {"arm": "distilled+synthetic", "synth": {"images": "auto"}}}}, "needs a number of synthetic"),
        ({"arms": {"a": {}}, "name": "../up"}, "name  a name has 1 to 40"),
        ({"arms": {"..": {}}}, "arms...  a name has 1 to 40"),
        ({"arms": {"a": {}}, "claims": 3}, "claims  input should be a valid list"),
        ({"arms": {"a": {}}, "claims": [{"says": "x", "better": "a", "than": "b"}]}, "claims.0.than  unknown arm"),
        ({"arms": {"a": {}}, "claims": [{"says": "", "better": "a", "than": "a"}]}, "claims.0.says  string"),
        ({"arms": {"a": {}}, "claims": [{"says": "x", "better": "a", "than": "a"}]}, "compares arm a with itself"),
        ({"arms": {"a": {}, "b": {}}, "claims": [{"says": "x", "better": "a", "than": "b", "by": 1e9}]}, "claims.0.by"),
    ],
)  # fmt: skip
def test_a_fault_is_one_clear_paragraph(tmp_path: Path, tree: Any, words: str) -> None:
    found = problems(tmp_path, tree)
    assert any(words in line for line in found), found


def test_faults_of_a_recipe_file_name_that_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("distill: {epochs: many}\n")
    found = problems(tmp_path, {"recipe": "base.yaml", "arms": {"a": {}}})
    assert len(found) == 1
    assert found[0].startswith("recipe.distill.epochs  ")
    (tmp_path / "base.yaml").write_text("{")
    found = problems(tmp_path, {"recipe": "base.yaml", "arms": {"a": {}}})
    assert found[0].startswith("recipe  base.yaml: cannot be read as YAML")


def test_claims_may_stand_in_a_file_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text("claims: [{says: x, better: a, than: b, by: -0.5}]\n")
    tree = {"arms": {"a": {}, "b": {"arm": "plain"}}, "claims": "claims.yaml"}
    (claim,) = load_study(written(tmp_path, tree)).claims
    assert (claim.says, claim.better, claim.than, claim.by) == ("x", "a", "b", -0.5)
    (tmp_path / "claims.yaml").write_text("claims: [{says: x, better: a, than: c}]\n")
    assert problems(tmp_path, tree)[0].startswith("claims.0.than  unknown arm")
    missing = problems(tmp_path, {**tree, "claims": "no.yaml"})
    assert (
        len(missing) == 1 and missing[0].startswith("claims  no.yaml: ") and "exist" in missing[0]
    )


def test_a_study_that_is_not_there_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"study .*none.yaml does not exist. Give the path"):
        load_study(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="is a folder"):
        load_study(tmp_path)


def test_only_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, WHOLE))
    assert [arm.name for arm in study.chosen(("probe", "plain"))] == ["plain", "probe"]
    assert len(study.chosen(())) == 3
    with pytest.raises(UsageError, match='unknown arm "none"'):
        study.chosen(("none",))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["arm", "distill", "method", "recipe", "student", "epochs", "kd"])
        | st.text(max_size=5) | st.integers(),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    tree=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("name", "recipe", "seeds", "baseline", "arms", "factors", "odd"), trees
        ),
    )
)
def test_whatever_stands_in_the_file_is_a_study_or_a_users_fault(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    path = written(tmp_path, yaml.safe_dump(tree, allow_unicode=True))
    try:
        assert isinstance(load_study(path), Study)
    except EdgedistillError as error:
        assert str(error).startswith(str(path))


def test_merging_goes_section_by_section_and_a_value_replaces_a_section() -> None:
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert merged(base, {"a": {"c": {"d": 4}}}) == {"a": {"b": 1, "c": {"d": 4}}, "e": 3}
    assert merged(base, {"a": None, "e": {"f": 5}}) == {"a": None, "e": {"f": 5}}
    assert base == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}


FACTORS = {
    "recipe": {"distill": {"epochs": 4, "method": "kd"}},
    "factors": {
        "temperature": {"distill.temperature": [1, 8]},
        "loss": {"plain": {"arm": "plain"}, "distill.method": ["dist"]},
        "top": {"distill.believe_top_k": [None]},
    },
}


def test_factors_are_the_default_and_one_change_of_it_each(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, FACTORS))
    assert study.baseline == "default"
    assert [(arm.name, arm.factor, dict(arm.changes)) for arm in study.arms] == [
        ("default", None, {}),
        ("temperature=1", "temperature", {"distill.temperature": 1}),
        ("temperature=8", "temperature", {"distill.temperature": 8}),
        ("plain", "loss", {}),
        ("method=dist", "loss", {"distill.method": "dist"}),
        ("believe_top_k=none", "top", {"distill.believe_top_k": None}),
    ]
    assert study.arms[3].kind == "plain"
    assert all(arm.layered.recipe.distill.epochs == 4 for arm in study.arms)


def test_the_same_study_on_other_images_is_named_after_them(tmp_path: Path) -> None:
    tree = {**FACTORS, "recipe": {"data": {"source": "./theirs", "max_train": 90}}, "name": "mine"}
    study = load_study(written(tmp_path, tree), data="/data/my flowers/")
    assert study.name == "mine-my-flowers"
    for arm in study.arms:
        data = arm.layered.recipe.data
        assert (data.source, data.max_train) == ("/data/my flowers/", 90)
    assert (
        load_study(Path("design-space"), data="builtin:fashion-mnist").name
        == "design-space-fashion-mnist"
    )
    told = {
        "data": {"source": "./theirs", "unlabelled": "./more", "licence": "MIT", "max_train": 90}
    }
    (arm,) = load_study(written(tmp_path, {"recipe": told, "arms": {"a": {}}}), data="./mine").arms
    found = arm.layered.recipe.data
    assert (found.unlabelled, found.licence, found.max_train) == (None, None, 90)
    odd = {"seeds": 0, "arms": {"a": {"data": {"max_train": 9}}, "b": {"data": {"source": "./c"}}}}
    with pytest.raises(RecipeError, match=r"seeds  .*\n.*arms\.b\.data\.source  with --data, all"):
        load_study(written(tmp_path, odd), data="./flowers")


def test_a_factor_is_chosen_by_its_name_and_an_arm_stands_beside_factors(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, {**FACTORS, "arms": {"mine": {"arm": "plain"}}}))
    assert [arm.name for arm in study.chosen(("temperature", "mine"))] == [
        "temperature=1", "temperature=8", "mine",
    ]  # fmt: skip
    with pytest.raises(UsageError, match='did you mean "temperature'):
        study.chosen(("temprature",))


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        (3, "factors  must be a mapping"),
        ({"t": 3}, "factors.t  a factor has paths with lists of values"),
        ({"t": {}}, "factors.t  a factor has paths"),
        ({"t": {"distill.temperature": 3}}, "factors.t.distill.temperature  a factor has paths"),
        ({"t": {"distill.temperature": [-1]}}, "factors.t.distill.temperature.distill.temperature  "),
        ({"t": {"distill.temprature": [1]}}, "factors.t.distill.temprature.distill.temprature  unknown"),
        ({"t": {"distill.temperature": [[1]]}}, "takes plain values"),
        ({"t": {"distill.temperature": [1, 1]}}, "there are two arms temperature=1"),
        ({"a": {"kd": {}}, "b": {"kd": {}}}, "factors.b.kd  there are two arms kd"),
        ({"t": {"data.source": ["a b"]}}, "is no name of an arm; name the level"),
        ({"t": {"x": {"seed": 3}}}, "factors.t.x.seed  an arm has the seeds of the study"),
        ({"t": {"distill.temperature": list(range(1, 120))}}, "are more than the 100 allowed"),
    ],
)  # fmt: skip
def test_a_fault_of_a_factor_is_told_with_its_path(
    tmp_path: Path, factors: Any, words: str
) -> None:
    found = problems(tmp_path, {"factors": factors})
    assert any(words in line for line in found), found


def test_a_shipped_study_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(load_study(Path("design-space")).arms) == 46
    with pytest.raises(UsageError, match="or a name: design-space, losses, stages"):
        load_study(Path("design"))
