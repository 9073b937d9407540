"""`conf-profile compile`: the pipeline as YAML for a KFP backend."""

from pathlib import Path

import click


@click.command("compile")
@click.option("--out", type=click.Path(path_type=Path), default=Path("conf-profile-training.yaml"), show_default=True)
@click.option("--image", help="Container image of the steps; default: CONF_PROFILE_IMAGE, else the release's.")
def compile_pipeline(out: Path, image: str | None) -> None:
    """Write the training pipeline's YAML."""
    import os

    if image:
        os.environ["CONF_PROFILE_IMAGE"] = image
    from pipelines.compile import compile_to

    compile_to(out)
    click.echo(f"wrote {out}")
