"""Deletes what `retention` says: by lifecycle rules that the bucket keeps to itself, or by a sweep from outside.

Rules of others are left as they are, and what the bucket then says is compared with what was meant: a server that
takes rules and forgets them would keep users' rows for ever. That a server which knows its rules also acts on them
shows only after days; `sweep` is for one that does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from conf_profile.erasure import retention
from conf_profile.erasure.retention import Retention, Rule
from conf_profile.errors import RegistryError
from conf_profile.storage import object_versions
from conf_profile.storage.object_errors import code, explain_errors
from conf_profile.storage.object_store import ObjectStore
from conf_profile.storage.object_versions import ObjectVersion

_REMEDY = (
    "let a job delete what has expired: `pipelines.retention.cronJob.enabled` of the chart, or `conf-profile retention "
    "sweep --days N` once a day"
)
_UNSUPPORTED_CODES = {"NotImplemented", "MethodNotAllowed", "UnsupportedOperation", "501", "405"}
_NO_ABORT = {"NotImplemented", "MalformedXML", "InvalidRequest", "InvalidArgument"}
_ABORT = "AbortIncompleteMultipartUpload"
_NO_RULES = "NoSuchLifecycleConfiguration"
_MINIMUM_SIZE = "TransitionDefaultMinimumObjectSize"


@dataclass(frozen=True)
class SweepResult:
    """What a sweep has deleted, or would, under one prefix. `objects` counts versions and marks of deletion, too."""

    prefix: str
    objects: int
    bytes: int
    unfinished_uploads: int


def apply(store: ObjectStore, folders: Iterable[str], kept: Retention) -> list[Rule]:
    """Gives the bucket a rule for each folder, or takes them away for 0 days; returns all rules that it has then.

    RegistryError where the bucket cannot have such rules, and where it does not give them back.
    """
    names = list(folders)
    before, options = _configuration(store)
    after = retention.merge(before, names, kept)
    if after != [retention.convert_to_filter_form(rule) for rule in before]:
        _put_rules(store, after, options)
    found = rules(store)
    _require_stored(store, after, found)
    return found


def rules(store: ObjectStore) -> list[Rule]:
    """All lifecycle rules of the bucket, whoever made them."""
    return _configuration(store)[0]


def sweep(
    store: ObjectStore, folders: Iterable[str], kept: Retention, now: datetime, dry_run: bool = False
) -> list[SweepResult]:
    """Deletes what was written more than the retention ago; with `dry_run` only counts it.

    In a versioned bucket versions go that are as old, each for good. Nothing is deleted where everything is kept, and
    never a table of the user's own that lies beside uploads.
    """
    if not kept.days:
        return []
    names = dict.fromkeys(map(retention.folder, folders))
    versioned = object_versions.is_versioned(store)
    return [_sweep(store, name, kept.expiry_cutoff(now), versioned, dry_run) for name in names]


def _sweep(store: ObjectStore, prefix: str, before: datetime, versioned: bool, dry_run: bool) -> SweepResult:
    found = (object_versions.list_all if versioned else object_versions.list_current)(store, prefix)
    expired = [one for one in found if one.modified < before and not _is_protected(one)]
    uploads = [one for one in object_versions.unfinished_uploads(store, prefix) if one.initiated < before]
    if not dry_run:
        object_versions.delete(store, expired)
        for upload in uploads:
            object_versions.abort(store, upload)
    return SweepResult(prefix, len(expired), sum(one.size for one in expired), len(uploads))


def _is_protected(found: ObjectVersion) -> bool:
    """The last look before something is gone for ever."""
    return found.key.startswith(retention.PROTECTED_PREFIXES) or retention.is_own_table(found.key)


def _configuration(store: ObjectStore) -> tuple[list[Rule], dict[str, Any]]:
    """The rules, and what else S3 wants to be told again whenever they are written."""
    try:
        with _errors(store, "read"):
            answer = store.client.get_bucket_lifecycle_configuration(Bucket=store.bucket)
    except RegistryError as error:
        if code(error.__cause__) == _NO_RULES:
            return [], {}
        raise
    return list(answer.get("Rules", ())), {name: answer[name] for name in (_MINIMUM_SIZE,) if name in answer}


def _put_rules(store: ObjectStore, wanted: Sequence[Rule], options: Mapping[str, Any]) -> None:
    if not wanted:
        with _errors(store, "remove"):
            store.client.delete_bucket_lifecycle(Bucket=store.bucket)
        return
    try:
        _write_rules(store, wanted, options)
    except RegistryError as error:
        # Some servers drop unfinished uploads by a setting of their own and know no rule for them.
        if code(error.__cause__) not in _NO_ABORT:
            raise
        _write_rules(store, [_drop_abort(rule) for rule in wanted], options)


def _write_rules(store: ObjectStore, wanted: Sequence[Rule], options: Mapping[str, Any]) -> None:
    with _errors(store, "write"):
        store.client.put_bucket_lifecycle_configuration(
            Bucket=store.bucket, LifecycleConfiguration={"Rules": list(wanted)}, **options
        )


def _drop_abort(rule: Rule) -> Rule:
    ours = str(rule.get("ID", "")).startswith(retention.RULE_PREFIX)
    return {name: value for name, value in rule.items() if not (ours and name == _ABORT)}


def _require_stored(store: ObjectStore, wanted: Sequence[Rule], found: Sequence[Rule]) -> None:
    there = [_drop_abort(retention.convert_to_filter_form(rule)) for rule in found]
    lost = [rule for rule in map(_drop_abort, wanted) if rule not in there]
    if lost:
        names = ", ".join(str(rule.get("ID", "(a rule without a name)")) for rule in lost)
        raise RegistryError(
            f"bucket {store.bucket!r} at {store.endpoint}: took the lifecycle rules and does not give back {names}; "
            f"{_REMEDY}"
        )
    extra = [rule["ID"] for rule in there if rule not in [_drop_abort(one) for one in wanted]]
    if extra:
        raise RegistryError(
            f"bucket {store.bucket!r} at {store.endpoint}: still has the lifecycle rules {', '.join(extra)}; somebody "
            "else writes them at the same time, or the server keeps them: try again, then remove them by hand"
        )


@contextmanager
def _errors(store: ObjectStore, verb: str) -> Iterator[None]:
    where = f"bucket {store.bucket!r} at {store.endpoint}"
    try:
        with explain_errors(f"{verb} the lifecycle rules", where):
            yield
    except RegistryError as error:
        name = code(error.__cause__)
        if name in _UNSUPPORTED_CODES:
            raise RegistryError(f"{where}: has no lifecycle rules ({name}); {_REMEDY}") from error.__cause__
        if name in ("AccessDenied", "403"):
            raise RegistryError(
                f"cannot {verb} the lifecycle rules of {where}: access denied; give this key the rights "
                f"s3:GetLifecycleConfiguration and s3:PutLifecycleConfiguration, or {_REMEDY}"
            ) from error.__cause__
        raise
