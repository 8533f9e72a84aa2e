"""Steps of optimizers, interleaved; what each learns; and the picture of docs/optimizers.md.

`python benchmarks/optim.py speed` (one thread; `--threads 2`, `--device cuda`), `... compiled`,
`... quality` (digits with each ready optimizer at its defaults, three seeds), `... memory`,
`... picture out.png`. timm is compared with where it is installed.
"""

import argparse
import ctypes
import statistics
import time
from pathlib import Path

import torch
from torch import nn

import trainbus_optim as optim


def shapes(name):
    """Parameters of a network, by name."""
    if name == "mlp20":
        return [shape for _ in range(20) for shape in ((256, 256), (256,))]
    width = 384
    layer = [(3 * width, width), (3 * width,), (width, width), (width,), (4 * width, width)]
    layer += [(4 * width,), (width, 4 * width), (width,), *[(width,)] * 4]
    return [(65, width), (256, width), *[shape for _ in range(6) for shape in layer], (width,)]


def parameters(name, device):
    """Parameters with gradients that do not change."""
    torch.manual_seed(0)
    made = [nn.Parameter(torch.randn(shape, device=device) * 0.02) for shape in shapes(name)]
    for each in made:
        each.grad = torch.randn_like(each) * 1e-3
    return made


def arms(compiled):
    """What is timed: functions of parameters."""
    adamw = torch.optim.AdamW
    if compiled:
        names = ("adamw", "lion", "adabelief", "adan", "nadam", "schedule_free_adamw")
        made = {f"{n}, compiled": lambda p, n=n: getattr(optim, n)(p, compile=True) for n in names}
        return {"AdamW fused": lambda p: adamw(p, fused=True), **made}
    made = {
        "AdamW foreach": lambda p: adamw(p, foreach=True),
        "AdamW as torch chooses": lambda p: adamw(p),
        "AdamW fused": lambda p: adamw(p, fused=True),
        "adamw": lambda p: optim.adamw(p),
        "adamw, wide": lambda p: optim.adamw(p, kernel="wide"),
        "adamw, deep": lambda p: optim.adamw(p, kernel="deep"),
        "clip_norm, adam, decay": lambda p: optim.Chain(
            p, optim.clip_norm(1.0), optim.adam(), optim.decay(0.01), lr=1e-3
        ),
        "SGD fused": lambda p: torch.optim.SGD(p, momentum=0.9, fused=True),
        "sgd": lambda p: optim.sgd(p, momentum=0.9),
    }
    for name in (
        "lion", "lamb", "cautious_adamw", "adan", "adabelief", "laprop", "adopt", "nadam", "mars",
        "prodigy", "schedule_free_adamw",
    ):  # fmt: skip
        made[name] = lambda p, name=name: getattr(optim, name)(p, lr=1e-4)
    try:
        from timm.optim import create_optimizer_v2
    except ImportError:
        return made
    timms = {
        "lion": "lion", "lamb": "lamb", "cautious_adamw": "cadamw", "adan": "adan",
        "adabelief": "adabelief", "laprop": "laprop", "adopt": "adopt", "mars": "mars",
    }  # fmt: skip
    for name, theirs in timms.items():
        made[f"timm {name}"] = lambda p, t=theirs: create_optimizer_v2(p, t, lr=1e-4)
    return made


def speed(options):
    """Milliseconds of a step: the median, and how it is to foreach and to fused AdamW."""
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    if options.device != "cpu":
        clock = time.perf_counter
    for network in ("mlp20", "lm"):
        made = {n: make(parameters(network, options.device)) for n, make in arms(False).items()}
        if options.command == "compiled":
            made = {n: make(parameters(network, options.device)) for n, make in arms(True).items()}
        times = {name: [] for name in made}
        for _ in range(options.rounds):
            for name, optimizer in made.items():
                start = clock()
                optimizer.step()
                if options.device != "cpu":
                    torch.cuda.synchronize()
                times[name].append(clock() - start)
        medians = {name: statistics.median(each[3:]) * 1e3 for name, each in times.items()}
        base, fused = medians.get("AdamW foreach"), medians["AdamW fused"]
        for name, value in medians.items():
            beside = f"{value / base:6.2f} of foreach" if base else ""
            first = f", first {times[name][0]:.1f} s" if options.command == "compiled" else ""
            beside += f" {value / fused:6.2f} of fused{first}"
            print(f"{network:6} {name:32} {value:8.2f} ms {beside}", flush=True)


