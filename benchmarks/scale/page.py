"""The tables of docs/scale.md, made from the figures, the cost model and the simulated shards.

A table stands between `<!-- scale:NAME -->` and `<!-- /scale:NAME -->`; everything else on the page is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from benchmarks.scale import model
from benchmarks.scale.inputs import Inputs
from benchmarks.scale.model import LimitBreak, Limits, Load
from benchmarks.scale.sharding import ranges
from benchmarks.usage import MILLION
from conf_profile.config import RunConfig
from conf_profile.errors import DataError

_BLOCK = re.compile(r"(<!-- scale:(\w+) -->\n).*?(<!-- /scale:\2 -->)", re.DOTALL)

REMEDIES = {
    ("features", "memory"): "an offline store that joins outside the pod: Spark or a warehouse behind Feast",
    ("features", "time"): "the same",
    ("synthesis", "memory"): "train on a sample of the users, give the others to a backfill",
    ("synthesis", "time"): "a faster teacher, or more engines (`pipelines.shardParallelism`); train on a sample",
    ("labelling", "memory"): "train on a sample",
    ("labelling", "time"): "train on a sample",
    ("sft", "memory"): "train on a sample",
    ("sft", "time"): "`sft.max_users`; several GPUs in the step",
    ("reference", "memory"): "train on a sample",
    ("reference", "time"): "`reference.max_users`",
    ("grpo", "memory"): "train on a sample",
    ("grpo", "time"): "`grpo.steps`",
    ("evaluation", "memory"): "train on a sample: 10,000 test users are enough for intervals of a point",
    ("evaluation", "time"): "the same",
    ("backfill", "memory"): "tables split by user id, a backfill for each",
    ("backfill", "time"): "tables split by user id, a backfill for each",
    ("materialise", "time"): "Feast's materialisation on Spark, or streaming writes",
    (model.ONLINE, "memory"): "a larger node, or a Redis cluster",
}
MODELS = (("preset `tiny`", 2 << 20), ("SmolLM2-135M, merged", 269_000_000), ("Qwen3-8B, merged", 16_400_000_000))
"""Name and bytes of the weights of models that are promoted; the last two by their number of parameters x 2 bytes."""
SMALL_FILES = model.MEASURED_FILES - 1


def fill(page: str, given: Inputs, config: RunConfig, limits: Limits) -> str:
    """The page with every table made anew; DataError for a marker that no table belongs to, or a missing one."""
    made = tables(given, config, limits)
    named = [match[2] for match in _BLOCK.finditer(page)]
    if sorted(named) != sorted(made):
        raise DataError(f"docs/scale.md: markers for {sorted(made)} are expected once each, found {sorted(named)}")
    return _BLOCK.sub(lambda match: f"{match[1]}{made[match[2]]}\n{match[3]}", page)


def tables(given: Inputs, config: RunConfig, limits: Limits) -> dict[str, str]:
    """Name -> Markdown."""
    loads = [Load.from_balance(one) for one in given.balances]
    return {
        "short": _short(given, config),
        "limits": _limits(limits),
        "shards": _shards(given),
        "hours": _hours(loads, given, config),
        "memory": _memory(loads, given, config),
        "storage": _storage(loads, given),
        "replicas": _replicas(loads, given, config, limits),
        "promotions": _promotions(given),
        "breaks": _breaks(loads, given, config, limits),
        "order": _order(given, config, limits),
        "figures": _figures(given),
    }


def _limits(limits: Limits) -> str:
    return (
        f"Limits: {number(limits.pod_gib)} GiB in a pod, {number(limits.hours)} hours for a stage, {limits.engines} "
        f"teacher engines at once,\n{number(limits.redis_gib)} GiB in a Redis node."
    )


def _short(given: Inputs, config: RunConfig) -> str:
    million = Load.from_users(MILLION, config)
    needs, stored = model.needs(million, given, config), model.storage_gib(million, given)
    small, large = (model.promotion_requests(given, [size, *[1] * SMALL_FILES]) for _, size in (MODELS[0], MODELS[-1]))
    fetched = model.download_requests(given, model.MEASURED_FILES)
    kept = sum(stored[name] for name in ("tables", "features", "candidates", "answers"))
    rows = [
        ("users an hour that one vLLM replica profiles (student of preset `tiny`)", _per_hour(given, "backfill")),
        ("users an hour that Feast materialises into Redis", _per_hour(given, "online.redis")),
        ("GiB a million users: features step", number(needs["features"].gib)),
        ("GiB a million users: training steps", number(needs["sft"].gib)),
        ("GiB a million users: evaluation", number(needs["evaluation"].gib)),
        ("GiB a million users: Redis", number(needs[model.ONLINE].gib)),
        ("GiB a million users: object storage", number(kept)),
        ("S3 requests of a promotion: preset `tiny`, Qwen3-8B", f"{small:,}, {large:,}"),
        ("S3 requests of a predictor's start", f"{fetched:,}"),
    ]
    return table(("what", "figure"), rows)


def _per_hour(given: Inputs, name: str) -> str:
    return number(given[f"{name}.users_per_second"] * 3600)


def _shards(given: Inputs) -> str:
    rows = [
        (
            f"{one.users:,}", f"{one.asked:,}", f"{one.shards:,}", f"{one.mean:,.0f}", f"{one.smallest:,}",
            f"{one.largest:,}", f"{one.largest / one.mean:.3f}", f"{one.largest_work:.3f}",
            "{:,} ({:,})".format(*ranges(one.users)),
        )
        for one in given.balances
    ]  # fmt: skip
    head = (
        "users", "asked about", "shards", "mean", "smallest", "largest", "largest / mean", "the same in work",
        "backfill shards (last one)",
    )  # fmt: skip
    return table(head, rows)


def _hours(loads: Sequence[Load], given: Inputs, config: RunConfig) -> str:
    return _by_stage(loads, given, config, lambda need: number(need.hours(1)) if need.seconds else "")


def _memory(loads: Sequence[Load], given: Inputs, config: RunConfig) -> str:
    return _by_stage(loads, given, config, lambda need: number(need.gib) if need.gib else "")


def _by_stage(loads: Sequence[Load], given: Inputs, config: RunConfig, show: Callable[[model.Need], str]) -> str:
    found = [model.needs(load, given, config) for load in loads]
    rows = [(name, *(show(needs[name]) for needs in found)) for name in found[0]]
    return table(("stage", *(f"{load.users:,}" for load in loads)), rows)


def _storage(loads: Sequence[Load], given: Inputs) -> str:
    found = [model.storage_gib(load, given) | {"online": model.redis_gib(load, given)} for load in loads]
    names = {
        "tables": "behaviour and demographics", "features": "features", "candidates": "candidates",
        "answers": "kept answers of the teacher", "moved": "moved between steps and S3 in a run",
        "online": "online store in Redis (memory)",
    }  # fmt: skip
    rows = [(text, *(number(gib[name]) for gib in found)) for name, text in names.items()]
    return table(("GiB", *(f"{load.users:,}" for load in loads)), rows)


def _replicas(loads: Sequence[Load], given: Inputs, config: RunConfig, limits: Limits) -> str:
    rows = [
        ("teacher engines", *(model.teacher_engines(one, given, config, limits.hours) for one in loads)),
        ("requests to a remote teacher instead", *(one.asked * config.teacher.samples for one in loads)),
        ("vLLM replicas for a backfill", *(model.backfill_replicas(one, given, limits.hours) for one in loads)),
        ("Redis primaries", *(model.redis_nodes(one, given, limits) for one in loads)),
    ]
    shown = [(str(name), *(f"{value:,}" for value in values)) for name, *values in rows]
    return table((f"for {number(limits.hours)} hours", *(f"{load.users:,}" for load in loads)), shown)


def _promotions(given: Inputs) -> str:
    rows = []
    for name, size in MODELS:
        requests = model.promotion_requests(given, [size, *[1] * SMALL_FILES])
        up, down = (size * given[f"promotion.bytes_{way}_per_byte"] / model.GIB for way in ("up", "down"))
        fetched = model.download_requests(given, model.MEASURED_FILES)
        rows.append((name, f"{requests:,}", number(up), number(down), f"{fetched:,}", number(size / model.GIB)))
    head = ("model", "requests", "GiB up", "GiB read back", "requests of a replica's start", "GiB of it")
    return table(head, rows)


def _breaks(loads: Sequence[Load], given: Inputs, config: RunConfig, limits: Limits) -> str:
    found = model.first_breaks(given, config, limits)
    rows, before = [], 0
    for load in loads:
        new = [one for one in found if before < one.users <= load.users]
        needs = model.needs(load, given, config)
        first = new[0] if new else None
        rows.append(
            (
                f"{load.users:,}",
                f"{first.stage}, {first.resource}" if first else "nothing more",
                _figure(first, needs, limits) if first else _nearest(found, load, needs, limits),
                REMEDIES[first.stage, first.resource] if first else "",
                ", ".join(f"{one.stage} ({one.resource})" for one in new[1:]),
            )
        )
        before = load.users
    return table(("users", "breaks first", "figure", "what to do", "next in this decade"), rows)


def _nearest(found: Sequence[LimitBreak], load: Load, needs: dict[str, model.Need], limits: Limits) -> str:
    later = next((one for one in found if one.users > load.users), None)
    return f"nearest: {later.stage}, {_figure(later, needs, limits)}" if later else ""


def _figure(one: LimitBreak, needs: dict[str, model.Need], limits: Limits) -> str:
    need = needs[one.stage]
    return f"{number(need.gib)} GiB" if one.resource == "memory" else f"{number(need.hours(limits.engines))} hours"


def _order(given: Inputs, config: RunConfig, limits: Limits) -> str:
    found = model.first_breaks(given, config, limits)
    rows = [(f"{one.users:,}", one.stage, one.resource, REMEDIES[one.stage, one.resource]) for one in found]
    return table(("from users", "stage", "limit", "what to do"), rows)


def _figures(given: Inputs) -> str:
    rows = [
        (f"`{name}`", f"{number(one.value)} {one.unit}".strip(), one.what, f"`{one.source}`", one.again)
        for name, one in given.figures.items()
    ]
    return f"Machine: {given.machine}.\n\n" + table(("figure", "value", "of what", "from", "measure again"), rows)


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - int(f"{value:e}".split("e")[1]))
    text = f"{float(f'{value:.3g}'):,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left."""
    lines = [head, ["---", *["---"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
