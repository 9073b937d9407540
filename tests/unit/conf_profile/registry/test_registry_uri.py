"""Names and files of the registry: URIs, manifests, contents; no server."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf_profile.errors import RegistryError
from conf_profile.registry.format import (
    content_hash,
    name_ending,
    new_name,
    parse_champion,
    parse_manifest,
    read_contents,
    render_manifest,
)
from conf_profile.registry.registry import ModelURI, parse_uri
from conf_profile.storage.object_store import Digest, StoredObject, digest_of

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)


def test_a_uri_names_bucket_model_and_perhaps_a_version():
    assert parse_uri("champion://shop/models/tags") == ModelURI("shop", "tags", None)
    assert parse_uri("champion://shop/models/tags@20261122-120000-1f2e3d4c") == ModelURI(
        "shop", "tags", "20261122-120000-1f2e3d4c"
    )


@given(bucket=st.from_regex(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", fullmatch=True), model=NAMES, version=NAMES)
def test_a_uri_reads_back_what_was_written(bucket, model, version):
    for uri in (ModelURI(bucket, model), ModelURI(bucket, model, version)):
        assert parse_uri(str(uri)) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "s3://shop/models/tags",
        "champion://shop/tags",
        "champion:///models/tags",
        "champion://shop/models/",
        "champion://shop/models/tags@",
        "champion://shop/models/tags/versions/1",
        "champion://shop/models/tags@a@b",
        "champion://shop/models/..",
        "champion://shop/models/tags\n",
    ],
)
def test_other_uris_are_refused(uri):
    with pytest.raises(RegistryError, match=r"champion://BUCKET/models/NAME|use 1-100 letters"):
        parse_uri(uri)


def test_contents_are_all_files_with_their_hashes_and_the_generated_ones(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("hello")
    found = read_contents(tmp_path, {"README.md": b""})
    assert {path: content.digest.size for path, content in found.items()} == {"README.md": 0, "sub/a.txt": 5}
    assert found["sub/a.txt"].digest == Digest(HELLO, 5) == digest_of(b"hello")


@pytest.mark.parametrize(
    ("file", "generated", "fault"),
    [
        (None, {}, "holds no file"),
        ("manifest.json", {}, "manifest.json"),
        ("README.md", {"README.md": b""}, "README.md"),
    ],
)
def test_contents_that_cannot_be_a_version_are_refused(tmp_path, file, generated, fault):
    if file:
        (tmp_path / file).write_text("")
    with pytest.raises(RegistryError, match=fault):
        read_contents(tmp_path, generated)


def test_the_content_hash_depends_on_paths_and_contents_alone():
    first, second = Digest("aa", 1), Digest("bb", 2)
    assert content_hash({"x": first, "y": second}) == content_hash({"y": second, "x": first})
    assert content_hash({"x": first, "y": second}) != content_hash({"x": second, "y": first})


def test_a_name_is_bound_to_the_content():
    assert new_name(HELLO).endswith("-2cf24dba")
    assert len(new_name(HELLO)) == len("20261122-120000-2cf24dba")
    assert name_ending(HELLO) == "-2cf24dba"


def test_a_manifest_reads_back(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    body = render_manifest("m", "v1", read_contents(tmp_path, {}), "c0", {"metrics": {"f1": 0.5}})
    version = parse_manifest(body, "v1", "key")
    assert version.files == {"a.txt": Digest(HELLO, 5)}
    assert (version.bytes, version.content_sha256, version.extra) == (5, "c0", {"metrics": {"f1": 0.5}})


@pytest.mark.parametrize(
    "path", ["../evil", "/etc/passwd", "a/../../b", "", ".", "manifest.json", "./manifest.json", "a//b", "a\0b"]
)
def test_a_manifest_cannot_name_files_outside_its_folder(path):
    body = {"created_at": "", "content_sha256": "", "files": {path: {"sha256": "", "size": 0}}, "extra": {}}
    with pytest.raises(RegistryError, match="not allowed"):
        parse_manifest(json.dumps(body).encode(), "v1", "key")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"files": []}', b"\xff"])
def test_a_damaged_manifest_is_named(body):
    with pytest.raises(RegistryError, match="the-key"):
        parse_manifest(body, "v1", "the-key")


def test_a_damaged_pointer_is_named():
    with pytest.raises(RegistryError, match=r"champion\.json"):
        parse_champion(StoredObject(b'{"version": "v1"}', '"etag"'), "champion.json")
