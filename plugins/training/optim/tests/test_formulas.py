"""Optimizers and blocks beside plain formulas in double precision, from the papers."""

import math

import pytest
import torch
from torch import nn

import trainbus_optim as optim

STEPS = 12
SHAPES = [(6, 5), (4,), (3, 2, 3, 3)]


def gradients(step):
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]


def first_weights():
    return gradients(1000)


def walked(make, kernel):
    parameters = [nn.Parameter(each) for each in first_weights()]
    optimizer = make(parameters, kernel=kernel)
    for step in range(1, STEPS + 1):
        for each, gradient in zip(parameters, gradients(step), strict=True):
            each.grad = gradient
        optimizer.step()
    return parameters, optimizer


def formula(update):
    """Apply `update(p, g, state, t)`, which gives the new parameter, tensor by tensor."""
    weights = first_weights()
    states = [{} for _ in weights]
    for step in range(1, STEPS + 1):
        for i, g in enumerate(gradients(step)):
            weights[i] = update(weights[i], g, states[i], step)
    return weights


def close(make, update):
    expected = formula(update)
    for kernel in ("wide", "deep"):
        parameters, _ = walked(make, kernel)
        for mine, theirs in zip(parameters, expected, strict=True):
            torch.testing.assert_close(mine.detach(), theirs, rtol=1e-12, atol=1e-12)


def adam(g, s, t, b1=0.9, b2=0.999, eps=1e-8):
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
    return (s["m"] / (1 - b1**t)) / ((s["v"] / (1 - b2**t)).sqrt() + eps)


def test_lion():
    def update(p, g, s, t):
        m = s.get("m", torch.zeros_like(g))
        u = torch.sign(0.9 * m + 0.1 * g)
        s["m"] = 0.99 * m + 0.01 * g
        return p - 1e-2 * (u + 0.1 * p)

    close(lambda p, **k: optim.lion(p, lr=1e-2, **k), update)


def test_lamb():
    def update(p, g, s, t):
        u = adam(g, s, t, eps=1e-6) + 0.01 * p
        return p - 0.02 * u * p.norm() / u.norm()

    close(lambda p, **k: optim.lamb(p, lr=0.02, **k), update)


def test_lamb_leaves_biases_and_norms_at_a_ratio_of_one(net, trained):
    chain = optim.lamb(net)
    ratios = [group["trust"] for group in chain.param_groups]
    assert ratios == [1.0, 0.0]
    trained(net, chain, steps=2)
    assert len(chain.watched["trust_ratio"]) == len(chain.param_groups[0]["params"])


def test_lars():
    def update(p, g, s, t):
        u = g + 1e-4 * p
        u = u * 1e-3 * p.norm() / u.norm()
        s["b"] = u if t == 1 else 0.9 * s["b"] + u
        return p - s["b"]

    close(lambda p, **k: optim.lars(p, **k), update)


def test_adabelief():
    def update(p, g, s, t):
        s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
        s["s"] = 0.999 * s.get("s", 0) + 0.001 * (g - s["m"]) ** 2 + 1e-16
        u = s["m"] / (1 - 0.9**t) / ((s["s"] / (1 - 0.999**t)).sqrt() + 1e-16)
        return p * (1 - 1e-3 * 0.01) - 1e-3 * u

    close(lambda p, **k: optim.adabelief(p, **k), update)


def test_adopt():
    def update(p, g, s, t):
        if t == 1:
            s["v"], s["m"] = g**2, torch.zeros_like(g)
            return p
        limit = (t - 1) ** 0.25
        n = (g / s["v"].sqrt().clamp(min=1e-6)).clamp(-limit, limit)
        s["m"] = 0.9 * s["m"] + 0.1 * n
        s["v"] = 0.9999 * s["v"] + 0.0001 * g**2
        return p * (1 - 1e-2 * 0.1) - 1e-2 * s["m"]

    close(lambda p, **k: optim.adopt(p, lr=1e-2, weight_decay=0.1, **k), update)


def test_laprop():
    def update(p, g, s, t):
        s["v"] = 0.999 * s.get("v", 0) + 0.001 * g**2
        n = g / ((s["v"] / (1 - 0.999**t)).sqrt() + 1e-15)
        s["m"] = 0.9 * s.get("m", 0) + 0.1 * n
        return p - 1e-2 * s["m"] / (1 - 0.9**t)

    close(lambda p, **k: optim.laprop(p, lr=1e-2, **k), update)


