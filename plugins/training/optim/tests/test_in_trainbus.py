"""In a run: names, averages for validation, resume to the bit, numbers that are logged."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainbus_optim as optim
from trainbus import Task, Trainer, UsageError, load_weights
from trainbus.cli import main
from trainbus.testing import conformance

TestConformance = conformance("optim", milliseconds=50)


def loader():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(48, 6, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum(dim=1) > 0).long()), batch_size=8, shuffle=True)


def task(optimizer):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    return Task.supervised(model, optimizer=optimizer)


def weights(made):
    return [each.detach().clone() for each in made.parameters()]


def test_an_optimizer_by_name_gets_the_model():
    made = task("adamw")
    Trainer(epochs=1, seed=0).fit(made, loader())
    chain = made.configure_optimizer()
    assert isinstance(chain, optim.Chain)
    assert len(chain.param_groups) == 2  # biases and norms apart
    recipe = task(optim.muon(lr=0.01))
    assert {g["chain"] for g in recipe.configure_optimizer().param_groups} == {"muon", "adamw"}


def test_a_name_that_nobody_has():
    with pytest.raises(UsageError, match="no optimizer 'loin'; did you mean 'lion'"):
        task("loin").configure_optimizer()


def test_the_default_is_fused_where_torch_has_the_kernel():
    assert task(None).configure_optimizer().param_groups[0]["fused"] is True
    assert task(None).to("meta").configure_optimizer().param_groups[0]["fused"] is None


SLOW = ("adamw", "lamb", "adopt", "ranger", "adafactor", "mars")


@pytest.mark.parametrize("name", [
    "lion", "nadam", "muon", "soap", "schedule_free_adamw", "prodigy",
    *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
])  # fmt: skip
def test_a_run_that_was_cut_goes_on_with_the_same_bits(name, tmp_path):
    def fit(directory, resume=None, **more):
        made = task(name)
        trainer = Trainer(
            epochs=3, seed=3, plugins=["checkpoint"], run_dir=tmp_path / directory, **more
        )
        trainer.fit(made, loader(), loader(), resume=resume)
        return made

    whole = fit("a")
    fit("b", max_steps=8)
    second = fit("b", resume="auto")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))


def test_validation_sees_the_average_and_training_its_own_weights(tmp_path):
    made = task(optim.schedule_free_adamw(lr=0.05))
    seen = []
    trainer = Trainer(epochs=1, seed=0, plugins=["checkpoint"], run_dir=tmp_path)

    @trainer.on("validation_batch_end", once=True)
    def look(run):
        chain = run.optimizer
        p = made.model[0].weight
        seen.append(p.detach().clone())
        expected = chain.state[p]["z"]
        assert not torch.equal(p, expected)

    @trainer.on("epoch_end")
    def after(run):
        p = made.model[0].weight
        x = {id(q): value for q, value in run.optimizer.averaged()}[id(p)]
        assert torch.equal(x, seen[0])
        assert not torch.equal(p, x)

    run = trainer.fit(made, loader(), loader())
    assert torch.equal(made.model[0].weight, seen[0])  # left in the model
    again = task("schedule_free_adamw")
    load_weights(again, next(p.parent for p in run.dir.rglob("manifest.json")))
    assert torch.equal(again.model[0].weight, seen[0])


def test_two_averages_that_would_be_validated_are_refused():
    with pytest.raises(UsageError, match="schedule_free_sgd is validated with its own average"):
        Trainer(epochs=1, plugins=["ema"]).fit(task("schedule_free_sgd"), loader(), loader())


def test_a_state_of_another_chain_says_what_differs(tmp_path):
    options = {"seed": 0, "plugins": ["checkpoint"], "run_dir": tmp_path}
    Trainer(epochs=1, **options).fit(task("adamw"), loader())
    with pytest.raises(Exception, match=r"adam, decay.*lion, decay"):
        Trainer(epochs=2, **options).fit(task("lion"), loader(), resume="auto")


def test_sizes_of_steps_are_logged():
    trainer = Trainer(epochs=1, seed=0, plugins=[optim.Optim(watch=2)])
    run = trainer.fit(task(optim.lamb(lr=0.01)), loader())
    names = set(run.metrics)
    assert {"optim/update_norm", "optim/update_ratio", "optim/trust_ratio"} <= names
    assert run.metrics["optim/update_norm"] > 0


def test_a_file_names_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "here.py").write_text(
        "import torch\nfrom torch.utils.data import DataLoader, TensorDataset\n"
        "def rows():\n"
        "    return DataLoader(TensorDataset(torch.randn(32, 6), torch.randint(2, (32,))), 8)\n"
    )
    (tmp_path / "fit.toml").write_text(
        '[task]\nclass = "trainbus:Task.supervised"\noptimizer = "lion"\n'
        '[task.model]\nclass = "torch.nn:Linear"\nin_features = 6\nout_features = 2\n'
        '[data]\ntrain = {class = "here:rows"}\n[trainer]\nepochs = 1\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def fit():
        try:
            main(["fit", "fit.toml"])
        except SystemExit as ended:
            return ended.code or 0
        return 0

    assert fit() == 0
    table = '{partial = "trainbus_optim:lion", lr = 3e-4}'
    text = (tmp_path / "fit.toml").read_text()
    (tmp_path / "fit.toml").write_text(text.replace('"lion"', table))
    assert fit() == 0
    (tmp_path / "fit.toml").write_text(text.replace('"lion"', table.replace("lr", "rl")))
    assert fit()
    assert "'rl'" in capsys.readouterr().err


def test_sharpness_aware_steps_get_their_closure():
    made = task(optim.sam(base=optim.sgd(lr=0.1), rho=0.1))
    run = Trainer(epochs=2, seed=0).fit(made, loader())
    plain = task(optim.sgd(lr=0.1))
    Trainer(epochs=2, seed=0).fit(plain, loader())
    assert run.global_step == 12
    assert not torch.equal(made.model[0].weight, plain.model[0].weight)


def test_a_learner_takes_a_name_and_its_usual_rate():
    learner_of = pytest.importorskip("trainbus_learner").Learner
    x = torch.randn(32, 6)
    data = DataLoader(TensorDataset(x, (x.sum(dim=1) > 0).long()), batch_size=8)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    learner = learner_of((data, data), model, loss=nn.functional.cross_entropy, optimizer="muon")
    assert learner.lr == 0.02
    learner.fit(1)
    assert {g["chain"] for g in learner.run.optimizer.param_groups} == {"muon", "adamw"}
