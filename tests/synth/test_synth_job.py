"""A job: units by number alone, the same bytes however it was broken off, and a ledger that makes an image again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synth_parts import CLASSES, MAKER, contents, fake, job_in, plan_of

from edgedistill.data.sources import open_source
from edgedistill.errors import DocumentError, UsageError
from edgedistill.recipe import DataSection
from edgedistill.synth.generators import FakeSource, Pixels, Wish
from edgedistill.synth.job import Job
from edgedistill.synth.ledger import Line, read_lines, write_lines
from edgedistill.synth.shard import pixels_hash
from edgedistill.synth.units import Part, seed_of


class Broken(FakeSource):
    """The fake that fails after some batches."""

    def __init__(self, good: int) -> None:
        super().__init__(8, len(CLASSES))
        self.good = good

    def again(self) -> Broken:
        """The same one, whenever it is asked for."""
        return self

    def make(self, wishes: Sequence[Wish]) -> list[Pixels]:
        if self.good == 0:
            raise KeyboardInterrupt
        self.good -= 1
        return super().make(wishes)


def test_a_round_goes_through_the_classes_in_turn_and_into_whole_units(tmp_path: Path) -> None:
    job = job_in(tmp_path, (3, 1, 2))
    assert job.labels(0) == [0, 1, 2, 0, 2, 0]
    job = job_in(tmp_path / "more")
    assert [(u.name, u.start, u.stop) for u in job.units(0)] == [
        ("0-00000", 0, 8),
        ("0-00001", 8, 16),
        ("0-00002", 16, 20),
    ]
    job.plan_round((0, 3, 0))
    assert [(u.name, u.start, u.stop) for u in job.units(1)] == [("1-00000", 20, 23)]
    assert job.labels(1) == [1, 1, 1]


@pytest.mark.parametrize("good", range(6))
def test_a_job_that_was_broken_off_ends_with_the_same_bytes(tmp_path: Path, good: int) -> None:
    whole, broken = job_in(tmp_path / "whole"), job_in(tmp_path / "broken")
    whole.make(fake, Part())
    if good < 5:
        with pytest.raises(KeyboardInterrupt):
            broken.make(Broken(good).again, Part())
    job_in(tmp_path / "broken").make(fake, Part())
    assert contents(whole.folder) == contents(broken.folder)
    assert not whole.missing()


def test_a_finished_batch_of_a_broken_unit_is_not_made_again(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        job.make(Broken(3).again, Part())
    left = Broken(-1)
    job.make(left.again, Part())
    assert left.good == -1 - 2, "20 images are five batches, and three were there"


def test_parts_share_a_job_without_a_gap_or_a_double(tmp_path: Path) -> None:
    alone = job_in(tmp_path / "alone")
    alone.make(fake, Part())
    shared = job_in(tmp_path / "shared")
    made = [shared.make(fake, Part(index, 2)) for index in (1, 0)]
    assert made == [8, 12]
    assert contents(alone.folder) == contents(shared.folder)


def test_the_ledger_has_every_image_once_with_what_makes_it_again(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.make(fake, Part())
    lines = list(job.lines())
    assert [line.number for line in lines] == list(range(20))
    images = [image for unit in job.units(0) for image in job.images(unit)]
    for line, image in zip(lines, images, strict=True):
        assert line.sha256 == pixels_hash(image)
        assert line.seed == seed_of(0, line.number)
        start, stop = line.batch
        wishes = [
            Wish(n, lines[n].label, lines[n].prompt, lines[n].seed) for n in range(start, stop)
        ]
        again = fake().make(wishes)[line.number - start]
        assert pixels_hash(again) == line.sha256


def test_a_unit_is_a_shard_that_the_data_room_reads(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.make(fake, Part())
    (tmp_path / "units" / "classes.txt").write_text("\n".join(CLASSES))
    section = DataSection(source=str(tmp_path / "units"), val_fraction=0.2, test_fraction=0.2)
    found = open_source(section, 0)
    assert found.classes == CLASSES
    assert sum(len(items) for _, items in found.parts()) == 20


def test_another_question_wants_another_folder(tmp_path: Path) -> None:
    job_in(tmp_path, seed=0)
    with pytest.raises(UsageError, match="holds a job that differs in seed"):
        job_in(tmp_path, seed=1)
    Job(tmp_path, plan_of(0))


def test_a_folder_of_somebody_elses_is_refused_and_nothing_in_it_is_touched(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / ".draft.tmp").write_text("mine")
    with pytest.raises(UsageError, match="holds what is no job of synthetic images"):
        job_in(tmp_path)
    assert (tmp_path / "holiday" / ".draft.tmp").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="holds what is no job"):
        job_in(tmp_path / "file")


def test_sweeping_stays_in_the_folders_of_the_job(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / ".draft.tmp").write_text("mine")
    (tmp_path / "units").mkdir(exist_ok=True)
    (tmp_path / "units" / ".0-00000.tar.7.tmp").write_text("half")
    job.make(fake, Part())
    assert (tmp_path / "notes" / ".draft.tmp").read_text() == "mine"
    assert not (tmp_path / "units" / ".0-00000.tar.7.tmp").exists()


def test_a_job_goes_on_after_an_update_of_packages(tmp_path: Path) -> None:
    job_in(tmp_path).make(fake, Part())
    newer = replace(plan_of(), maker=MAKER.model_copy(update={"packages": {"numpy": "2"}}))
    assert not Job(tmp_path, newer).missing()


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"counts": [1]}', '{"counts": [1, -2, 3]}', '{"counts": [1, 2, "3"]}']
)
def test_a_round_that_does_not_hold_is_named(tmp_path: Path, text: str) -> None:
    job = job_in(tmp_path)
    (tmp_path / "rounds" / "0.json").write_text(text)
    with pytest.raises(DocumentError, match=r"0\.json"):
        job.rounds()


@pytest.mark.parametrize("unit", ["../../secret", "0-1/../../x", "", "a-00000"])
def test_a_ledger_names_no_file_outside_its_units(tmp_path: Path, unit: str) -> None:
    job = job_in(tmp_path)
    job.make(fake, Part())
    line = json.loads(next(job.lines()).model_dump_json()) | {"unit": unit}
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(DocumentError, match="line 1: unit"):
        list(read_lines(path))


def test_a_damaged_job_says_which_file(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.make(fake, Part())
    shard = tmp_path / "units" / "0-00001.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(DocumentError, match=r"0-00001.tar cannot be read.*made again"):
        job.images(job.units(0)[1])
    (tmp_path / "job.json").write_text("[")
    with pytest.raises(DocumentError, match=r"job.json cannot be read"):
        job_in(tmp_path)


def test_a_ledger_line_that_does_not_hold_is_named(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.make(fake, Part())
    lines = list(job.lines())
    path = tmp_path / "ledger.jsonl"
    write_lines(path, lines)
    assert list(read_lines(path)) == lines
    texts = path.read_text().splitlines()
    broken = json.loads(texts[4])
    broken["seed"] = -3
    path.write_text("\n".join([*texts[:4], json.dumps(broken), *texts[5:]]) + "\n")
    with pytest.raises(DocumentError, match=r"ledger.jsonl, line 5: seed"):
        list(read_lines(path))
    path.write_text("\n".join([*texts[:2], texts[2][:40]]))
    with pytest.raises(DocumentError, match=r"line 3 cannot be read"):
        list(read_lines(path))


@pytest.mark.parametrize("text", ["0/3", "4/3", "a/b", "2", "1/0", "-1/2", ""])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match='--part is "2/5"'):
        Part.parse(text)


def test_seeds_of_images_do_not_meet() -> None:
    seeds = {seed_of(seed, number) for seed in range(20) for number in range(500)}
    assert len(seeds) == 10_000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_no_line_holds_what_is_unknown(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.make(fake, Part())
    line = next(job.lines())
    assert (line.kept, line.reason, line.scores, line.start) == (None, None, None, None)
    assert Line.model_validate_json(line.model_dump_json()) == line
    assert np.asarray(job.images(job.units(0)[0])[0]).shape == (8, 8, 3)


def test_another_judge_forgets_the_later_rounds_and_keeps_the_images_of_the_first(
    tmp_path: Path,
) -> None:
    job = job_in(tmp_path, (7, 7, 6))
    job.begin("strict", (7, 7, 6))
    job.plan_round((1, 0, 4))
    job.make(fake, Part())
    before = contents(tmp_path)
    job.begin("strict", (7, 7, 6))
    assert contents(tmp_path) == before, "the same judge goes on"
    job.begin("mild", (7, 7, 6))
    after = contents(tmp_path)
    gone = {name for name in before if name not in after}
    assert gone == {"rounds/1.json", "units/1-00000.tar", "units/1-00000.jsonl"}
    assert [path.name for path in (tmp_path / "times").iterdir()].count("1-00000") == 0
    assert all(after[name] == before[name] for name in after if name != "judge")
    assert job.rounds() == [(7, 7, 6)] and job.missing() == []


def test_killed_while_it_forgets_a_round_the_next_try_forgets_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_in(tmp_path, (7, 7, 6))
    job.begin("strict", (7, 7, 6))
    job.plan_round((9, 0, 4))
    job.make(fake, Part())
    from edgedistill.synth import job as room

    real, left = room.remove, [2]

    def dying(path: Path) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(path)

    monkeypatch.setattr(room, "remove", dying)
    with pytest.raises(KeyboardInterrupt):
        job.begin("mild", (7, 7, 6))
    monkeypatch.setattr(room, "remove", real)
    job.begin("mild", (7, 7, 6))
    assert job.rounds() == [(7, 7, 6)]
    assert not [name for name in contents(tmp_path) if name.startswith("units/1-")]


COUNTS = st.integers(1, 30)


@settings(max_examples=40)
@given(asked=st.lists(st.tuples(COUNTS, st.booleans()), min_size=1, max_size=5), last=COUNTS)
def test_a_first_round_of_another_size_goes_on_with_the_same_images(
    asked: list[tuple[int, bool]], last: int
) -> None:
    """Whatever was asked for before, and made of it, the folder ends as a new one does, but for spare units."""
    with tempfile.TemporaryDirectory() as name:
        used, fresh = job_in(Path(name) / "used"), job_in(Path(name) / "fresh")
        for each, whole in asked:
            used.begin("strict", [each] * len(CLASSES))
            if whole:
                used.make(fake, Part())
            else:
                with suppress(KeyboardInterrupt):
                    used.make(Broken(1).again, Part())
        for job in (used, fresh):
            job.begin("strict", [last] * len(CLASSES))
            job.make(fake, Part())
        assert list(used.lines()) == list(fresh.lines())
        ours = contents(fresh.folder)
        assert {name: contents(used.folder).get(name) for name in ours} == ours


def test_twice_as_many_images_make_only_the_second_half(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.begin("strict", (8, 8, 8))
    assert job.make(fake, Part()) == 24
    job.begin("strict", (16, 16, 16))
    assert job.make(fake, Part()) == 24
    job.begin("strict", (8, 8, 8))
    assert job.missing() == [] and len(list(job.lines())) == 24
    job.begin("strict", (8, 8, 9))
    assert len(job.missing()) == 4, "classes that do not come in turn are other images"


def test_the_seconds_of_a_job_are_those_of_the_units_that_are_there(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    assert job.seconds == 0
    job.make(fake, Part(0, 2))
    half = job.seconds
    job.make(fake, Part(1, 2))
    assert 0 < half < job.seconds
    again = job_in(tmp_path)
    assert again.make(fake, Part()) == 0 and again.seconds == job.seconds
    assert again.made == 20
