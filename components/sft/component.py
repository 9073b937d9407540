"""The KFP wrapper of `components.sft.step`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def sft(
    features: dsl.Input[dsl.Dataset],
    pseudo_labels: dsl.Input[dsl.Dataset],
    taxonomy: dsl.Input[dsl.Artifact],
    student: dsl.Output[dsl.Model],
    log: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    config: str,
    student_config: str,
    prompt: str,
    workspace: str,
    seed: int,
):
    """Supervised fine-tuning of the student on the voted and calibrated pseudo-labels."""
    import json
    from pathlib import Path

    from components.sft.step import run
    from conf_profile.config import PromptConfig, SFTConfig, StudentConfig, parse_section
    from conf_profile.students import processes
    from conf_profile.students.training import checkpoint_folder

    counts = processes.call(
        run,
        processes.wanted(),
        features=Path(features.path),
        pseudo_labels=Path(pseudo_labels.path),
        taxonomy_file=Path(taxonomy.path),
        student=Path(student.path),
        log=Path(log.path),
        config=parse_section(SFTConfig, config),
        student_config=parse_section(StudentConfig, student_config),
        prompt=parse_section(PromptConfig, prompt),
        checkpoints=checkpoint_folder(
            workspace,
            "sft",
            [Path(features.path), Path(pseudo_labels.path)],
            [config, student_config, prompt, str(int(seed))],
        ),
        seed=int(seed),
    )
    for name, value in counts.items():
        metrics.log_metric(name, value)
    # kfp.local caches a task only if each of its artefacts is a file.
    Path(metrics.path).write_text(json.dumps(counts), encoding="utf-8")
