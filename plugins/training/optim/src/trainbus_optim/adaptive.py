"""Adam and its family, as torch.optim computes them."""

from __future__ import annotations

from typing import Any

from trainbus_optim.blocks import block
from trainbus_optim.numbers import Number
from trainbus_optim.program import Symbol, Tracer
from trainbus_optim.update import Term, Update


def moments(t: Tracer, gradient: Symbol, betas: Any) -> tuple[Symbol, Symbol]:
    """Moving averages of the gradient and of its square."""
    beta1, beta2 = betas
    mean = t.state("exp_avg").lerp_(gradient, 1 - beta1)
    square = t.state("exp_avg_sq").mul_(beta2).addcmul_(gradient, gradient, 1 - beta2)
    return mean, square


@block(
    state=["exp_avg", "exp_avg_sq"], per_group=["betas", "eps"], role="moments",
    formula="m = lerp(m, g, 1 - beta1); v = beta2 v + (1 - beta2) g^2; "
    "u = m / (1 - beta1^t) / (sqrt(v) / sqrt(1 - beta2^t) + eps)",
)  # fmt: skip
def adam(
    t: Tracer, update: Update, betas: Any = (0.9, 0.999), eps: Any = 1e-8, amsgrad: bool = False
) -> Any:
    """Adam (Kingma and Ba, 2015); AMSGrad with the largest v so far (Reddi et al., 2018)."""
    beta1, beta2 = betas
    mean, square = moments(t, update.direction(), betas)
    if amsgrad:
        square = t.state("max_exp_avg_sq").maximum_(square)
    root = square.sqrt().div_((1 - beta2**t.step) ** 0.5).add_(eps)
    return update.over(mean, root, over=1 - beta1**t.step)


@block(
    state=["exp_avg", "exp_inf"], per_group=["betas", "eps"], role="moments",
    formula="m as Adam; n = max(beta2 n, |g| + eps); u = m / (1 - beta1^t) / n",
)  # fmt: skip
def adamax(t: Tracer, update: Update, betas: Any = (0.9, 0.999), eps: Any = 1e-8) -> Any:
    """Adam with the largest gradient in place of the mean square (Kingma and Ba, 2015)."""
    beta1, beta2 = betas
    gradient = update.direction()
    mean = t.state("exp_avg").lerp_(gradient, 1 - beta1)
    largest = t.state("exp_inf").mul_(beta2)
    largest.maximum_(abs(gradient).add_(eps))
    return update.over(mean, largest, over=1 - beta1**t.step)


@block(
    state=["exp_avg", "exp_avg_sq", "mu_product"], per_group=["betas", "eps", "momentum_decay"],
    role="moments",
    formula="mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2); u = (mu_t+1 m / (1 - prod mu mu_t+1) "
    "+ (1 - mu_t) g / (1 - prod mu)) / (sqrt(v / (1 - beta2^t)) + eps)",
)  # fmt: skip
def nadam(
    t: Tracer, update: Update, betas: Any = (0.9, 0.999), eps: Any = 1e-8,
    momentum_decay: Any = 4e-3,
) -> Any:  # fmt: skip
    """Adam with Nesterov momentum (Dozat, 2016)."""
    beta1, beta2 = betas
    gradient = update.direction()
    mean, square = moments(t, gradient, betas)
    now = beta1 * (1.0 - 0.5 * (0.96 ** (t.step * momentum_decay)))
    following = beta1 * (1.0 - 0.5 * (0.96 ** ((t.step + 1) * momentum_decay)))
    product = t.product("mu_product", now)
    root = square.sqrt().div_((1 - beta2**t.step) ** 0.5).add_(eps)
    terms = [
        Term(gradient, root, 1.0 - now, 1.0 - product),
        Term(mean, root, following, 1.0 - product * following),
    ]
    return Update(t, terms, update.decay)


def _rectified(step: float, beta2: float) -> float:
    """How much of the adaptive step can be trusted; 0 while its variance is not tractable."""
    longest = 2 / (1 - beta2) - 1
    now = longest - 2 * step * (beta2**step) / (1 - beta2**step)
    if now <= 5:
        return 0
    part = (now - 4) * (now - 2) * longest / ((longest - 4) * (longest - 2) * now)
    return float(part**0.5)


def _plain_rate(lr: float, rect: float, correction: float) -> float:
    return (lr * (0 if rect > 0 else 1.0) / correction) * -1


