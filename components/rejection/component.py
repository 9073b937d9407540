"""The KFP wrapper of `components.rejection.step`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def rejection_sampling(
    features: dsl.Input[dsl.Dataset],
    sft_student: dsl.Input[dsl.Model],
    student: dsl.Output[dsl.Model],
    log: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    config: str,
    sampling: str,
    student_config: str,
    workspace: str,
    seed: int,
):
    """Fine-tunes the student on those of its own samples that agree with their vote; no rounds: passes it on."""
    import json
    from pathlib import Path

    from components.rejection.step import run
    from conf_profile.config import ReferenceConfig, RejectionConfig, StudentConfig, parse_section
    from conf_profile.students import processes
    from conf_profile.students.training import checkpoint_folder

    settings = parse_section(RejectionConfig, config)
    counts = processes.call(
        run,
        processes.wanted() if settings.rounds else 1,
        features=Path(features.path),
        sft_student=Path(sft_student.path),
        student=Path(student.path),
        log=Path(log.path),
        config=settings,
        sampling=parse_section(ReferenceConfig, sampling),
        student_config=parse_section(StudentConfig, student_config),
        checkpoints=checkpoint_folder(
            workspace,
            "rejection",
            [Path(features.path), Path(sft_student.path)],
            [config, sampling, student_config, str(int(seed))],
        ),
        seed=int(seed),
    )
    for name, value in counts.items():
        metrics.log_metric(name, value)
    # kfp.local caches a task only if each of its artefacts is a file.
    Path(metrics.path).write_text(json.dumps(counts), encoding="utf-8")
