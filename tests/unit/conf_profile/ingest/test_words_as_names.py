"""Words of event logs, in any script, become names of features; the words stay as labels."""

import pytest
import yaml

from conf_profile.dialogue.task import load
from conf_profile.errors import DataError, TaxonomyError
from conf_profile.ingest.features import check_names, label_of, name_features, read_task, slug, write_task


def names(*words, given=None, task=None):
    found = name_features([(word, "list") for word in words], given or {}, read_task(task), "kind")
    check_names(found, given or {}, read_task(task))
    return [feature.name for feature in found]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("watch", "watch"), ("Watched Titles", "watched_titles"), ("add-to-cart", "add_to_cart"), ("Café", "cafe"),
        ("3d", "kind_3d"), ("page:view/v2", "page_view_v2"), ("__x__", "x"), ("ｆｕｌｌ", "full"), ("搜索", None),
        ("جست‌وجو", None), ("поиск v2", None), ("👍", None), ("x" * 50, "x" * 40),
    ],
)  # fmt: skip
def test_a_word_in_small_latin_letters(word, name):
    assert slug(word, "kind") == name


def test_other_scripts_get_a_number():
    assert names("watch", "搜索", "购买") == ["watch", "kind_1", "kind_2"]


@pytest.mark.parametrize(
    ("word", "label"),
    [
        ("جست‌وجو", "جست‌وجو"),
        ("👨‍👩‍👧", "👨‍👩‍👧"),
        ("page:view", "page view"),
        ("a\nb\x00<c>", "a b c"),
        ("x" * 50, "x" * 40),
    ],
)
def test_a_label_is_the_word_without_marks_of_the_prompt(word, label):
    assert label_of(word) == label


def test_a_name_can_be_given_and_stays_from_one_call_to_the_next(tmp_path):
    assert names("搜索", "Watch", given={"搜索": "searched"}) == ["searched", "watch"]
    found = name_features([("搜索", "list"), ("购买", "list")], {}, read_task(None), "kind")
    write_task(tmp_path / "task.yaml", found, read_task(None))
    assert names("新", "购买", "搜索", task=tmp_path / "task.yaml") == ["kind_3", "kind_2", "kind_1"]


def test_a_word_without_a_name_is_left_out_and_two_can_share_one_on_purpose():
    assert names("watch", "heartbeat", given={"heartbeat": None}) == ["watch"]
    assert names("Watch", "watch", given={"Watch": "seen", "watch": "seen"}) == ["seen", "seen"]


@pytest.mark.parametrize(
    ("words", "given", "message"),
    [
        (
            ("Watch", "watch"),
            {},
            "'Watch' and 'watch' would both be the feature 'watch'; name it otherwise, with --name",
        ),
        (("split",), {}, "'split' would be the feature 'split', which is a column of every table"),
        (("a",), {"a": "A b"}, r"which does not match \[a-z\]"),
        (("a", "b"), {"a": "b"}, "'a' and 'b' would both be the feature 'b'"),
    ],
)
def test_names_that_cannot_be(words, given, message):
    with pytest.raises(DataError, match=message):
        names(*words, given=given)


def test_a_name_like_an_attribute(tmp_path):
    (tmp_path / "task.yaml").write_text("attributes: {age: [a, b]}")
    with pytest.raises(DataError, match=r"'Age' would be the feature 'age', which is an attribute of .*task\.yaml"):
        names("Age", task=tmp_path / "task.yaml")


def test_the_task_takes_over_what_the_given_one_says(tmp_path):
    given = {
        "instruction": "You infer.", "attributes": {"age": ["a", "b"]},
        "examples": [{"features": {"kind_1": ["x"]}, "answer": {"age": "a"}}],
        "features": {"seen": {"type": "list", "label": "watch", "max_characters": 20}, "gone": "text"},
    }  # fmt: skip
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(given))
    task = read_task(tmp_path / "given.yaml")
    found = name_features([("watch", "list"), ("搜索", "list")], {}, task, "kind")
    write_task(tmp_path / "task.yaml", found, task)
    written = yaml.safe_load((tmp_path / "task.yaml").read_text())
    assert written == given | {
        "features": {
            "seen": {"type": "list", "label": "watch", "max_characters": 20},
            "kind_1": {"type": "list", "label": "搜索"},
        }
    }


def test_a_task_that_does_not_go_with_the_features_is_refused(tmp_path):
    given = "attributes: {age: [a, b]}\nexamples: [{features: {watch: [x]}, answer: {age: a}}]"
    (tmp_path / "given.yaml").write_text(given)
    task = read_task(tmp_path / "given.yaml")
    with pytest.raises(TaxonomyError, match=r"given\.yaml: example 1: unknown feature 'watch'; the features are seen"):
        write_task(tmp_path / "task.yaml", name_features([("seen", "list")], {}, task, "kind"), task)


def test_without_attributes_the_task_says_how_to_write_them(tmp_path):
    write_task(tmp_path / "task.yaml", name_features([("a", "list")], {}, read_task(None), "kind"), read_task(None))
    text = (tmp_path / "task.yaml").read_text()
    assert "# attributes:" in text
    uncommented = "\n".join(line.removeprefix("# ") for line in text.splitlines() if not line.endswith("tags:"))
    assert "attributes" in yaml.safe_load(uncommented.split("\n", 1)[1])


def test_labels_of_every_script_are_a_tasks(tmp_path):
    (tmp_path / "given.yaml").write_text("attributes: {age: [a, b]}")
    task = read_task(tmp_path / "given.yaml")
    words = ["جست‌وجو", "👨‍👩‍👧", "a;b", "{}", "x" * 80]
    write_task(tmp_path / "task.yaml", name_features([(word, "list") for word in words], {}, task, "kind"), task)
    labels = [feature.label for feature in load(tmp_path / "task.yaml").features]
    assert labels == ["جست‌وجو", "👨‍👩‍👧", "a b", "kind_3", "x" * 40]


def test_two_features_never_have_one_label(tmp_path):
    found = name_features([("a:b", "list"), ("a;b", "list")], {"a:b": "one", "a;b": "two"}, read_task(None), "kind")
    write_task(tmp_path / "task.yaml", found, read_task(None))
    features = yaml.safe_load((tmp_path / "task.yaml").read_text())["features"]
    assert [feature["label"] for feature in features.values()] == ["a b", "a b 2"]


@pytest.mark.parametrize("text", ["[1]", "features: [a]", "{"])
def test_a_task_that_is_none(tmp_path, text):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(DataError, match=r"t\.yaml: "):
        read_task(tmp_path / "t.yaml")
