"""The notebooks of examples/ are valid, small, run from top to bottom, and show what they compute."""

import json
import re

import pytest

from support.notebook import code_cells, load, run
from support.paths import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
FIELDS = {
    "code": {"cell_type", "id", "metadata", "source", "execution_count", "outputs"},
    "markdown": {"cell_type", "id", "metadata", "source"},
}
MOST_BYTES = 50_000


def test_there_is_one():
    assert [path.name for path in NOTEBOOKS] == ["votes.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_follows_the_format(path):
    """nbformat 4.5: these fields and no others, an id for each cell, sources as lists of lines."""
    notebook = load(path)
    assert notebook.keys() == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["language"] == "python"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        assert cell.keys() == FIELDS[cell["cell_type"]]
        assert re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", cell["id"])
        assert cell["metadata"] == {}
        assert cell["source"]
        assert all(line.endswith("\n") for line in cell["source"][:-1])
    assert [cell["execution_count"] for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert path.stat().st_size < MOST_BYTES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_computes(path):
    """After a change: python tests/support/notebook.py examples/NAME.ipynb"""
    notebook = load(path)
    assert run(notebook) == [cell["outputs"] for cell in code_cells(notebook)]


def test_a_cell_shows_what_it_prints_and_its_last_expression():
    cells = ["x = 1\nprint(x)\nx + 1", "def f():\n    return x\n", "f()", "None"]
    notebook = {"cells": [{"cell_type": "code", "source": source.splitlines(keepends=True)} for source in cells]}
    first, second, third, last = run(notebook)
    assert [output["output_type"] for output in first] == ["stream", "execute_result"]
    assert (first[0]["text"], first[1]["data"]) == (["1\n"], {"text/plain": ["2"]})
    assert (second, last) == ([], [])
    assert third[0]["data"] == {"text/plain": ["1"]}


def test_a_cell_that_raises_is_found():
    notebook = {"cells": [{"cell_type": "code", "source": ["1 / 0"]}]}
    with pytest.raises(ZeroDivisionError):
        run(json.loads(json.dumps(notebook)))
