"""Texts beside the classical answers: `python benchmarks/text.py --data DIR [NAME ...]`.

DIR has the folders rt-polarity, banking77 and tinyshakespeare. NAMEs: reviews (ten folds), intents,
language (`--epochs` of tiny-shakespeare), encoding, cache, step, importing; all by default.
Networks have their defaults; the baselines are fitted in the same run to the same texts.
"""

import argparse
import logging
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean

import torch

from trainbus_text import GPT, LanguageLearner, Subwords, TextLearner, text_file, text_table
from trainbus_text.generator import LanguagePredictor

QUIET = ["-progress", "-journal", "-manifest"]


def reviews(folder, options):
    """Ten folds, as scikit-learn draws them."""
    from sklearn.model_selection import StratifiedKFold

    rows = [
        {"text": line.rstrip("\n"), "label": label}
        for label in ("pos", "neg")
        for line in (folder / "rt-polarity" / f"rt-polarity.{label}").open(encoding="utf-8")
    ]
    labels = [row["label"] for row in rows]
    folds = StratifiedKFold(10, shuffle=True, random_state=0).split(rows, labels)
    found, seconds = [], []
    for number, (train, test) in enumerate(folds):
        begun = time.perf_counter()
        data = text_table([rows[i] for i in train], "text", "label", valid=[rows[i] for i in test])
        learner = TextLearner(data, seed=0, plugins=QUIET)
        learner.fit_one_cycle(6)
        seconds.append(time.perf_counter() - begun)
        found.append(learner.validate()["accuracy"])
        if number == 0:
            print(learner.baselines())
    print(f"ten folds: accuracy {fmean(found):.4f}, {fmean(seconds):.1f} s a fold")


def intents(folder, options):
    """The official test part as validation, which nothing is chosen by."""
    source = folder / "banking77"
    begun = time.perf_counter()
    data = text_table(source / "train.csv", "text", "category", valid=source / "test.csv")
    learner = TextLearner(data, seed=0, plugins=QUIET)
    learner.fit_one_cycle(12)
    print(f"{time.perf_counter() - begun:.1f} s, padding {learner.data.train.padded_part():.1%}")
    print(learner.baselines())


def language(folder, options):
    """Tiny-shakespeare, the last tenth, all of it."""
    data = text_file(folder / "tinyshakespeare" / "input.txt", batch_size=8)
    learner = LanguageLearner(data, seed=0, plugins=QUIET)
    cpu = time.process_time()
    learner.fit_one_cycle(options.epochs)
    print(f"{options.epochs} epochs, {time.process_time() - cpu:.0f} CPU s")
    print(learner.baselines())
    print(learner.generate("ROMEO:", 300, temperature=0.8, seed=0))


def encoding(folder, options):
    """Pieces a second, beside the library alone; best of five each, taking turns."""
    text = (folder / "tinyshakespeare" / "input.txt").read_text()
    texts = [line for line in text.splitlines() if line]
    tokens = Subwords("bpe", 4096).fit(texts)
    from tokenizers import Tokenizer

    bare = Tokenizer.from_str(tokens.json)
    ours, theirs = [], []
    for _ in range(5):
        begun = time.process_time()
        count = len(tokens.encode_all(texts)[0])
        ours.append(time.process_time() - begun)
        begun = time.process_time()
        bare.encode_batch_fast(texts, add_special_tokens=False)
        theirs.append(time.process_time() - begun)
    print(f"{count / min(ours):,.0f} tokens/s, {min(theirs) / min(ours):.1%} of tokenizers alone")


def cache(folder, options):
    """512 tokens with what was computed kept, and without."""
    from trainbus_text.corpus import LanguageRecipe
    from trainbus_text.tokens import Characters

    tokens = Characters("abcdefghijklmnopqrstuvwxyz \n")
    model = GPT(tokens.size, context=520).eval()
    predictor = LanguagePredictor(model, LanguageRecipe(tokens, 520))
    found = {}
    for use in (True, False):
        begun = time.process_time()
        text = predictor.generate("a", 511, seed=0, use_cache=use)
        found[use] = (time.process_time() - begun, text)
    with_it, without = found[True][0], found[False][0]
    same = found[True][1] == found[False][1]
    print(f"{with_it:.2f} s and {without:.2f} s: {without / with_it:.1f} times; same: {same}")


def step(folder, options):
    """One step of the learner, and of a loop by hand with the same model and batches."""
    data = text_file(folder / "tinyshakespeare" / "input.txt", batch_size=8)
    data = data.with_batch_size(8)
    data.train.dataset.parts = (data.train.dataset.parts[0][:320],)
    found = {"learner": [], "by hand": []}
    for _ in range(3):
        learner = LanguageLearner(data, seed=0, plugins=[*QUIET, "-nonfinite"])
        data.valid, learner.source.valid = None, None
        begun = time.process_time()
        learner.fit_one_cycle(1)
        found["learner"].append(time.process_time() - begun)
        model = LanguageLearner(data, seed=0, plugins=QUIET).model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
        begun = time.process_time()
        for tokens, wanted in data.train:
            output = model(tokens)
            loss = torch.nn.functional.cross_entropy(output.flatten(0, 1), wanted.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found["by hand"].append(time.process_time() - begun)
    best = {name: min(values) for name, values in found.items()}
    print({name: round(value, 2) for name, value in best.items()}, "CPU s for 40 steps")
    print(f"{best['learner'] / best['by hand']:.3f} times a loop by hand")


def importing(folder, options):
    """What the package costs over torch; best of five, in processes of their own."""
    code = "import time, torch; t = time.process_time(); {}; print(time.process_time() - t)"
    asked = "from trainbus_text import TextLearner, LanguageLearner"
    learner = "from trainbus_learner import Learner"
    for said in (learner, f"{learner}; {asked}"):
        made = [
            float(subprocess.check_output([sys.executable, "-c", code.format(said)]))
            for _ in range(5)
        ]
        print(f"{said}: {min(made):.3f} CPU s over torch")


NAMES = {
    "reviews": reviews, "intents": intents, "language": language, "encoding": encoding,
    "cache": cache, "step": step, "importing": importing,
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NAMES), metavar="NAME")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    logging.getLogger("trainbus").setLevel(logging.ERROR)
    for name in options.names:
        print(f"--- {name}")
        NAMES[name](options.data, options)


if __name__ == "__main__":
    main()
