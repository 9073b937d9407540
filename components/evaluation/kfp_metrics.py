"""The evaluation in the form that KFP's own pages show: scalars, and one confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_TAG = "none"


def scalars(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """'arm f1' -> points in [0, 1], the same for precision and recall, and on how many users these stand.

    Without labels: 'arm = other arm' -> how often both give the same tag.
    """
    users = {"labelled test users": float(evaluation["labelled_test_users"])}
    if not evaluation["judged"]:
        return users | {
            f"{pair['first']} = {pair['second']}": round(float(pair["share"]), 4) for pair in evaluation["agreement"]
        }
    return users | {
        f"{arm} {metric}": round(float(values[metric]), 4)
        for arm, values in evaluation["arms"].items()
        for metric in ("f1", "precision", "recall")
    }


def confusion(evaluation: Mapping[str, Any]) -> tuple[list[str], list[list[int]]] | None:
    """The candidate's confusion over all attributes, block by block; rows are the truth. None without labels.

    KFP wants a square matrix, so `none` (no answer) is a column and an empty row of every attribute.
    """
    if not evaluation["judged"]:
        return None
    blocks = evaluation["arms"][evaluation["candidate"]]["confusion"]
    categories = [f"{name}: {tag}" for name, block in blocks.items() for tag in (*block["tags"], NO_TAG)]
    matrix = [[0] * len(categories) for _ in categories]
    start = 0
    for block in blocks.values():
        width = len(block["tags"]) + 1
        for row, counts in enumerate(block["matrix"]):
            matrix[start + row][start : start + len(counts)] = [int(count) for count in counts]
        start += width
    return categories, matrix