def test_adan():
    def update(p, g, s, t):
        d = g - s.get("g", g)
        s["g"] = g
        s["m"] = 0.98 * s.get("m", 0) + 0.02 * g
        s["w"] = 0.92 * s.get("w", 0) + 0.08 * d
        s["n"] = 0.99 * s.get("n", 0) + 0.01 * (g + 0.92 * d) ** 2
        up = s["m"] / (1 - 0.98**t) + 0.92 * s["w"] / (1 - 0.92**t)
        u = up / ((s["n"] / (1 - 0.99**t)).sqrt() + 1e-8)
        return (p - 1e-2 * u) / (1 + 1e-2 * 0.02)

    close(lambda p, **k: optim.adan(p, lr=1e-2, **k), update)


def test_cautious():
    def update(p, g, s, t):
        u = adam(g, s, t)
        mask = (u * g > 0).double()
        u = u * mask / mask.mean().clamp(min=1e-3)
        return p * (1 - 1e-2 * 0.01) - 1e-2 * u

    close(lambda p, **k: optim.cautious_adamw(p, lr=1e-2, **k), update)


def test_mars():
    def update(p, g, s, t):
        c = g if t == 1 else g + 0.025 * (0.95 / 0.05) * (g - s["g"])
        s["g"] = g
        c = c / c.norm().clamp(min=1)
        return p * (1 - 1e-2 * 0.01) - 1e-2 * adam(c, s, t, 0.95, 0.99)

    close(lambda p, **k: optim.mars(p, lr=1e-2, **k), update)


def test_sophia_and_its_curvature():
    parameters = [nn.Parameter(each) for each in first_weights()]
    chain = optim.sophia(parameters, lr=1e-2)
    weights = first_weights()
    means = [torch.zeros_like(each) for each in weights]
    curves = [torch.zeros_like(each) for each in weights]
    for step in range(1, STEPS + 1):
        if step % 5 == 1:
            for p, curve, g in zip(parameters, curves, gradients(step + 50), strict=True):
                p.grad = g
                curve.mul_(0.99).add_(0.01 * 4 * g**2)
            chain.update_curvature(batch=4)
        for i, g in enumerate(gradients(step)):
            parameters[i].grad = g
            means[i] = 0.965 * means[i] + 0.035 * g
            u = (means[i] / (0.04 * curves[i]).clamp(min=1e-12)).clamp(-1, 1)
            weights[i] = weights[i] * (1 - 1e-2 * 0.1) - 1e-2 * u
        chain.step()
    for mine, theirs in zip(parameters, weights, strict=True):
        torch.testing.assert_close(mine.detach(), theirs, rtol=1e-12, atol=1e-12)


def rectified(g, s, t, b1=0.95, b2=0.999, eps=1e-5):
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
    mean, inf = s["m"] / (1 - b1**t), 2 / (1 - b2) - 1
    rho = inf - 2 * t * b2**t / (1 - b2**t)
    if rho <= 5:
        return mean
    r = math.sqrt((rho - 4) * (rho - 2) * inf / ((inf - 4) * (inf - 2) * rho))
    return mean * r * math.sqrt(1 - b2**t) / (s["v"].sqrt() + eps)


def test_ranger():
    def update(p, g, s, t):
        if g.ndim > 1:
            g = g - g.mean(dim=tuple(range(1, g.ndim)), keepdim=True)
        slow = s.setdefault("slow", p)
        p = p * (1 - 1e-2 * 0.01) - 1e-2 * rectified(g, s, t)
        if t % 6 == 0:
            s["slow"] = p = slow + 0.5 * (p - slow)
        return p

    close(lambda p, **k: optim.ranger(p, lr=1e-2, **k), update)


@pytest.mark.parametrize("adaptive", [True, False])
def test_schedule_free(adaptive):
    warmup, lr, beta, decay = 5, 0.1, 0.9, 0.01
    record = {}

    def update(y, g, s, t):
        z, x = s.get("z", y), s.get("x", y)
        if adaptive:
            s["v"] = 0.999 * s.get("v", 0) + 0.001 * g**2
            g = g / ((s["v"] / (1 - 0.999**t)).sqrt() + 1e-8)
        now = lr * min(1, t / warmup)
        weight = now**2  # the rate only grows here
        s["sum"] = s.get("sum", 0) + weight
        share = weight / s["sum"]
        s["z"] = z - now * (g + decay * y)
        s["x"] = x + share * (s["z"] - x)
        record[tuple(y.shape)] = s["x"]
        return s["z"] + beta * (s["x"] - s["z"])

    name = "schedule_free_adamw" if adaptive else "schedule_free_sgd"
    make = lambda p, **k: getattr(optim, name)(  # noqa: E731
        p, lr=lr, warmup_steps=warmup, weight_decay=decay, **k
    )
    close(make, update)
    parameters, chain = walked(make, "deep")
    trained = [each.detach().clone() for each in parameters]
    with chain.averages():
        for each in parameters:
            torch.testing.assert_close(each.detach(), record[tuple(each.shape)])
    assert all(torch.equal(a, b) for a, b in zip(parameters, trained, strict=True))