def memory(options):
    """The highest memory of a step above what was there, in copies of the parameters."""
    for name in ("AdamW foreach", "adamw, wide", "adamw, deep", "adamw", "lamb", "lion"):
        made = parameters("lm", "cpu")
        size = sum(each.numel() * 4 for each in made)
        optimizer = arms(False)[name](made)
        optimizer.step()
        ctypes.CDLL(None).malloc_trim(0)  # what is free is given back
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins again
        before = _status("VmRSS")
        optimizer.step()
        print(f"{name:20} {(_status('VmHWM') - before) / size:5.2f} x the parameters")


def _status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(each for each in lines if each.startswith(key)).split()[1]) * 1024


def quality(options):
    """Digits, a small network, ten epochs: what each learns at its defaults."""
    from sklearn.datasets import load_digits

    torch.set_num_threads(options.threads)
    x, y = map(torch.tensor, load_digits(return_X_y=True))
    x = x.float() / 16
    for entry in optim.optimizers():
        if entry.name in ("sam", "sophia"):
            continue  # they want a second backward
        results = []
        for seed in range(3):
            torch.manual_seed(seed)
            order = torch.randperm(len(x))
            train, valid = order[:1400], order[1400:]
            model = nn.Sequential(
                nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                nn.Linear(64, 10),
            )  # fmt: skip
            chain = getattr(optim, entry.name)(model)
            for _ in range(10):
                for batch in train[torch.randperm(len(train))].split(32):
                    chain.zero_grad()
                    nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
                    chain.step()
            with torch.no_grad(), chain.averages():
                right = (model(x[valid]).argmax(1) == y[valid]).float().mean().item()
            results.append(right)
        print(f"{entry.name:22} " + " ".join(f"{100 * each:5.1f}" for each in results), flush=True)


def picture(options):
    """What blocks do to a trajectory, in a valley that is twelve times steeper in one direction."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def height(p):
        return 0.5 * (p[0] ** 2 + 12 * p[1] ** 2)

    cases = [
        ("no block: gradient descent", {"lr": 0.14}, []),
        ("momentum(0.8)", {"lr": 0.05}, [optim.momentum(0.8)]),
        ("clip_norm(2), momentum(0.8)", {"lr": 0.05}, [optim.clip_norm(2.0), optim.momentum(0.8)]),
        ("adam()", {"lr": 0.25}, [optim.adam(betas=(0.8, 0.99))]),
        ("adam(), cautious()", {"lr": 0.25}, [optim.adam(betas=(0.8, 0.99)), optim.cautious()]),
        ("sign()", {"lr": 0.15}, [optim.sign()]),
    ]
    figure, axes = pyplot.subplots(2, 3, figsize=(11, 5.2), sharex=True, sharey=True)
    a, b = torch.meshgrid(
        torch.linspace(-4.2, 1.2, 90), torch.linspace(-1.6, 1.6, 60), indexing="xy"
    )
    for axis, (title, values, blocks) in zip(axes.flat, cases, strict=True):
        point = nn.Parameter(torch.tensor([-3.8, 1.3]))
        chain = optim.Chain([point], *blocks, **values)
        track = [point.detach().clone()]
        for _ in range(40):
            chain.zero_grad()
            height(point).backward()
            chain.step()
            track.append(point.detach().clone())
        xs, ys = torch.stack(track).T
        axis.contour(
            a, b, height([a, b]), levels=[0.1, 0.5, 1.5, 4, 8, 14], colors="#b8c4d0", linewidths=0.8
        )
        axis.plot(xs, ys, "-", color="#c44e52", lw=1.2)
        axis.scatter(xs, ys, s=9, color="#c44e52", zorder=3)
        axis.plot(0, 0, "+", color="#333333", ms=9)
        axis.set_title(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["speed", "compiled", "memory", "quality", "picture"])
    parser.add_argument("out", nargs="?", default="blocks.png")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    commands = {"speed": speed, "compiled": speed, "memory": memory, "quality": quality}
    {**commands, "picture": picture}[given.command](given)
