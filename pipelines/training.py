"""The training pipeline: one object, run by `kfp.local` on one machine and compiled for KFP on a cluster.

Each step receives its own sections of the configuration as small JSON parameters; tables and models travel as
artefacts. `labels` and `ceiling` are inputs of the evaluation and of nothing else: a test reads that off the
compiled pipeline.
"""

from typing import List, NamedTuple  # noqa: UP035 - KFP's type system knows typing.List

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

PIPELINE_NAME = "conf-profile-training"


def _imported(uri: str, kind: type[dsl.Artifact], name: str) -> dsl.Artifact:
    task = dsl.importer(artifact_uri=uri, artifact_class=kind, reimport=False)
    task.set_display_name(name)
    return task.output


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


def training_pipeline(placement: Placement = UNPLACED) -> base_component.BaseComponent:
    """The pipeline, its tasks placed: as they are for `kfp.local`, by declared resources for a cluster."""

    @dsl.pipeline(name=PIPELINE_NAME, description="Label-free user profiling: from events to a gated model in S3.")
    def pipeline(
        behaviour_uri: str,
        demographics_uri: str,
        taxonomy_uri: str,
        lexicon_uri: str,
        labels_uri: str,
        ceiling_uri: str,
        as_of: str,
        data_digest: str,
        labels_digest: str,
        champion_version: str,
        workspace: str,
        answers_folder: str,
        shards: List[int],  # noqa: UP006
        samples: int,
        seed: int,
        dtype: str,
        features_config: str,
        prompt_config: str,
        teacher_config: str,
        labelling_config: str,
        student_config: str,
        sft_config: str,
        rejection_config: str,
        reference_config: str,
        filtering_config: str,
        grpo_config: str,
        evaluation_config: str,
        gate_config: str,
        storage_config: str,
        rollout_service: str,
        rollout_config: str,
        run_config: str,
        config_yaml: str,
    ) -> Outputs:
        """From raw events to a gated model; the steps stand in the order in which the data go through them."""
        behaviour = _imported(behaviour_uri, dsl.Dataset, "behaviour")
        demographics = _imported(demographics_uri, dsl.Dataset, "demographics")
        taxonomy = _imported(taxonomy_uri, dsl.Artifact, "taxonomy")
        lexicon = _imported(lexicon_uri, dsl.Artifact, "lexicon")
        labels = _imported(labels_uri, dsl.Dataset, "labels")
        ceiling = _imported(ceiling_uri, dsl.Dataset, "ceiling")

        featured = build_features(
            behaviour=behaviour,
            demographics=demographics,
            data_digest=data_digest,
            as_of=as_of,
            config=features_config,
        )
        features = featured.outputs["features"]
        with dsl.ParallelFor(items=shards, name="synthesis-shards", parallelism=placement.shard_parallelism) as shard:
            answered = synthesis(
                features=features,
                taxonomy=taxonomy,
                lexicon=lexicon,
                config=teacher_config,
                prompt=prompt_config,
                seed=seed,
                shard=shard,
                answers_folder=answers_folder,
            )
        labelled = labelling(
            candidates=dsl.Collected(answered.outputs["candidates"]),
            taxonomy=taxonomy,
            features=features,
            config=labelling_config,
            samples=samples,
        )
        tuned = sft(
            features=features,
            pseudo_labels=labelled.outputs["pseudo_labels"],
            taxonomy=taxonomy,
            config=sft_config,
            student_config=student_config,
            prompt=prompt_config,
            workspace=workspace,
            seed=seed,
        )
        refined = rejection_sampling(
            features=features,
            sft_student=tuned.outputs["student"],
            config=rejection_config,
            sampling=reference_config,
            student_config=student_config,
            workspace=workspace,
            seed=seed,
        )
        frozen = freeze_reference(
            features=features, student=refined.outputs["student"], config=reference_config, dtype=dtype, seed=seed
        )
        filtered = filtering(reference=frozen.outputs["reference"], config=filtering_config, seed=seed)
        reinforced = grpo(
            features=features,
            reference=frozen.outputs["reference"],
            support=frozen.outputs["support"],
            filtered=filtered.outputs["filtered"],
            sft_student=refined.outputs["student"],
            config=grpo_config,
            student_config=student_config,
            workspace=workspace,
            seed=seed,
        )
        evaluated = evaluate(
            features=features,
            candidates=dsl.Collected(answered.outputs["candidates"]),
            taxonomy=taxonomy,
            sft_student=tuned.outputs["student"],
            student=reinforced.outputs["student"],
            labels=labels,
            ceiling=ceiling,
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
            run_config=run_config,
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
            config_yaml=config_yaml,
        )
        with dsl.If(rollout_service != "", name="rollout-configured"):
            rolled_out = rollout(outcome=promoted.outputs["outcome"], config=rollout_config, storage=storage_config)
        for task in (
            featured, answered, labelled, tuned, refined, frozen, filtered, reinforced, evaluated, decided, promoted,
            reported, rolled_out,
        ):  # fmt: skip
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
