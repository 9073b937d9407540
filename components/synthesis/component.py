"""The synthesis step as a KFP component."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def synthesis(
    features: dsl.Input[dsl.Dataset],
    taxonomy: dsl.Input[dsl.Artifact],
    lexicon: dsl.Input[dsl.Artifact],
    candidates: dsl.Output[dsl.Dataset],
    config: str,
    prompt: str,
    seed: int,
    shard: int,
    answers_folder: str,
):
    """One shard of the users asked about; an empty `lexicon` file means that there is none."""
    from pathlib import Path

    from components.synthesis import step
    from conf_profile.config import PromptConfig, TeacherConfig, parse_section

    lexicon_path = Path(lexicon.path)
    counts = step.run(
        Path(features.path),
        Path(taxonomy.path),
        lexicon_path if lexicon_path.is_file() and lexicon_path.stat().st_size else None,
        Path(candidates.path),
        parse_section(TeacherConfig, config),
        parse_section(PromptConfig, prompt),
        int(seed),
        int(shard),
        answers_folder,
    )
    candidates.metadata.update(counts)