def _divisor(lr: float, rect: float, correction: float, root: float) -> float:
    return root * (lr * rect / correction) * -1


@block(
    state=["exp_avg", "exp_avg_sq"], per_group=["betas", "eps"], role="moments",
    formula="rho_t > 5: u = r_t sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps); "
    "else u = m / (1 - beta1^t)",
)  # fmt: skip
def radam(t: Tracer, update: Update, betas: Any = (0.9, 0.999), eps: Any = 1e-8) -> Any:
    """Rectified Adam (Liu et al., "On the variance of the adaptive learning rate", 2020)."""
    beta1, beta2 = betas
    mean, square = moments(t, update.direction(), betas)
    rect = Number.call(_rectified, t.step, beta2)
    correction, root = 1 - beta1**t.step, (1 - beta2**t.step) ** 0.5

    def factor(lr: Any) -> Symbol:
        over = Number.call(_divisor, lr, rect, correction, root)
        plain = Number.call(_plain_rate, lr, rect, correction)
        return square.sqrt().add_(eps).div_(over).reciprocal_().add_(plain)

    def apply() -> None:
        t.parameter.addcmul_(mean, factor(t.lr))

    return Update(t, [], update.decay, apply, lambda: mean * factor(-1.0))


@block(
    state=["square_avg"], per_group=["alpha", "eps"], role="moments",
    formula="v = alpha v + (1 - alpha) g^2; centered: a = lerp(a, g, 1 - alpha), v - a^2; "
    "u = g / (sqrt(v) + eps)",
)  # fmt: skip
def rms(
    t: Tracer, update: Update, alpha: Any = 0.99, eps: Any = 1e-8, centered: bool = False
) -> Any:
    """RMSprop (Tieleman and Hinton, 2012); centered (Graves, 2013)."""
    t.count()
    gradient = update.direction()
    square = t.state("square_avg").mul_(alpha).addcmul_(gradient, gradient, 1 - alpha)
    if centered:
        mean = t.state("grad_avg").lerp_(gradient, 1 - alpha)
        root = square.addcmul(mean, -1).sqrt_()
    else:
        root = square.sqrt()
    return update.over(gradient, root.add_(eps))


@block(
    state=["momentum_buffer"], per_group=["momentum"], formula="b = momentum b + u; u = b",
)  # fmt: skip
def heavy_ball(t: Tracer, update: Update, momentum: Any = 0.0) -> Any:
    """A running sum of updates, as RMSprop has it: it begins with zeros."""
    if t.is_zero("momentum"):
        return update
    buffer = t.state("momentum_buffer").mul_(momentum)
    only = update.terms[0]
    if only.denominator is not None and only.coefficient() is None:
        buffer.addcdiv_(only.numerator, only.denominator)
    else:
        buffer.add_(update.direction())
    return update.over(buffer)


@block(
    state=["sum"], per_group=["lr_decay", "eps", "initial_accumulator_value"], role="moments",
    formula="s = s + g^2; u = g / (sqrt(s) + eps) / (1 + (t - 1) lr_decay)",
)  # fmt: skip
def adagrad(
    t: Tracer, update: Update, lr_decay: Any = 0.0, eps: Any = 1e-10,
    initial_accumulator_value: Any = 0.0,
) -> Any:  # fmt: skip
    """Adagrad (Duchi, Hazan and Singer, 2011)."""
    gradient = update.direction()
    total = t.state("sum", start=t.value("initial_accumulator_value"))
    total.addcmul_(gradient, gradient)
    return update.over(gradient, total.sqrt().add_(eps), over=1 + (t.step - 1) * lr_decay)


@block(
    state=["square_avg", "acc_delta"], per_group=["rho", "eps"], role="moments",
    formula="v = rho v + (1 - rho) g^2; u = sqrt(a + eps) / sqrt(v + eps) g; "
    "a = rho a + (1 - rho) u^2",
)  # fmt: skip
def adadelta(t: Tracer, update: Update, rho: Any = 0.9, eps: Any = 1e-6) -> Any:
    """Adadelta (Zeiler, 2012)."""
    t.count()
    gradient = update.direction()
    square = t.state("square_avg").mul_(rho).addcmul_(gradient, gradient, 1 - rho)
    before = t.state("acc_delta")
    root = (square + eps).sqrt_()
    step = (before + eps).sqrt_().div_(root).mul_(gradient)
    before.mul_(rho).addcmul_(step, step, 1 - rho)
    return update.over(step)