def test_prodigy():
    weights, lr, d0 = first_weights(), 1.0, 1e-6
    starts = [each.clone() for each in weights]
    zeros = lambda: [torch.zeros_like(each) for each in weights]  # noqa: E731
    means, squares, sums = zeros(), zeros(), zeros()
    d = largest = d0
    above = 0.0
    for step in range(1, STEPS + 1):
        above *= math.sqrt(0.999)
        below = 0.0
        for i, g in enumerate(gradients(step)):
            above += (d / d0) * d * lr * (g * (starts[i] - weights[i])).sum().item()
            means[i] = 0.9 * means[i] + 0.1 * d * g
            squares[i] = 0.999 * squares[i] + 0.001 * d**2 * g**2
            sums[i] = math.sqrt(0.999) * sums[i] + (d / d0) * d * lr * g
            below += sums[i].abs().sum().item()
        before, hat = d, above / below
        following = max(d, hat) if d == d0 else d
        largest = max(largest, hat)
        d = min(largest, following * float("inf"))
        for i, p in enumerate(weights):
            u = means[i] / (squares[i].sqrt() + d * 1e-8)
            weights[i] = p * (1 - before * lr * 0.1) - before * lr * u
    for kernel in ("wide", "deep"):
        parameters, chain = walked(lambda p, **k: optim.prodigy(p, weight_decay=0.1, **k), kernel)
        for mine, theirs in zip(parameters, weights, strict=True):
            torch.testing.assert_close(mine.detach(), theirs, rtol=1e-5, atol=1e-8)
        estimate = chain.state[parameters[0]]["d"]
        assert estimate > d0
        assert chain.state[parameters[1]]["d"] is estimate


def test_soap_is_adam_in_the_eigenbasis():
    def update(p, g, s, t):
        shape, g = p.shape, g.reshape(len(g), -1)
        for side, product in (("l", g @ g.T), ("r", g.T @ g)):
            before = s.get(side, torch.zeros_like(product))
            s[side + "new"] = before + 0.05 * (product - before)
        if t == 1:
            s["l"], s["r"] = s["lnew"], s["rnew"]
            s["ql"], s["qr"] = (torch.linalg.eigh(s[k])[1].flip(1) for k in "lr")
            return p
        turned = s["ql"].T @ g @ s["qr"]
        s["m"] = 0.95 * s.get("m", 0) + 0.05 * g
        s["v"] = 0.95 * s.get("v", 0) + 0.05 * turned**2
        k = t - 1
        root = s["v"].sqrt() + 1e-8
        u = s["ql"].T @ s["m"] @ s["qr"] / root * math.sqrt(1 - 0.95**k) / (1 - 0.95**k)
        u = s["ql"] @ u @ s["qr"].T
        s["l"], s["r"] = s["lnew"], s["rnew"]
        return p * (1 - 1e-2 * 0.01) - 1e-2 * u.reshape(shape)

    mine, state = first_weights()[0], {}
    parameter = nn.Parameter(mine.clone())
    chain = optim.soap([parameter], lr=1e-2, every=100)
    for step in range(1, STEPS + 1):
        parameter.grad = gradients(step)[0]
        mine = update(mine, gradients(step)[0], state, step)
        chain.step()
    torch.testing.assert_close(parameter.detach(), mine, rtol=1e-9, atol=1e-9)


def test_soap_goes_on_when_its_bases_are_renewed(net, trained):
    chain = optim.soap(net, every=2)
    trained(net, chain, steps=10)
    basis = chain.state[net.body.weight]["left_basis"]
    torch.testing.assert_close(basis.T @ basis, torch.eye(len(basis)), atol=1e-5, rtol=0)


# --- blocks --------------------------------------------------------------------------------------


def chained(*blocks):
    return lambda p, **k: optim.Chain(p, *blocks, lr=0.1, **k)


def test_clip_value_and_sign():
    close(chained(optim.clip_value(0.5)), lambda p, g, s, t: p - 0.1 * g.clamp(-0.5, 0.5))
    close(chained(optim.sign()), lambda p, g, s, t: p - 0.1 * g.sign())


def test_ema_momentum():
    def update(p, g, s, t):
        s["m"] = 0.8 * s.get("m", 0) + 0.2 * g
        return p - 0.1 * s["m"] / (1 - 0.8**t)

    close(chained(optim.ema_momentum(0.8)), update)


