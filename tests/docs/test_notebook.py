"""The notebooks are the pages on applications."""

import importlib.util
from pathlib import Path

import nbformat
import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("name", "count"), [("vision", 7), ("tables", 3), ("text", 0)])
def test_the_notebook_has_the_cells_of_the_page_and_their_output(name, count):
    spec = importlib.util.spec_from_file_location("notebook", DOCS / "notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stored = nbformat.read(DOCS / f"{name}.ipynb", as_version=4)
    fresh = module.notebook(name)
    assert [cell.source for cell in stored.cells] == [cell.source for cell in fresh.cells], (
        "write it anew with `make docs`"
    )
    outputs = [output for cell in stored.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    assert "command not found" not in str(outputs)
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == count
    assert module.PAGES == ("vision", "tables", "text")
