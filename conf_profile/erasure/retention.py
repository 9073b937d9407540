"""How long users' rows stay in the object store: what expires, when, and how the cache keeps clear of it.

`days` counts from an object's last write. 0 keeps everything. Only the rules are here; `expiry` asks a bucket.

Expiry alone would break runs: KFP takes a step from its cache without a look at the artefact, so a run that begins on
the last day finds a step done and its table gone. So whoever starts a run mixes `period` into the digest by which the
cache knows the data, and into the name of the folder that the data is uploaded to. Both change twice in `days`: then
no run reads an object that was written more than half the retention before the run began, and a run that takes less
than the other half finds everything to its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from conf_profile.errors import ConfigError

UPLOADS = "data/"
TRUTH = "truth/"
ANSWERS = "answers/"
CHECKPOINTS = "checkpoints/"
EXPIRING_PREFIXES = (UPLOADS, TRUTH, ANSWERS, CHECKPOINTS)
"""What lies in the steps' bucket and holds users' rows, or weights that are only of use to a run under way."""
RETAINED_PREFIX = "retained-"
"""What the name of a `period` begins with. A lifecycle rule knows nothing but prefixes, and a user may have tables in
`data/mine/` or `truth/labels.parquet`: so a rule is for uploads of a period, and no others."""
RULED_PREFIXES = (f"{UPLOADS}{RETAINED_PREFIX}", f"{TRUTH}{RETAINED_PREFIX}", ANSWERS, CHECKPOINTS)
"""The same for lifecycle rules. What was uploaded before there was a retention is left to a sweep."""
PROTECTED_PREFIXES = ("models/", "configurations/", "erasures/", "tables/")
"""What never expires: served models, what they were made with, the record of who was erased, and the user's tables."""
RULE_PREFIX = "conf-profile-retention-"
_UPLOAD = re.compile(rf"({RETAINED_PREFIX}\d+d-\d+-)?[0-9a-f]{{32}}/")
"""The folder of an upload, named by the period and by its content."""
_ABORT_DAYS = 7
"""An upload that has not ended after so long never will."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Rule = dict[str, Any]
"""A lifecycle rule as S3's API has it."""


@dataclass(frozen=True)
class Retention:
    """Days that users' rows are kept after they were written; 0: for ever."""

    days: int = 0

    def __post_init__(self) -> None:
        if self.days < 0:
            raise ConfigError(f"retention: {self.days} days; give 1 or more, or 0 to keep everything")

    def expiry_cutoff(self, now: datetime) -> datetime:
        """What was written before this moment is due for deletion."""
        return now - timedelta(days=self.days)


def period(days: int, now: datetime) -> str:
    """A short text that changes every half of `days`; empty for 0 days.

    Two runs with the same text began less than half the retention apart. What the second one finds in the cache was
    written after the first one began, so more than half of its time is left. The halves are counted in hours, because
    half of an odd number of days is no number of days. `now` needs a time zone.
    """
    if Retention(days).days == 0:
        return ""
    return f"{RETAINED_PREFIX}{days}d-{(now - _EPOCH) // timedelta(hours=12 * days)}"


def is_own_table(key: str) -> bool:
    """Whether an object is the user's own: below `data/` or `truth/`, and in no folder that an upload has named."""
    top, _, rest = key.partition("/")
    return f"{top}/" in (UPLOADS, TRUTH) and not _UPLOAD.match(rest)


def folder(prefix: str) -> str:
    """The prefix as a folder's, with one slash at its end. ConfigError where its objects must not expire."""
    if prefix in RULED_PREFIXES:
        return prefix
    name = f"{prefix.strip('/')}/"
    if name == "/":
        raise ConfigError("retention: an empty prefix is the whole bucket, with its models; name a folder of artefacts")
    for kept in PROTECTED_PREFIXES:
        if name.startswith(kept):
            raise ConfigError(f"retention: {prefix!r} lies in {kept}, which never expires; name another folder")
    return name


def rules(folders: Iterable[str], retention: Retention) -> list[Rule]:
    """A lifecycle rule for each folder; none where everything is kept."""
    return [_rule(name, retention.days) for name in dict.fromkeys(map(folder, folders)) if retention.days]


def merge(there: Sequence[Rule], folders: Iterable[str], retention: Retention) -> list[Rule]:
    """The bucket's rules with those for `folders` put in; where everything is kept all of ours are taken out.

    Rules of others stay.
    """
    names = list(folders)
    ours = {rule_id(name) for name in names}

    def is_replaced(rule: Rule) -> bool:
        name = str(rule.get("ID", ""))
        return name in ours or (not retention.days and name.startswith(RULE_PREFIX))

    return [*(convert_to_filter_form(rule) for rule in there if not is_replaced(rule)), *rules(names, retention)]


def convert_to_filter_form(rule: Mapping[str, Any]) -> Rule:
    """A rule of the older form, with its prefix outside of a filter, in the newer one: S3 takes no mixture."""
    rest = {key: value for key, value in rule.items() if key != "Prefix"}
    return rest | ({"Filter": {"Prefix": rule["Prefix"]}} if "Prefix" in rule else {})


def rule_id(prefix: str) -> str:
    """The name by which the rule of a folder is known again."""
    return RULE_PREFIX + folder(prefix).rstrip("/").replace("/", "-")


def _rule(name: str, days: int) -> Rule:
    return {
        "ID": rule_id(name),
        "Filter": {"Prefix": name},
        "Status": "Enabled",
        "Expiration": {"Days": days},
        # Of a versioned bucket: what has expired, or was replaced, is gone a day later.
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": min(days, _ABORT_DAYS)},
    }
