"""Measures every arm on the true labels of the test users, and writes evaluation.json.

The one step that reads true labels. It asks no model: predictions arrive as tables. The default thresholds
are chosen on the validation users, everything else is measured on the test users. Where there are no labels the
evaluation has another shape (`unlabelled`), and says that it judges nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.evaluation import teacher, unlabelled
from components.evaluation.cells import (
    Population,
    feature_slices,
    population,
    read_predictions,
)
from conf_profile import tables
from conf_profile.config import EvaluationConfig
from conf_profile.consensus import voting
from conf_profile.dialogue import task as tasks
from conf_profile.errors import DataError
from conf_profile.evaluation import bootstrap, calibration_error, hierarchy, metrics, slices
from conf_profile.evaluation.arms import (
    BASE,
    CEILING,
    CHAMPION,
    MAJORITY_TAG,
    SFT,
    SFT_GRPO,
    STUDENT_ARMS,
    TEACHER_EM,
    TEACHER_LOG_ODDS,
    TEACHER_MAJORITY,
    TEACHER_SINGLE,
    TEACHER_WEIGHTED,
    last_trained_arm,
    teacher_arm,
)
from conf_profile.evaluation.metrics import BoolArray, Cells, FloatArray, Scores, Threshold
from conf_profile.files import write_text

DERIVED_ARMS = (TEACHER_SINGLE, *map(teacher_arm, voting.VOTES), CEILING, MAJORITY_TAG)
PAIRS = (
    (SFT, TEACHER_SINGLE),
    (SFT, BASE),
    (SFT, MAJORITY_TAG),
    (SFT_GRPO, SFT),
    (SFT_GRPO, BASE),
    (SFT_GRPO, MAJORITY_TAG),
    (SFT_GRPO, TEACHER_SINGLE),
    (SFT_GRPO, CHAMPION),
    (TEACHER_WEIGHTED, TEACHER_MAJORITY),
    (TEACHER_LOG_ODDS, TEACHER_WEIGHTED),
    (TEACHER_EM, TEACHER_WEIGHTED),
)


@dataclass(frozen=True)
class Arm:
    """One arm's cells, its counts [users, attributes, 3], and resampled sums of these [resamples, ...]."""

    cells: Cells
    counts: FloatArray
    resampled: FloatArray


