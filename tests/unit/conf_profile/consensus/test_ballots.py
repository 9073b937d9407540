"""Answers become the same ballots from whatever form they come in: parsed, or as rows of a candidates table."""

import numpy as np
import pytest

from components.evaluation.teacher import read_samples
from conf_profile import tables
from conf_profile.consensus.ballots import Ballots
from conf_profile.consensus.candidates import blocks, sample_count
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.output_format import Answer, ProfileAnswer
from conf_profile.errors import DataError

TAGS = tasks.parse({"attributes": {"age": ["young", "old"], "job": ["cook", "nurse", "pilot"]}})


def answer(age, job):
    return ProfileAnswer("r", {"age": Answer(*age), "job": Answer(*job)})


ANSWERS = [
    [answer(("old", 5), ("cook", 1)), None, answer((None, 1), ("pilot", 4))],
    [answer(("young", 2), (None, 3)), answer(("young", 3), ("nurse", 2)), None],
]
EXPECTED = {
    "age": ([[1, -1, -1], [0, 0, -1]], [[5, 0, 0], [2, 3, 0]]),
    "job": ([[0, -1, 2], [-1, 1, -1]], [[1, 0, 4], [0, 2, 0]]),
}


def rows(answers, first_user=0):
    for user, samples in enumerate(answers, start=first_user):
        for number, found in enumerate(samples):
            for name in TAGS.names:
                said = found.answers[name] if found else Answer(None, None)
                yield {
                    "user_id": f"u{user}", "sample": number, "attribute": name, "tag": said.tag, "level": said.level,
                    "rationale": None, "well_formed": found is not None,
                }  # fmt: skip


def write(path, given):
    tables.write(path, tables.from_rows(list(given), tables.CANDIDATES), tables.CANDIDATES)
    return path


@pytest.mark.parametrize("name", TAGS.names)
def test_parsed_answers(name):
    ballots = Ballots.from_answers(ANSWERS, TAGS[name])
    assert (ballots.tags.tolist(), ballots.levels.tolist()) == EXPECTED[name]
    assert (ballots.samples, ballots.tag_count) == (3, len(TAGS[name].tags))


def test_parsed_answers_of_users_with_fewer_samples_and_of_nobody():
    ballots = Ballots.from_answers([ANSWERS[0], ANSWERS[1][:1], []], TAGS["age"])
    assert ballots.tags.tolist() == [[1, -1, -1], [0, -1, -1], [-1, -1, -1]]
    assert Ballots.from_answers([], TAGS["age"]).tags.shape == (0, 0)


def test_rows_of_a_table(tmp_path):
    path = write(tmp_path / "candidates.parquet", rows(ANSWERS))
    assert sample_count([path]) == 3
    (block,) = blocks(path, TAGS, 3)
    for position, name in enumerate(TAGS.names):
        assert (block.tags[position].tolist(), block.levels[position].tolist()) == EXPECTED[name]


def test_the_evaluation_reads_the_same_from_all_shards(tmp_path):
    shards = [write(tmp_path / f"{number}.parquet", rows([row], number)) for number, row in enumerate(ANSWERS)]
    samples, asked = read_samples(shards, TAGS)
    assert asked.to_pylist() == ["u0", "u1"]
    for position, name in enumerate(TAGS.names):
        assert (samples.tags[:, position].tolist(), samples.levels[:, position].tolist()) == EXPECTED[name]
    nothing, nobody = read_samples([], TAGS)
    assert (nothing.tags.shape, len(nobody)) == ((0, 2, 0), 0)


def test_the_evaluation_refuses_a_user_in_two_shards(tmp_path):
    shards = [write(tmp_path / f"{number}.parquet", rows([row])) for number, row in enumerate(ANSWERS)]
    with pytest.raises(DataError, match=r"1\.parquet: row 0: user 'u0' appears again \(first in .*0\.parquet: row 0\)"):
        read_samples(shards, TAGS)


def test_ballots_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="at least one tag"):
        Ballots(np.empty((0, 3), np.int64), np.empty((0, 3), np.int64), 0)
    with pytest.raises(DataError, match="tag numbers from 0 to 2"):
        Ballots(np.array([[0, 2]]), np.array([[1, 1]]), 2)
