"""Your own Parquet: every bad input gets an error that says what, where and what to do."""

import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf_profile import tables
from conf_profile.data import dataset, exact, own
from conf_profile.errors import DataError, TaxonomyError

DAY = datetime(2025, 1, 1, tzinfo=UTC)
LATER = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)


def behaviour_rows(*users):
    return [{"user_id": user, "event_timestamp": DAY, "watch": ["tea"], "search": [], "submit": []} for user in users]


def demographics_rows(*users):
    empty = {"self_age": None, "self_gender": None, "signature": None, "region": None}
    return [{"user_id": user, "event_timestamp": LATER, **empty, "consent": True} for user in users]


@pytest.fixture
def folder(tmp_path):
    tables.write(
        tmp_path / "behaviour.parquet",
        tables.from_rows(behaviour_rows("a", "b"), tables.BEHAVIOUR),
        tables.BEHAVIOUR,
    )
    tables.write(
        tmp_path / "demographics.parquet",
        tables.from_rows(demographics_rows("b", "c"), tables.DEMOGRAPHICS),
        tables.DEMOGRAPHICS,
    )
    (tmp_path / "taxonomy.yaml").write_text("attributes: {gender: [female, male]}")
    return tmp_path


def replace(folder, name, change):
    """Rewrites a table with `change`, without the checks of `tables.write`."""
    pq.write_table(change(pq.read_table(folder / f"{name}.parquet")), folder / f"{name}.parquet")


def write_labels(folder, rows):
    tables.write(folder / "labels.parquet", tables.from_rows(rows, tables.LABELS), tables.LABELS)


def test_a_good_folder(folder) -> None:
    checked = own.check_folder(folder)
    assert (checked.users, checked.as_of, checked.labels, checked.lexicon) == (
        3, "2025-01-02T03:04:05+00:00", None, None,
    )  # fmt: skip
    assert checked.name == folder.name
    assert not (folder / "dataset.json").exists()


def test_users_in_one_table_only_are_counted() -> None:
    behaviour = tables.from_rows(behaviour_rows("a", "b"), tables.BEHAVIOUR)
    demographics = tables.from_rows(demographics_rows("b", "c", "d"), tables.DEMOGRAPHICS)
    labels = tables.from_rows([{"user_id": u, "attribute": "gender", "tag": "male"} for u in "dx"], tables.LABELS)
    assert own.count_coverage(behaviour, demographics, labels) == own.Coverage(4, 2, 1, 1)


def test_as_of_comes_from_the_manifest_where_there_is_one(folder) -> None:
    dataset.finish(folder, "mine", "2024-06-01T00:00:00+02:00", source="sensors", licence="ours")
    checked = own.check_folder(folder)
    assert (checked.name, checked.as_of, checked.source) == ("mine", "2024-05-31T22:00:00+00:00", "sensors")


