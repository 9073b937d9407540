"""Runs a notebook's cells without a Jupyter kernel: plain Python, one namespace, the last expression shown as text.

python tests/support/notebook.py examples/votes.ipynb      # runs it and stores its outputs
"""

from __future__ import annotations

import ast
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pandas


def load(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(notebook):
    """The outputs of each code cell, in order; an exception of a cell is the caller's."""
    namespace = {"__name__": "__main__"}
    # Else pandas looks at the terminal.
    with pandas.option_context("display.width", 100, "display.max_columns", 20):
        return [
            _run_cell("".join(cell["source"]), namespace, count) for count, cell in enumerate(code_cells(notebook), 1)
        ]


def _run_cell(source, namespace, count):
    tree = ast.parse(source, f"cell {count}")
    shown = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with redirect_stdout(printed):
        exec(compile(tree, f"cell {count}", "exec"), namespace)
        if shown is not None:
            value = eval(compile(ast.Expression(shown.value), f"cell {count}", "eval"), namespace)
    outputs = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"name": "stdout", "output_type": "stream", "text": text})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        outputs.append({"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"})
    return outputs


def store_outputs(path):
    notebook = load(path)
    for count, (cell, outputs) in enumerate(zip(code_cells(notebook), run(notebook), strict=True), 1):
        cell["execution_count"], cell["outputs"] = count, outputs
    Path(path).write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        store_outputs(argument)
