"""The verb train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fastretrieve.gallery.terminal import AsJson, sentences, tell


def train(
    data: Annotated[
        Path,
        typer.Argument(help="A folder of class folders, or a table.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Where the trained encoder goes.", show_default=False)],
    encoder: Annotated[
        str,
        typer.Option(help="cnn, autoencoder, vae, gan, rnn, ..., or a saved encoder's directory."),
    ] = "cnn",
    dim: Annotated[int | None, typer.Option(min=1, help="Numbers in a vector.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Pixels a side.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 for grey, 3 for colour.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Items in a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="The learning rate.")] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal encoders.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over instead of going on with a stopped run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train an encoder on images (or sequences); the same command goes on where it was stopped.

    Example: fastretrieve train photos/ --encoder cnn --dim 128 --epochs 10 --out my-encoder/
    """
    with sentences():
        from fastretrieve.encoders import create_encoder, load_encoder
        from fastretrieve.training import train as fit

        given = {"dim": dim, "image_size": image_size, "channels": channels}
        config: dict[str, Any] = {n: value for n, value in given.items() if value is not None}
        is_saved = Path(encoder).is_dir()
        if is_saved and config:
            raise ValueError(f"{encoder} is a saved encoder: its {', '.join(config)} stay")
        made = load_encoder(encoder) if is_saved else create_encoder(encoder, **config)
        result = fit(
            made,
            data,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            seed=seed,
            device=device,
            out=out,
            resume=not fresh,
        )
        last = dict(result.epochs[-1]) if result.epochs else {}
        line = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
        tell({"out": str(out), **last}, f"wrote {out}: {line or 'fitted'}", as_json)
