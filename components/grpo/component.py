"""The KFP wrapper of `components.grpo.step`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def grpo(
    features: dsl.Input[dsl.Dataset],
    reference: dsl.Input[dsl.Dataset],
    support: dsl.Input[dsl.Dataset],
    filtered: dsl.Input[dsl.Dataset],
    sft_student: dsl.Input[dsl.Model],
    student: dsl.Output[dsl.Model],
    log: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    config: str,
    student_config: str,
    workspace: str,
    seed: int,
):
    """Confidence-guided GRPO from the SFT student, on the frozen reference."""
    import json
    from pathlib import Path

    from components.grpo.step import run
    from conf_profile.config import GRPOConfig, StudentConfig, parse_section
    from conf_profile.students import processes
    from conf_profile.students.training import checkpoint_folder

    counts = processes.call(
        run,
        processes.wanted(),
        features=Path(features.path),
        reference=Path(reference.path),
        support=Path(support.path),
        filtered=Path(filtered.path),
        sft_student=Path(sft_student.path),
        student=Path(student.path),
        log=Path(log.path),
        config=parse_section(GRPOConfig, config),
        student_config=parse_section(StudentConfig, student_config),
        checkpoints=checkpoint_folder(
            workspace,
            "grpo",
            [Path(sft_student.path), Path(reference.path), Path(support.path), Path(filtered.path)],
            [config, student_config, str(int(seed))],
        ),
        seed=int(seed),
    )
    for name, value in counts.items():
        metrics.log_metric(name, value)
    # kfp.local caches a task only if each of its artefacts is a file.
    Path(metrics.path).write_text(json.dumps(counts), encoding="utf-8")
