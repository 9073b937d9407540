"""The sentiment benchmark, from a source distribution of a few lines that is made here; nothing is fetched."""

import asyncio
import hashlib
import io
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.sentiment import build, source
from conf_profile import tables
from conf_profile.config import resolve
from conf_profile.data import dataset, own
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.prompts import UserFeatures, render_messages
from conf_profile.errors import DataError
from conf_profile.teachers.lexicon import LexiconTeacher
from conf_profile.teachers.protocol import Request
from support.paths import ROOT

NO_CACHE = Path("/nonexistent")
MOVIES = (
    "1\t2.4\tWonderful, simply ''wonderful''! :D\r\n"
    "2\t-0.3\tA re-make -- of (sorts) .\r\n"
    "3\t-1.50001\tIt's BAD;\r\n"
    "4\t0\t...\r\n"
)
REVIEWS = "1_1\t0.3\tworks ;) \r\n"
LEXICON = (
    "wonderful\t2.7\t0.78102\t[2, 2, 3, 2, 3, 3, 4, 2, 4, 2]\n"
    "bad\t-2.5\t0.67082\t[-3, -2, -4, -3, -2, -2, -3, -2, -2, -2]\n"
    ":D\t2.3\t0.5\t[]\n"
    ";)\t0.9\t0.5\t[]\n"
    "LOL\t2.9\t0.5\t[]\n"
    "lol\t1.8\t0.5\t[]\n"
)


def archive(members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as out:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def sdist(folder, movies=MOVIES, reviews=REVIEWS, lexicon=LEXICON, without=()):
    """(tarball, its SHA-256)"""
    texts = {source.TEXT_MEMBERS["movie"]: movies.encode(), source.TEXT_MEMBERS["amazon"]: reviews.encode()}
    inner = archive({name: content for name, content in texts.items() if name not in without})
    outer = {source.LEXICON_MEMBER: lexicon.encode(), source.ARCHIVE_MEMBER: inner}
    data = archive({name: content for name, content in outer.items() if name not in without})
    path = folder / "sdist.tar.gz"
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def made(folder, texts=100, **changes):
    tarball, sha256 = sdist(folder, **changes)
    return build.build(folder / "out", tarball, texts, NO_CACHE, sha256)


def test_a_text_becomes_a_user_whose_keyphrases_are_its_words(tmp_path) -> None:
    rows = tables.read(made(tmp_path).behaviour, tables.behaviour_table(build.TASK.features)).to_pylist()
    assert {row["user_id"]: row["words"] for row in rows} == {
        "movie-1": ["wonderful", "simply", "wonderful", ":d"],
        "movie-2": ["a", "re-make", "of", "sorts"],
        "movie-3": ["it's", "bad"],
        "amazon-1_1": ["works", ";)"],
    }
    assert {row["event_timestamp"] for row in rows} == {datetime(2014, 6, 1, tzinfo=UTC)}


def test_nothing_else_is_known_of_it(tmp_path) -> None:
    rows = pq.read_table(made(tmp_path).demographics).to_pylist()
    assert len(rows) == 4 and all(row["consent"] for row in rows)
    assert {name for row in rows for name in row} == {"user_id", "event_timestamp", "consent"}


def test_the_prompt_speaks_of_a_text_and_of_no_user_who_watched_films() -> None:
    messages = render_messages(UserFeatures("x", words=["bad"]), build.TASK, "full", 40)
    assert messages[-1]["content"] == "words: bad"
    assert messages[0]["content"].startswith("You judge the sentiment of a short text")
    assert "watch" not in messages[0]["content"]


def test_its_rating_becomes_its_label(tmp_path) -> None:
    rows = tables.read(made(tmp_path).labels, tables.LABELS).to_pylist()
    assert [(row["user_id"], row["attribute"], row["tag"]) for row in rows] == [
        ("movie-1", "sentiment", "positive"),
        ("movie-2", "sentiment", "neutral"),
        ("movie-3", "sentiment", "negative"),
        ("amazon-1_1", "sentiment", "positive"),
    ]


@pytest.mark.parametrize(
    ("rating", "tag"),
    [(-4, "negative"), (-0.31, "negative"), (-0.3, "neutral"), (0, "neutral"), (0.29, "neutral"), (0.3, "positive"),
     (4, "positive")],
)  # fmt: skip
def test_bands_of_the_rating(rating, tag) -> None:
    assert build.tag(rating) == tag


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good. GREAT!! ''fine''", ["good", "great", "fine"]),
        ("(well-made, isn't it?)", ["well-made", "isn't", "it"]),
        (":) ... :( --", [":)"]),
        ("", []),
    ],
)
def test_words(text, expected) -> None:
    assert build.words(text, {":)"}) == expected


