"""Files and folders appear whole or not at all, whatever happens on the way."""

import stat
import subprocess
import sys

import pytest

from conf_profile import files
from conf_profile.errors import DataError, RegistryError
from conf_profile.files import atomic_folder, atomic_path, is_temporary, leftovers, write_text
from support.paths import ROOT


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("one_writer", [True, False])
def test_a_file_appears_when_it_is_whole(tmp_path, one_writer):
    final = tmp_path / "deep" / "a.txt"
    with atomic_path(final, one_writer) as temporary:
        temporary.write_text("new")
        assert is_temporary(temporary) and temporary.parent == final.parent
        assert not final.exists()
    assert final.read_text() == "new"
    assert names(final.parent) == ["a.txt"]


@pytest.mark.parametrize("one_writer", [True, False])
def test_a_failure_leaves_the_file_as_it_was_and_no_rest(tmp_path, one_writer):
    final = tmp_path / "a.txt"
    final.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(final, one_writer) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert final.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_several_may_write_at_once(tmp_path):
    final = tmp_path / "a.txt"
    with atomic_path(final) as first, atomic_path(final) as second:
        first.write_text("first")
        second.write_text("second")
    assert final.read_text() == "first"
    assert names(tmp_path) == ["a.txt"]


def test_what_a_killed_writer_left_goes_where_there_is_one_writer(tmp_path):
    final = tmp_path / "a.tar"
    with atomic_path(final, one_writer=True) as temporary:
        temporary.write_text("half")
    final.rename(temporary)
    with atomic_path(final, one_writer=True) as again:
        # An engine refuses to write into an archive that is there.
        assert again == temporary and not again.exists()
        again.write_text("whole")
    assert final.read_text() == "whole"


def test_what_cannot_be_written_is_the_callers_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/a\.txt: cannot be written: .*; nothing was changed"):
        write_text(tmp_path / "file" / "a.txt", "x")
    with pytest.raises(RegistryError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x", error=RegistryError)


def test_a_private_file_is_its_owners_alone_from_the_start(tmp_path, monkeypatch):
    seen = []
    opened = files.os.fdopen
    monkeypatch.setattr(
        files.os, "fdopen", lambda fd, *given, **named: seen.append(files.os.fstat(fd)) or opened(fd, *given, **named)
    )
    write_text(tmp_path / "open.json", "{}")
    write_text(tmp_path / "keys.json", "{}", private=True)
    modes = [stat.S_IMODE(found.st_mode) for found in seen]
    assert modes[1] == stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert modes[0] == stat.S_IMODE((tmp_path / "open.json").stat().st_mode) == 0o666 & ~umask()


def umask():
    current = files.os.umask(0)
    files.os.umask(current)
    return current


def fill(folder, name):
    (folder / name).write_text(name)


def test_a_folder_appears_when_it_is_whole(tmp_path):
    final = tmp_path / "deep" / "model"
    with atomic_folder(final) as temporary:
        fill(temporary, "a")
        assert is_temporary(temporary) and not final.exists()
    assert names(final) == ["a"]
    assert names(final.parent) == ["model"]


def test_a_folder_that_somebody_else_has_filled_meanwhile_is_theirs(tmp_path):
    final = tmp_path / "model"
    with pytest.raises(FileExistsError, match="model"), atomic_folder(final) as temporary:
        fill(temporary, "ours")
        final.mkdir()
        fill(final, "theirs")
    assert names(final) == ["theirs"]
    assert names(tmp_path) == ["model"]


def test_an_older_folder_is_replaced_and_kept_when_the_block_fails(tmp_path):
    final = tmp_path / "model"
    final.mkdir()
    fill(final, "old")
    with pytest.raises(RuntimeError), atomic_folder(final, replace=True):
        raise RuntimeError
    assert names(final) == ["old"]
    with atomic_folder(final, replace=True) as temporary:
        fill(temporary, "new")
    assert names(final) == ["new"]
    assert names(tmp_path) == ["model"]


def test_leftovers_are_those_of_the_files_that_are_meant(tmp_path):
    for name in (".a.jsonl.0123.tmp", ".b.jsonl.4567.tmp", ".c.parquet.0123.tmp", "a.jsonl", "a.jsonl.tmp"):
        fill(tmp_path, name)
    assert {path.name for path in leftovers(tmp_path, "*.jsonl")} == {".a.jsonl.0123.tmp", ".b.jsonl.4567.tmp"}
    assert {path.name for path in leftovers(tmp_path, "a.jsonl")} == {".a.jsonl.0123.tmp"}
    with atomic_path(tmp_path / "a.jsonl") as temporary:
        temporary.touch()
        assert temporary in set(leftovers(tmp_path, "a.jsonl"))


def test_a_bare_python_can_build_the_images():
    """Without site-packages: nobody has to install anything before `make images`."""
    program = [sys.executable, "-S", "-m", "charts.images", "names", "serving"]
    done = subprocess.run(program, cwd=ROOT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.stdout.startswith("localhost/conf-profile/serving:"), done.stderr
