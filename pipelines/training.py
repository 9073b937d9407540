"""The training pipeline: one object, run by `kfp.local` on one machine and compiled for KFP on a cluster.

Each step receives its own sections of the configuration as small JSON parameters, and the addresses of the files of the
data set that it reads: nothing is imported, so a step reads them with its own S3 settings. What steps make travels as
artefacts. The addresses of labels and ceiling go to the evaluation and to nothing else: a test reads that off the
compiled pipeline.
"""

from collections.abc import Mapping
from typing import Any, List, NamedTuple  # noqa: UP035 - KFP's type system knows typing.List

from kfp import dsl
from kfp.dsl import base_component

from components.evaluation.component import evaluate
from components.features.component import build_features
from components.filtering.component import filtering
from components.gate.component import gate
from components.grpo.component import grpo
from components.labelling.component import labelling
from components.promotion.component import promotion
from components.reference.component import freeze_reference
from components.rejection.component import rejection_sampling
from components.report.component import report
from components.rollout.component import rollout
from components.sft.component import sft
from components.synthesis.component import synthesis
from pipelines.placement import UNPLACED, Placement
from pipelines.plan import Plan

PIPELINE_NAME = "conf-profile-training"


class Outputs(NamedTuple):
    """What a caller of the pipeline reads when it has ended."""

    features: dsl.Dataset
    features_report: dsl.Artifact
    sft_student: dsl.Model
    student: dsl.Model
    grpo_log: dsl.Artifact
    evaluation: dsl.Artifact
    gate: dsl.Artifact
    outcome: dsl.Artifact
    report: dsl.HTML


def training_pipeline(
    given: Mapping[str, Any], plan: Plan, placement: Placement = UNPLACED
) -> base_component.BaseComponent:
    """The pipeline of a plan; `given` holds every parameter's default (see `arguments`).

    Its tasks are placed as they are for `kfp.local`, by declared resources for a cluster.
    """

    @dsl.pipeline(name=PIPELINE_NAME, description="Label-free user profiling: from events to a gated model in S3.")
    def pipeline(
        behaviour_uri: str = given["behaviour_uri"],
        demographics_uri: str = given["demographics_uri"],
        taxonomy_uri: str = given["taxonomy_uri"],
        lexicon_uri: str = given["lexicon_uri"],
        labels_uri: str = given["labels_uri"],
        ceiling_uri: str = given["ceiling_uri"],
        as_of: str = given["as_of"],
        data_digest: str = given["data_digest"],
        labels_digest: str = given["labels_digest"],
        champion_version: str = given["champion_version"],
        workspace: str = given["workspace"],
        answers_folder: str = given["answers_folder"],
        shards: List[int] = given["shards"],  # noqa: UP006
        samples: int = given["samples"],
        seed: int = given["seed"],
        dtype: str = given["dtype"],
        features_config: str = given["features_config"],
        prompt_config: str = given["prompt_config"],
        teacher_config: str = given["teacher_config"],
        labelling_config: str = given["labelling_config"],
        student_config: str = given["student_config"],
        sft_config: str = given["sft_config"],
        rejection_config: str = given["rejection_config"],
        reference_config: str = given["reference_config"],
        filtering_config: str = given["filtering_config"],
        grpo_config: str = given["grpo_config"],
        evaluation_config: str = given["evaluation_config"],
        gate_config: str = given["gate_config"],
        storage_config: str = given["storage_config"],
        rollout_config: str = given["rollout_config"],
        configuration: str = given["configuration"],
    ) -> Outputs:
        """From raw events to a gated model; the steps stand in the order in which the data go through them."""
        featured = build_features(
            behaviour=behaviour_uri,
            demographics=demographics_uri,
            data_digest=data_digest,
            as_of=as_of,
            config=features_config,
        )
        features = featured.outputs["features"]
        with dsl.ParallelFor(items=shards, parallelism=placement.shard_parallelism) as shard:
            answered = synthesis(
                features=features,
                taxonomy=taxonomy_uri,
                lexicon=lexicon_uri,
                config=teacher_config,
                prompt=prompt_config,
                seed=seed,
                shard=shard,
                answers_folder=answers_folder,
            )
        labelled = labelling(
            candidates=dsl.Collected(answered.outputs["candidates"]),
            features=features,
            taxonomy=taxonomy_uri,
            config=labelling_config,
            samples=samples,
        )
        tuned = sft(
            features=features,
            pseudo_labels=labelled.outputs["pseudo_labels"],
            taxonomy=taxonomy_uri,
            config=sft_config,
            student_config=student_config,
            prompt=prompt_config,
            workspace=workspace,
            seed=seed,
        )
        placed = [featured, answered, labelled, tuned]
        taught = tuned.outputs["student"]
        if plan.rejection:
            refined = rejection_sampling(
                features=features,
                sft_student=taught,
                config=rejection_config,
                sampling=reference_config,
                student_config=student_config,
                workspace=workspace,
                seed=seed,
            )
            placed.append(refined)
            taught = refined.outputs["student"]
        frozen = freeze_reference(features=features, student=taught, config=reference_config, dtype=dtype, seed=seed)
        filtered = filtering(reference=frozen.outputs["reference"], config=filtering_config, seed=seed)
        reinforced = grpo(
            features=features,
            reference=frozen.outputs["reference"],
            support=frozen.outputs["support"],
            filtered=filtered.outputs["filtered"],
            sft_student=taught,
            config=grpo_config,
            student_config=student_config,
            workspace=workspace,
            seed=seed,
        )
        evaluated = evaluate(
            features=features,
            candidates=dsl.Collected(answered.outputs["candidates"]),
            sft_student=tuned.outputs["student"],
            student=reinforced.outputs["student"],
            taxonomy=taxonomy_uri,
            labels=labels_uri,
            ceiling=ceiling_uri,
            config=evaluation_config,
            student_config=student_config,
            storage=storage_config,
            champion_version=champion_version,
            labels_digest=labels_digest,
            seed=seed,
        )
        decided = gate(evaluation=evaluated.outputs["evaluation"], config=gate_config)
        promoted = promotion(
            model=reinforced.outputs["student"],
            evaluation=evaluated.outputs["evaluation"],
            gate=decided.outputs["gate_decision"],
            reference=frozen.outputs["reference"],
            config=storage_config,
            configuration=configuration,
            expected_champion=champion_version,
        )
        reported = report(
            evaluation=evaluated.outputs["evaluation"],
            gate_decision=decided.outputs["gate_decision"],
            labelling_report=labelled.outputs["report"],
            features_report=featured.outputs["report"],
            sft_log=tuned.outputs["log"],
            grpo_log=reinforced.outputs["log"],
            filtering_report=filtered.outputs["report"],
            reference_report=frozen.outputs["report"],
            outcome=promoted.outputs["outcome"],
            configuration=configuration,
        )
        placed += [frozen, filtered, reinforced, evaluated, decided, promoted, reported]
        if plan.rollout:
            placed.append(rollout(outcome=promoted.outputs["outcome"], config=rollout_config, storage=storage_config))
        for task in placed:
            placement.place(task)
        return Outputs(
            features=features,
            features_report=featured.outputs["report"],
            sft_student=tuned.outputs["student"],
            student=reinforced.outputs["student"],
            grpo_log=reinforced.outputs["log"],
            evaluation=evaluated.outputs["evaluation"],
            gate=decided.outputs["gate_decision"],
            outcome=promoted.outputs["outcome"],
            report=reported.outputs["page"],
        )

    return pipeline
