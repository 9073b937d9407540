"""All that is found before a run, and what it means: facts for a reader, errors and warnings for the run."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from conf_profile import tables
from conf_profile.cli.config_paths import is_path
from conf_profile.config import RunConfig
from conf_profile.data import splits
from conf_profile.data.dataset import Dataset
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.prompts import Message, render_messages
from conf_profile.dialogue.task import Task
from conf_profile.evaluation.unjudged.gate import check_levels
from conf_profile.teachers.cost import Price
from pipelines.check import champion
from pipelines.check.cost import CostFacts, MachineFacts, estimate_cost, estimate_machine, existing_parent
from pipelines.check.people import People, read_people
from pipelines.preflight.finding import Finding
from pipelines.preflight.labels import unjudged_finding

if TYPE_CHECKING:
    from conf_profile.registry.registry import Registry
    from conf_profile.teachers.lexicon import LexiconHits

CUT_SHARE, SHARE_IN_BOTH, SHARE_INFORMED = 0.25, 0.8, 0.1
"""From which share of keyphrases cut, and below which share of users in both tables or with evidence, to warn."""
WIDE_INTERVAL = 0.1
"""Half the width of a 95% interval from which on a run can hardly tell two models apart."""


@dataclass(frozen=True)
class LabelFacts:
    """Counts of users with a label. `half_width`: of the 95% interval of one attribute's accuracy, at the most."""

    users: int
    profiled: int
    validation: int
    test: int
    test_by_attribute: dict[str, int]
    half_width: float | None


