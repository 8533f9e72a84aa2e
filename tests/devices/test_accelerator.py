"""The contract of a device: what each method does by default, the choice, and its errors."""

import pytest
import torch
from torch import nn

from trainbus import Accelerator, Trainer, UsageError, hookimpl
from trainbus.engine.choice import Current, choose


class Toy(Accelerator):
    """The CPU under another name."""

    def __init__(self, name="toy", priority=50, reason=None):
        super().__init__("cpu")
        self.name, self.priority, self.reason = name, priority, reason

    def unavailable(self):
        return self.reason


class Offers:
    """A plugin with an accelerator."""

    def __init__(self, accelerator):
        self.accelerator = accelerator

    @hookimpl
    def provide_accelerator(self):
        return self.accelerator


def fails(message):
    return pytest.raises(UsageError, match=message)


# --- what each method does on the CPU ------------------------------------------------------------


@pytest.fixture
def cpu():
    return Accelerator()


def test_the_cpu_is_one_device_that_is_there(cpu):
    assert (cpu.name, cpu.device, cpu.priority) == ("cpu", torch.device("cpu"), 0)
    assert cpu.unavailable() is None
    assert cpu.device_count() == 1


@pytest.mark.parametrize("index", [None, 0])
def test_selecting_the_cpu_changes_nothing(cpu, index):
    cpu.select(index)
    assert cpu.device == torch.device("cpu")


def test_the_cpu_has_no_second_index(cpu):
    with fails(r"devices=\[3\]: the CPU is one device, with index 0"):
        cpu.select(3)


def test_processes_of_one_machine_share_the_cpu(cpu):
    cpu.select_for_rank(3)
    assert cpu.device == torch.device("cpu")


def test_processes_of_the_cpu_talk_by_gloo(cpu):
    assert cpu.process_group_backend() == "gloo"


def test_modules_batches_and_loaders_of_the_cpu_stay_as_they_are(cpu):
    module, batch, loader = nn.Linear(2, 2), {"x": [torch.ones(2)], "text": "a"}, [1, 2]
    assert cpu.place_module(module) is module
    assert cpu.place_batch(batch) is batch
    assert cpu.wrap_loader(loader) is loader


def test_random_states_are_put_back(cpu):
    state = cpu.random_state()
    drawn = torch.rand(3)
    cpu.set_random_state(state)
    assert torch.equal(torch.rand(3), drawn)


def test_the_cpu_computes_in_each_type_that_it_names(cpu):
    assert torch.float32 in cpu.dtypes()
    for dtype in cpu.dtypes():
        assert (torch.ones(2, 2, dtype=dtype) @ torch.ones(2, 2, dtype=dtype)).dtype == dtype


def test_autocast_computes_in_the_type(cpu):
    with cpu.autocast(torch.bfloat16):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16
    assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32


def test_each_scaler_is_new_and_scales(cpu):
    scaler = cpu.scaler()
    assert scaler.is_enabled()
    assert scaler.scale(torch.ones(())) == scaler.get_scale() > 1
    assert cpu.scaler() is not scaler


def test_a_boundary_means_nothing_to_the_cpu(cpu):
    for boundary in ("micro_step", "optimizer_step", "log", "save"):
        assert cpu.step_boundary(boundary) is None


def test_code_for_the_cpu_is_compiled_by_inductor(cpu):
    assert cpu.compile_backend() == "inductor"
    assert cpu.compile_backend() in torch.compiler.list_backends()


def test_nobody_knows_how_fast_a_cpu_is(cpu):
    assert cpu.peak_flops(torch.float32) is None


def test_the_memory_of_the_cpu_is_that_of_the_process(cpu):
    stats = cpu.memory_stats()
    assert 2**20 < stats["allocated"] <= stats["peak"] * 1.1


