"""The house, drawn from its imports: arrows run one way, the kit stands alone, and nothing grows too large."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent
MOST_LINES, MOST_FUNCTION_LINES = 340, 60

ROOMS = ("target", "compute", "data", "teacher", "synth", "distill", "deploy", "evidence")
BASE = (  # from the lowest up; each may use those before it
    ("edgedistill.__init__", "errors", "plainyaml", "files", "crew", "provenance", "locks"),
    ("stagework",),
    ("document",),
    ("accuracy", "latencyresult", "synthresult"),
    ("result",),
    ("metrics", "schema", "studyresult", "searchresult", "checkresult", "tables"),
    ("seeds",),
    ("seednoise",),
    ("recipe",),
    ("rundir", "progress"),
    ("pointwise",),
    ("folding",),
    ("nets",),
)
TOP = (  # above the rooms, from the lowest up
    (
        "athand",
        "checklimits",
        "derive",
        "doctor",
        "exported",
        "logs",
        "planview",
        "examples",
        "ledgerview",
    ),
    ("options", "stages", "planning", "findings", "measuring", "attempts", "synthvalues"),
    ("teaching", "arms", "synthesis"),
    ("studyfactors", "studyclaims"),
    ("proof", "studyfile", "synthstage"),
    ("ledgering",),
    ("trained", "classnames"),
    ("synthfacts",),
    ("assemble", "studyproof"),
    ("preparing",),
    ("learning", "verifying", "synthchecks", "synthtraining", "pacing"),
    ("synthview", "exporting"),
    ("exportview",),
    ("packing", "recorded"),
    ("recording",),
    ("shipping", "benching"),
    ("benchview",),
    ("pipeline",),
    ("studybuild",),
    ("studyrun",),
    ("studyray", "studysearch"),
    ("effortplan",),
    ("effortview",),
    ("studying", "checking", "cli_parts"),
    ("spending",),
    (
        "cli_bench",
        "cli_check",
        "cli_devices",
        "cli_teacher",
        "cli_synth",
        "cli_export",
        "cli_ledger",
        "cli_plan",
        "cli_bundle",
        "cli_report",
    ),
    ("cli",),
    ("__main__",),
)
BANNED = tomllib.loads((HOME / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"][
    "flake8-tidy-imports"
]["banned-module-level-imports"]
MAY_BE_HEAVY = re.compile(
    r"edgedistill\.(folding|pointwise|nets|(teacher|distill|deploy)(\..*)?|data\.(transforms|views|changes)|synth\.(conditional|train))$"
)
LIGHT_IN_HEAVY = (
    "edgedistill.teacher.bundled",
    *(f"edgedistill.deploy.{name}" for name in ("bundle", "bare", "graphs")),
)


@dataclass(frozen=True)
class Arrow:
    """One import: from a module to another, at the top of the file or inside a function."""

    source: str
    target: str
    inside: bool

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


@cache
def _modules() -> dict[str, tuple[Path, ast.Module]]:
    found = {}
    for root, base in (("edgedistill", HOME), ("export/ontarget", HOME / "export")):
        for path in sorted((HOME / root).rglob("*.py")):
            name = ".".join(path.relative_to(base).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = (path, ast.parse(path.read_text("utf-8")))
    return found


def _imported(node: ast.AST, known: set[str], source: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{source}: relative import"
        module = node.module or ""
        subs = [f"{module}.{alias.name}" for alias in node.names]
        if any(sub in known for sub in subs):
            yield from (sub if sub in known else module for sub in subs)
        else:
            yield module


def _walk(tree: ast.AST, inside: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node but those under `if TYPE_CHECKING`, and whether it stands in a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        deeper = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield node, deeper
        yield from _walk(node, deeper)


@cache
def _arrows() -> tuple[Arrow, ...]:
    known = set(_modules())
    return tuple(
        Arrow(source, target, inside)
        for source, (_, tree) in _modules().items()
        for node, inside in _walk(tree)
        for target in _imported(node, known, source)
    )


def _own(arrow: Arrow) -> bool:
    return arrow.target.split(".")[0] in ("edgedistill", "ontarget")


def _room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "edgedistill" and len(parts) > 1 and parts[1] in ROOMS else None


def _height(module: str) -> tuple[int, int]:
    """(storey, place in it): 0 the kit, 1 the base, 2 the rooms, 3 what stands above them."""
    parts = module.split(".")
    if parts[0] == "ontarget":
        return (0, 0)
    name = parts[1] if len(parts) > 1 else "edgedistill.__init__"
    if name in ROOMS:
        return (2, ROOMS.index(name))
    for storey, floors in ((1, BASE), (3, TOP)):
        for place, names in enumerate(floors):
            if name in names:
                return (storey, place)
    raise AssertionError(f"{module} has no place in the house: add it to BASE or TOP")


def test_there_is_a_house_to_look_at() -> None:
    assert len(_modules()) > 60
    assert len(_arrows()) > 300
    assert "edgedistill.cli" in _modules()
    assert "ontarget.measure" in _modules()
    assert Arrow("edgedistill.cli", "edgedistill.errors", False) in _arrows()
    assert Arrow("edgedistill.cli", "edgedistill.pipeline", True) in _arrows()


def test_every_module_has_a_place_in_the_house() -> None:
    for module in _modules():
        _height(module)


def test_the_kit_imports_neither_edgedistill_nor_torch() -> None:
    wrong = [
        str(arrow)
        for arrow in _arrows()
        if arrow.source.startswith("ontarget")
        and arrow.target.split(".")[0] in ("edgedistill", "torch", "timm", "pydantic", "yaml")
    ]
    assert wrong == []


def test_every_import_runs_downwards() -> None:
    wrong = []
    for arrow in filter(_own, _arrows()):
        source, target = _height(arrow.source), _height(arrow.target)
        same_room = _room(arrow.source) is not None and _room(arrow.source) == _room(arrow.target)
        below = target < source or same_room or source == target
        device = (
            arrow.target == "edgedistill.target.device" and arrow.source == "edgedistill.recipe"
        )
        if not (below or device):
            wrong.append(str(arrow))
    assert wrong == []


def test_a_room_uses_an_earlier_room_only() -> None:
    wrong = []
    for arrow in filter(_own, _arrows()):
        source, target = _room(arrow.source), _room(arrow.target)
        if source and target and ROOMS.index(target) > ROOMS.index(source):
            wrong.append(str(arrow))
    assert wrong == []


def test_recipe_uses_nothing_of_the_rooms_but_the_device() -> None:
    targets = {a.target for a in _arrows() if a.source == "edgedistill.recipe" and _room(a.target)}
    assert targets <= {"edgedistill.target.device"}


def test_no_imports_run_in_a_circle_not_even_inside_functions() -> None:
    graph: dict[str, set[str]] = {module: set() for module in _modules()}
    for arrow in filter(_own, _arrows()):
        if arrow.target in graph and arrow.target != arrow.source:
            graph[arrow.source].add(arrow.target)
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> None:
        if module in path:
            raise AssertionError(" -> ".join([*path[path.index(module) :], module]))
        if module not in done:
            path.append(module)
            for target in sorted(graph[module]):
                visit(target)
            path.pop()
            done.add(module)

    for module in graph:
        visit(module)
    assert done == set(graph)


def test_heavy_packages_are_imported_at_the_top_only_in_the_rooms_that_may() -> None:
    wrong = [
        str(arrow)
        for arrow in _arrows()
        if not arrow.inside
        and arrow.target.split(".")[0] in BANNED
        and (not MAY_BE_HEAVY.match(arrow.source) or arrow.source in LIGHT_IN_HEAVY)
    ]
    assert wrong == []
    assert {"torch", "timm", "onnx", "onnxruntime"} <= set(BANNED)


def test_what_plans_and_reports_reaches_no_heavy_module_at_the_top() -> None:
    """Following module-level imports from the light commands never meets torch or timm."""
    graph: dict[str, set[str]] = {}
    for arrow in _arrows():
        if not arrow.inside:
            graph.setdefault(arrow.source, set()).add(arrow.target)
    for start in (
        "cli",
        "pipeline",
        "options",
        "planview",
        "doctor",
        "evidence.report",
        "evidence.study",
        "studying",
        "athand",
        "derive",
        "checking",
        "recording",
        "benching",
    ):
        seen, open_ = set(), [f"edgedistill.{start}"]
        while open_:
            module = open_.pop()
            if module not in seen:
                seen.add(module)
                open_ += graph.get(module, ())
        assert not {m for m in seen if m.split(".")[0] in BANNED}, start


# -- size and shape ------------------------------------------------------------------------------


def test_no_module_is_too_long() -> None:
    long = {
        name: len(path.read_text("utf-8").splitlines()) for name, (path, _) in _modules().items()
    }
    assert {name: lines for name, lines in long.items() if lines > MOST_LINES} == {}


def _functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for name, (_, tree) in _modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}.{node.name}", node


def _is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is a command of Typer: its options are its parameters, one or more lines each."""
    return any("command" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_no_function_is_too_long() -> None:
    long = {}
    for name, node in _functions():
        first = node.body[0].lineno if _is_command(node) else node.lineno
        lines = (node.end_lineno or 0) - first + 1
        if lines > MOST_FUNCTION_LINES:
            long[name] = lines
    assert long == {}


def _public(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Functions and classes at the top of a module, and what is public in a class."""
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if not isinstance(inner, ast.FunctionDef) or inner.name.startswith("_"):
                    continue
                if inner.name != "forward":  # torch's own word
                    yield f"{node.name}.{inner.name}", inner


def test_every_module_says_what_it_is() -> None:
    assert [name for name, (_, tree) in _modules().items() if not ast.get_docstring(tree)] == []


def test_every_public_function_and_class_has_a_docstring() -> None:
    missing = []
    for name, (_, tree) in _modules().items():
        for what, node in _public(tree):
            assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            self_evident = isinstance(node, ast.ClassDef) and name == "edgedistill.result"
            if not (self_evident or ast.get_docstring(node)):
                missing.append(f"{name}.{what}")
    assert missing == []


def test_every_function_is_annotated_in_full() -> None:
    bare = []
    for name, node in _functions():
        known = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        extra = [a for a in (node.args.vararg, node.args.kwarg) if a is not None]
        open_ = [a.arg for a in [*known, *extra] if a.annotation is None]
        if node.returns is None or set(open_) - {"self", "cls"}:
            bare.append(name)
    assert bare == []


@pytest.mark.parametrize("name", [n for n in _modules() if n.startswith("ontarget")])
def test_the_kit_is_written_in_the_python_of_old_boards(name: str) -> None:
    path, _ = _modules()[name]
    ast.parse(path.read_text("utf-8"), feature_version=(3, 8))


def test_the_check_sees_a_wrong_arrow() -> None:
    """The rules above can fail: arrows that must not be are not below."""
    assert _height("edgedistill.evidence.report") > _height("edgedistill.deploy.onnx")
    assert _height("edgedistill.deploy.onnx") > _height("edgedistill.teacher.hub")
    assert _height("edgedistill.rundir") > _height("edgedistill.recipe")
    assert _height("edgedistill.cli") > _height("edgedistill.pipeline")
    tree = ast.parse("if TYPE_CHECKING:\n    import a\ndef f() -> None:\n    import b\nimport c")
    found = [(name, inside) for node, inside in _walk(tree) for name in _imported(node, set(), "x")]
    assert found == [("b", True), ("c", False)]