def score(
    predictions: Mapping[str, Path],
    candidates: Sequence[Path],
    features: Path,
    labels: Path | None,
    task_file: Path,
    ceiling: Path | None,
    evaluation: Path,
    config: EvaluationConfig,
    seed: int,
    compared_with: str = "",
    champion_judged: bool = True,
    smoke: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes and returns the evaluation.

    `predictions` maps arm names (base, sft, sft_grpo, champion or any other) to tables.PREDICTIONS files with
    all test users; the candidate's (sft_grpo, else sft) holds the validation users too. `candidates` are the
    teacher's tables.CANDIDATES shards, `ceiling` the exact posterior's predictions where it is known. `compared_with`
    is the version behind the arm champion; the promotion replaces that champion and no other. `champion_judged`:
    whether labels were there for that one. `smoke` goes along as it is (see conf_profile.rollout.smoke).

    `labels` None: there are none, and the result is marked as not judged. Then `ceiling`, which knows the truth, is not
    read either.
    """
    kinds, table = tasks.load(task_file), tables.read_features(features)
    truth = tables.from_rows([], tables.LABELS) if labels is None else tables.read(labels, tables.LABELS)
    test = population(table, truth, "test", kinds)
    _check(predictions, test)
    candidate, draws = candidate_arm(predictions), bootstrap.UserBootstrap(len(test), config.bootstrap, seed)
    if labels is None:
        measured = unlabelled.describe(predictions, candidates, test, candidate, draws)
    else:
        _require_labels(truth, table, test, labels)
        validation = population(table, truth, "validation", kinds)
        measured = _measure(predictions, candidates, ceiling, test, validation, candidate, config, draws)
    result = {
        "judged": labels is not None,
        "users": _users_by_split(table),
        **_labelled_users(test),
        "candidate": candidate,
        "compared_with": compared_with,
        "champion_judged": champion_judged,
        **measured,
        "smoke": dict(smoke or {}),
    }
    write_text(evaluation, json.dumps(result, indent=2, allow_nan=False))
    return result


def _measure(
    predictions: Mapping[str, Path],
    candidates: Sequence[Path],
    ceiling: Path | None,
    test: Population,
    validation: Population,
    candidate: str,
    config: EvaluationConfig,
    draws: bootstrap.UserBootstrap,
) -> dict[str, Any]:
    """Everything that the true labels tell."""
    cells = _cells(predictions, candidates, ceiling, test)
    arms = {name: _arm(found, draws) for name, found in cells.items()}
    return {
        "arms": {name: _describe(arm, test) for name, arm in arms.items()},
        **_thresholds(predictions[candidate], arms[candidate].cells, validation, config),
        "paired": [asdict(_paired_difference(arms, pair)) for pair in PAIRS if set(pair) <= arms.keys()],
        **_slices(arms, candidate, test, draws),
        "hierarchy": _hierarchies(arms, draws),
    }


def candidate_arm(arms: Mapping[str, object]) -> str:
    """The arm that is up for promotion: sft_grpo, or sft where there was no second stage."""
    if name := last_trained_arm(arms):
        return name
    raise DataError(f"evaluation needs predictions of 'sft_grpo' or 'sft'; it was given: {', '.join(arms)}")


def _check(predictions: Mapping[str, Path], test: Population) -> None:
    reserved = sorted(set(predictions) & set(DERIVED_ARMS))
    if reserved:
        raise DataError(f"the arm name(s) {', '.join(reserved)} are made by the evaluation itself; rename them")
    if not len(test):
        raise DataError("the features hold no user of the split 'test'; give more users or a larger test_share")


def _require_labels(truth: pa.Table, features: pa.Table, test: Population, source: Path) -> None:
    """DataError where there are labels, but none of a test user: to call that a judgement would hide a mistake."""
    if (test.truth != metrics.NO_TAG).any():
        return
    labelled = pc.unique(truth["user_id"])
    known = int(pc.sum(pc.is_in(labelled, features["user_id"])).as_py() or 0)
    raise DataError(
        f"{source}: no test user has a true label: it has labels of {len(labelled)} users, of whom {known} are among "
        f"the run's {len(features)} and none among its {len(test)} test users; give labels of test users (the ids must "
        "be those of the other tables), or take the file away: then the run is unjudged (gate.unjudged)"
    )


def _labelled_users(test: Population) -> dict[str, Any]:
    """How many test users the figures stand on, for each attribute too; see `labelled_users`."""
    known = test.truth != metrics.NO_TAG
    by_attribute = dict(zip(test.taxonomy.names, known.sum(axis=0).tolist(), strict=True))
    return {
        "labelled_test_users": int(known.any(axis=1).sum()),
        "labelled_test_users_by_attribute": by_attribute,
    }


def _cells(
    predictions: Mapping[str, Path], candidates: Sequence[Path], ceiling: Path | None, test: Population
) -> dict[str, Cells]:
    """All arms in the order of the report: from knowing nothing to the best possible."""
    tag_counts = [len(attribute.tags) for attribute in test.taxonomy.attributes]
    read = {name: read_predictions(path, test, name) for name, path in predictions.items()}
    arms = {MAJORITY_TAG: metrics.majority_tag(test.truth, tag_counts)}
    arms |= {name: found for name, found in read.items() if name == BASE}
    arms |= teacher.arms(candidates, test)
    arms |= {name: found for name, found in read.items() if name != BASE}
    if ceiling is not None:
        arms[CEILING] = read_predictions(ceiling, test, CEILING)
    return arms


def _arm(cells: Cells, draws: bootstrap.UserBootstrap) -> Arm:
    counts = metrics.counts(cells)
    return Arm(cells, counts, draws.sums(counts))


def _describe(arm: Arm, test: Population) -> dict[str, Any]:
    names = test.taxonomy.names
    bins = calibration_error.reliability(arm.cells)
    return {
        **_add_intervals(arm.counts.sum(axis=(0, 1)), arm.resampled.sum(axis=1)),
        "per_attribute": {
            name: _add_intervals(arm.counts.sum(axis=0)[column], arm.resampled[:, column])
            for column, name in enumerate(names)
        },
        "sweep": _sweep(metrics.sweep(arm.cells)),
        "sweep_per_attribute": {
            name: _sweep(curve) for name, curve in zip(names, metrics.sweep_per_attribute(arm.cells), strict=True)
        },
        "level_counts": list(metrics.level_counts(arm.cells)),
        "ece": calibration_error.expected_calibration_error(bins),
        "brier": calibration_error.brier(arm.cells),
        "reliability": [asdict(item) for item in bins],
        "confusion": _confusion(arm.cells, test),
    }


def _add_intervals(count: FloatArray, resampled: FloatArray) -> dict[str, Any]:
    intervals = bootstrap.rate_intervals(resampled)
    limits = {
        f"{name}_ci": [found.low, found.high]
        for name, found in zip(("precision", "recall", "f1"), intervals, strict=True)
    }
    return asdict(metrics.scores(count)) | limits


def _sweep(curve: Sequence[Threshold]) -> list[dict[str, Any]]:
    return [{"tau": point.tau, **_rates(point.scores)} for point in curve]


def _rates(found: Scores) -> dict[str, float]:
    return {
        "precision": found.precision,
        "recall": found.recall,
        "f1": found.f1,
        "coverage": found.coverage,
    }


def _confusion(cells: Cells, test: Population) -> dict[str, Any]:
    return {
        attribute.name: {
            "tags": list(attribute.tags),
            "matrix": metrics.confusion(
                cells.prediction[:, column], cells.truth[:, column], len(attribute.tags)
            ).tolist(),
        }
        for column, attribute in enumerate(test.taxonomy.attributes)
    }


def _thresholds(path: Path, on_test: Cells, validation: Population, config: EvaluationConfig) -> dict[str, Any]:
    names = validation.taxonomy.names
    cells = read_predictions(path, validation, "candidate") if len(validation) else on_test.users(np.arange(0))
    chosen = metrics.default_thresholds(cells, names, config.target_precision)
    levels = np.asarray([chosen[name] for name in names])
    accepted = metrics.scores(metrics.counts(on_test, levels).sum(axis=(0, 1)))
    return {"thresholds": dict(chosen), "at_thresholds": _rates(accepted)}


def _paired_difference(arms: Mapping[str, Arm], pair: tuple[str, str]) -> bootstrap.Difference:
    better, worse = arms[pair[0]], arms[pair[1]]
    return bootstrap.f1_difference(
        pair,
        (better.counts.sum(axis=(0, 1)), worse.counts.sum(axis=(0, 1))),
        (better.resampled.sum(axis=1), worse.resampled.sum(axis=1)),
    )


def _slices(
    arms: Mapping[str, Arm], candidate: str, test: Population, draws: bootstrap.UserBootstrap
) -> dict[str, Any]:
    masks = feature_slices(test)
    lines = [
        {"slice": name, "arm": arm, "users": users, **_rates(found)}
        for arm in STUDENT_ARMS
        if arm in arms
        for name, (users, found) in slices.evaluate(masks, arms[arm].counts).items()
    ]
    return {"slices": lines, "slice_differences": _slice_differences(arms, candidate, masks, draws)}


def _slice_differences(
    arms: Mapping[str, Arm], candidate: str, masks: Mapping[str, BoolArray], draws: bootstrap.UserBootstrap
) -> list[dict[str, Any]]:
    if CHAMPION not in arms:
        return []
    counts = (arms[candidate].counts, arms[CHAMPION].counts)
    found = slices.differences(masks, (candidate, CHAMPION), counts, draws)
    return [{"slice": name, "users": users, **asdict(difference)} for name, (users, difference) in found.items()]


def _hierarchies(arms: Mapping[str, Arm], draws: bootstrap.UserBootstrap) -> dict[str, Any]:
    found = {name: hierarchy.hierarchy(arm.cells, draws) for name, arm in arms.items() if name != MAJORITY_TAG}
    return {
        name: {"passed": result.passed, **asdict(result), "reasons": list(result.reasons)}
        for name, result in found.items()
    }


def _users_by_split(features: pa.Table) -> dict[str, int]:
    counted = pc.value_counts(features["split"]).to_pylist()
    return {item["values"]: item["counts"] for item in sorted(counted, key=lambda item: str(item["values"]))}
