"""The synthesis step as a KFP component."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def synthesis(
    features: dsl.Input[dsl.Dataset],
    candidates: dsl.Output[dsl.Dataset],
    task_file: str,
    lexicon: str,
    config: str,
    prompt: str,
    seed: int,
    shard: int,
    answers_folder: str,
):
    """One shard of the users asked about."""
    from components.synthesis import task

    task.run(features, candidates, task_file, lexicon, config, prompt, seed, shard, answers_folder)