def test_waiting_and_freeing_are_nothing_on_the_cpu(cpu):
    assert cpu.synchronize() is None
    assert cpu.free_memory() is None


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] not enough memory"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
    ids=str,
)
def test_what_counts_as_out_of_memory(cpu, error, is_one):
    assert cpu.is_out_of_memory(error) is is_one


def test_a_real_allocation_that_fails_counts(cpu):
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert cpu.is_out_of_memory(raised.value)


# --- other devices that torch knows --------------------------------------------------------------


@pytest.mark.parametrize("device", ["xpu", "hpu", "mtia"])
def test_a_device_that_torch_does_not_find_says_so(device):
    assert f"finds no {device} device" in Accelerator(device).unavailable()


def test_what_torch_reports_is_either_there_or_says_why_not():
    current = Current()
    there = torch.accelerator.is_available() or current.device.type == "cpu"
    assert (current.unavailable() is None) == there


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="torch finds no accelerator here")
def test_the_defaults_hold_on_the_device_that_torch_reports():
    current = Current()
    current.select(None)
    weight = current.place_module(nn.Linear(2, 2)).weight
    batch = current.place_batch({"x": (torch.ones(2, 2), ["text"])})
    assert weight.device == batch["x"][0].device == current.device
    current.synchronize()
    assert current.memory_stats()["peak"] > 0
    assert torch.float32 in current.dtypes()
    with fails(r"devices=\[999\]"):
        current.select(999)
    with fails("start one process for each device"):
        current.select_for_rank(999)


# --- the choice ----------------------------------------------------------------------------------


def test_auto_takes_the_highest_priority_and_names_the_others():
    best, why = choose("auto", [Toy("slow", 20), Toy("fast", 90)])
    assert best.name == "fast"
    assert why.startswith("auto, before cpu, ")
    assert "slow" in why


def test_auto_leaves_out_what_is_not_available_and_says_why():
    best, why = choose("auto", [Toy("slow", 20), Toy("fast", 90, reason="no driver")])
    assert best.name == "slow"
    assert why.endswith("; fast is not available: no driver")


def test_a_priority_below_that_of_the_cpu_is_taken_by_name_only():
    toy = Toy(priority=-1)
    assert choose("auto", [toy])[0] is not toy
    assert choose("toy", [toy]) == (toy, "asked for by name")


def test_a_plugin_takes_the_place_of_what_the_core_has_of_its_name():
    toy = Toy("cpu", priority=0)
    assert choose("cpu", [toy])[0] is toy


def test_an_object_is_taken_as_it_is():
    toy = Toy()
    assert choose(toy, []) == (toy, "given as an object")


def test_the_header_says_which_and_why(line, loader):
    run = Trainer(plugins=[Offers(Toy(reason="no toy in this box"))]).fit(line, loader)
    assert run.header["device"].endswith("; toy is not available: no toy in this box)")
    run = Trainer(plugins=[Offers(Toy())]).fit(line, loader)
    assert run.header["device"].startswith("toy, cpu (auto, before ")
    assert run.accelerator.name == "toy"


@pytest.mark.parametrize("wanted", ["toy", Toy(reason="no driver")], ids=["name", "object"])
def test_what_is_asked_for_and_not_available_is_an_error_with_the_reason(wanted):
    message = r"accelerator='toy' is not available: no driver\. Available: .*cpu"
    with fails(message) as raised:
        choose(wanted, [Toy(reason="no driver")])
    assert "toy" not in str(raised.value).partition("Available: ")[2]


def test_an_unknown_name_names_the_nearest_and_the_available():
    message = r"accelerator='toi' is not known here; did you mean 'toy'\? Available: cpu.*, toy"
    with fails(message):
        choose("toi", [Toy()])


def test_the_name_of_a_plugin_that_is_installed_and_not_active():
    with fails(r"the plugin of that name \(trainbus .*\) is not active: plugins=\['ema'\]"):
        choose("ema", [])


