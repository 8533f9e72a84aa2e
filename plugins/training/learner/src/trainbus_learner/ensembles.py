"""Several models trained as one, whose predictions are averaged."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from trainbus import UsageError
from trainbus_learner.groups import undecayed

#: What a mean may be taken of.
MEANS = ("softmax", "sigmoid", "exp", "none")


def mean_output(outputs: Tensor, of: str) -> Tensor:
    """The output whose probabilities are the mean of those of the members.

    Args:
        outputs: rows x members x outputs.
        of: "softmax" or "sigmoid" for probabilities, "exp" for rates, "none" for the outputs.
    """
    if of == "softmax":
        return _mean_of_exp(outputs.log_softmax(-1))
    if of == "sigmoid":
        yes = _mean_of_exp(nn.functional.logsigmoid(outputs))
        return yes - _mean_of_exp(nn.functional.logsigmoid(-outputs))
    return _mean_of_exp(outputs) if of == "exp" else outputs.mean(1)


def _mean_of_exp(logs: Tensor) -> Tensor:
    return logs.logsumexp(1) - torch.log(torch.tensor(float(logs.shape[1])))


class Ensemble(nn.Module):
    """Several models of one architecture as one, each learning by itself ("deep ensembles").

    In training it gives rows x members x outputs, of which a learner takes the mean of the losses;
    otherwise the output for the mean of the probabilities (Lakshminarayanan et al., 2017). All
    members see the same batches, and differ by where they began and by their dropout. Members
    are one batched model (`torch.func.vmap`), but where a module changes its buffers as it runs
    (batch norm): those are run one after the other.

    Args:
        members: models of one architecture, each with weights of its own.
        mean: what the mean is taken of: "softmax" for one class of several, "sigmoid" for several
            labels, "exp" for logarithms of rates, "none" for numbers.

    Raises:
        UsageError: there is no model, or they are of different architectures.
    """

    #: Rows x members x outputs in training: see `LearnerTask`.
    gives_members = True

    def __init__(self, members: Sequence[nn.Module], mean: str = "softmax") -> None:
        super().__init__()
        shapes = [{name: p.shape for name, p in each.named_parameters()} for each in members]
        if not shapes or any(each != shapes[0] for each in shapes):
            raise UsageError("Ensemble: give models of one architecture, at least one")
        if mean not in MEANS:
            raise UsageError(f"Ensemble(mean={mean!r}): give one of {', '.join(MEANS)}")
        self.mean, self.count = mean, len(members)
        self.each: nn.ModuleList | None = None
        #: The names in a member of what is registered here; of parameters and of shared buffers.
        self._stacked: dict[str, str] = {}
        self._shared: dict[str, str] = {}
        self.without_decay: tuple[str, ...] = ()
        if any(isinstance(m, nn.modules.batchnorm._NormBase) for m in members[0].modules()):
            self.each = nn.ModuleList(members)
            return
        self._stack(members)
        # In a tuple, so that it is no part of this module: its tensors are never read.
        self._shape = (copy.deepcopy(members[0]).to("meta"),)

    def _stack(self, members: Sequence[nn.Module]) -> None:
        plain = undecayed(members[0])
        unsaved = set(dict(members[0].named_buffers())) - set(members[0].state_dict())
        names = []
        for name, first in members[0].named_parameters():
            own = self._stacked[name] = name.replace(".", "__")
            values = torch.stack([each.get_parameter(name).detach() for each in members])
            self.register_parameter(own, nn.Parameter(values, first.requires_grad))
            if id(first) in plain or first.ndim < 2:
                names.append(own)
        self.without_decay = tuple(names)
        for name, buffer in members[0].named_buffers():
            if not all(torch.equal(each.get_buffer(name), buffer) for each in members):
                raise UsageError(f"Ensemble: the buffer {name} differs between the members")
            own = self._shared[name] = name.replace(".", "__")
            self.register_buffer(own, buffer.detach().clone(), persistent=name not in unsaved)

    def forward(self, *inputs: Any) -> Tensor:
        """Rows x members x outputs in training, else rows x outputs."""
        outputs = self.outputs(*inputs)
        return outputs if self.training else mean_output(outputs, self.mean)

    def outputs(self, *inputs: Any) -> Tensor:
        """What each member gives: rows x members x outputs."""
        if self.each is not None:
            made = torch.stack([each(*inputs) for each in self.each], 1)
        else:
            made = self._batched(inputs)
        # Of members that have several predictions themselves: all.
        return made.flatten(1, 2) if made.ndim > 3 else made

    def _batched(self, inputs: tuple[Any, ...]) -> Tensor:
        model = self._shape[0]
        if model.training != self.training:
            model.train(self.training)
        shared = {name: getattr(self, own) for name, own in self._shared.items()}

        def one(weights: dict[str, Tensor]) -> Any:
            return functional_call(model, {**weights, **shared}, inputs)

        weights = {name: getattr(self, own) for name, own in self._stacked.items()}
        if torch.compiler.is_exporting():  # which would take the size of the batch for a constant
            single = ({name: each[i] for name, each in weights.items()} for i in range(self.count))
            return torch.stack([one(each) for each in single], 1)
        made: Tensor = vmap(one, out_dims=1, randomness="different")(weights)
        return made


def spread_over_members(output: Any, target: Any) -> tuple[Any, Any]:
    """The predictions of members as rows, and a target for each: what a loss takes the mean of.

    Args:
        output: rows x members x outputs.
        target: of a row; a tensor, or a tuple of them.
    """
    members = output.shape[1]
    if isinstance(target, tuple):
        spread: Any = tuple(each.repeat_interleave(members, 0) for each in target)
    else:
        spread = target.repeat_interleave(members, 0)
    return output.flatten(0, 1), spread