def test_the_given_taxonomy_wins(folder, tmp_path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("attributes: {age: [young, old]}")
    assert own.check_folder(folder, other).task == other


def test_empty_lists_and_megabytes_of_text_are_fine(folder) -> None:
    rows = [{**behaviour_rows("a")[0], "watch": [], "search": ["x" * 1_000_000, "\x00\x1b<age>"]}]
    tables.write(folder / "behaviour.parquet", tables.from_rows(rows, tables.BEHAVIOUR), tables.BEHAVIOUR)
    assert own.check_folder(folder).users == 3


@pytest.mark.parametrize("name", ["behaviour", "demographics"])
def test_a_missing_file(folder, name) -> None:
    (folder / f"{name}.parquet").unlink()
    with pytest.raises(DataError, match=rf"lacks {name}\.parquet"):
        own.check_folder(folder)


def test_no_folder(tmp_path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        own.check_folder(tmp_path / "nowhere")


def test_no_taxonomy(folder) -> None:
    (folder / "taxonomy.yaml").unlink()
    with pytest.raises(DataError, match=r"lacks task\.yaml; write one such as 'attributes:"):
        own.check_folder(folder)


@pytest.mark.parametrize("text", ["attributes: {gender: []}", "attributes: {gender: [male, male]}", "nothing"])
def test_a_bad_taxonomy(folder, text) -> None:
    (folder / "taxonomy.yaml").write_text(text)
    with pytest.raises(TaxonomyError, match=r"taxonomy\.yaml"):
        own.check_folder(folder)


def test_no_parquet(folder) -> None:
    (folder / "behaviour.parquet").write_text("user_id,watch\n")
    with pytest.raises(DataError, match=r"behaviour\.parquet: cannot be read as Parquet"):
        own.check_folder(folder)


@pytest.mark.parametrize(
    ("name", "column"),
    [("behaviour", "search"), ("demographics", "consent"), ("behaviour", "event_timestamp")],
)
def test_a_missing_column(folder, name, column) -> None:
    replace(folder, name, lambda table: table.drop_columns([column]))
    with pytest.raises(DataError, match=rf"{name}\.parquet: the table '{name}' lacks the column\(s\) {column}"):
        own.check_folder(folder)


@pytest.mark.parametrize(
    ("name", "column", "values", "message"),
    [
        (
            "behaviour",
            "watch",
            pa.array(["tea", "tea"]),
            "'watch' of 'behaviour' has the type string, expected list",
        ),
        ("behaviour", "watch", pa.array([["tea"], None]), "'watch' of 'behaviour' is empty in 1 row.*row 1"),
        (
            "behaviour",
            "watch",
            pa.array([["tea"], [None]], pa.list_(pa.string())),
            "an empty \\(null\\) element",
        ),
        ("behaviour", "user_id", pa.array(["a", " "]), "row 1 has a blank user_id"),
        ("behaviour", "user_id", pa.array(["a", "a"]), "has 2 rows for user_id=a"),
        ("demographics", "user_id", pa.array(["b", "b"]), "has 2 rows for user_id=b"),
        ("demographics", "consent", pa.array([True, None]), "'consent' of 'demographics' is empty in 1 row"),
        (
            "demographics",
            "consent",
            pa.array(["yes", "no"]),
            "'consent' .* has the type string, expected bool",
        ),
        (
            "demographics",
            "event_timestamp",
            pa.array(["2025-01-01Z"] * 2),
            "has the type string, expected timestamp",
        ),
    ],
)
def test_a_bad_column(folder, name, column, values, message) -> None:
    replace(folder, name, lambda table: table.set_column(table.column_names.index(column), column, values))
    with pytest.raises(DataError, match=message):
        own.check_folder(folder)


@pytest.mark.parametrize("name", ["behaviour", "demographics"])
def test_ids_that_two_tables_spell_differently(folder, name) -> None:
    for table, ids in (("behaviour", ["1", "2"]), ("demographics", ["2", "3"])):
        written = [f"{user}.0" for user in ids] if table == name else ids
        replace(folder, table, lambda data, written=written: data.set_column(0, "user_id", pa.array(written)))
    with pytest.raises(DataError, match=rf"{name}\.parquet: user_id '2.0' is '2' in .*write ids alike"):
        own.check_folder(folder)


def test_a_copy_of_a_data_set_is_in_the_exact_form_and_whole(folder, tmp_path) -> None:
    for name in ("behaviour", "demographics"):
        replace(folder, name, lambda data: data.set_column(0, "user_id", pa.array([1, 2])))
    write_labels(folder, [{"user_id": "1", "attribute": "gender", "tag": "male"}])
    copied = exact.copy_dataset(own.check_folder(folder), tmp_path / "copy")
    assert dataset.load(tmp_path / "copy") == copied
    assert set(copied.paths) == {"behaviour.parquet", "demographics.parquet", "labels.parquet", "taxonomy.yaml"}
    assert pq.read_table(copied.behaviour).column("user_id").to_pylist() == ["1", "2"]
    assert own.check_folder(tmp_path / "copy").as_of == copied.as_of
    with pytest.raises(DataError, match="copy: cannot be written: File exists; name a new folder"):
        exact.copy_dataset(copied, tmp_path / "copy")


@pytest.mark.parametrize(
    ("name", "message"),
    [("behaviour", "is empty; there is nothing"), ("demographics", "is empty; it holds the consent")],
)
def test_an_empty_data_set(folder, name, message) -> None:
    replace(folder, name, lambda table: table.slice(0, 0))
    with pytest.raises(DataError, match=message):
        own.check_folder(folder)


@pytest.mark.parametrize(
    ("attribute", "tag", "message"),
    [
        ("gender", "robot", "gender has the tag 'robot', which is not in the taxonomy; it has female, male"),
        ("height", "tall", "attribute 'height' is not in the taxonomy; it has gender"),
    ],
)
def test_labels_outside_the_taxonomy(folder, attribute, tag, message) -> None:
    write_labels(folder, [{"user_id": "a", "attribute": attribute, "tag": tag}])
    with pytest.raises(DataError, match=rf"labels\.parquet: {message}"):
        own.check_folder(folder)


def test_two_labels_for_one_attribute(folder) -> None:
    row = {"user_id": "a", "attribute": "gender", "tag": "male"}
    pq.write_table(tables.from_rows([row, {**row, "tag": "female"}], tables.LABELS), folder / "labels.parquet")
    with pytest.raises(DataError, match="has 2 rows for user_id=a, attribute=gender"):
        own.check_folder(folder)


def test_partial_labels_are_fine_and_have_a_digest_of_their_own(folder) -> None:
    without = own.check_folder(folder)
    write_labels(folder, [{"user_id": "a", "attribute": "gender", "tag": "male"}])
    checked = own.check_folder(folder)
    assert checked.labels == folder / "labels.parquet"
    assert checked.digest() == without.digest()
    assert checked.labels_digest() != without.labels_digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "needs the key 'entries'"),
        (
            json.dumps({"entries": {}, "fields": {"age": {"30": {"gender": {"x": 1}}}}}),
            "field 'age', value '30': gender has the tag 'x'",
        ),
        (json.dumps({"entries": {"tea": {"gender": {"robot": 1}}}}), "entry 'tea': gender has the tag 'robot'"),
        (
            json.dumps({"entries": {}, "prior": {"height": {"tall": 1}}}),
            "prior: attribute 'height' is not in the taxonomy",
        ),
        (
            json.dumps({"entries": {"tea": {"male": 1}}}),
            "entry 'tea': 'male' is a tag of gender, not an attribute; write {'gender': {'male': WEIGHT}}",
        ),
        (
            json.dumps({"entries": {"tea": {"gender": "male"}}}),
            "entry 'tea': gender must map tags to weights, not be 'male'",
        ),
        (json.dumps({"entries": {"tea": 1}}), "entry 'tea' must map attributes to tag -> weight, not be 1"),
        (json.dumps({"entries": {"tea": {"gender": {"male": "1"}}}}), "'male' has the weight '1'; give a number"),
        ('{"entries": {"tea": {"gender": {"male": NaN}}}}', "'male' has the weight nan; give a number"),
        (json.dumps({"entries": {" ": {}}}), "entry ' ' is blank; remove it"),
        (json.dumps({"entries": {"Tea": {}, "tea": {}}}), "entry 'tea' is there as 'Tea', too"),
        (json.dumps({"entries": {}, "match": "regex"}), "match is 'regex'; choose phrase, word, part"),
        (json.dumps({"entries": {}, "entrys": {}}), "unknown key 'entrys'; the keys are name, match, entries"),
        (json.dumps({"entries": {}, "random_levels": 2}), "random_levels is 2; give a share from 0 to 1"),
        (json.dumps({"entries": {}, "fields": []}), "fields must map a label to value"),
        (json.dumps({"entries": {}, "fields": {"age": 1}}), "field 'age' must map values"),
        (json.dumps({"entries": {}, "fields": {"height": {}}}), "fields has 'height'.*the labels are age, gender"),
        (
            json.dumps({"entries": {}, "fields": {"self_age": {}}}),
            "fields has 'self_age', which is no label of a scalar feature; write 'age', its label in the prompt",
        ),
    ],
)
def test_a_bad_lexicon(folder, text, message) -> None:
    (folder / "lexicon.json").write_text(text)
    with pytest.raises(DataError, match=rf"lexicon\.json: .*{message.replace('{', '.').replace('}', '.')}"):
        own.check_folder(folder)


