"""The training pipeline: one object, run by `kfp.local` on one machine and compiled for KFP on a cluster.

Each step receives its own sections of the configuration as small JSON parameters, and the addresses of the files of the
data set that it reads: nothing is imported, so a step reads them with its own S3 settings. What steps make travels as
artefacts. The addresses of labels and ceiling go to the evaluation and to nothing else: a test reads that off the
compiled pipeline.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, List, NamedTuple, get_origin  # noqa: UP035 - KFP's type system knows typing.List

from kfp import dsl
from kfp.dsl import base_component

from components.evaluation.component import evaluation
from components.features.component import features
from components.filtering.component import filtering
from components.gate.component import gate
from components.grpo.component import grpo
from components.labelling.component import labelling
from components.predictions.component import predictions
from components.promotion.component import promotion
from components.reference.component import reference
from components.rejection.component import rejection
from components.report.component import report
from components.rollout.component import rollout
from components.sft.component import sft
from components.steps import StepDeclaration
from components.synthesis.component import synthesis
from pipelines.placement import NO_PLACEMENT, Placement, step_name

PIPELINE_NAME = "conf-profile-training"
DESCRIPTION = "Label-free user profiling: from events to a gated model in S3."
Output = tuple[str, str, Any]
"""Of which step, under which name there, of which type: a list where the step is done in shards."""
OUTPUTS: Mapping[str, Output] = {
    "features": ("features", "features", dsl.Dataset),
    "features_report": ("features", "report", dsl.Artifact),
    "labelling_report": ("labelling", "report", dsl.Artifact),
    "sft_student": ("sft", "student", dsl.Model),
    "student": ("grpo", "student", dsl.Model),
    "grpo_log": ("grpo", "log", dsl.Artifact),
    "predictions": ("predictions", "predictions", dsl.Dataset),
    "evaluation": ("evaluation", "evaluation", dsl.Artifact),
    "gate": ("gate", "gate_decision", dsl.Artifact),
    "outcome": ("promotion", "outcome", dsl.Artifact),
    "report": ("report", "page", dsl.HTML),
}
"""What a caller of the pipeline reads when it has ended."""


def flow(
    given: SimpleNamespace, steps: Collection[str], shard_parallelism: int, untrained: bool
) -> Iterator[dsl.PipelineTask]:
    """The steps' tasks in the order in which the data go through them; who stops asking ends the pipeline there.

    `given` holds the pipeline's parameters, `steps` the names of those that the run has. Predictions are those of the
    last student that the run makes; `untrained`: of the model that this student's SFT began with.
    """
    featured = features(
        behaviour=given.behaviour_uri,
        demographics=given.demographics_uri,
        task_file=given.task_uri,
        data_digest=given.data_digest,
        as_of=given.as_of,
        config=given.features_config,
    )
    yield featured
    users = featured.outputs["features"]

    with dsl.ParallelFor(items=given.shards, parallelism=shard_parallelism) as shard:
        answered = synthesis(
            features=users,
            task_file=given.task_uri,
            lexicon=given.lexicon_uri,
            config=given.teacher_config,
            prompt=given.prompt_config,
            seed=given.seed,
            shard=shard,
            answers_folder=given.answers_folder,
        )
    yield answered

    labelled = labelling(
        candidates=dsl.Collected(answered.outputs["candidates"]),
        features=users,
        task_file=given.task_uri,
        config=given.labelling_config,
        samples=given.samples,
    )
    yield labelled

    tuned = sft(
        features=users,
        pseudo_labels=labelled.outputs["pseudo_labels"],
        task_file=given.task_uri,
        config=given.sft_config,
        student_config=given.student_config,
        prompt=given.prompt_config,
        workspace=given.workspace,
        seed=given.seed,
    )
    yield tuned
    taught = tuned.outputs["student"]

    if "rejection" in steps:
        refined = rejection(
            features=users,
            sft_student=taught,
            config=given.rejection_config,
            sampling=given.reference_config,
            student_config=given.student_config,
            workspace=given.workspace,
            seed=given.seed,
        )
        yield refined
        taught = refined.outputs["student"]

    if "predictions" in steps and "grpo" not in steps:
        yield _predict(given, users, taught, untrained)

    # From here on confidence is frozen: what the student says while it learns cannot raise its own reward.
    frozen = reference(
        features=users, student=taught, config=given.reference_config, dtype=given.dtype, seed=given.seed
    )
    yield frozen

    filtered = filtering(reference=frozen.outputs["reference"], config=given.filtering_config, seed=given.seed)
    yield filtered

    reinforced = grpo(
        features=users,
        reference=frozen.outputs["reference"],
        support=frozen.outputs["support"],
        filtered=filtered.outputs["filtered"],
        sft_student=taught,
        config=given.grpo_config,
        student_config=given.student_config,
        workspace=given.workspace,
        seed=given.seed,
    )
    yield reinforced

    if "predictions" in steps:
        yield _predict(given, users, reinforced.outputs["student"], untrained)

    evaluated = evaluation(
        features=users,
        candidates=dsl.Collected(answered.outputs["candidates"]),
        sft_student=tuned.outputs["student"],
        student=reinforced.outputs["student"],
        task_file=given.task_uri,
        labels=given.labels_uri,
        ceiling=given.ceiling_uri,
        config=given.evaluation_config,
        student_config=given.student_config,
        storage=given.storage_config,
        champion_version=given.champion_version,
        labels_digest=given.labels_digest,
        seed=given.seed,
    )
    yield evaluated

    decided = gate(evaluation=evaluated.outputs["evaluation"], config=given.gate_config)
    yield decided

    promoted = promotion(
        model=reinforced.outputs["student"],
        evaluation=evaluated.outputs["evaluation"],
        gate=decided.outputs["gate_decision"],
        reference=frozen.outputs["reference"],
        config=given.storage_config,
        configuration=given.configuration,
        expected_champion=given.champion_version,
    )
    yield promoted

    if "rollout" in steps:
        yield rollout(outcome=promoted.outputs["outcome"], config=given.rollout_config, storage=given.storage_config)

    yield report(
        evaluation=evaluated.outputs["evaluation"],
        gate_decision=decided.outputs["gate_decision"],
        labelling_report=labelled.outputs["report"],
        features_report=featured.outputs["report"],
        sft_log=tuned.outputs["log"],
        grpo_log=reinforced.outputs["log"],
        filtering_report=filtered.outputs["report"],
        reference_report=frozen.outputs["report"],
        outcome=promoted.outputs["outcome"],
        configuration=given.configuration,
    )


def _predict(given: SimpleNamespace, users: Any, student: Any, untrained: bool) -> dsl.PipelineTask:
    return predictions(
        features=users,
        student=student,
        untrained=untrained,
        config=given.evaluation_config,
        student_config=given.student_config,
        seed=given.seed,
    )


def training_pipeline(
    given: Mapping[str, Any],
    steps: Sequence[StepDeclaration],
    placement: Placement = NO_PLACEMENT,
    outputs: Mapping[str, Output] = OUTPUTS,
    untrained: bool = False,
) -> base_component.BaseComponent:
    """The pipeline of these steps (see `components.steps.steps_of`), which ends after the last of them.

    `given` holds every parameter's default (see `arguments`). Tasks are placed as they are for `kfp.local`, by declared
    resources for a cluster. Of `outputs` those are given that its steps make; see `flow` for `untrained`.
    """
    names = [step.name for step in steps]
    made = {name: found for name, found in outputs.items() if found[0] in names}
    result = NamedTuple("Outputs", [(name, kind) for name, (_, _, kind) in made.items()])  # type: ignore[misc]

    def pipeline(*parameters: Any) -> Any:
        tasks: dict[str, dsl.PipelineTask] = {}
        given_here = SimpleNamespace(**dict(zip(given, parameters, strict=True)))
        for task in flow(given_here, names, placement.shard_parallelism, untrained):
            placement.place(task)
            tasks[step_name(task)] = task
            if step_name(task) == names[-1]:
                break
        found = {name: _output(tasks[step].outputs[output], kind) for name, (step, output, kind) in made.items()}
        return result(**found)

    # KFP reads a pipeline's parameters off its signature; ours follow from the table of steps.
    pipeline.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value, annotation=_type(value))
            for name, value in given.items()
        ],
        return_annotation=result,
    )
    return dsl.pipeline(name=PIPELINE_NAME, description=DESCRIPTION)(pipeline)


def _output(channel: Any, kind: Any) -> Any:
    return dsl.Collected(channel) if get_origin(kind) is list else channel


def _type(value: Any) -> Any:
    """A parameter's type, by its default."""
    return List[int] if isinstance(value, list) else type(value)  # noqa: UP006
