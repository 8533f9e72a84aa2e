"""A chain as a torch.optim.Optimizer, what it says of itself, and what it refuses."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import trainbus_optim as optim
from trainbus import UsageError


def vector(*shape):
    return nn.Parameter(torch.randn(*(shape or (4,))))


# --- an optimizer of torch -----------------------------------------------------------------------


def test_it_is_an_optimizer_with_groups_and_names_of_torch(net):
    chain = optim.adamw(net, lr=3e-4, weight_decay=0.05)
    assert isinstance(chain, torch.optim.Optimizer)
    decayed, plain = chain.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert decayed["lr"] == 3e-4 and decayed["betas"] == (0.9, 0.999)
    assert {id(p) for p in decayed["params"]} == {
        id(net.conv.weight), id(net.body.weight), id(net.head.weight), id(net.none)
    }  # fmt: skip


def test_a_closure_is_called_once_with_gradients_on():
    parameter, calls = vector(), []

    def closure():
        calls.append(torch.is_grad_enabled())
        loss = parameter.square().sum()
        loss.backward()
        return loss

    chain = optim.adam([parameter])
    assert chain.step(closure) > 0
    assert calls == [True]


def test_a_group_that_is_added_late_begins_its_own_count():
    one, two = vector(), vector()
    chain = optim.adamw([one])
    one.grad = torch.ones(4)
    chain.step()
    chain.add_param_group({"params": [two], "lr": 1e-2})
    two.grad = torch.ones(4)
    chain.step()
    assert (chain.state[one]["step"], chain.state[two]["step"]) == (2, 1)


def test_what_was_frozen_and_what_had_no_gradient_starts_later():
    one, two = vector(), vector()
    two.requires_grad_(False)
    chain = optim.lamb([one, two])
    one.grad = torch.ones(4)
    chain.step()
    assert two not in chain.state
    two.requires_grad_(True)
    two.grad = torch.ones(4)
    chain.step()
    assert (chain.state[one]["step"], chain.state[two]["step"]) == (2, 1)


def test_a_state_that_is_cleared_begins_again():
    parameter = vector()
    chain = optim.lion([parameter])
    parameter.grad = torch.ones(4)
    chain.step()
    chain.state.clear()
    chain.step()
    torch.testing.assert_close(chain.state[parameter]["exp_avg"], torch.full((4,), 0.01))


@pytest.mark.parametrize("make", [optim.adamw, optim.lamb, optim.muon])
def test_copies_and_pickles_go_on_alike(net, trained, make):
    chain = make(net)
    trained(net, chain, steps=3)
    for copied in (copy.deepcopy((net, chain)), pickle.loads(pickle.dumps((net, chain)))):
        expected = trained(*copy.deepcopy((net, chain)), steps=3, start=3)
        got = trained(*copied, steps=3, start=3)
        assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_parameters_that_move_to_other_memory_are_stepped_there():
    parameter = vector()
    chain = optim.lion([parameter], lr=0.1, kernel="deep")
    parameter.grad = torch.ones(4)
    chain.step()
    parameter.data = torch.zeros(4)
    chain.step()
    assert (parameter != 0).all()


def test_a_schedule_changes_the_next_step():
    parameter = nn.Parameter(torch.zeros(2))
    chain = optim.sgd([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(chain, 1, gamma=0.5)
    for _ in range(2):
        parameter.grad = torch.ones(2)
        chain.step()
        schedule.step()
    assert parameter[0] == -1.5


def test_grad_scaler_is_obeyed_inside_of_the_fused_step():
    parameter = vector()
    chain = optim.adamw([parameter])
    assert chain._step_supports_amp_scaling
    before = parameter.detach().clone()
    parameter.grad = torch.full((4,), 8.0)
    chain.grad_scale, chain.found_inf = torch.tensor(8.0), torch.tensor(1.0)
    chain.step()
    assert torch.equal(parameter, before)
    assert chain.state[parameter]["step"] == 0
    chain.found_inf = torch.tensor(0.0)
    chain.step()
    torch.testing.assert_close(chain.state[parameter]["exp_avg"], torch.full((4,), 0.1))
    assert not optim.lion([vector()])._step_supports_amp_scaling


# --- how it is computed --------------------------------------------------------------------------


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def step_of(chain, parameters):
    for each in parameters:
        each.grad = torch.randn_like(each)
    chain.step()
    with Calls() as calls:
        chain.step()
    return calls.names


def test_a_recognised_chain_is_one_call_of_torch():
    parameters = [vector(5, 5) for _ in range(8)]
    names = step_of(optim.adamw(parameters), parameters)
    assert sum("_fused_adamw_" in name for name in names) == 1
    assert len(names) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "lion", "adabelief"])
def test_a_compiled_program_computes_the_same(walked, name):
    make = getattr(optim, name)
    made = []

    def compiled(parameters):
        made.append(make(parameters, compile=True))
        return made[0]

    expected, got = walked(make, steps=9), walked(compiled, steps=9)
    assert made[0].kernels() == [("compiled", "asked for")]
    for one, other in zip(expected, got, strict=True):
        # a sum that is rounded once may have another sign, by which Lion steps
        torch.testing.assert_close(one, other, atol=1e-3 if name == "lion" else 1e-6, rtol=1e-5)


def test_what_looks_at_whole_tensors_is_not_compiled():
    chain = optim.lamb([vector()], compile=True)
    assert chain.kernels() == [("foreach", "not compiled: trust_ratio looks at whole tensors")]


@pytest.mark.parametrize("entry", optim.optimizers(), ids=lambda entry: entry.name)
def test_no_step_waits_for_the_device(entry):
    if entry.name in ("sam", "adafactor"):
        pytest.skip("evaluates twice; reads two norms on the CPU, and on no other device")
    parameters = [vector(5, 5) for _ in range(8)]
    names = step_of(getattr(optim, entry.name)(parameters), parameters)
    own = [name for name in names if "_local_scalar_dense" in name or "item" in name]
    # nadam keeps a product on the host, as torch does
    assert len(own) <= (1 if entry.name == "nadam" else 0)


def test_the_number_of_calls_does_not_grow_with_the_parameters():
    few, many = [vector(5, 5) for _ in range(2)], [vector(5, 5) for _ in range(40)]
    counts = [len(step_of(optim.lion(each, kernel="wide"), each)) for each in (few, many)]
    assert counts[0] == counts[1]


def test_it_says_which_kernel_runs_and_why(net):
    chain = optim.Chain(
        net, optim.clip_norm(1.0), optim.adam(betas=(0.9, 0.98)), optim.decay(0.1),
        optim.trust_ratio(), lr=2e-3,
    )  # fmt: skip
    text = repr(chain)
    assert "clip_norm, adam, decay, trust_ratio" in text
    assert "foreach (trust_ratio has no fused kernel)" in text
    assert "fused" in repr(optim.adamw(net)).split(":")[1]
    assert "asked for" in repr(optim.adamw(net, kernel="wide"))


def test_explain_names_formula_state_bytes_and_reason(net, trained):
    chain = optim.muon(net, lr=0.02, others=optim.adamw(lr=3e-4))
    trained(net, chain, steps=1)
    text = chain.explain()
    for word in ("orthogonal", "momentum_buffer", "9,216 bytes", "no hidden matrix", "the head"):
        assert word in text


def test_a_choice_of_kernel_is_kept_by_the_state():
    one, two = vector(), vector()
    first = optim.adamw([one], kernel="foreach")
    one.grad = torch.ones(4)
    first.step()
    second = optim.adamw([two])
    second.load_state_dict(first.state_dict())
    assert second.kernels() == [("foreach", "as the state that was loaded")]


def test_importing_it_imports_no_torch():
    code = "import sys, trainbus_optim; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- groups --------------------------------------------------------------------------------------


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 2)


def test_rates_fall_towards_the_input():
    model = Blocks()
    chain = optim.adamw(model, lr=1.0, layer_decay=0.5)
    rates = {id(p): g["lr"] for g in chain.param_groups for p in g["params"]}
    got = [rates[id(model.embed.weight)]]
    got += [rates[id(each.weight)] for each in model.blocks] + [rates[id(model.head.weight)]]
    assert got == [0.0625, 0.125, 0.25, 0.5, 1.0]


def test_positions_and_what_a_model_names_are_not_decayed():
    model = Blocks()
    model.no_weight_decay = lambda: {"embed.weight"}
    chain = optim.adamw(model)
    plain = {id(p) for p in chain.param_groups[1]["params"]}
    assert id(model.pos_embed) in plain and id(model.embed.weight) in plain
    assert len(optim.adamw(model, decay_all=True).param_groups) == 1


def test_values_for_parameters_by_name():
    model = Blocks()
    chain = optim.adamw(model, lr=1.0, groups={"head.*": {"lr": 0.1}})
    rates = {id(p): g["lr"] for g in chain.param_groups for p in g["params"]}
    assert rates[id(model.head.bias)] == 0.1 and rates[id(model.blocks[0].bias)] == 1.0


def test_matrices_that_are_wider_than_the_one_tried_learn_slower():
    model = Blocks()
    chain = optim.adam(model, lr=1.0, width=4)
    rates = {id(p): g["lr"] for g in chain.param_groups for p in g["params"]}
    assert rates[id(model.blocks[1].weight)] == 0.5 and rates[id(model.embed.weight)] == 1.0


def test_muon_takes_hidden_matrices_and_leaves_the_rest_to_the_others():
    model = Blocks()
    chain = optim.muon(model, lr=0.02, others=optim.adamw(lr=3e-4))
    taken = [id(p) for g in chain.param_groups if g["chain"] == "muon" for p in g["params"]]
    assert taken == [id(each.weight) for each in model.blocks]
    assert {g["lr"] for g in chain.param_groups} == {0.02, 3e-4}


# --- what is refused -----------------------------------------------------------------------------


def refused(make, *words):
    with pytest.raises(UsageError) as caught:
        made = make()
        if made is not None:
            made()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


def test_sparse_gradients(net):
    model = nn.Embedding(5, 3, sparse=True)
    chain = optim.adamw(model)
    model(torch.tensor([1, 2])).sum().backward()
    refused(lambda: chain.step(), "weight", "sparse=False")


def test_complex_parameters_where_a_block_is_of_real_ones():
    parameter = nn.Parameter(torch.randn(3, dtype=torch.complex64))
    chain = optim.lamb([parameter])
    parameter.grad = torch.ones(3, dtype=torch.complex64)
    refused(chain.step, "trust_ratio", "adam")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: optim.adamw([{"params": []}]), ["no parameters"]),
        (lambda: optim.adamw([]), ["no parameters"]),
        (lambda: optim.adamw(torch.zeros(3)), ["takes a model"]),
        (lambda: optim.adamw([1.0]), ["a parameter is a tensor", "float"]),
        (lambda: optim.adamw([p := vector(), p]), ["twice"]),
        (lambda: optim.adamw([{"params": [p := vector()]}, {"params": [p]}]), ["another group"]),
        (lambda: optim.adamw([vector()], lr=-1e-3), ["lr", "maximize"]),
        (lambda: optim.adamw([vector()], lr="fast"), ["lr='fast'", "a number"]),
        (lambda: optim.adamw([vector()], betas=(0.9, 1.0)), ["betas", "not including, 1"]),
        (lambda: optim.adamw([vector()], beta=0.9), ["'beta'", "did you mean 'betas'"]),
        (lambda: optim.adamw([vector()], eps=float("nan")), ["eps"]),
        (lambda: optim.adamw(1e-3), ["first argument is a model"]),
        (lambda: optim.adamw([vector()], capturable=True), ["capturable"]),
        (lambda: optim.adamw([vector()], differentiable=True), ["differentiable"]),
        (lambda: optim.adamw([vector()], kernel="triton"), ["kernel='triton'"]),
        (lambda: optim.lion([vector()], kernel="fused"), ["lion has no fused kernel"]),
        (lambda: optim.Chain([vector()], optim.momentum()), ["learning rate", "lr="]),
        (lambda: optim.Chain([vector()], optim.momentum, lr=1.0), ["call the block"]),
        (lambda: optim.Chain([vector()], optim.adam(), optim.momentum(), lr=1.0),
         ["two directions", "adam and momentum"]),
        (lambda: optim.Chain([vector()], optim.l2(0.1), optim.adam(), optim.decay(0.1), lr=1.0),
         ["decays twice"]),
        (lambda: optim.Chain([vector()], optim.ema(), optim.adam(), lr=1.0), ["at the end"]),
        (lambda: optim.Chain([vector()], optim.schedule_free(), optim.adam(), lr=1.0),
         ["makes the step itself"]),
        (lambda: optim.adamw([{"params": [vector()], "momentum": 0.9}]), ["'momentum'", "betas"]),
        (lambda: optim.adamw(nn.Linear(2, 2), groups={"haed.*": {"lr": 1}}), ["'haed.*'"]),
        (lambda: optim.adamw([vector()], layer_decay=0.5), ["model"]),
        (lambda: optim.sam([vector()], base="adamw"), ["recipe"]),
    ],
)  # fmt: skip
def test_bad_inputs(make, words):
    refused(make, *words)


def test_muon_on_a_vector():
    recipe = optim.muon()
    chain = recipe([vector(3, 3)])
    refused(
        lambda: chain.add_param_group({"params": [vector(3)], "chain": "muon"}),
        "matrices", "(3,)", "others=",
    )  # fmt: skip


def test_a_scheduler_of_a_number_that_the_chain_has_not():
    with pytest.raises(ValueError, match="momentum"):
        torch.optim.lr_scheduler.OneCycleLR(optim.adagrad([vector()]), 0.1, total_steps=5)


def test_a_block_that_changes_the_gradient():
    @optim.block()
    def greedy(t, update):
        return update.direction().mul_(2.0)

    @optim.block(traced=False)
    def plain(update, parameter, state):
        return update.mul_(2.0)

    for each in (greedy, plain):
        chain = optim.Chain([p := vector()], each(), lr=0.1)
        p.grad = torch.ones(4)
        refused(chain.step, each.__name__, "gradient")


def test_a_block_that_asks_if_of_a_tensor():
    @optim.block()
    def curious(t, update):
        return update if update.tensor() else -update

    chain = optim.Chain([p := vector()], curious(), lr=0.1)
    p.grad = torch.ones(4)
    refused(chain.step, "curious", "traced=False")


@pytest.mark.parametrize(("make", "words"), [
    (lambda p: optim.lion(p), ["lion, decay", "adam, decay"]),
    (lambda p: torch.optim.SGD(p, momentum=0.9), ["momentum_buffer", "another optimizer"]),
])  # fmt: skip
def test_a_state_of_another_chain(make, words):
    one, two = vector(), vector()
    other = make([one])
    one.grad = torch.ones(4)
    other.step()
    chain = optim.adamw([two])
    refused(lambda: chain.load_state_dict(other.state_dict()), *words)
    refused(lambda: optim.adamw([two, vector()]).load_state_dict(other.state_dict()), "[1]", "[2]")


def test_an_order_that_is_unusual_is_told(caplog):
    optim.Chain([vector()], optim.decay(0.1), optim.adam(), lr=1.0)
    assert "decay comes before the moments" in caplog.text
    optim.Chain([vector()], optim.adam(), optim.l2(0.1), lr=1.0)
    assert "coupled decay (l2) comes after" in caplog.text
