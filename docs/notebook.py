"""Write the pages of applications as notebooks, with what their code prints and draws.

`python docs/notebook.py [NAME ...]` runs the cells; with `--without-output` it does not.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

#: The pages that are notebooks, too.
PAGES = ("vision", "tables", "text")
FENCED = re.compile(r"^```(python|console)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
#: Pictures of the page, which the notebook draws itself, and its link to the notebook.
PICTURES = re.compile(r"^(!\[.*|\| !\[.*\n\| --- .*\n\| `.*)\n", re.MULTILINE)
ITSELF = re.compile(r"\s*The same page is a\s+notebook: \[\w+.ipynb\]\(\w+.ipynb\)\.")


def notebook(name: str) -> nbformat.NotebookNode:
    """A page's text and code as cells, without output."""
    text = Path(__file__).with_name(f"{name}.md").read_text("utf-8")
    cells, end = [], 0
    for fence in FENCED.finditer(text):
        cells += [_prose(text[end : fence.start()]), _code(fence[1], fence[2])]
        end = fence.end()
    cells.append(_prose(text[end:]))
    cells.insert(1, nbformat.v4.new_code_cell("%matplotlib inline"))
    kept = [cell for cell in cells if cell.source]
    for number, cell in enumerate(kept):
        cell.id = f"cell-{number}"  # the same in each writing
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=kept, metadata={"kernelspec": kernel})


def _prose(text: str) -> nbformat.NotebookNode:
    text = ITSELF.sub("", PICTURES.sub("", text))
    return nbformat.v4.new_markdown_cell(text.replace("```py\n", "```python\n").strip())


def _code(language: str, text: str) -> nbformat.NotebookNode:
    if language == "console":
        lines = [line for line in text.splitlines() if line.startswith("$ ")]
        text = "\n".join(f"!{line.removeprefix('$ ')}" for line in lines)  # outputs are its own
    # A picture is shown in place of being written.
    text = re.sub(r"^(.*)\.savefig\(\"\w+\.png\"\)$", r"display(\1)", text, flags=re.MULTILINE)
    return nbformat.v4.new_code_cell(text.strip())


def write(name: str, run: bool) -> None:
    """Run the cells, and write the notebook beside the page."""
    made, folder = notebook(name), ""
    if run:
        with tempfile.TemporaryDirectory() as folder:
            client = NotebookClient(made, timeout=600, resources={"metadata": {"path": folder}})
            client.execute()
    for cell in made.cells:
        cell.metadata = {}  # when each cell ran is nobody's concern
    text = nbformat.writes(made).replace(
        f"{folder}/", ""
    )  # outputs name files as a reader has them
    Path(__file__).with_name(f"{name}.ipynb").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    # The command that is installed beside this Python.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    named = [each for each in sys.argv[1:] if not each.startswith("-")]
    for page in named or PAGES:
        write(page, run="--without-output" not in sys.argv)
