"""The gradient scaler of float16, for any number of optimizers and steps of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainbus.errors import TrainbusError, UsageError
from trainbus_amp.precisions import WHO

if TYPE_CHECKING:
    from torch import Tensor
    from torch.amp import GradScaler
    from torch.optim import Optimizer

#: Overflows in a row after which the run ends: the scale began at 2 ** 16 and is 2 ** -24 by then.
HOPELESS = 40


class Scaling:
    """Scales losses, unscales the gradients of an optimizer, and adapts the scale.

    All optimizers share one scale, as their gradients may come from one loss. It changes when each
    gradient that was made with it is used or dropped: before the first backward after that, or
    before the state is saved (Micikevicius et al., 2018, "Mixed precision training").
    """

    def __init__(self, scaler: GradScaler) -> None:
        self.scaler = scaler
        self._optimizers: Sequence[Optimizer] = ()
        #: A loss was scaled since the scale was adapted.
        self._scaled = False
        #: The optimizers whose gradients were unscaled since then.
        self._unscaled: set[int] = set()
        #: Overflows in a row, by optimizer.
        self._in_a_row: dict[int, int] = {}

    def scale(self, loss: Tensor, optimizers: Sequence[Optimizer]) -> Tensor:
        """The loss to differentiate, of the shape of the loss."""
        self._optimizers = optimizers
        self._adapt()
        self._scaled = True
        return self.scaler.scale(loss)

    def unscale(self, optimizer: Optimizer) -> bool:
        """Make the gradients of an optimizer what they are without a scale; True if all are finite.

        Reads one number per device, as `GradScaler.step` does.

        Raises:
            UsageError: they were not scaled, or are another's that has stepped already.
            TrainbusError: they were not finite for too many steps.
        """
        if not _has_gradients(optimizer):
            return True
        who, kind = id(optimizer), type(optimizer).__name__
        if not self._scaled:
            raise UsageError(
                f"{WHO}: the gradients for {kind} were not scaled, as precision='fp16' needs it; "
                "differentiate with run.backward(loss) instead of loss.backward()"
            )
        if who in self._unscaled:
            raise UsageError(
                f"{WHO}: {kind} steps a second time while gradients for another optimizer wait "
                "that were made with the same scale; step that one first, or clear its gradients"
            )
        self.scaler.unscale_(optimizer)
        self._unscaled.add(who)
        # The one way to know before the step; torch's own fused optimizers are told so, too.
        found = self.scaler._found_inf_per_device(optimizer)
        if not any(value.item() for value in found.values()):
            self._in_a_row[who] = 0
            return True
        self._in_a_row[who] = self._in_a_row.get(who, 0) + 1
        if self._in_a_row[who] > HOPELESS:
            raise TrainbusError(
                f"{WHO}: the gradients for {kind} were infinite or NaN in {HOPELESS} steps in a "
                f"row, with a scale of {self.scaler.get_scale():.3g} in the end; the loss itself "
                "is: look for it with precision='bf16' or 'fp32'"
            )
        return False

    def state_dict(self) -> dict[str, Any]:
        """The scale and its history: plain numbers."""
        self._adapt()
        return dict(self.scaler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a saved scale; what is not used yet of the present one is forgotten."""
        self._adapt()
        self.scaler.load_state_dict(state)

    def _adapt(self) -> None:
        if self._unscaled and not self._waiting():
            self.scaler.update()
            self._unscaled.clear()
            self._scaled = False

    def _waiting(self) -> bool:
        """Whether gradients are there; those of a single optimizer are cleared after its step."""
        return len(self._optimizers) > 1 and any(map(_has_gradients, self._optimizers))


def _has_gradients(optimizer: Optimizer) -> bool:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                return True
    return False
