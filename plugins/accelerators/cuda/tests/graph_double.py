"""A stand-in for `torch.cuda.make_graphed_callables` that needs no GPU.

As the real one it has one place for inputs, outputs and gradients, which each replay writes to, and
gives views of them.
"""

import torch


def make_graphed(module, samples, **options):
    """Replace the module's forward by one that replays; keeps what it was called with."""
    make_graphed.options.append(options)
    eager = module.forward
    parameters = tuple(p for p in module.parameters() if p.requires_grad)
    inputs = [x.detach().clone().requires_grad_(x.requires_grad) for x in samples]
    place = {"output": None, "gradients": None}

    class Replayed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *given):
            with torch.no_grad():
                for own, value in zip(inputs, given, strict=False):
                    own.copy_(value)
            with torch.enable_grad():
                output = eager(*inputs)
            place["live"] = output
            if place["output"] is None:
                place["output"] = output.detach().clone()
            place["output"].copy_(output.detach())
            return place["output"].detach()

        @staticmethod
        def backward(ctx, gradient):
            wanted = [*(x for x in inputs if x.requires_grad), *parameters]
            found = torch.autograd.grad(place["live"], wanted, gradient, allow_unused=True)
            if place["gradients"] is None:
                place["gradients"] = [None if g is None else g.clone() for g in found]
            for own, value in zip(place["gradients"], found, strict=True):
                if own is not None:
                    own.copy_(value)
            static = iter([None if g is None else g.detach() for g in place["gradients"]])
            of_inputs = [next(static) if x.requires_grad else None for x in inputs]
            return *of_inputs, *static

    make_graphed.replays = 0

    def forward(*given):
        make_graphed.replays += 1
        return Replayed.apply(*given, *parameters)

    module.forward = forward
    return module


make_graphed.options = []
