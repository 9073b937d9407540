"""A taxonomy is data that a user writes: every way to get it wrong has a message."""

import pytest

from conf_profile.dialogue import task as tasks
from conf_profile.errors import TaxonomyError


def test_builtin_profile_has_the_papers_six_attributes():
    names = tasks.builtin("profile").names
    assert names == ("age", "gender", "industry", "occupation", "education", "life_stage")


def test_movielens_has_21_occupations():
    assert len(tasks.builtin("movielens")["occupation"].tags) == 21


def test_round_trip(tmp_path):
    original = tasks.builtin("profile")
    original.save(tmp_path / "taxonomy.yaml")
    assert tasks.load(tmp_path / "taxonomy.yaml") == original


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "expected a mapping"),
        ({"attributes": {}}, "is empty"),
        ({"attributes": {"age": []}}, "at least two tags"),
        ({"attributes": {"age": ["young"]}}, "at least two tags"),
        ({"attributes": {"age": "young"}}, "at least two tags"),
        ({"attributes": {"age": ["young", "young"]}}, "'young' twice"),
        ({"attributes": {"age": ["young", ""]}}, "has the tag ''"),
        ({"attributes": {"age": ["young", 25]}}, "has the tag 25"),
        ({"attributes": {"age": ["young", "unknown"]}}, "not 'unknown'"),
        ({"attributes": {"age": ["young", "<b>"]}}, "without < > &"),
        ({"attributes": {"Age": ["young", "old"]}}, "must match"),
        ({"attributes": {"rationale": ["young", "old"]}}, "not be one of"),
    ],
)
def test_what_breaks_a_rule_is_named(data, message):
    with pytest.raises(TaxonomyError, match=message):
        tasks.parse(data)


def test_a_duplicate_attribute_is_an_error_not_the_last_one(tmp_path):
    path = tmp_path / "taxonomy.yaml"
    path.write_text("attributes:\n  age: [a, b]\n  age: [c, d]\n")
    with pytest.raises(TaxonomyError, match=r"duplicate key 'age'"):
        tasks.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("attributes: {age: [älter, b]}".encode("latin-1"), "is not UTF-8"), (b"? [a]\n: b\n", "unhashable key")],
)
def test_a_file_that_is_no_taxonomy_is_named(tmp_path, content, message):
    path = tmp_path / "taxonomy.yaml"
    path.write_bytes(content)
    with pytest.raises(TaxonomyError, match=rf"(?s)taxonomy\.yaml.*{message}"):
        tasks.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TaxonomyError, match=r"nowhere\.yaml"):
        tasks.load(tmp_path / "nowhere.yaml")