@dataclass(frozen=True)
class ChampionFacts:
    """The champion's version, None where there is none, how its task differs, and which of its features are gone."""

    version: str | None
    differences: tuple[str, ...] = ()
    missing_features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """`facts` by section, as JSON has them; `prompt`: the teacher's for one user."""

    findings: tuple[Finding, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    prompt: tuple[Message, ...] = field(default=(), repr=False)

    @property
    def warnings(self) -> list[str]:
        """The warnings, to be kept with the run."""
        return [str(each) for each in self.findings if each.level == "warning"]


def place_findings(config: RunConfig, folder: Path) -> list[Finding]:
    """Whether the run's folder can be written, and models that are named by a path are there."""
    return [*_folder_findings(folder), *_model_findings(config)]


def inspect(
    config: RunConfig,
    data: Dataset,
    folder: Path,
    registry: Registry | None,
    steps: Collection[str],
    own_store: bool,
    price: Price | None = None,
) -> Inspection:
    """Everything that the data, the registry and this machine say about a run of `steps` in `folder`.

    `own_store`: whether the registry is in that folder, not in a store that somebody named.
    ConfProfileError where something cannot be read at all.
    """
    task = tasks.load(data.task)
    check_levels(config.gate, task.names)
    people = read_people(config, data, task)
    prompts = [render_messages(user, task, "full", config.prompt.max_keyphrases) for user in people.sample]
    judged = "evaluation" in steps
    labels = _count_labels(data, people, task)
    hits = _count_hits(config, data, task, prompts)
    rival = _find_champion(task, registry) if judged and registry is not None else ChampionFacts(None)
    cost = estimate_cost(config, task, people.facts.asked, prompts, price)
    data_bytes = sum(path.stat().st_size for path in data.paths.values())
    machine = estimate_machine(config, people.facts.profiled, people.facts.asked, data_bytes, folder)
    findings = [
        *_people_findings(people, config),
        *_label_findings(config, labels, data, judged),
        *_lexicon_findings(config, data, hits),
        *_champion_findings(rival, config, own_store),
        *_teacher_findings(config, cost),
        *_machine_findings(machine),
    ]
    facts = {
        "data": {"name": data.name, "source": data.source, "as_of": people.facts.as_of},
        "people": asdict(people.facts),
        "max_keyphrases": config.prompt.max_keyphrases,
        "labels": asdict(labels) if labels else None,
        "lexicon": asdict(hits) if hits else None,
        "task": {
            "attributes": {each.name: list(each.tags) for each in task.attributes},
            "features": dict(task.features.types),
        },
        "champion": asdict(rival),
        "teacher": {"kind": config.teacher.kind, "samples": config.teacher.samples, **asdict(cost)},
        "machine": asdict(machine),
    }
    return Inspection(tuple(findings), facts, tuple(prompts[len(prompts) // 2]) if prompts else ())


def _folder_findings(folder: Path) -> Iterator[Finding]:
    parent = existing_parent(folder)
    if not parent.is_dir():
        yield Finding("error", f"{folder}: {parent} is a file, not a folder", "give another --out")
    elif not os.access(parent, os.W_OK | os.X_OK):
        yield Finding("error", f"{folder}: {parent} cannot be written", "change its permissions, or give another --out")


def _model_findings(config: RunConfig) -> Iterator[Finding]:
    named = {"student.model": config.student.model if config.student.source == "pretrained" else None}
    named["teacher.model"] = config.teacher.model if config.teacher.kind == "vllm" else None
    for key, model in named.items():
        if model is not None and is_path(model) and not Path(model).is_dir():
            yield Finding("error", f"{key}: there is no folder {model}", "correct the path, or give a name of the hub")


def _count_labels(data: Dataset, people: People, task: Task) -> LabelFacts | None:
    if data.labels is None:
        return None
    table = tables.read(data.labels, tables.LABELS)
    labelled = set(pc.unique(table["user_id"]).to_pylist())
    split = [part for user, part in zip(people.profiled, people.split, strict=True) if user in labelled]
    test = split.count(splits.TEST)
    tested = pa.array(people.profiled[people.split == splits.TEST].tolist(), pa.string())
    found = table.filter(pc.is_in(table["user_id"], value_set=tested))["attribute"].to_pylist()
    return LabelFacts(
        users=len(labelled),
        profiled=len(split),
        validation=split.count(splits.VALIDATION),
        test=test,
        test_by_attribute={name: found.count(name) for name in task.names},
        half_width=1.96 * (0.25 / test) ** 0.5 if test else None,
    )


def _count_hits(
    config: RunConfig, data: Dataset, task: Task, prompts: Sequence[Sequence[Message]]
) -> LexiconHits | None:
    if config.teacher.kind != "lexicon" or data.lexicon is None:
        return None
    from conf_profile.teachers.lexicon import LexiconTeacher

    teacher = LexiconTeacher(data.lexicon, task, config.teacher.keyphrases_read, config.seed)
    return teacher.count_hits(prompt[-1]["content"] for prompt in prompts)


def _find_champion(task: Task, registry: Registry) -> ChampionFacts:
    found = champion.read_champion(registry)
    if found is None:
        return ChampionFacts(None)
    version, other = found
    differences = champion.find_differences(task, other)
    return ChampionFacts(version, tuple(differences), tuple(champion.find_missing_features(task, other)))


def _people_findings(people: People, config: RunConfig) -> Iterator[Finding]:
    facts = people.facts
    yield from _coverage_findings(people)
    if facts.both and not facts.profiled:
        yield Finding(
            "error",
            f"none of {facts.demographics:,} users of demographics.parquet had given consent by {facts.as_of}",
            "check the column 'consent' and features.as_of",
        )
    if facts.event_users > facts.behaviour / 2:
        yield Finding(
            "error",
            f"{facts.event_users:,} of {facts.behaviour:,} users have several rows in behaviour.parquet with one "
            "keyphrase at most: they look like single events, and only the latest row of a user is read",
            "make snapshots of them with `conf-profile ingest` (one row a user and moment, with all texts until then), "
            "or keep one row a user if that is all there is",
        )
    if facts.cut_share > CUT_SHARE:
        yield Finding(
            "warning",
            f"prompt.max_keyphrases {config.prompt.max_keyphrases} cuts {facts.cut_share:.0%} of the keyphrases "
            f"(median {facts.keyphrases_median:.0f} a user, 95% have at most {facts.keyphrases_95:.0f}); the most "
            "recent of each list are kept",
            "raise it with --set prompt.max_keyphrases=N (and student.max_prompt_tokens) if that is not meant",
        )


def _coverage_findings(people: People) -> Iterator[Finding]:
    facts = people.facts
    if not facts.both:
        acting, signed = (", ".join(map(repr, ids)) for ids in people.examples)
        yield Finding(
            "error",
            f"no user is in both tables: behaviour.parquet has ids such as {acting}, demographics.parquet such as "
            f"{signed}",
            "write a user's id alike in every table",
        )
    elif facts.both < SHARE_IN_BOTH * min(facts.behaviour, facts.demographics):
        yield Finding(
            "warning",
            f"{facts.both:,} users are in both tables, of {facts.behaviour:,} in behaviour.parquet and "
            f"{facts.demographics:,} in demographics.parquet; without demographics there is no consent, without "
            "behaviour no keyphrase",
            "check that ids are written alike in every table if that is not meant",
        )


def _label_findings(config: RunConfig, labels: LabelFacts | None, data: Dataset, judged: bool) -> Iterator[Finding]:
    if not judged:
        return
    if labels is None:
        yield unjudged_finding(config.gate.unjudged == "allow", f"put labels.parquet into {data.folder}")
    elif not labels.profiled:
        yield Finding(
            "error",
            f"none of {labels.users:,} users of labels.parquet will be profiled: they are in no other table, or gave "
            "no consent",
            "write a user's id alike in every table",
        )
    elif not labels.test:
        yield Finding(
            "error",
            f"none of {labels.profiled:,} labelled users is a test user (a hash of the id decides), so nothing can be "
            "measured",
            "label more users, or raise features.test_share",
        )
    else:
        yield from _interval_findings(labels)


def _interval_findings(labels: LabelFacts) -> Iterator[Finding]:
    if labels.half_width is not None and labels.half_width > WIDE_INTERVAL:
        yield Finding(
            "warning",
            f"{labels.test:,} labelled test users: the 95% interval of an attribute is up to "
            f"±{100 * labels.half_width:.0f} points, so the gate can hardly tell two models apart",
            "label more users, or raise features.test_share",
        )
    if bare := [name for name, count in labels.test_by_attribute.items() if not count]:
        yield Finding("warning", f"no test user has a label of {', '.join(bare)}", "label some, or nothing is measured")


def _lexicon_findings(config: RunConfig, data: Dataset, hits: LexiconHits | None) -> Iterator[Finding]:
    if config.teacher.kind == "lexicon" and data.lexicon is None:
        yield Finding(
            "error",
            f"teacher.kind 'lexicon' needs a lexicon, and {data.folder} has no lexicon.json",
            "add one, or choose teacher.kind openai or vllm",
        )
    if hits is None or not hits.users:
        return
    if not hits.informed:
        yield Finding(
            "error",
            f"the lexicon knows nothing of any of {hits.users:,} users: none of their {hits.keyphrases:,} keyphrases "
            "is an entry, and no field has a value that it has",
            "write entries as they are in your keyphrases, or set match to word (docs/teachers.md)",
        )
    elif hits.informed < SHARE_INFORMED * hits.users:
        yield Finding(
            "warning",
            f"the lexicon has evidence for {hits.informed:,} of {hits.users:,} users ({hits.found:,} of "
            f"{hits.keyphrases:,} keyphrases)",
            "add entries, or choose another teacher",
        )


def _champion_findings(rival: ChampionFacts, config: RunConfig, own_store: bool) -> Iterator[Finding]:
    if rival.differences:
        folder = "give another folder with --out, or " if own_store else ""
        yield Finding(
            "error",
            f"the champion {rival.version} of model {config.storage.model!r} has another task, so the two cannot be "
            f"compared: {'; '.join(rival.differences)}",
            f"{folder}begin another model with --set storage.model=NAME",
        )
    elif rival.missing_features:
        yield Finding(
            "warning",
            f"the champion {rival.version} was trained on features that this task does not have, and is compared "
            f"without them: {'; '.join(rival.missing_features)}",
            "begin another model with --set storage.model=NAME if that is not meant",
        )


def _teacher_findings(config: RunConfig, cost: CostFacts) -> Iterator[Finding]:
    teacher = config.teacher
    if teacher.kind == "openai" and not os.environ.get(teacher.api_key_env):
        yield Finding("warning", f"{teacher.api_key_env} is not set: requests have no key", "set it if one is needed")
    if teacher.max_requests is not None and teacher.kind == "openai" and cost.answers > teacher.max_requests:
        yield Finding(
            "warning",
            f"teacher.max_requests {teacher.max_requests:,} is below the {cost.answers:,} requests of the run: it will "
            "stop in the synthesis step unless answers were kept",
            "raise it, or lower teacher.samples",
        )


def _machine_findings(machine: MachineFacts) -> Iterator[Finding]:
    if machine.disk_needed > machine.disk_free:
        yield Finding(
            "warning",
            f"the run needs about {machine.disk_needed:.1f} GiB of disk, {machine.disk_free:.1f} GiB are free",
            "free some, or give --out on another disk",
        )
    if machine.memory_needed is not None and machine.memory_needed > machine.memory:
        yield Finding(
            "warning",
            f"the run needs about {machine.memory_needed:.1f} GiB of memory, this machine has {machine.memory:.1f}",
            "train on fewer users, or on a larger machine (docs/scale.md)",
        )