def test_the_name_of_a_known_plugin_that_is_not_installed(monkeypatch):
    from trainbus.engine import choice

    monkeypatch.setattr(choice, "known_distributions", lambda: {"tpu": "trainbus-tpu"})
    with fails(r"accelerator='tpu' is not known here; .* pip install trainbus-tpu"):
        choose("tpu", [])


def test_two_plugins_with_one_name_are_both_named():
    class Other(Toy):
        pass

    with fails(r"two plugins offer the accelerator 'toy': .*\.Toy and .*\.Other; switch one off"):
        choose("auto", [Toy(), Other()])


@pytest.mark.parametrize("wanted", [None, 3, torch.device("cpu")], ids=str)
def test_what_is_no_name_is_refused(wanted):
    with fails("give a name, 'auto', or an Accelerator"):
        choose(wanted, [])


def test_what_is_no_accelerator_is_refused():
    with fails("provide_accelerator returned 'cuda'; return a trainbus.Accelerator or None"):
        choose("auto", ["cuda"])


def test_a_plugin_may_offer_nothing(line, loader):
    assert Trainer(plugins=[Offers(None)]).fit(line, loader).status == "completed"


def test_nothing_is_left_when_a_plugin_takes_the_cpu_away(monkeypatch):
    with fails("accelerator='auto': cpu is not available: on strike"):
        # What torch may report here is taken away, too.
        taken = {"cpu", Current().name}
        choose("auto", [Toy(name, reason="on strike") for name in sorted(taken)])


# --- where steps end -----------------------------------------------------------------------------


class Lazy(Toy):
    """A device that wants to know where steps end."""

    def __init__(self):
        super().__init__()
        self.told = []

    def step_boundary(self, boundary):
        self.told.append(boundary)


def test_each_boundary_is_told_in_order(make_line, make_loader):
    lazy = Lazy()
    trainer = Trainer(accelerator=lazy, accumulate=2, plugins=["checkpoint", "-nonfinite"])
    trainer.fit(make_line(), make_loader(4), make_loader(1))
    steps = [boundary for boundary in lazy.told if boundary != "log"]
    assert steps[:4] == ["micro_step", "optimizer_step"] * 2
    assert steps[4:] == ["micro_step", "save"], "a batch of validation, and what is saved after it"


def test_what_is_logged_is_fetched_after_its_boundary(make_line, make_loader):
    lazy = Lazy()
    trainer = Trainer(accelerator=lazy, plugins=["-nonfinite"])
    trainer.on("train_batch_end")(lambda run: run.metrics)
    trainer.on("metrics")(lambda step: lazy.told.append(step))
    trainer.fit(make_line(), make_loader(2))
    assert lazy.told[:6] == ["log", 1, "optimizer_step", "log", 2, "optimizer_step"]


def test_a_loop_of_ones_own_has_the_same_boundaries(make_line, loader):
    lazy, task = Lazy(), make_line()
    with Trainer(accelerator=lazy).open(task) as run:
        for batch in run.batches(loader, epochs=1):
            run.step(task.training_step(batch, run))
    assert lazy.told.count("optimizer_step") == 5


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_batches_of_other_passes_are_micro_steps(make_line, loader, verb):
    lazy = Lazy()

    class Tested(make_line):
        def test_step(self, batch, run):
            return self.validation_step(batch, run)

    getattr(Trainer(accelerator=lazy), verb)(Tested(), loader)
    assert [boundary for boundary in lazy.told if boundary != "log"] == ["micro_step"] * 5


def test_what_does_not_want_to_know_is_not_registered(line, loader):
    registered = []
    for accelerator in (Toy(), Lazy()):
        trainer = Trainer(accelerator=accelerator)
        trainer.on("fit_start")(lambda run: registered.append("accelerator" in run.bus.plugins))
        trainer.fit(line, loader)
        assert "accelerator" not in trainer.bus.plugins, "it is gone after the run"
    assert registered == [False, True]
