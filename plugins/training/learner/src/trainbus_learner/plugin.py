"""The verb `trainbus predict`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainbus import hookimpl

if TYPE_CHECKING:
    import click


class LearnerPlugin:
    """Adds `trainbus predict EXPORTED ITEM...` to the command line."""

    observer = True

    @hookimpl
    def register_commands(self, commands: click.Group) -> None:
        """Add the verb; what it needs is imported when it is called."""
        import click

        @commands.command()
        @click.argument("exported", type=click.Path(exists=True))
        @click.argument("items", metavar="ITEM...", nargs=-1, required=True)
        @click.option("--json", "as_json", is_flag=True, help="A line of JSON for each item.")
        @click.option("--top", type=click.IntRange(1), help="How many labels for each item.")
        @click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
        @click.option("--device", default="cpu", show_default=True, help="As torch names it.")
        @click.option(
            "--out",
            default="predictions",
            show_default=True,
            help="The folder for masks, as PNG; the .csv, .jsonl or .parquet file for rows.",
        )
        def predict(
            exported: str,
            items: tuple[str, ...],
            as_json: bool,
            top: int | None,
            batch_size: int,
            device: str,
            out: str,
        ) -> None:
            """Predict with an exported model: a line for each ITEM, with label and probability.

            EXPORTED is what `learner.export` wrote. An ITEM is a file, a folder of files, or what
            else the model's input is read from. A mask is written to a PNG, whose path is printed.
            Of a table (.csv, .tsv, .jsonl, .parquet) there is a line for each row.
            """
            from trainbus_learner.command import lines

            for line in lines(exported, items, as_json, top, batch_size, device, out):
                click.echo(line)
