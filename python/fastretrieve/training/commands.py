"""The verb train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastretrieve.gallery.terminal import AsJson, sentences, tell

if TYPE_CHECKING:
    from fastretrieve.training.result import TrainingResult


def train(
    out: Annotated[Path, typer.Option(help="Where the trained encoder goes.", show_default=False)],
    data: Annotated[
        Path | None,
        typer.Argument(
            help="A folder of class folders, a table, or files that hold many items (IDX, CIFAR, "
            ".npz, tar, Parquet).",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            help="cnn, autoencoder, vae, gan, rnn, words, ..., or a saved encoder's directory."
        ),
    ] = "cnn",
    dim: Annotated[int | None, typer.Option(min=1, help="Numbers in a vector.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Pixels a side.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 for grey, 3 for colour.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Another option of the encoder, such as frame_size=32. Repeatable."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Items in a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="The learning rate.")] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal encoders.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    validation: Annotated[
        Path | None, typer.Option(help="Items to measure by, instead of a tenth held out.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="The split to train on; train, where files have one of that name."),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="A second folder: files of equal names are pairs to bring together."),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", help="For a translator: pictures of the style to leave."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="For a translator: pictures of the style to reach.")
    ] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Show every class equally often.")
    ] = False,
    synthetic: Annotated[
        Path | None, typer.Option(help="A trained gan or vae whose drawings join the items.")
    ] = None,
    share: Annotated[float, typer.Option(help="The share of such drawings.")] = 0.2,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over instead of going on with a stopped run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train an encoder on images (or sequences); the same command goes on where it was stopped.

    Example: fastretrieve train photos/ --encoder cnn --dim 128 --epochs 10 --out my-encoder/
    """
    with sentences():
        from fastretrieve.training.fitting import train as fit

        given = {"dim": dim, "image_size": image_size, "channels": channels}
        config = {name: value for name, value in given.items() if value is not None}
        made = _made(encoder, config | parsed_options(option or []))
        result = fit(
            made,
            data if pairs is None else _paired(data, pairs, made),
            from_=from_,
            to=to,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            seed=seed,
            device=device,
            out=out,
            resume=not fresh,
            validation=validation,
            split=split,
            balanced=balanced,
            synthetic=synthetic,
            share=share if synthetic is not None else 0.0,
        )
        tell(_facts(result, out), _sentence(result, out), as_json)


def parsed_options(texts: list[str]) -> dict[str, Any]:
    """``name=value`` as keyword arguments; a value is JSON where it can be, else a string.

    >>> parsed_options(["frame-size=32", "cell=lstm", "bidirectional=false"])
    {'frame_size': 32, 'cell': 'lstm', 'bidirectional': False}
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"an option of the encoder is name=value, got {text!r}")
        try:
            found[name.replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            found[name.replace("-", "_")] = value
    return found


def _made(encoder: str, config: dict[str, Any]) -> Any:
    """A saved encoder, which keeps its options, or a new one."""
    from fastretrieve.encoders import create_encoder, load_encoder

    if not Path(encoder).is_dir():
        return create_encoder(encoder, **config)
    if config:
        raise ValueError(f"{encoder} is a saved encoder: its {', '.join(config)} stay")
    return load_encoder(encoder)


def _paired(data: Path | None, other: Path, encoder: Any) -> Any:
    """Two folders as pairs."""
    if data is None:
        raise ValueError("--pairs is the second folder of pairs; name the first one before it")
    from fastretrieve.data import open_dataset

    return open_dataset((data, other), pairs=True, modality=getattr(encoder, "modality", "image"))


def _facts(result: TrainingResult, out: Path) -> dict[str, Any]:
    """The figures of the epoch that was kept, and what was left out."""
    skipped = [bad._asdict() for bad in result.skipped]
    return {"out": str(out), **result.figures, "notes": result.notes, "skipped": skipped}


def _sentence(result: TrainingResult, out: Path) -> str:
    line = ", ".join(f"{name} {value:.4g}" for name, value in result.figures.items())
    lines = [f"wrote {out}: {line or 'fitted'}"]
    lines += result.notes
    if result.synthetic is not None:
        lines.append(str(result.synthetic))
    if result.skipped:
        lines.append(f"{len(result.skipped)} skipped, such as {result.skipped[0].reason}")
    return "\n".join(lines)
