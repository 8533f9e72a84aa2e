"""`trainbus demo text`: writes on what Python's own manual says, and tells which topic it is."""

from __future__ import annotations

from pathlib import Path


def train(run_dir: str, seed: int, epochs: int = 2) -> None:
    """Learn the language of Python's manual, which every interpreter carries, and write it on.

    Args:
        run_dir: where the runs go.
        seed: of the networks and the order of texts.
        epochs: passes over the manual.
    """
    from pydoc_data.topics import topics

    from trainbus.storage.files import replacing, shown
    from trainbus_learner import load
    from trainbus_text import LanguageLearner, TextLearner, text_file, text_table

    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    manual = folder / "manual.txt"
    with replacing(manual) as beside:
        beside.write_text("\n\n".join(topics[name] for name in sorted(topics))[:110_000], "utf-8")
    network = {"width": 96, "layers": 2, "heads": 4, "buckets": 1 << 12, "ngram_width": 48}
    learner = LanguageLearner(
        text_file(manual, context=96, batch_size=8), network=network, seed=seed, run_dir=run_dir
    )
    learner.fit_one_cycle(epochs)
    print(learner.baselines())
    run = learner.run
    assert run is not None and run.dir is not None
    exported = learner.export(run.dir / "model")
    prompt = "The best way to write a function is"
    print(f"written on by {shown(exported)}, loaded again:\n{prompt}", end="")
    for piece in load(exported).stream(prompt, 60, temperature=0.7, seed=seed):  # type: ignore[attr-defined]
        print(piece, end="", flush=True)
    print()
    rows = [
        {"text": line.strip(), "topic": name}
        for name in ("strings", "numbers", "lambda", "while", "import", "class", "with", "debugger")
        for line in topics.get(name, "").splitlines()
        if len(line) > 30
    ]
    classifier = TextLearner(text_table(rows, "text", "topic"), seed=seed, run_dir=run_dir)
    classifier.fit_one_cycle(8)
    print(classifier.baselines())
    for text in ("set a breakpoint and step", "a floating point literal", "from package get name"):
        print(f"{text!r}: {classifier.predict(text)}")
