"""`trainbus demo tables`: which penguin it is, beside the classical answers."""

from __future__ import annotations

from pathlib import Path

from trainbus import UsageError


def train(run_dir: str, seed: int, epochs: int = 15) -> None:
    """Learn the species of penguins from a table that a package carries, and ask about one.

    Args:
        run_dir: where the run goes.
        seed: of the network and the order of rows.
        epochs: passes over the data.
    """
    try:
        import palmerpenguins  # type: ignore[import-untyped]
    except ImportError:
        raise UsageError(
            "the demo needs the data of a package: pip install 'trainbus-tabular[demo]'"
        ) from None
    from trainbus.storage.files import replacing, shown
    from trainbus_learner import load
    from trainbus_tabular import TabularLearner, table

    source = Path(palmerpenguins.__file__).parent / "data" / "penguins.csv"
    data = table(source, target="species")
    print(data.summary())
    learner = TabularLearner(data, seed=seed, run_dir=run_dir)
    learner.fit_one_cycle(epochs)
    print(learner.baselines())
    run = learner.run
    assert run is not None and run.dir is not None
    try:
        figures = {
            "importance": learner.importance().plot(),
            "confusion": learner.interpret().plot_confusion_matrix(),
        }
        for name, figure in figures.items():
            with replacing(run.dir / f"{name}.png") as beside:
                figure.savefig(beside, format="png")
        pictures = ", importance.png, confusion.png"
    except UsageError:  # without matplotlib
        pictures = ""
    exported = learner.export(run.dir / "model")
    row = {
        "island": "Biscoe", "bill_length_mm": 47.5, "bill_depth_mm": 14.2,
        "flipper_length_mm": 219.0, "body_mass_g": 5100, "sex": "male", "year": 2009,
    }  # fmt: skip
    print(f"loaded again from {shown(exported)}: {load(exported).predict(row)}")
    print(f"look at {shown(run.dir)}{pictures}")