def test_a_lexicon_may_have_capitals(folder) -> None:
    (folder / "lexicon.json").write_text(json.dumps({"entries": {"Tea": {"gender": {"male": 1}}}, "match": "word"}))
    assert own.check_folder(folder).lexicon == folder / "lexicon.json"


def test_finish_and_load_are_inverse(folder) -> None:
    made = dataset.finish(folder, "mine", LATER, source="sensors", licence="ours")
    assert dataset.load(folder) == made
    assert made.users == 2


def test_a_file_changed_afterwards_is_noticed(folder) -> None:
    dataset.finish(folder, "mine", LATER, source="sensors", licence="ours")
    replace(folder, "behaviour", lambda table: table.slice(0, 1))
    with pytest.raises(DataError, match=r"behaviour\.parquet: was changed after the data set was finished"):
        dataset.load(folder)


@pytest.mark.parametrize(
    ("as_of", "message"), [("2025-01-01T00:00:00", "has no zone"), ("yesterday", "is not an ISO time")]
)
def test_a_bad_moment(folder, as_of, message) -> None:
    with pytest.raises(DataError, match=f"as_of: .*{message}"):
        dataset.finish(folder, "mine", as_of, source="sensors", licence="ours")


def test_an_unfinished_folder(folder) -> None:
    with pytest.raises(DataError, match=r"dataset\.json: cannot be read .*is .* a finished data set"):
        dataset.load(folder)


def test_a_manifest_without_its_keys(folder) -> None:
    (folder / "dataset.json").write_text('{"name": "mine"}')
    with pytest.raises(DataError, match="lacks users, as_of, files, source, licence"):
        dataset.load(folder)