def test_evidence_of_a_word() -> None:
    assert build.evidence(0.0) == pytest.approx({"negative": -1 / 6, "neutral": 1 / 3, "positive": -1 / 6}, abs=1e-4)
    assert max(build.evidence(2.9), key=build.evidence(2.9).get) == "positive"
    assert max(build.evidence(-1.5), key=build.evidence(-1.5).get) == "negative"
    assert sum(build.evidence(1.3).values()) == pytest.approx(0, abs=1e-3)


def test_a_higher_valence_speaks_more_for_the_more_positive_of_any_two_tags() -> None:
    weights = [build.evidence(tenth / 10) for tenth in range(-40, 41)]
    for worse, better in zip(build.TAGS, build.TAGS[1:], strict=False):
        gains = [found[better] - found[worse] for found in weights]
        assert gains == sorted(gains) and len(set(gains)) == len(gains)


def test_the_lexicons_keys_are_what_the_teacher_reads() -> None:
    entries = build.lexicon([(";)", 0.9), ("LOL", 2.9), ("lol", 1.8), ("<3", 1.9)])["entries"]
    assert set(entries) == {",)", "lol", "‹3"}
    assert entries["lol"]["sentiment"] == build.evidence(2.35)


def test_the_teacher_finds_words_and_emoticons(tmp_path) -> None:
    data = made(tmp_path)
    tags = tasks.load(data.task)
    features = UserFeatures("x", words=["a", "wonderful", "day", ";)"])
    request = Request("x", tuple(render_messages(features, tags, "full", 40)), (0,))

    async def answers():
        return [answer.text async for answer in LexiconTeacher(data.lexicon, tags, 12, 0).complete([request])]

    assert asyncio.run(answers())[0].startswith("<rationale>wonderful; ,)</rationale><sentiment>")


def test_the_folder_passes_the_check_of_own_tables(tmp_path) -> None:
    written = made(tmp_path)
    checked = own.check_folder(tmp_path / "out")
    assert (checked.name, checked.users, checked.as_of) == ("sentiment", 4, "2014-06-01T00:00:00+00:00")
    assert checked.hashes == written.hashes == dataset.load(tmp_path / "out").hashes
    assert tasks.load(checked.task)["sentiment"].tags == build.TAGS
    assert build.shares(checked.labels) == {"negative": 0.25, "neutral": 0.25, "positive": 0.5}


