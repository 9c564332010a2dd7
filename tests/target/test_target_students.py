"""The table of students: closed, complete, and consistent in itself."""

from __future__ import annotations

import pytest

from edgedistill.errors import UsageError
from edgedistill.target.features import features_of
from edgedistill.target.kernels import KernelTable, kernel_of
from edgedistill.target.students import (
    INT8_BYTES_PER_KERNEL,
    find_student,
    load_students,
    table_sizes,
)


def test_the_table_has_the_promised_families() -> None:
    students = load_students()
    families = {student.family for student in students}
    assert len(students) >= 80
    assert {"mobilenetv2", "mobilenetv3", "mobilenetv4", "efficientnet_lite"} <= families
    names = {student.name for student in students}
    assert len(names) == len(students)
    assert not [n for n in names if n.startswith("tf_") and n.removeprefix("tf_") in names]


def test_every_student_is_small_enough_for_the_class() -> None:
    assert max(student.params for student in load_students()) <= 12_000_000


def test_the_last_kernel_of_every_student_is_its_classifier() -> None:
    for student in load_students():
        head = kernel_of(tuple(student.rows(224, 10)[-1].tolist()))
        assert head.macs == 10 * student.feature_dim == head.channels_in * head.channels_out
        assert head.weights in (head.macs, head.macs + 10), student.name


def test_summed_features_are_those_of_the_kernels() -> None:
    for name in ("mobilenetv3_large_100", "repvit_m0_9", "mobilevit_xs"):
        student = find_student(name)
        for size in (96, 224):
            for classes in (10, 1000):
                rows = student.rows(size, classes)
                want = features_of(KernelTable(rows)).sum(0)
                assert student.features(size, classes) == pytest.approx(want)


def test_every_student_names_its_weights_their_licence_and_their_accuracy() -> None:
    for student in load_students():
        assert student.pretrained_tag, student.name
        assert student.licence, student.name
        assert 0.5 < student.imagenet_top1 < 0.85, student.name
        assert set(student.sizes) == set(table_sizes()), student.name


def test_a_student_outside_the_table_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match='did you mean "mobilenetv4_conv_small"') as caught:
        find_student("mobilenetv4_conv_smal")
    assert "tf_efficientnet_lite0" in str(caught.value)
    with pytest.raises(UsageError, match="unknown student"):
        find_student("resnet50")


def test_a_smaller_head_takes_its_weights_and_macs_away() -> None:
    student = find_student("mobilenetv2_100")
    large, small = student.cost(224, 1000), student.cost(224, 10)
    assert large.macs - small.macs == 990 * 1280
    assert large.params - small.params == 990 * 1281 == 990 * student.head_params_per_class
    assert large.weight_elements - small.weight_elements == 990 * 1281
    assert student.params_for(1000) - student.params_for(10) == 990 * 1281
    assert student.params_for(1000) == 3_504_872  # the published count of MobileNetV2


def test_lite0_with_ten_classes_is_under_seven_megabytes_in_float16() -> None:
    lite0 = find_student("tf_efficientnet_lite0")
    assert 6.7e6 < lite0.size_bytes("float16", 10) < 6.9e6
    assert 13.4e6 < lite0.size_bytes("float32", 10) < 13.7e6
    assert 3.4e6 < lite0.size_bytes("int8", 10) < 4.1e6
    assert find_student("tf_efficientnet_lite2").size_bytes("float16", 10) > 9e6


def test_a_size_between_two_of_the_table_lies_between_their_costs() -> None:
    student = find_student("mobilenetv4_conv_small")
    low, mid, high = (student.cost(size, 10) for size in (96, 112, 128))
    assert low.macs < mid.macs < high.macs
    assert low.act_elements < mid.act_elements < high.act_elements
    assert low.params == mid.params == high.params


def test_a_size_outside_the_table_is_scaled_by_its_pixels() -> None:
    student = find_student("mobilenetv2_100")
    assert student.cost(512, 1000).macs == pytest.approx(300.8e6 * (512 / 224) ** 2, rel=0.01)
    assert 0 < student.cost(32, 10).macs < student.cost(48, 10).macs


def test_memory_is_unknown_where_the_runtime_share_is_unknown() -> None:
    student = find_student("mobilenetv2_100")
    assert student.memory_bytes("float16", 64, 10, None) is None
    small = student.memory_bytes("float32", 64, 10, 60_000_000)
    large = student.memory_bytes("float32", 224, 10, 60_000_000)
    assert small is not None and large is not None
    assert 60_000_000 + 2 * student.size_bytes("float32", 10) < small < large


def test_a_classifier_in_float_counts_in_the_size_of_an_int8_file_only_where_it_stays_so() -> None:
    student = find_student("mobilenetv2_100")

    def more(classes: int) -> int:
        plain = student.stored_for(classes) + student.graph_bytes
        return student.size_bytes("int8", classes) - plain - INT8_BYTES_PER_KERNEL * student.layers

    assert more(10) == 3 * 10 * (student.feature_dim + 1)
    assert more(1000) == 0
