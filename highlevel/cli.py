"""The command line: `highlevel demo | fine-tune | predict | zoo | doctor`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from highlevel import __version__
from highlevel.errors import ArgumentError, HighlevelError


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(prog="highlevel", description="Deep learning at a high level.")
    parser.add_argument("--version", action="version", version=f"highlevel {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="fine-tune a pretrained network on pictures, write a report; some minutes")
    demo.add_argument(
        "--output", type=Path, default=Path("highlevel-demo"), help="folder for pictures, report and model"
    )
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--quiet", action="store_true", help="no progress bars")
    demo.set_defaults(run=_demo)

    tune = commands.add_parser(
        "fine-tune", help="teach a pretrained network your classes: a folder with one sub-folder per class"
    )
    tune.add_argument("directory", type=Path)
    tune.add_argument("--output", type=Path, default=Path("fine-tuned"), help="folder for report and model")
    tune.add_argument("--network", default="efficientnet_lite0", help="name in the zoo")
    tune.add_argument("--input-size", type=_positive, default=None, help="side of the pictures that the network sees")
    tune.add_argument("--head-epochs", type=_count, default=20)
    tune.add_argument("--epochs", type=_count, default=3, help="epochs with all layers")
    tune.add_argument("--batch-size", type=_positive, default=16)
    tune.add_argument("--validation", type=float, default=0.2, help="part held out where the folder is not divided")
    tune.add_argument("--on-bad", choices=("error", "skip"), default="error", help="what to do with damaged pictures")
    tune.add_argument("--seed", type=int, default=0)
    tune.add_argument("--quiet", action="store_true", help="no progress bars")
    tune.set_defaults(run=_fine_tune)

    predict = commands.add_parser("predict", help="classify pictures with a saved model or a network of the zoo")
    predict.add_argument("model", help="a .keras file, or the name of a network of the zoo")
    predict.add_argument("images", nargs="+", type=Path)
    predict.add_argument("--top", type=_positive, default=3, help="how many classes to print")
    predict.set_defaults(run=_predict)

    zoo = commands.add_parser("zoo", help="list the networks and their weights")
    zoo.set_defaults(run=_zoo)
    doctor = commands.add_parser("doctor", help="what this machine has, and what is missing")
    doctor.set_defaults(run=_doctor)
    return parser


def _count(text: str, least: int = 0) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"{number} is less than {least}")
    return number


def _positive(text: str) -> int:
    return _count(text, least=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; errors of use print in a few lines and return 1."""
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except (HighlevelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _demo(options: argparse.Namespace) -> None:
    from highlevel.demo import run_demo

    result = run_demo(options.output, seed=options.seed, verbose=0 if options.quiet else "auto")
    print(
        f"\nsimple statistics {result.statistics_accuracy:.2f} · from random weights {result.from_random:.2f} · ",
        end="",
    )
    print(f"fine-tuned {result.after:.2f} (before {result.before:.2f}), in {result.elapsed_s:.0f} s")
    print(f"report: {result.report}\nmodel:  {result.model}")


def _fine_tune(options: argparse.Namespace) -> None:
    from highlevel.data.images import scan_image_folder
    from highlevel.demo import make_report, predict
    from highlevel.random import set_random_seed
    from highlevel.transfer.finetune import finetune, split_data
    from highlevel.zoo import create

    set_random_seed(options.seed)
    folder = scan_image_folder(options.directory, on_bad=options.on_bad)
    print(folder.describe())
    options.output.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    net = create(options.network, weights="imagenet", input_size=options.input_size)
    assert net.preprocessing is not None
    test = folder.test if folder.validation is None else None
    train, held_out = split_data(folder, test, options.validation, net.preprocessing, None, options.seed)
    tuned = finetune(
        net,
        train,
        validation=held_out,
        epochs=(options.head_epochs, options.epochs),
        batch_size=options.batch_size,
        seed=options.seed,
        verbose=0 if options.quiet else "auto",
    )
    model_path = options.output / "model.keras"
    net.save(model_path)
    judged = held_out or train
    probabilities = predict(net, judged)
    right = float((probabilities.argmax(axis=-1) == judged.labels).mean())
    where = "held-out pictures" if held_out else "training pictures (nothing was held out)"
    rows: list[tuple[str, object]] = [
        (f"Accuracy on {len(judged.labels)} {where}", f"{right:.1%}"),
        ("Training pictures", len(train.labels)),
        ("Network", options.network),
    ]
    report = make_report(
        options.output, f"Fine-tuning on {options.directory.name}", tuned, judged, probabilities, rows, ""
    )
    print(f"accuracy on {len(judged.labels)} {where}: {right:.3f}\nreport: {report}\nmodel:  {model_path}")


def _predict(options: argparse.Namespace) -> None:
    from highlevel.data.images import load_image

    model = _open_model(options.model)
    if model.preprocessing is None:
        raise ArgumentError(f"{options.model}: the model does not know how pictures become its input")
    names = model.class_names
    for path in options.images:
        scores = model.predict(model.preprocess(load_image(path)), verbose=0)[0]
        best = scores.argsort()[::-1][: options.top]
        print(f"{path}: " + ", ".join(f"{names[i] if names else i} {scores[i]:.3f}" for i in best))


def _open_model(name: str) -> Any:
    from highlevel import zoo
    from highlevel.models import load_model

    if name in zoo.ENTRIES:
        return zoo.create(name, weights="imagenet")
    if not Path(name).exists():
        raise ArgumentError(
            f"{name} is neither a file nor a network of the zoo", hint=f"highlevel zoo lists: {', '.join(zoo.ENTRIES)}"
        )
    return load_model(name, compile=False)


def _zoo(options: argparse.Namespace) -> None:
    from highlevel import zoo

    for name in zoo.list_models():
        entry = zoo.get(name)
        print(f"{name}  {entry.summary}\n  {entry.reference}")
        for tag, file in entry.weights.items():
            size = f"{file.num_classes} classes, {file.size_bytes / 1e6:.1f} MB"
            print(f'  weights "{tag}": {size}, {file.license}; {"here" if file.available else file.source}')


def _doctor(options: argparse.Namespace) -> None:
    from highlevel.diagnostics import doctor

    doctor()


if __name__ == "__main__":
    sys.exit(main())