def test_two_builds_are_the_same_and_leave_nothing_else(tmp_path) -> None:
    first = made(tmp_path)
    assert made(tmp_path).hashes == first.hashes
    names = {*dataset.REQUIRED_FILES, dataset.LABELS, dataset.LEXICON, dataset.MANIFEST}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_ratings_reach_the_labels_alone(tmp_path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    one = made(tmp_path / "one")
    other = made(tmp_path / "other", movies=MOVIES.replace("2.4", "-3"))
    assert one.digest() == other.digest()
    assert one.digest(dataset.TEACHING_FILES) == other.digest(dataset.TEACHING_FILES)
    assert one.labels_digest() != other.labels_digest()


def test_fewer_texts_are_among_the_more(tmp_path) -> None:
    snippets = [source.Snippet(f"movie-{number}", 0.0, "x") for number in range(50)]
    few, many = build.choose(snippets, 10), build.choose(snippets, 30)
    assert (len(few), len(many)) == (10, 30) and set(few) < set(many)
    assert few == sorted(few, key=snippets.index)
    assert made(tmp_path, texts=2).users == 2


def test_a_wrong_hash_is_refused(tmp_path, capsys) -> None:
    tarball, _ = sdist(tmp_path)
    with pytest.raises(DataError, match=r"sdist\.tar\.gz: is not the published vaderSentiment-3\.3\.2\.tar\.gz"):
        build.build(tmp_path / "out", tarball, cache=NO_CACHE)
    with pytest.raises(SystemExit) as end:
        build.main(["--out", str(tmp_path / "out"), "--source", str(tarball)])
    assert end.value.code == 2 and "sdist.tar.gz" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("member", [source.LEXICON_MEMBER, source.ARCHIVE_MEMBER, *source.TEXT_MEMBERS.values()])
def test_a_missing_member_is_named(tmp_path, member) -> None:
    with pytest.raises(DataError, match=rf"sdist\.tar\.gz.*lacks the file {member}"):
        made(tmp_path, without=(member,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"movies": "1\t2.0\n"}, "movieReviewSnippets_GroundTruth.txt: line 1 has 2 fields"),
        (
            {"reviews": "1\t0\tfine\n2\tgood\tfine\n"},
            "amazonReviewSnippets_GroundTruth.txt: line 2: 'good' is no number",
        ),
        ({"movies": "1\tnan\tfine\n"}, "line 1: 'nan' lies outside -4 to 4"),
        ({"lexicon": "good\n"}, "vader_lexicon.txt: line 1 has one field"),
        ({"lexicon": "good\t19\n"}, "vader_lexicon.txt: line 1: '19' lies outside -4 to 4"),
    ],
)
def test_a_broken_line_is_named(tmp_path, changes, message) -> None:
    with pytest.raises(DataError, match=message):
        made(tmp_path, **changes)


def test_what_is_no_archive_is_named(tmp_path) -> None:
    path = tmp_path / "sdist.tar.gz"
    path.write_bytes(b"hello")
    with pytest.raises(DataError, match=r"sdist\.tar\.gz: cannot be read as a gzipped tar archive"):
        source.read(path, NO_CACHE, hashlib.sha256(b"hello").hexdigest())


def test_a_file_in_the_folders_place_is_named(tmp_path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match="out: cannot be written as a folder"):
        made(tmp_path)


def test_a_cached_file_is_not_fetched_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(source, "_command", lambda requirements: pytest.fail("pip was asked"))
    cached = tmp_path / "sentiment" / source.SDIST_FILE
    cached.parent.mkdir()
    cached.write_bytes(b"")
    assert source.fetch(tmp_path) == cached


def test_pips_last_word_is_passed_on(tmp_path, monkeypatch) -> None:
    failing = [sys.executable, "-c", "raise SystemExit('no such index')"]
    monkeypatch.setattr(source, "_command", lambda requirements: failing)
    with pytest.raises(DataError, match=r"pip could not fetch vaderSentiment==3\.3\.2: no such index; .*--source"):
        source.fetch(tmp_path)
    assert not list((tmp_path / "sentiment").iterdir())


def test_run_yaml_resolves() -> None:
    file = ROOT / "benchmarks" / "sentiment" / "run.yaml"
    config = resolve("tiny", file, ["data.path=somewhere"])
    assert (config.data.name, config.data.path, config.data.users) == ("parquet", Path("somewhere"), None)
    assert (config.prompt.max_keyphrases, config.prompt.student_style) == (40, "brief")
    assert (config.teacher.kind, config.teacher.keyphrases_read) == ("lexicon", 12)
    assert resolve("tiny", file).data.path is None
