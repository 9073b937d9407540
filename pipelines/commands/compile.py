"""`conf-profile compile`: the pipeline as YAML for a KFP backend, or one training step for several machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from conf_profile.cli.options import config_options
from pipelines.commands.options import until_option

if TYPE_CHECKING:
    from conf_profile.config import RunConfig


@click.command("compile", short_help="Compile the pipeline to YAML for a cluster.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("conf-profile-training.yaml"), show_default=True)
@click.option(
    "--image", default="", help="Container image of the steps; default: CONF_PROFILE_IMAGE, else the release's."
)
@click.option(
    "--values", multiple=True, type=click.Path(path_type=Path), help="Values of the chart: pools, resources, secrets."
)
@click.option(
    "--caching", is_flag=True, help="Let KFP take steps from its cache; each run must then be given a data_digest."
)
@click.option(
    "--trainjob", "train_step", metavar="STEP", help="Not the pipeline: a Kubeflow Trainer TrainJob for sft or grpo."
)
@click.option("--nodes", type=click.IntRange(min=1), default=2, show_default=True, help="Machines of the TrainJob.")
@click.option("--artefact", multiple=True, metavar="NAME=URI", help="An input of the TrainJob, from an earlier run.")
@click.option("--output", default="", metavar="URI", help="Where the TrainJob puts student and log.")
@until_option
@config_options
def compile_pipeline(
    config: RunConfig,
    out: Path,
    image: str,
    values: tuple[Path, ...],
    caching: bool,
    train_step: str | None,
    nodes: int,
    artefact: tuple[str, ...],
    output: str,
    until: str,
) -> None:
    """Write the training pipeline's YAML: the steps that the configuration needs, its settings as defaults."""
    from pipelines import resources, trainjob
    from pipelines.compile import compile_to

    declared = resources.load(values)
    if train_step:
        trainjob.write(out, trainjob.parse_options(train_step, nodes, artefact, output), config, declared, image)
    else:
        compile_to(out, config, declared, image, caching, until=until)
    click.echo(f"wrote {out}")
