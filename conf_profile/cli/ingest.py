"""`conf-profile ingest`: from event logs to a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command(short_help="Make a data set from event logs.")
@click.option("--events", multiple=True, metavar="PATH", help="File, folder or s3:// address with events. Repeatable.")
@click.option("--users", metavar="PATH", help="The same with what users said of themselves.")
@click.option("--user", metavar="COLUMN", help="Column with the user's id.")
@click.option("--time", metavar="COLUMN", help="Column with the time of an event.")
@click.option("--text", multiple=True, metavar="COLUMN", help="Column with a text or a list of texts. Repeatable.")
@click.option("--kind", metavar="COLUMN", help="Column with an event's kind; each kind becomes a feature.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to, new or empty.")
@click.option("--mapping", type=click.Path(path_type=Path), help="YAML file with the same things; options override it.")
@click.option("--consent", metavar="COLUMN", help="Column of --users that says who agreed to be profiled.")
@click.option("--consent-for-all", is_flag=True, help="Every user has agreed to be profiled.")
@click.option("--field", "fields", multiple=True, metavar="COLUMN", help="Column of --users to use. Repeatable.")
@click.option("--users-id", metavar="COLUMN", help="Column of --users with the id; default: --user.")
@click.option("--users-time", metavar="COLUMN", help="Column of --users with the time of a row.")
@click.option("--name", "names", multiple=True, metavar="WORD=NAME", help="Name of a kind's or field's feature; WORD= "
              "leaves it out. Repeatable.")  # fmt: skip
@click.option("--labels", metavar="PATH", help="True labels for the evaluation: a column for each attribute of --task, "
              "or the columns attribute and tag.")  # fmt: skip
@click.option("--labels-id", metavar="COLUMN", help="Column of --labels with the id; default: --user.")
@click.option("--separator", metavar="TEXT", help="Splits a text into several, as in 'tea;jazz'.")
@click.option("--time-format", metavar="FORMAT", help="Of times that are no ISO texts, e.g. '%d.%m.%Y %H:%M'.")
@click.option("--snapshot", type=click.Choice(("last", "daily", "weekly", "monthly")), help="Default: last.")
@click.option("--keyphrases", type=int, help="Most recent texts of a list in a snapshot; default: 200.")
@click.option("--as-of", metavar="TIME", help="Leaves out what is after this moment; default: now.")
@click.option("--max-dropped", type=float, help="Share of texts that may be unusable; default: 0.05.")
@click.option("--task", metavar="FILE", help="task.yaml or taxonomy.yaml whose attributes and words to take over.")
@click.option("--memory", default="2GB", show_default=True, help="For reading and sorting; some 0.5 GB come on top.")
def ingest(out: Path, mapping: Path | None, memory: str, **given: Any) -> None:
    """Make a data set from event logs: Parquet, CSV or JSON lines, one row an event, or one row a user and moment.

    Writes behaviour.parquet, demographics.parquet, task.yaml and ingest.json, which counts what was read, left out and
    changed. docs/data.md describes columns, snapshots and consent.
    """
    from conf_profile.ingest.ingest import ingest as run_ingestion
    from conf_profile.ingest.plan import make_plan, read_mapping

    values = (read_mapping(mapping) if mapping else {}) | _values(given)
    values |= _users(given, values.get("users", {})) | _labels(given, values.get("labels", {}))
    plan = make_plan(values, out, memory)
    report = run_ingestion(plan)
    for line in report.lines():
        click.echo(line)
    following = "check and run" if plan.task else f"write the attributes into {out / 'task.yaml'}, then check and run"
    click.echo(f"done     {out}, {report.seconds:.0f} s; {following}")


def _values(given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as the keys of a mapping."""
    plain = ("user", "time", "kind", "separator", "time_format", "snapshot", "keyphrases", "as_of", "max_dropped")
    values = {key: given[key] for key in (*plain, "task") if given[key] is not None}
    if given["events"]:
        values["events"] = list(given["events"])
    if given["text"]:
        values["text"] = list(given["text"])
    if given["consent_for_all"]:
        values["consent_for_all"] = True
    if given["names"]:
        values["names"] = dict(map(_name, given["names"]))
    return values


def _users(given: dict[str, Any], mapped: dict[str, Any]) -> dict[str, Any]:
    """The key `users`, where the mapping or an option speaks of them."""
    options = {
        "path": given["users"],
        "user": given["users_id"],
        "time": given["users_time"],
        "consent": given["consent"],
        "fields": list(given["fields"]) or None,
    }
    users = mapped | {key: value for key, value in options.items() if value is not None}
    if users and "path" not in users:
        raise click.UsageError(
            "--consent, --field, --users-id and --users-time are columns of --users, which is missing"
        )
    return {"users": users} if users else {}


def _labels(given: dict[str, Any], mapped: dict[str, Any]) -> dict[str, Any]:
    """The key `labels`, where the mapping or an option speaks of them."""
    options = {"path": given["labels"], "user": given["labels_id"]}
    labels = mapped | {key: value for key, value in options.items() if value is not None}
    if labels and "path" not in labels:
        raise click.UsageError("--labels-id is a column of --labels, which is missing")
    return {"labels": labels} if labels else {}


def _name(text: str) -> tuple[str, str | None]:
    word, mark, name = text.rpartition("=")
    if not mark:
        raise click.BadParameter(f"{text!r} has no '='; write WORD=NAME, or WORD= to leave it out", param_hint="--name")
    return word, name or None
