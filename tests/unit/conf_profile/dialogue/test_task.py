"""A task is data that a user writes: every way to get it wrong has a message."""

import pytest

from conf_profile.dialogue import task as tasks
from conf_profile.errors import TaxonomyError

AGE = {"age": ["young", "old"]}
WHOLE = {
    "instruction": "You guess a reader's age.",
    "attributes": {"年齢": {"young": "below 30", "old": "30 & above"}, "plan": ["free", "a, b"]},
    "features": {
        "read": {"type": "list", "label": "读过", "max_characters": 120},
        "city": "category",
        "visits": {"type": "number", "label": "visits a month"},
        "said": {"type": "text", "self_report_of": "plan"},
    },
    "examples": [
        {
            "features": {"read": ["x", "y"], "visits": 3},
            "answer": {"plan": {"tag": "free", "level": 3}},
            "rationale": "x",
        }
    ],
}


def test_builtin_profile_has_the_papers_six_attributes():
    names = tasks.builtin("profile").names
    assert names == ("age", "gender", "industry", "occupation", "education", "life_stage")


def test_movielens_has_21_occupations():
    assert len(tasks.builtin("movielens")["occupation"].tags) == 21


def test_round_trip(tmp_path):
    original = tasks.builtin("profile")
    original.save(tmp_path / "taxonomy.yaml")
    assert tasks.load(tmp_path / "taxonomy.yaml") == original


def test_a_whole_task_goes_round(tmp_path):
    task = tasks.parse(WHOLE)
    task.save(tmp_path / "task.yaml")
    assert tasks.load(tmp_path / "task.yaml") == task
    assert task["年齢"].descriptions == ("below 30", "30 & above")
    assert task.features.types == {"read": "list", "city": "category", "visits": "number", "said": "text"}


def test_a_taxonomy_of_an_earlier_release_is_the_papers_task(tmp_path):
    (tmp_path / "taxonomy.yaml").write_text("attributes: {age: [young, old]}")
    found = tasks.load(tasks.find(tmp_path))
    assert found == tasks.parse({"attributes": AGE})
    assert found.features.lists == ("watch", "search", "submit")
    found.save(tmp_path / "task.yaml")
    assert tasks.find(tmp_path).name == "task.yaml"


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
        ({"attributes": {"age": ["young", "<b>"]}}, "without < > or control"),
        ({"attributes": {"Age": ["young", "old"]}}, "lower-case letter"),
        ({"attributes": {"a b": ["young", "old"]}}, "lower-case letter"),
        ({"attributes": {3: ["young", "old"]}}, "lower-case letter"),
        ({"attributes": {"age": {"young": "below 30", "old": None}}}, "'old' has no description, and others have one"),
        ({"attributes": {"age": {"young": "x" * 301, "old": "y"}}}, "301 characters; at most 300"),
        ({"attributes": AGE, "feature": {}}, r"unknown key\(s\) feature; the keys are instruction, attributes"),
        ({"attributes": AGE, "instruction": ""}, "'instruction' must be a text"),
        ({"attributes": AGE, "features": ["read"]}, "'features' must map names to types"),
        ({"attributes": AGE, "features": {"read": "lists"}}, "the type 'lists'; choose list, text, category, number"),
        ({"attributes": AGE, "features": {"city": "text"}}, "no feature is a list"),
        ({"attributes": AGE, "features": {"age": "list"}}, "feature 'age' has the name of an attribute"),
        ({"attributes": AGE, "features": {"Read": "list"}}, r"'Read' must match \[a-z\]"),
        ({"attributes": AGE, "features": {"consent": "list"}}, "not be one of consent"),
        ({"attributes": AGE, "features": {"read": {"type": "list", "lable": "x"}}}, r"unknown key\(s\) lable"),
        ({"attributes": AGE, "features": {"read": {"type": "list", "label": "a: b"}}}, "the label 'a: b'"),
        (
            {"attributes": AGE, "features": {"a": {"type": "list", "label": "x"}, "b": {"type": "text", "label": "x"}}},
            "two features have the label 'x'",
        ),
        ({"attributes": AGE, "features": {"read": {"type": "list", "max_characters": 0}}}, "whole number from 1"),
        (
            {"attributes": AGE, "features": {"read": {"type": "list", "self_report_of": "sex"}}},
            "names 'sex', which is not an attribute",
        ),
        ({"attributes": AGE, "examples": "x"}, "must be a list of examples"),
        ({"attributes": AGE, "examples": [{"features": {}}]}, "example 1 must be a mapping with 'features' and 'ans"),
        (
            {"attributes": AGE, "examples": [{"features": {"read": ["x"]}, "answer": {}}]},
            "example 1: unknown feature 'read'",
        ),
        (
            {"attributes": AGE, "examples": [{"features": {"watch": "x"}, "answer": {}}]},
            "example 1: 'watch' must be a list of quoted texts",
        ),
        (
            {"attributes": AGE, "examples": [{"features": {}, "answer": {"age": "ancient"}}]},
            "example 1 has an answer that does not parse: age: tag 'ancient'",
        ),
        (
            {"attributes": AGE, "examples": [{"features": {}, "answer": {"age": {"tag": "old", "level": 9}}}]},
            "does not parse: age: level 9",
        ),
        ({"attributes": AGE, "examples": [{"features": {}, "answer": {"hat": "x"}}]}, "answers 'hat'"),
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
