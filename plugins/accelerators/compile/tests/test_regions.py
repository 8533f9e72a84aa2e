"""What is compiled, by itself and by name."""

import logging

import pytest
import torch
from torch import nn

from trainbus import PluginError, Trainer
from trainbus_compile import Compile


def fit(task, batches, **options):
    run = Trainer(plugins=[Compile(backend="eager", **options)]).fit(task, batches)
    return run.header["compile"]


def regions(header):
    return header.partition(" by ")[0]


def test_each_module_of_the_task_is_compiled(make_net, batches):
    task = make_net()
    task.loss = nn.CrossEntropyLoss()
    task.unused = nn.ModuleDict({"a": nn.Linear(1, 1)})
    assert regions(fit(task, batches)) == "net, unused.a"


def test_a_task_without_modules_is_compiled_itself(make_net, batches):
    class Alone(type(make_net())):
        def __init__(self):
            super().__init__()
            del self.net
            self.weight = nn.Parameter(torch.ones(4, 3))

        def forward(self, inputs):
            return inputs @ self.weight

        def training_step(self, batch, run):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

    header = fit(Alone(), batches)
    assert header.startswith(". by eager: 1 compiled")


def test_repeated_blocks_are_compiled_once(make_net, make_deep, batches):
    """Once for the first block, whose input needs no gradient, and once for the others."""
    few, many = (fit(make_net(make_deep(n)), batches, regions="auto") for n in (4, 12))
    assert few.startswith("net.blocks (4 modules) by eager: 2 compiled")
    assert many.startswith("net.blocks (12 modules) by eager: 2 compiled")


def test_names_choose_regions(make_net, make_deep, batches):
    header = fit(make_net(make_deep()), batches, regions=["net.blocks.*", "net.head"])
    assert regions(header) == "net.blocks.* (4 modules), net.head"


def test_a_module_inside_a_region_is_no_region(make_net, make_deep, batches):
    assert regions(fit(make_net(make_deep()), batches, regions=["net", "net.head"])) == "net"


def test_a_name_may_be_one_of_a_list_of_modules(make_net, make_deep, batches):
    header = fit(make_net(make_deep()), batches, regions="net.blocks")
    assert regions(header) == "net.blocks (4 modules)"


def test_modules_of_other_classes_have_code_of_their_own(make_net, batches):
    header = fit(make_net(), batches, regions=["net.*"])
    assert regions(header) == "net.* (2 modules), net.*:Tanh"


def test_an_unknown_region_names_the_nearest_and_those_there_are(make_net, make_deep, batches):
    with pytest.raises(PluginError) as caught:
        fit(make_net(make_deep()), batches, regions=["net.blokcs"])
    message = str(caught.value)
    assert "'compile' (trainbus-compile)" in message
    assert "the region 'net.blokcs' is no module of Net; did you mean 'net.blocks'?" in message
    assert "'net', 'net.blocks', 'net.head'" in message


def test_blocks_that_are_not_there_are_told(make_net, batches):
    with pytest.raises(PluginError, match=r"no repeated blocks in Net: .* '\.', 'net', 'net\.0'"):
        fit(make_net(), batches, regions="auto")


def test_a_module_that_is_never_called_is_named(make_net, batches, caplog):
    caplog.set_level(logging.WARNING, "trainbus")

    class Sideways(type(make_net())):
        def training_step(self, batch, run):
            return nn.functional.cross_entropy(self.net[0](batch[0]), batch[1])

    task = Sideways(nn.Sequential(nn.Linear(4, 3)))
    Trainer(epochs=2, plugins=[Compile(backend="eager")]).fit(task, batches)
    (message,) = caplog.messages
    assert "nothing is compiled of net, which was not called" in message


def test_options_can_be_given_in_a_file(tmp_path, make_net, batches):
    (tmp_path / "trainbus.toml").write_text(
        '[options.compile]\nregions = "net"\nbackend = "eager"\nmode = "default"\ndynamic = true\n'
    )
    header = Trainer(plugins=["compile"]).fit(make_net(), batches).header["compile"]
    assert header.startswith("net by eager, mode default: 1 compiled")
