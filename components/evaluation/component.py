"""The KFP wrapper of the evaluation: predictions first, then the one place where true labels are read."""

from typing import List  # noqa: UP035 - KFP's type system knows typing.List

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def evaluate(
    features: dsl.Input[dsl.Dataset],
    candidates: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    taxonomy: dsl.Input[dsl.Artifact],
    sft_student: dsl.Input[dsl.Model],
    student: dsl.Input[dsl.Model],
    labels: dsl.Input[dsl.Dataset],
    ceiling: dsl.Input[dsl.Dataset],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    config: str,
    student_config: str,
    storage: str,
    champion_version: str,
    labels_digest: str,
    seed: int,
):
    """Measures every arm on the test users' true labels; `labels_digest` only makes the cache follow them."""
    import json
    import tempfile
    from pathlib import Path

    from components.evaluation import inference, kfp_metrics
    from components.evaluation.step import score
    from conf_profile.config import EvaluationConfig, StorageConfig, StudentConfig, parse_section

    settings = parse_section(EvaluationConfig, config)
    with tempfile.TemporaryDirectory() as work:
        rival = inference.fetch_champion(
            champion_version, parse_section(StorageConfig, storage), Path(work) / "champion"
        )
        predictions = inference.predict_arms(
            features=Path(features.path),
            sft_student=Path(sft_student.path),
            student=Path(student.path),
            champion=rival.folder,
            student_config=parse_section(StudentConfig, student_config),
            batch_size=settings.batch_size,
            seed=int(seed),
            work=Path(work),
        )
        smoke = inference.smoke_profiles(
            Path(student.path), Path(features.path), parse_section(StudentConfig, student_config), settings.batch_size
        )
        known_ceiling = Path(ceiling.path)
        result = score(
            predictions=predictions,
            candidates=[Path(shard.path) for shard in candidates],
            features=Path(features.path),
            labels=Path(labels.path),
            taxonomy=Path(taxonomy.path),
            ceiling=known_ceiling if known_ceiling.is_file() and known_ceiling.stat().st_size else None,
            evaluation=Path(evaluation.path),
            config=settings,
            seed=int(seed),
            compared_with=rival.version,
            smoke=smoke,
        )
    scalars, matrix = kfp_metrics.scalars(result), kfp_metrics.confusion(result)
    for name, value in scalars.items():
        metrics.log_metric(name, value)
    confusion.log_confusion_matrix(*matrix)
    # kfp.local caches a task only if each of its artefacts is a file.
    Path(metrics.path).write_text(json.dumps(scalars), encoding="utf-8")
    Path(confusion.path).write_text(json.dumps(matrix), encoding="utf-8")
