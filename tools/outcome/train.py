"""Train the head of the outcome classifier, and say how good it is on templates it has not seen.

python -m tools.outcome.train              trains and writes the head (three minutes on one core)
python -m tools.outcome.train --validate   also cross-validates by template (one minute more)
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.transcription.features import SIZE, features
from app.transcription.outcome import CLASSES, CONNECTED, OUTCOMES, UNSURE
from tools.outcome import corpus

SEED = 17
COPIES = 4
FOLDS = 6
RIDGE = 1.0
SHARPNESS = 10.0
"""The scale of the scores at which cross-validation has the least log loss."""
HEAD = Path("app/transcription/outcome_head.npz")

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


def digest(made: list[corpus.Dialogue]) -> str:
    """SHA-256 of everything that the head is made from: the dialogues, how they are read, and the settings above."""
    parts = [f"{SEED} {COPIES} {RIDGE} {SHARPNESS}".encode()]
    parts += [(Path("app/transcription") / f"{name}.py").read_bytes() for name in ("features", "romanize")]
    parts += [f"{one.template.outcome} {one.turns}".encode() for one in made]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def dialogues() -> list[corpus.Dialogue]:
    """What the head is trained on. Rules decide empty lines."""
    made = corpus.dialogues(copies=COPIES, seed=SEED)
    return [one for one in made if one.template.outcome != "no_conversation"]


def softmax(scores: Floats) -> Floats:
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Floats = exponents / exponents.sum(axis=1, keepdims=True)
    return result


def train(inputs: Floats, labels: Numbers, classes: int) -> tuple[Floats, Floats]:
    """Ridge regression on each class, solved exactly in its dual form. Returns weights, features × classes, and biases.
    They are scaled so that a softmax of the scores says how sure they are."""
    kernel = (inputs @ inputs.T).astype(np.float64) + 1.0
    kernel[np.diag_indices_from(kernel)] += RIDGE
    dual = np.linalg.solve(kernel, np.eye(classes)[labels]) * SHARPNESS
    return (inputs.T @ dual).astype(np.float32), dual.sum(axis=0).astype(np.float32)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--validate", action="store_true")
    validate = parser.parse_args().validate
    made = dialogues()
    names = sorted({one.template.outcome for one in made})
    labels = np.array([names.index(one.template.outcome) for one in made])
    inputs = np.zeros((len(made), SIZE), np.float32)
    for place, one in enumerate(made):
        inputs[place] = features(one.turns)
    used = np.flatnonzero(inputs.any(axis=0))
    inputs = inputs[:, used]
    print(f"{len(made)} dialogues of {len({one.template.name for one in made})} templates, {len(names)} classes")

    figures = cross_validate(made, inputs, labels, names) if validate else None
    weights, bias = train(inputs, labels, len(names))
    full = np.zeros((SIZE, len(names)), np.float32)
    full[used] = weights
    meta = json.dumps({"classes": names, "corpus": digest(made), "seed": SEED, "validated": figures})
    np.savez_compressed(HEAD, weights=full.astype(np.float16), bias=bias, meta=np.array(meta))
    print(f"wrote {HEAD}: {HEAD.stat().st_size // 1000} kB")


def cross_validate(made: list[corpus.Dialogue], inputs: Floats, labels: Numbers, names: list[str]) -> dict[str, float]:
    """Train on five sixths of the templates and test on the others, six times. Prints the confusion matrix of the
    default outcomes. Returns the share that is right, of the default outcomes and of the classes."""
    groups = sorted({one.template.name for one in made})
    np.random.default_rng(SEED).shuffle(groups)
    fold_of = {name: place % FOLDS for place, name in enumerate(groups)}
    folds = np.array([fold_of[one.template.name] for one in made])
    guessed = np.zeros((len(made), len(names)), np.float32)
    for fold in range(FOLDS):
        weights, bias = train(inputs[folds != fold], labels[folds != fold], len(names))
        guessed[folds == fold] = softmax(inputs[folds == fold] @ weights + bias)
    outcomes = [CLASSES[name][0] for name in names]
    shown = [outcome for outcome in OUTCOMES if outcome in outcomes]
    shares = np.stack([guessed[:, [one == outcome for one in outcomes]].sum(axis=1) for outcome in shown], axis=1)
    answered = shares.argmax(axis=1)
    answered[shares.max(axis=1) < UNSURE] = shown.index(CONNECTED)
    wanted = np.array([shown.index(outcomes[label]) for label in labels])
    print("rows: expected, columns: answered, in this order")
    for row, outcome in enumerate(shown):
        counts = np.bincount(answered[wanted == row], minlength=len(shown))
        print(f"{outcome:20s}", *(f"{count:5d}" for count in counts))
    for least in (0.0, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6):
        cautious = np.where(shares.max(axis=1) < least, shown.index(CONNECTED), shares.argmax(axis=1))
        kept = cautious != shown.index(CONNECTED)
        print(f"least certainty {least}: right {(cautious == wanted).mean():.3f}, ", end="")
        print(f"of those that are not {CONNECTED} {(cautious == wanted)[kept].mean():.3f}")
    for scale in (0.7, 1.0, 1.4):
        sure = softmax((np.log(guessed) * scale).astype(np.float32))[np.arange(len(labels)), labels]
        print(f"log loss at sharpness {SHARPNESS * scale:.1f}: {-np.log(sure).mean():.3f}")
    figures = {
        "outcomes": round(float((answered == wanted).mean()), 3),
        "classes": round(float((guessed.argmax(axis=1) == labels).mean()), 3),
    }
    print("right on templates that were left out:", figures)
    return figures


if __name__ == "__main__":
    main()
