"""What is computed: in the type that was asked for, and nearly what float32 gives."""

import pytest
import torch


def final_loss(trainer, task, batches):
    return trainer.fit(task, batches).metrics["train/loss_epoch"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("accumulate", [1, 5])
def test_the_loss_is_nearly_that_of_fp32(trainer, make_task, batches, precision, accumulate):
    """After five epochs from the same seeds, also with windows the last of which is short.

    The first step of fp16 overflows with the scale that torch begins with.
    """
    options = {"epochs": 5, "accumulate": accumulate, "clip_norm": 1.0}
    expected = final_loss(trainer("fp32", **options), make_task(), batches)
    got = final_loss(trainer(precision, **options), make_task(), batches)
    assert got == pytest.approx(expected, abs=0.02)
    assert got != expected


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_each_kind_of_step_computes_in_it(trainer, task, batches, precision, dtype):
    """Training, validation, test and prediction; the weights stay in float32."""
    runner = trainer(precision)
    runner.fit(task, batches[:1], batches[:1])
    runner.test(task, batches[:1])
    list(runner.predict(task, batches[:1]))
    assert task.seen == [dtype] * 4
    assert {p.dtype for p in task.parameters()} == {torch.float32}


def test_bf16_is_autocast_written_by_hand(trainer, make_task, batches):
    """The weights are those of a loop with `torch.autocast`, to the last bit."""
    task = make_task()
    trainer("bf16", epochs=2).fit(task, batches)
    same = make_task()
    torch.manual_seed(3)
    optimizer = same.configure_optimizer()
    for _ in range(2):
        for inputs, target in batches:
            with torch.autocast("cpu", torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(same(inputs), target)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    for here, there in zip(task.parameters(), same.parameters(), strict=True):
        assert torch.equal(here, there)


def test_fp16_is_a_scaler_written_by_hand(trainer, amp, make_task, batches, quick):
    """Weights and scale are those of a loop with `GradScaler`, overflows and growth included."""
    task, runner = make_task(), trainer("fp16", epochs=2, accelerator=quick)
    run = runner.fit(task, batches)
    same, scaler = make_task(), quick.scaler()
    torch.manual_seed(3)
    optimizer = same.configure_optimizer()
    for _ in range(2):
        for inputs, target in batches:
            with torch.autocast("cpu", torch.float16):
                loss = torch.nn.functional.cross_entropy(same(inputs), target)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert run.skipped_steps > 0
    assert amp(runner).state_dict()["scaler"] == scaler.state_dict()
    for here, there in zip(task.parameters(), same.parameters(), strict=True):
        assert torch.equal(here, there)


def test_the_body_of_an_own_loop_computes_in_it(trainer, task, batches):
    """Between the batch and `run.step`, and in `evaluation_batches`; not after them."""
    optimizer = task.configure_optimizer()
    net = task.net
    types = []
    with trainer("bf16").open(net, optimizer) as run:
        for epoch in run.epochs(1):
            assert epoch == 0
            for inputs, target in run.batches(batches[:2]):
                output = net(inputs)
                types.append(output.dtype)
                run.step(torch.nn.functional.cross_entropy(output, target))
                assert not torch.is_autocast_enabled("cpu")
            for inputs, _ in run.evaluation_batches(batches[:1]):
                types.append(net(inputs).dtype)
    assert types == [torch.bfloat16] * 3


def test_autocast_ends_with_a_step_that_fails(trainer, task, batches):
    """An error in the step leaves autocast off."""
    task.training_step = lambda batch, run: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer("bf16").fit(task, batches)
    assert not torch.is_autocast_enabled("cpu")


def test_the_option_and_the_default(trainer, task, batches):
    """The plugin's option counts where the trainer says nothing; without both it is bf16."""
    from trainbus_amp import AMP

    assert trainer(None).fit(task, batches).precision == "bf16"
    run = trainer(None, amp=AMP(precision="fp16")).fit(task, batches)
    assert run.header["precision"] == "fp16 (autocast to float16, scaled gradients)"