def test_rms_clip():
    def update(p, g, s, t):
        return p - 0.1 * g / max(1.0, g.square().mean().sqrt().item() / 0.7)

    close(chained(optim.rms_clip(0.7)), update)


def test_adaptive_clip():
    def update(p, g, s, t):
        dims = tuple(range(1, g.ndim)) if g.ndim > 1 else (0,)
        weight = p.square().sum(dims, keepdim=True).sqrt().clamp(min=1e-3)
        norm = g.square().sum(dims, keepdim=True).sqrt()
        return p - 0.1 * g * (0.3 * weight / norm).clamp(max=1)

    close(chained(optim.adaptive_clip(0.3)), update)


def test_centralize():
    def update(p, g, s, t):
        return p - 0.1 * (g - g.mean(tuple(range(1, g.ndim)), keepdim=True) if g.ndim > 1 else g)

    close(chained(optim.centralize()), update)


def test_cautious_decay():
    def update(p, g, s, t):
        return p - 0.1 * (g + 0.3 * p * (g * p > 0))

    close(chained(optim.cautious_decay(0.3)), update)


def test_independent_decay_falls_with_the_rate_and_not_with_its_peak():
    parameter = nn.Parameter(torch.ones(3))
    chain = optim.Chain([parameter], optim.momentum(0.0), optim.independent_decay(0.25), lr=0.5)
    parameter.grad = torch.zeros(3)
    chain.step()
    assert parameter[0] == 0.75
    chain.param_groups[0]["lr"] = 0.25
    chain.step()
    assert parameter[0] == 0.75 * 0.875


def test_lookahead_and_ema_are_what_is_evaluated():
    parameters, chain = walked(chained(optim.momentum(0.0), optim.ema(0.5)), "deep")

    def update(p, g, s, t):
        p = p - 0.1 * g
        s["e"] = 0.5 * s.get("e", first_weights()[SHAPES.index(tuple(p.shape))]) + 0.5 * p
        averages[tuple(p.shape)] = s["e"]
        return p

    averages = {}
    formula(update)
    with chain.averages():
        for each in parameters:
            torch.testing.assert_close(each.detach(), averages[tuple(each.shape)])


def test_noise_fades_and_comes_from_the_generator():
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        parameters, _ = walked(chained(optim.noise(0.1)), "wide")
        results.append(parameters)
    plain, _ = walked(chained(optim.momentum(0.0)), "wide")
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not torch.equal(results[0][0], plain[0])


@pytest.mark.parametrize("adaptive", [True, False])
def test_sam(adaptive):
    parameter = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    chain = optim.sam([parameter], base=optim.sgd(lr=0.1), rho=0.5, adaptive=adaptive)
    calls = []

    def closure():
        chain.zero_grad()
        loss = (parameter**4).sum()
        loss.backward()
        calls.append(parameter.detach().clone())
        return loss

    first = chain.step(closure)
    p = torch.tensor([1.0, -2.0], dtype=torch.float64)
    g = 4 * p**3
    climb = p**2 * g / (p * g).norm() if adaptive else g / g.norm()
    there = p + 0.5 * climb
    torch.testing.assert_close(calls[1], there)
    torch.testing.assert_close(parameter.detach(), p - 0.1 * 4 * there**3)
    assert first == 17


def test_a_block_of_ones_own_is_traced():
    @optim.block(state=["slow"], per_group=["pull"], formula="pulls towards a slow copy")
    def drag(t, update, pull=0.01):
        slow = t.state("slow", start="parameter")
        slow.lerp_(t.parameter, 0.001)
        return update + pull * (t.parameter - slow)

    def update(p, g, s, t):
        slow = s.get("slow", p)
        s["slow"] = slow + 0.001 * (p - slow)
        return p - 0.1 * (adam(g, s, t) + 0.5 * (p - s["slow"]))

    close(chained(optim.adam(), drag(0.5)), update)


def test_a_block_in_plain_code_works_and_says_that_it_is_slower():
    @optim.block(state=["seen"], per_group=["factor"], reach="tensor", traced=False)
    def plain(update, parameter, state, factor=0.5):
        state["seen"] += update.abs()
        return update * factor / (1 + state["seen"].mean())

    def update(p, g, s, t):
        s["seen"] = s.get("seen", 0) + g.abs()
        return p - 0.1 * g * 0.5 / (1 + s["seen"].mean())

    close(chained(plain()), update)
    assert "slower" in optim.Chain([nn.Parameter(torch.ones(2))], plain(), lr=0.1).explain()
