"""`conf-profile serve`: a model on this machine, the champion by default; `conf-profile profile` asks for one user."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conf_profile.cli.models import Storage, open_registry, storage_options

if TYPE_CHECKING:
    from serving.local.local import Options
    from serving.predictor.arguments import Engine


POLL_SECONDS = 10.0
DEADLINE_SECONDS = {"vllm": 10.0, "transformers": 120.0}
_STARTING = {
    "vllm": "starting vLLM, about a minute",
    "transformers": "vLLM is not used here, transformers answers: one request after another and far slower, for trying "
    "a model out and not for load (vLLM: on Linux after `make environment`)",
}
_UNJUDGED_NOTE = "the model is unjudged: it was promoted without labels, and nobody has measured how often it is right"


@click.command(short_help="Serve a model on this machine, the champion by default.")
@click.argument("uri", required=False, metavar="[champion://BUCKET/models/NAME[@VERSION]]")
@storage_options
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: a free one.")
@click.option("--web/--no-web", default=False, help="Serve the page at /web; it shows what is known of users.")
@click.option("--write-back", is_flag=True, help="Accepted tags into Feast's view inferred_profile; needs --run.")
@click.option("--threshold", "thresholds", multiple=True, metavar="ATTRIBUTE=LEVEL", help="Over the model's own.")
@click.option(
    "--engine", type=click.Choice(["vllm", "transformers"]), help="What answers; default: vLLM where it is installed."
)
@click.option("--threads", type=click.IntRange(1), help="Threads of vLLM on a CPU; default: one fewer than cores.")
@click.option(
    "--poll", type=click.FloatRange(0.1), help=f"Seconds between looks at the champion; default: {POLL_SECONDS:g}."
)
@click.option("--work", type=click.Path(path_type=Path), help="Models, online store and logs; default: RUN/serving.")
def serve(
    uri: str | None,
    storage: Storage,
    as_json: bool,
    port: int,
    web: bool,
    write_back: bool,
    thresholds: tuple[str, ...],
    engine: Engine | None,
    threads: int | None,
    poll: float | None,
    work: Path | None,
) -> None:
    """Serve a model: online features of the run's people, vLLM, and the transformer that callers ask.

    The champion of the address, or of the options where no address is given; its successors too. With @VERSION that
    version, whatever the champion is. Every file's hash is compared with the manifest's before it is used.

    Prints one line of JSON when it is ready, and another one whenever the champion has changed. Ctrl-C or SIGTERM ends
    everything that it started.
    """
    import os

    from conf_profile.processes.interruption import Interruption, end_processes
    from serving.local import local
    from serving.local.processes import free_port
    from serving.predictor.arguments import default_engine

    storage, version = resolve_target(uri, storage, poll)
    chosen = engine or default_engine()
    folder = (work or (storage.run or Path("runs/world-tiny")) / "serving").resolve()
    options = local.Options(
        port=port or free_port(),
        web=web,
        write_back=write_back,
        engine=chosen,
        deadline_seconds=DEADLINE_SECONDS[chosen],
        threads=threads or max(1, (os.cpu_count() or 2) - 1),
        version=version,
        poll_seconds=poll or POLL_SECONDS,
        thresholds=tuple(map(_threshold, thresholds)),
    )
    with end_processes():
        try:
            _serve(storage, folder, options)
        except Interruption:
            click.echo("ended", err=True)


def resolve_target(uri: str | None, storage: Storage, poll: float | None) -> tuple[Storage, str | None]:
    """Where the registry is and the version to serve for good, None for the champion.

    RegistryError for what is no model URI, click.UsageError for options that say otherwise than the URI.
    """
    if uri is None:
        return storage, None
    from conf_profile.registry.format import parse_uri

    found = parse_uri(uri)
    for option, given, named in (("--bucket", storage.bucket, found.bucket), ("--model", storage.model, found.model)):
        if given not in (None, named):
            raise click.UsageError(f"{option} {given} contradicts {uri}, which names {named}: leave the option out")
    if found.version and poll is not None:
        raise click.UsageError(f"--poll looks for another champion, but {uri} names one version: leave the option out")
    return replace(storage, bucket=found.bucket, model=found.model), found.version


def _serve(storage: Storage, folder: Path, options: Options) -> None:
    from conf_profile.data import run_folder
    from serving.local import local

    with open_registry(storage) as registry:
        registry.show(options.version)
        repository = local.online_store(storage.run, folder) if storage.run else None
        if storage.run:
            run_folder.note_outside_folder(storage.run, folder)
        click.echo(f"{_STARTING[options.engine]}; logs are in {folder / 'logs'}", err=True)
        with local.start_serving(registry, repository, folder, options) as running:
            click.echo(json.dumps(running.state))
            if "status" in running.state:
                click.echo(_UNJUDGED_NOTE, err=True)
            click.echo(_example(running.state, local.example_user(storage.run) if storage.run else None), err=True)
            sys.stdout.flush()
            running.run()


@click.command(short_help="Ask a running server for one user's profile.")
@click.argument("user")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The transformer's address.")
@click.option("--name", default="conf-profile", show_default=True, help="The model's name.")
@click.option("--samples", type=click.IntRange(1), default=1, show_default=True, help="Answers to vote over.")
@click.option("--threshold", "thresholds", multiple=True, metavar="ATTRIBUTE=LEVEL", help="Over the model's own.")
def profile(user: str, url: str, name: str, samples: int, thresholds: tuple[str, ...]) -> None:
    """Ask a running server for the profile of USER."""
    import httpx

    from conf_profile.errors import ServingError

    parameters = {"samples": samples, "explain": True, "thresholds": dict(map(_threshold, thresholds))}
    body = {"instances": [{"user_id": user}], "parameters": parameters}
    try:
        response = httpx.post(f"{url}/v1/models/{name}:predict", json=body, timeout=60.0)
    except httpx.HTTPError as error:
        raise ServingError(f"{url} cannot be asked: {error}; start it with: conf-profile serve --run RUN") from error
    if response.status_code != httpx.codes.OK:
        raise ServingError(f"{url} answered {response.status_code}: {response.text[:500]}")
    click.echo(json.dumps(response.json()["predictions"][0], indent=2, ensure_ascii=False))


def _threshold(text: str) -> tuple[str, int]:
    attribute, equals, level = text.partition("=")
    if not equals or level not in {"1", "2", "3", "4", "5"}:
        raise click.BadParameter(f"{text!r}: expected ATTRIBUTE=LEVEL with a level of 1 to 5")
    return attribute, int(level)


def _example(state: dict[str, Any], user: str | None) -> str:
    features = '{"user_id": "a", "features": {"consent": true}}'
    body = f'{{"instances": [{json.dumps({"user_id": user}) if user else features}]}}'
    return (
        f"try: curl -s {state['url']}/v1/models/{state['model']}:predict "
        f"-H 'content-type: application/json' -d '{body}'"
    )
