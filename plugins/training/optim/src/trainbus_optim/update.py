"""An update on its way through the blocks, as a formula: what is linear in it is not computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from trainbus_optim.numbers import Number, Value
from trainbus_optim.program import Symbol, Tracer


class Term(NamedTuple):
    """`factor / over * numerator / denominator`."""

    numerator: Symbol
    denominator: Symbol | None = None
    factor: Number | None = None
    over: Number | None = None

    def rate(self, lr: Number) -> Number:
        """What the quotient is multiplied with, in the order of torch.optim: (lr f) / o."""
        value = lr if self.factor is None else lr * self.factor
        return value if self.over is None else value / self.over

    def coefficient(self) -> Number | None:
        """The same without a learning rate."""
        if self.factor is None and self.over is None:
            return None
        value = Number.of(1.0) if self.factor is None else self.factor
        return value if self.over is None else value / self.over


class Update:
    """`sum of terms + decay * parameter`; the learning rate times it is taken off the parameter.

    Scaling by numbers and decay keep it a formula. A block that is not linear in it takes
    `tensor()`.

    Args:
        tracer: writes down what has to be computed.
        terms: the parts.
        decay: how much of the parameter is added, at the very end.
        apply: changes the parameter in place of the usual `p -= lr * update`; `terms` are then
            made by `make` if another block needs them.
        make: gives the update as a symbol.
    """

    def __init__(
        self,
        tracer: Tracer,
        terms: list[Term],
        decay: Number | None = None,
        apply: Callable[[], None] | None = None,
        make: Callable[[], Symbol] | None = None,
    ) -> None:
        self.tracer, self.terms, self.decay = tracer, terms, decay
        self._apply, self._make = apply, make

    @staticmethod
    def of(tracer: Tracer, value: Any) -> Update:
        """What a block returned, as an update."""
        return value if isinstance(value, Update) else Update(tracer, [Term(value)])

    def over(
        self, symbol: Symbol, denominator: Symbol | None = None, **scale: Number | None
    ) -> Update:
        """Another quotient with the same decay."""
        return Update(self.tracer, [Term(symbol, denominator, **scale)], self.decay)

    def direction(self) -> Symbol:
        """The terms as one symbol, which is not to be changed."""
        if self._make is not None:
            return self._make()
        first, *others = self.terms
        if not others and first.denominator is None and first.coefficient() is None:
            return first.numerator
        return self._sum()

    def _sum(self) -> Symbol:
        made: Symbol | None = None
        for term in self.terms:
            part = term.numerator
            coefficient = term.coefficient()
            if term.denominator is not None:
                part = part / term.denominator
                if coefficient is not None:
                    part.mul_(coefficient)
            elif coefficient is not None:
                part = part * coefficient
            made = part if made is None else made + part
        assert made is not None
        return made

    def tensor(self) -> Symbol:
        """The update with its decay as one symbol that a block may change."""
        made = self.direction()
        if self.decay is not None:
            return made.add(self.tracer.parameter, self.decay)
        known = {term.numerator.name for term in self.terms} if self._make is None else set()
        return made.clone() if made.name in known else made

    def decayed(self, decay: Number) -> Update:
        """The same with decoupled decay; where nothing is done in a step, nothing decays."""
        if not self.terms and self._apply is None:
            return self
        total = decay if self.decay is None else self.decay + decay
        return Update(self.tracer, self.terms, total, self._apply, self._make)

    def finish(self) -> None:
        """Change the parameter: decay first, as in torch.optim.AdamW."""
        tracer = self.tracer
        parameter, lr = tracer.parameter, tracer.lr
        if self.decay is not None:
            parameter.mul_(1.0 - lr * self.decay)
        if self._apply is not None:
            self._apply()
            return
        for term in self.terms:
            rate = -term.rate(lr)
            if term.denominator is not None:
                parameter.addcdiv_(term.numerator, term.denominator, rate)
            elif term.numerator.kind == "tensor":
                parameter.add_(term.numerator, alpha=rate)

    # --- arithmetic of blocks ------------------------------------------------------------------

    def _scaled(self, factor: Value, over: Value | None = None) -> Update:
        if self._make is not None:
            return Update(self.tracer, [Term(self._make())], self.decay)._scaled(factor, over)
        terms = [
            Term(
                each.numerator, each.denominator,
                Number.of(factor) if each.factor is None else each.factor * factor,
                each.over if over is None else Number.of(over) * (each.over or 1.0)
                if each.over is None else each.over * over,
            )
            for each in self.terms
        ]  # fmt: skip
        decay = self.decay
        if decay is not None:
            decay = decay * factor if over is None else decay * factor / over
        return Update(self.tracer, terms, decay)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, (Symbol, Update)):
            return self.tensor() * other
        return self._scaled(other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return (
            self.tensor() / other if isinstance(other, (Symbol, Update)) else self * (1.0 / other)
        )

    def __add__(self, other: Any) -> Symbol:
        return self.tensor() + other

    __radd__ = __add__

    def __sub__(self, other: Any) -> Symbol:
        return self.tensor() - (other.tensor() if isinstance(other, Update) else other)

    def __rsub__(self, other: Any) -> Symbol:
        return (-self.tensor()) + other

    def __neg__(self) -> Any:
        return self._scaled(-1.0)

    def __abs__(self) -> Symbol:
        return abs(self.tensor())

    def sign(self) -> Symbol:
        """-1, 0 or 1."""
        return self.direction().sign() if self.decay is None else self.tensor().sign()
