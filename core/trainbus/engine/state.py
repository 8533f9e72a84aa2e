"""The state of a run, part by part, as a checkpoint holds it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from trainbus.checkpoints import archive, contents, given, weights
from trainbus.checkpoints.resume import states_of
from trainbus.checkpoints.sections import Stateful, taken
from trainbus.engine import optimizer_state
from trainbus.engine.given_arguments import given_to
from trainbus.engine.processes import (
    in_parts,
    of_this_rank,
    optimizer_in_parts,
    whole,
    with_ranks,
)

if TYPE_CHECKING:
    from trainbus.engine.loop import Loop

logger = logging.getLogger("trainbus")


def about(run: Loop) -> dict[str, Any]:
    """What a checkpoint's manifest tells of the run."""
    about = {
        "run": run.name,
        "status": run.status,
        "epoch": run.epochs_done,
        "global_step": run.global_step,
        "batches": run.batches_done,
        "order": _next_order(run),
    }
    if arguments := given_to(run.task):
        about["arguments"] = arguments
    # Measured only because the run ends there: one that goes on begins before it.
    return {**about, "measured_last": True} if run.position.measures_last else about


def _next_order(run: Loop) -> int:
    """A count that rises with each state of all runs of this name, whatever clocks say."""
    if run.position.states_written is None:
        directories = states_of(Path(run.trainer.run_dir), run.name)
        if run.has_dir:  # of another name, perhaps: a run that was copied
            directories.append(run.dir / "checkpoints")
        run.position.states_written = max(map(archive.last_order, directories), default=0)
    run.position.states_written += 1
    return run.position.states_written


def _stateful(run: Loop) -> dict[str, Stateful]:
    return {
        name: plugin
        for name, plugin in run.bus.plugins.items()
        if isinstance(plugin, Stateful) and not isinstance(plugin, nn.Module)
    }


def capture(run: Loop) -> dict[str, Any]:
    """The parts of a checkpoint: model, optimizers, loop and one section for each plugin.

    Raises:
        CheckpointError: one of them cannot be taken.
    """
    run.flush()
    plugins = {
        name: taken(run.bus.who(name), plugin.state_dict) for name, plugin in _stateful(run).items()
    }
    loop = {
        "global_step": run.global_step,
        "skipped_steps": run.skipped_steps,
        "records": run.buffer.state_dict(),
        "position": taken("the training loader", run.position.state_dict, run),
        "optimizers": optimizer_state.described(run.optimizers, run.task, run.given_options),
        "made_with": [each.name for each in run.loaded],
        "task": taken("the task", run.task_state.state_dict) if run.task_state else {},
    }
    parts = {
        "model": taken("the task", run.task.state_dict),
        "optimizers": [taken(type(each).__name__, each.state_dict) for each in run.optimizers],
        "loop": with_ranks(run.peers, loop),
        # Sections that no active plugin took when they were loaded go on with the run.
        "plugins": {**run.kept_sections, **plugins},
    }
    return parts if run.world_size == 1 else whole(run.peers, parts)


def check(run: Loop) -> None:
    """Raise `CheckpointError` for what a checkpoint could not hold, before training."""
    archive.plain_tensors(capture(run), "the state of the run")


def check_fit(run: Loop, parts: Mapping[str, Any], source: str) -> None:
    """Compare parts with a run. Raises `CheckpointError` for what does not fit."""
    contents.check(parts, source)
    weights.check_fit(run.task, parts["model"], source)


def restore(run: Loop, parts: dict[str, Any], source: str) -> None:
    """Put the parts into a run. Raises `CheckpointError` for what does not fit."""
    check_fit(run, parts, source)
    run.position.is_half_restored = True  # and stays so, if anything of it fails
    loop = of_this_rank(run, parts["loop"], source)
    told: list[str] = []
    states: list[dict[str, Any]] = []
    if run.optimizers:
        states, told = optimizer_state.fitting(
            run.optimizers, run.task, run.given_options, parts["optimizers"], loop["optimizers"],
            source,
        )  # fmt: skip
    if run.task_state is not None:
        told += run.task_state.load_state_dict(loop["task"])
    model, plugins = parts["model"], dict(parts["plugins"])
    if run.world_size > 1:
        here = run.task.state_dict()
        model = in_parts(run.peers, model, here)
        states = [
            optimizer_in_parts(run.peers, *each)
            for each in zip(states, run.optimizers, strict=True)
        ]
        plugins = in_parts(run.peers, plugins, here)
    run.task.load_state_dict(model)
    for optimizer, saved in zip(run.optimizers, states, strict=False):
        optimizer.load_state_dict(saved)
    for sentence in told:
        logger.warning("%s", sentence)
    run.epoch = run.epochs_done = loop["position"]["epoch"]
    run.global_step = loop["global_step"]
    run.skipped_steps = loop["skipped_steps"]
    run.buffer.load_state_dict(loop["records"])
    run.position.restore(loop["position"])
    sections = plugins
    for name, plugin in run.bus.plugins.items():
        if name in sections and isinstance(plugin, Stateful):
            given.take_up(plugin, sections.pop(name), f"{source}: {name}")
    run.kept_sections = sections
    run.position.is_half_restored = False
    without = [name for name in _stateful(run) if name not in parts["plugins"]]
    made_with = ", ".join(loop["made_with"]) or "none"
    if sections:
        logger.warning(
            "%s has sections of plugins that are not active: %s; they are kept (it was made with "
            "the plugins %s)", source, ", ".join(sections), made_with,
        )  # fmt: skip
    if without:
        logger.warning(
            "%s has no section of %s, which begins anew (it was made with the plugins %s)", source,
            ", ".join(without), made_with,
        )  # fmt: skip
