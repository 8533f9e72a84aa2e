"""The plugin `text`: what was decided about the texts, and the verb `trainbus generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainbus import hookimpl
from trainbus_data.telling import TellsOfData

if TYPE_CHECKING:
    import click


class TextPlugin(TellsOfData):
    """Log what was decided about texts and tokens when a run begins to train.

    The text is that of `data.summary()`; other data than texts are left alone.

    Args:
        name: of the artifact.
    """

    def __init__(self, name: str = "texts") -> None:
        super().__init__(name)

    @hookimpl
    def register_commands(self, commands: click.Group) -> None:
        """Add the verb `generate`; what it needs is imported when it is called."""
        import click

        @commands.command()
        @click.argument("exported", type=click.Path(exists=True))
        @click.argument("prompt", default="")
        @click.option("--length", default=200, show_default=True, help="Tokens, at most.")
        @click.option("--temperature", default=0.8, show_default=True, help="0 is greedy.")
        @click.option("--top-k", type=int, help="Of so many most probable tokens.")
        @click.option("--top-p", default=1.0, show_default=True)
        @click.option("--min-p", default=0.0, show_default=True)
        @click.option("--repetition-penalty", default=1.0, show_default=True)
        @click.option("--stop", multiple=True, help="A text that ends it; may be given again.")
        @click.option("--seed", type=int, help="The same text each time.")
        @click.option("--device", default="cpu", show_default=True, help="As torch names it.")
        def generate(exported: str, prompt: str, length: int, device: str, **options: Any) -> None:
            """Write a text on with an exported model of language.

            EXPORTED is what `learner.export` of a LanguageLearner wrote. Text appears as it is
            written, behind PROMPT.
            """
            from trainbus_text.command import pieces

            for piece in pieces(exported, prompt, length, device, options):
                click.echo(piece, nl=False)
            click.echo()
