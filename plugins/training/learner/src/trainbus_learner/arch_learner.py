"""ArchLearner: what learners share whose network is chosen by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from trainbus_learner import defaults
from trainbus_learner.learner import Learner


class ArchLearner(Learner):
    """A learner that knows its network by a name, and the usual rate of it.

    Args:
        data, model, options: see `Learner`.
        arch: the name of the network.
        about: what was chosen, before what a `Learner` chooses.
        usual: the highest rate of a cycle for this network, if it has one.
        lr: the rate that was given; None for the usual one, which is said.
    """

    def __init__(
        self,
        data: Any,
        model: nn.Module,
        *,
        arch: str,
        about: Mapping[str, str],
        usual: float | None,
        lr: Any,
        **options: Any,
    ) -> None:
        self._arch = arch
        super().__init__(data, model, lr=usual if lr is None else lr, **options)
        self.task.run_name = defaults.title(arch, data)
        self.choices = {**about, **self.choices}
        if lr is None and usual is not None:
            self.choices["learning rate"] = f"{usual:g} (the highest of a cycle, for {arch})"

    @property
    def arch(self) -> str:
        """The name of the network."""
        return self._arch
