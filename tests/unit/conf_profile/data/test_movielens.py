"""MovieLens-100K in both its forms, written by hand; the real one: integration/test_movielens_real.py."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conf_profile import tables
from conf_profile.data import dataset
from conf_profile.data.movielens import movielens
from conf_profile.data.movielens.sources import Film
from conf_profile.dialogue import task as tasks
from conf_profile.errors import DataError

NO_CACHE = Path("/nonexistent")


def genre_flags(*positions: int) -> str:
    return "|".join("1" if position in positions else "0" for position in range(19))


def grouplens(folder: Path) -> Path:
    folder.mkdir()
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|V3N4P\n", encoding="latin-1")
    (folder / "u.item").write_text(
        f"1|Toy Story (1995)|01-Jan-1995||http://x|{genre_flags(3, 4, 5)}\n"
        f"2|Misérables, Les (1995)|01-Jan-1995||http://x|{genre_flags(8)}\n"
        f"3|Shawshank Redemption, The (1994)|01-Jan-1994||http://x|{genre_flags(8)}\n"
        f"4|unknown||||{genre_flags(0)}\n",
        encoding="latin-1",
    )
    (folder / "u.data").write_text(
        "1\t3\t5\t881250949\n1\t1\t4\t881250940\n1\t2\t2\t881250945\n2\t4\t5\t891717742\n1\t4\t5\t886000000\n"
    )
    return folder


def recbole(folder: Path) -> Path:
    folder.mkdir()
    (folder / "ml-100k.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\tV3N4P\n"
    )
    (folder / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tToy Story\t1995\tAnimation Children's Comedy\n2\tMisérables, Les\t1995\tDrama\n"
        "3\tShawshank Redemption, The\t1994\tDrama\n4\tunknown\tunknown\tunknown\n",
        encoding="utf-8",
    )
    (folder / "ml-100k.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "1\t3\t5\t881250949\n1\t1\t4\t881250940\n1\t2\t2\t881250945\n2\t4\t5\t891717742\n1\t4\t5\t886000000\n"
    )
    return folder


@pytest.mark.parametrize("write", [grouplens, recbole])
def test_both_forms_give_the_same_data_set(tmp_path, write) -> None:
    made = movielens.build(tmp_path / "out", write(tmp_path / "in"), cache=NO_CACHE)
    behaviour = tables.read(made.behaviour, tables.BEHAVIOUR).to_pylist()
    toy_story, shawshank = (
        "Toy Story (1995) [animation, children's, comedy]",
        "The Shawshank Redemption (1994) [drama]",
    )
    assert [(row["user_id"], row["event_timestamp"], row["watch"]) for row in behaviour] == [
        ("1", datetime.fromtimestamp(881250949, UTC), [toy_story, shawshank]),
        ("1", datetime.fromtimestamp(886000000, UTC), [toy_story, shawshank, "unknown"]),
        ("2", datetime.fromtimestamp(891717742, UTC), ["unknown"]),
    ]
    assert all(row["search"] == [] and row["submit"] == [] for row in behaviour)
    assert made.as_of == "1998-04-04T19:22:22+00:00"
    assert made.users == 2
    assert dataset.load(tmp_path / "out").digest() == made.digest()


def test_labels_stand_in_the_labels_table_alone(tmp_path) -> None:
    made = movielens.build(tmp_path / "out", grouplens(tmp_path / "in"), cache=NO_CACHE)
    labels = tables.read(made.labels, tables.LABELS).to_pylist()
    assert {(row["user_id"], row["attribute"], row["tag"]) for row in labels} == {
        ("1", "age", "18-24"), ("1", "gender", "male"), ("1", "occupation", "technician"),
        ("2", "age", "50-55"), ("2", "gender", "female"), ("2", "occupation", "other"),
    }  # fmt: skip
    demographics = tables.read(made.demographics, tables.DEMOGRAPHICS).to_pylist()
    assert [(row["region"], row["consent"]) for row in demographics] == [
        ("US mountains", True),
        ("abroad", True),
    ]
    assert all(row[name] is None for row in demographics for name in ("self_age", "self_gender", "signature"))


def test_features_do_not_change_when_the_labels_do(tmp_path) -> None:
    one = movielens.build(tmp_path / "one", grouplens(tmp_path / "in"), cache=NO_CACHE)
    people = tmp_path / "in" / "u.user"
    people.write_text("1|60|F|retired|85711\n2|17|M|student|V3N4P\n")
    other = movielens.build(tmp_path / "other", tmp_path / "in", cache=NO_CACHE)
    assert one.digest() == other.digest()
    assert one.digest(dataset.TEACHING_FILES) == other.digest(dataset.TEACHING_FILES)
    assert one.labels_digest() != other.labels_digest()


def test_fewer_users(tmp_path) -> None:
    source = grouplens(tmp_path / "in")
    made = movielens.build(tmp_path / "out", source, users=1, cache=NO_CACHE, seed=3)
    again = movielens.build(tmp_path / "again", source, users=1, cache=NO_CACHE, seed=3)
    for path, table in ((made.behaviour, tables.BEHAVIOUR), (made.labels, tables.LABELS)):
        assert len(set(tables.read(path, table).column("user_id").to_pylist())) == 1
    assert made.users == 1 and made.hashes == again.hashes


@pytest.mark.parametrize(
    ("film", "expected"),
    [
        (Film("Heat", 1995, ("action", "crime")), "Heat (1995) [action, crime]"),
        (Film("unknown", None, ()), "unknown"),
        (Film("A" * 100, 1995, ("war",)), "A" * 66 + "… (1995) [war]"),
    ],
)
def test_keyphrase(film, expected) -> None:
    assert movielens.keyphrase(film) == expected
    assert len(expected) <= 80


@pytest.mark.parametrize(
    ("age", "band"),
    [(7, "under-18"), (17, "under-18"), (18, "18-24"), (24, "18-24"), (25, "25-34"), (44, "35-44"),
     (45, "45-49"), (49, "45-49"), (50, "50-55"), (55, "50-55"), (56, "56+"), (73, "56+")],
)  # fmt: skip
def test_age_bands(age, band) -> None:
    assert movielens.age_band(age) == band


@pytest.mark.parametrize(
    ("zip_code", "expected"),
    [("02139", "US New England"), ("94043", "US Pacific"), ("94043-1234", "US Pacific"), ("T8H1N", "abroad"),
     ("", None), ("00", None)],
)  # fmt: skip
def test_regions(zip_code, expected) -> None:
    assert movielens.region(zip_code) == expected


def test_the_lexicon_speaks_of_the_taxonomys_tags_only() -> None:
    lexicon, known = movielens.lexicon(), tasks.builtin("movielens")
    assert lexicon["match"] == "part"
    for evidence in [*lexicon["entries"].values(), lexicon["prior"], lexicon["overconfidence"]]:
        for attribute, weights in evidence.items():
            assert set(weights) <= set(known[attribute].tags)
    assert all(entry == entry.lower() for entry in lexicon["entries"])
    json.dumps(lexicon)


def test_a_genre_is_not_mistaken_for_a_word_of_a_title() -> None:
    entries = movielens.lexicon()["entries"]
    title = movielens.keyphrase(Film("War of the Roses", 1989, ("comedy",))).lower()
    found = [entry for entry in entries if entry in title]
    assert found == ["[comedy", "(198"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("u.user", "1|24|M|technician\n", "u.user: line 1 has 4 fields, expected 5"),
        ("u.user", "1|old|M|technician|85711\n", "age is 'old', expected a number"),
        (
            "u.user",
            "1|24|M|pirate|85711\n2|53|F|other|V3N4P\n",
            "occupation 'pirate' is not in the movielens taxonomy",
        ),
        ("u.user", "1|24|M|technician|85711\n", "user '2' rated films but is not among the users"),
        ("u.data", "1\t99\t5\t881250949\n", "rated film '99', which is not listed"),
        ("u.data", "", "there are no ratings"),
        ("u.item", f"1|Toy Story (1995)||||{genre_flags().replace('0', 'x')}\n", "the genres must be 0 or 1"),
    ],
)
def test_bad_files_get_a_clear_error(tmp_path, file, text, message) -> None:
    source = grouplens(tmp_path / "in")
    (source / file).write_text(text)
    with pytest.raises(DataError, match=message):
        movielens.build(tmp_path / "out", source, cache=NO_CACHE)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_folder_of_something_else_gets_a_clear_error(tmp_path) -> None:
    with pytest.raises(DataError, match=r"is no MovieLens-100K folder; expected u\.user.*download ml-100k\.zip"):
        movielens.build(tmp_path / "out", tmp_path, cache=NO_CACHE)
