"""`edgedistill bundle verify`: a whole bundle passes, and whatever was changed in one is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from edgedistill import __version__
from edgedistill.deploy.archive import pack_archive
from edgedistill.deploy.onnx import CONTENT, content_hash
from edgedistill.deploy.verify import checks
from edgedistill.errors import DocumentError
from tests.build_parts import tool
from tests.bundle_parts import FILE, edit_manifest, edit_model, make_bundle


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def faults(folder: Path) -> list[str]:
    return [check.words for check in checks(folder) if not check.ok]


def test_a_whole_bundle_and_its_archive_pass_every_check(whole: Path, tmp_path: Path) -> None:
    pack_archive(whole, tmp_path / "a.tar.gz")
    ran = tool("bundle", "verify", tmp_path / "a.tar.gz")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert all(line.startswith("ok    ") for line in lines)
    for words in (
        "manifest: tiny for host, 3 classes", "each is the one that was packed",
        "nothing that does not belong", f"kit: that of edgedistill {__version__}",
        f"{FILE}: sound", "golden outputs, float16: same class for 4 of 4",
    ):  # fmt: skip
        assert words in ran.out


def test_a_fault_is_exit_code_1_and_no_bundle_is_2(bundle: Path, tmp_path: Path) -> None:
    (bundle / "labels.txt").write_text("bag\n")
    ran = tool("bundle", "verify", bundle)
    assert ran.code == 1 and ran.out.count("FAIL  ") == 3, ran.out
    assert "golden outputs: not computed" in ran.out
    (tmp_path / "mine").mkdir()
    for place in (tmp_path / "mine", tmp_path / "nowhere"):
        ran = tool("bundle", "verify", place)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    edit_manifest(bundle, lambda manifest: manifest.update(schema="edgedistill.bundle/9"))
    assert tool("bundle", "verify", bundle).code == 2


def test_more_files_links_and_another_kit_are_named(bundle: Path) -> None:
    (bundle / "autorun.sh").write_text("rm -rf ~")
    (bundle / "README.md").unlink()
    (bundle / "README.md").symlink_to("/etc/hostname")
    with (bundle / "ontarget.pyz").open("ab") as file:
        file.write(b"more")
    found = faults(bundle)
    assert found[:2] == [
        "README.md is a link", "autorun.sh does not belong to the bundle",
    ]  # fmt: skip
    assert f"not that of edgedistill {__version__}" in found[2]
    assert "ontarget.pyz" in found[2] and len(found) == 3


def test_the_kit_of_the_bundle_is_never_run(bundle: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (bundle / "ontarget.pyz").write_text(f"open({str(mark)!r}, 'w')\n")
    assert len(faults(bundle)) == 1
    assert not mark.exists()


def test_the_kit_of_another_version_is_said_and_is_no_fault(bundle: Path) -> None:
    edit_manifest(bundle, lambda manifest: manifest.update(edgedistill="0.0.9"))
    with (bundle / "ontarget.pyz").open("ab") as file:
        file.write(b"older")
    words = [check.words for check in checks(bundle) if check.words.startswith("kit")]
    assert words == [f"kit: of edgedistill 0.0.9, not compared: this is {__version__}"]
    assert faults(bundle) == []


def _opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 16


def _output(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


def _node(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type = "Nonsense"


def _outside(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "../../secret")
    tensor.ClearField("raw_data")


def _outside_in_a_branch(proto: onnx.ModelProto) -> None:
    value = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "v")
    onnx.external_data_helper.set_external_data(value, "/etc/passwd")
    value.ClearField("raw_data")
    inner = onnx.helper.make_node("Constant", [], ["c"], value=value)
    out = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [1])
    branch = onnx.helper.make_graph([inner], "branch", [], [out])
    proto.graph.node.append(
        onnx.helper.make_node("If", ["images"], ["r"], then_branch=branch, else_branch=branch)
    )


def _said(key: str, value: str) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        own = {entry.key: entry.value for entry in proto.metadata_props}
        del proto.metadata_props[:]
        onnx.helper.set_model_props(proto, {**own, f"edgedistill.{key}": value})

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_opset, "its opset is 16, the manifest says 17"),
        (_output, "ONNX's checker refuses it"),
        (_node, "ONNX's checker refuses it"),
        (_outside, "it keeps weights in another file"),
        (_outside_in_a_branch, "it keeps weights in another file"),
        (_said("classes", '["a"]'), "its metadata edgedistill.classes is not what"),
        (_said("preprocess", "["), "its metadata edgedistill.preprocess is not what"),
        (_said("input", "float_nchw"), "its metadata edgedistill.input is not what"),
    ],
)
def test_a_model_that_is_not_as_the_manifest_says_is_a_fault(
    bundle: Path, change: Callable[[onnx.ModelProto], None], words: str
) -> None:
    edit_model(bundle, change)
    found = faults(bundle)
    assert any(fault.startswith(f"{FILE}: {words}") for fault in found), found
    assert "not computed" in found[-1]


def test_a_manifest_that_says_another_input_is_a_fault(bundle: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["models"][0]["input"]["name"] = "pictures"
        manifest["models"][0]["output"]["shape"][0] = 1

    edit_manifest(bundle, change)
    found = faults(bundle)
    assert "its input is ('images', 'uint8', (None, 32, 32, 3)), the manifest says" in found[0]
    assert "its output is ('logits', 'float32', (None, 3)), the manifest says" in found[1]


def test_rubbish_with_a_right_hash_is_a_fault(bundle: Path) -> None:
    edit_model(bundle, lambda proto: proto.Clear())
    assert any("it is empty" in fault for fault in faults(bundle))


def _moved(proto: onnx.ModelProto) -> None:
    """Add 1 to the bias of the classifier."""
    bias = next(t for t in proto.graph.initializer if list(t.dims) == [3])
    value = onnx.numpy_helper.to_array(bias) + np.float32(1)
    bias.CopyFrom(onnx.numpy_helper.from_array(value, bias.name))


def test_a_model_that_computes_something_else_is_found_by_the_golden_outputs(bundle: Path) -> None:
    def change(proto: onnx.ModelProto) -> None:
        _moved(proto)
        next(p for p in proto.metadata_props if p.key == CONTENT).value = content_hash(proto)

    edit_model(bundle, change)
    found = faults(bundle)
    assert len(found) == 1 and found[0].startswith("golden outputs, float32:"), found


def test_a_model_whose_weights_are_not_those_that_its_metadata_names_is_a_fault(
    bundle: Path,
) -> None:
    edit_model(bundle, _moved)
    assert any(f"its metadata {CONTENT} is not the hash" in fault for fault in faults(bundle))


def test_an_empty_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="is not a bundle: it has no manifest"):
        list(checks(tmp_path))
