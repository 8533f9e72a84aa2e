"""The `trainbus` command. Nothing here imports torch before a verb needs it."""

from __future__ import annotations

import logging
import runpy
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from trainbus import terminal
from trainbus.cli.processes import starts_processes
from trainbus.errors import TrainbusError, UsageError, nearest
from trainbus.plugins import loading
from trainbus.plugins.discovery import Installed, known_distributions
from trainbus.plugins.selection import DEFAULTS, command_line
from trainbus.runs.command import in_directory, runs
from trainbus.version import __version__

F = TypeVar("F", bound=Callable[..., Any])


def _tell(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Add what was given to what the trainers of this process are told."""
    told = command_line.get()
    if parameter.name == "no_plugins":
        told = replace(told, disabled=told.disabled or bool(value))
    elif parameter.name == "plugin":
        told = replace(told, plugins=(*told.plugins, *value))
    elif parameter.name == "require":
        told = replace(told, require=(*told.require, *value))
    elif parameter.name == "forbid":
        told = replace(told, forbid=(*told.forbid, *value))
    elif parameter.name == "profile":
        told = replace(told, plugins=(*told.plugins, *(["profiler"] if value else [])))
    else:
        told = replace(told, options=(*told.options, *value))
    command_line.set(told)


_TOLD: dict[str, Any] = {"is_eager": True, "expose_value": False, "callback": _tell}


def sets_options(command: F) -> F:
    """Give a verb `-o NAME.OPTION=VALUE`."""
    return click.option(
        "-o",
        "option",
        multiple=True,
        metavar="NAME.OPTION=VALUE",
        help="Set an option of a plugin.",
        **_TOLD,
    )(command)


def _be_verbose(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        logging.getLogger("trainbus").setLevel(logging.INFO)


def selects_plugins(command: F) -> F:
    """Give a verb `-p NAME`, `-p no:NAME`, `-o NAME.OPTION=VALUE`, `--no-plugins` and `-v`."""
    for option in (
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_be_verbose,
            help="Show the whole header of a run, and whatever else the log has.",
        ),
        click.option(
            "--no-plugins", is_flag=True, help="Load no plugin at all, whoever wants it.", **_TOLD
        ),
        sets_options,
        click.option(
            "-p",
            "plugin",
            multiple=True,
            metavar="NAME",
            help="Switch a plugin on; no:NAME switches it off.",
            **_TOLD,
        ),
        click.option(
            "--require",
            multiple=True,
            metavar="NAME[>=VERSION]",
            help="Refuse to run without this plugin, or distribution.",
            **_TOLD,
        ),
        click.option(
            "--forbid",
            multiple=True,
            metavar="NAME[>=VERSION]",
            help="Refuse to run with this plugin, or distribution.",
            **_TOLD,
        ),
    ):
        command = option(command)
    return command


class Commands(click.Group):
    """The verbs of trainbus, then those of active plugins (`register_commands`)."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Look among the core's verbs first, so that they work whatever a plugin does."""
        return super().get_command(ctx, cmd_name) or self._of_plugins(ctx).get_command(
            ctx, cmd_name
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs; those of plugins are left out when the plugins cannot be loaded."""
        names = super().list_commands(ctx)
        try:
            return [*names, *self._of_plugins(ctx).list_commands(ctx)]
        except Exception as error:  # the core's verbs work whatever a plugin does
            text = ", ".join([str(error), *getattr(error, "__notes__", ())])
            terminal.say(f"warning: verbs of plugins are missing: {text}", err=True)
            return names

    def _of_plugins(self, ctx: click.Context) -> click.Group:
        """The verbs of plugins, loaded once for a command line."""
        if __name__ not in ctx.meta:
            added = click.Group()
            # The core's own plugins have no verbs.
            loaded = loading.load(but=DEFAULTS)
            if loaded and (register := loading.bus_of(loaded).register_commands):
                register(added)
            ctx.meta[__name__] = added
        group: click.Group = ctx.meta[__name__]
        return group


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks and the log.")
@click.version_option(__version__)
@selects_plugins
def trainbus(debug: bool) -> None:
    """Train PyTorch models with plugins."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    if debug:
        logging.getLogger("trainbus").setLevel(logging.DEBUG)


@trainbus.command()
@click.option("--hooks", is_flag=True, help="For each hook, the active plugins in calling order.")
@click.option("--why", is_flag=True, help="Who switched what on or off.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@click.option(
    "--requirements", is_flag=True, help="What is on, as a requirements file of pip, with hashes."
)
@click.option(
    "--check",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compare what is on with such a file; differences are an error.",
)
@click.argument("name", required=False)
@selects_plugins
def plugins(
    hooks: bool, why: bool, as_json: bool, requirements: bool, check: Path | None, name: str | None
) -> None:
    """List the plugins: installed, active, switched off, broken. Or show one: its options."""
    from trainbus.cli import listing, requirements as pinned

    if name is not None:
        listing.show_one(name, as_json)
    elif requirements:
        terminal.say("\n".join(pinned.lines()))
    elif check is not None:
        terminal.say(pinned.compared(check))
    elif hooks:
        listing.show_hooks(as_json)
    elif why:
        listing.show_why(as_json)
    else:
        listing.show_plugins(as_json)


@trainbus.command()
@click.argument("name", required=False)
@click.option("--markdown", is_flag=True, help="The whole reference, as in docs/hooks.md.")
@selects_plugins
def hooks(name: str | None, markdown: bool) -> None:
    """Show the hooks in firing order, then those that active plugins declare; or one of them."""
    from trainbus.cli import reference

    if markdown:
        terminal.say(reference.as_markdown())
        return
    try:
        loaded = loading.load(but=DEFAULTS)
        loading.bus_of(loaded)
    except TrainbusError as error:  # the core's hooks are shown whatever a plugin does
        terminal.say(f"warning: hooks of plugins are missing: {error}", err=True)
        loaded = []
    terminal.say(reference.as_text(name, loaded))


@trainbus.command()
@selects_plugins
def doctor() -> None:
    """Check versions, devices and plugins, and say how to mend what is broken."""
    from trainbus.cli.doctor import report

    sys.exit(report())


@trainbus.command()
@click.argument("name", default="digits")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the data, in place of its own.")
@click.option("--run-dir", default="runs", show_default=True, metavar="DIRECTORY")
@click.option("--seed", type=int, default=0, show_default=True)
@selects_plugins
def demo(name: str, epochs: int | None, run_dir: str, seed: int) -> None:
    """Train a classifier of handwritten digits, with progress, curves and the best weights kept.

    With NAME, the demo of a distribution: `trainbus demo vision` is that of trainbus-vision.
    """
    if name == "digits":
        from trainbus.cli.demo import train as train_digits

        train: Callable[..., None] = train_digits
    else:
        train = _demo_of(name)
    train(run_dir=run_dir, seed=seed, **({} if epochs is None else {"epochs": epochs}))


def _demo_of(name: str) -> Callable[..., None]:
    """The function that a distribution names in the entry-point group `trainbus.demos`."""
    found = Installed().group("trainbus.demos")
    if name in found:
        return cast(Callable[..., None], found[name].load())
    known = ["digits", *found]
    mend = known_distributions().get(name)
    more = f"; for that of {name}, pip install {mend}." if mend else nearest(name, known)
    raise UsageError(f"there is no demo {name!r} here{more} Demos: {', '.join(known)}")


class Fit(click.Command):
    """A command whose `--resume` takes a path only behind `=`, as a file may follow it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let a lone `--resume` mean `--resume=auto`, whatever follows it."""
        for index, each in enumerate(args):
            if each == "--resume":
                named = args[index + 1 : index + 2]
                named = named if named in (["auto"], ["best"]) else []
                args[index : index + 1 + len(named)] = [f"--resume={(named or ['auto'])[0]}"]
        return super().parse_args(ctx, args)


@trainbus.command(cls=Fit, add_help_option=False)
@click.argument("config", required=False, metavar="CONFIG.toml")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a key of the file: trainer.epochs=5, options.checkpoint.monitor=valid/loss.",
)
@click.option(
    "--resume",
    metavar="[=best|=PATH]",
    help="Continue the newest checkpoint in run_dir, if there is one; or the best, or that of a "
    "path.",
)
@click.option(
    "--profile",
    is_flag=True,
    help="Tell where the time goes and what to mend first: the same as -p profiler.",
    **_TOLD,
)
@starts_processes
@selects_plugins
@click.option("-h", "--help", "wants_help", is_flag=True, help="Show all that can be set.")
@click.pass_context
def fit(
    context: click.Context,
    config: str | None,
    settings: tuple[str, ...],
    resume: str | None,
    nproc: int | None,
    restarts: int,
    wants_help: bool,
) -> None:
    """Train as a file says: task, data, trainer, plugins and their options.

    With CONFIG.toml, --help lists the arguments of its task and data, too.
    """
    from trainbus.fit.command import fit as fit_file, fit_with

    if wants_help:
        from trainbus.fit.help import text

        terminal.say(context.get_help() + "\n\n" + text(config, settings))
    elif config is None:
        raise click.MissingParameter(ctx=context, param_hint="CONFIG.toml", param_type="argument")
    elif nproc is not None and nproc > 1:
        fit_with(Path(config), settings, nproc, restarts)
    else:
        fit_file(Path(config), settings, resume)


trainbus.add_command(runs)


@trainbus.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.option("--to", required=True, metavar="NAME", help="The logger: a plugin as -p names it.")
@sets_options
@in_directory
@click.option("--again", is_flag=True, help="Send all that was logged, as a new remote run.")
@click.option(
    "--patience",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the logger may fail before this gives up.",
)
def replay(names: tuple[str, ...], to: str, parent: Path, again: bool, patience: float) -> None:
    """Send runs that are over to a logger, from where it stood.

    A RUN is the path of a run's directory; or, of a directory in ./runs (--dir), the name or a
    part of it that no other has; or `latest`. It may have ended, failed, or been killed.
    """
    from trainbus.runs.replay import replay as send

    sys.exit(send(names, parent, to, again, patience))


@trainbus.command("new-plugin")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["logger", "callback", "accelerator"]),
    default="callback",
    show_default=True,
    help="What it begins as.",
)
@click.option(
    "--dir", "directory", default=".", metavar="DIRECTORY", help="Where trainbus-NAME is made."
)
def write_plugin(name: str, kind: str, directory: str) -> None:
    """Write a package with a plugin NAME, which installs and passes its own tests."""
    from trainbus.cli import new_plugin

    new_plugin.write(name, kind, Path(directory))


@trainbus.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@selects_plugins
def run(script: str, arguments: tuple[str, ...]) -> None:
    """Run a Python script whose trainers see the plugins and options of this command line."""
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).resolve().parent))
    try:
        runpy.run_path(script, run_name="__main__")
    except (TrainbusError, SystemExit, KeyboardInterrupt):
        raise
    except Exception:  # the script's own
        traceback.print_exc()
        sys.exit(1)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; a user's mistake is one message and exit status 2."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    told = command_line.get()
    try:
        status = trainbus(given, prog_name="trainbus", standalone_mode=False)
        if isinstance(status, int) and status != 0:  # a verb called context.exit
            sys.exit(status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        terminal.say("interrupted", err=True)
        sys.exit(130)
    except TrainbusError as error:
        if debug:
            raise
        terminal.say(f"error: {error}", err=True)
        sys.exit(2)
    except Exception as error:
        if debug:
            raise
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
        terminal.say(f"error: {type(error).__name__}: {error}{notes}", err=True)
        terminal.say("`trainbus --debug ...` shows where it was raised", err=True)
        sys.exit(1)
    finally:
        command_line.set(told)
