"""Frames of a video file, through PyAV (the package ``av``).

FFmpeg knows hundreds of formats, and some of them name other files or addresses to open. Only those
that hold their own pictures are tried, whatever the file is called, and from an open file, so that
nothing else is opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from fastretrieve._common.needs import wanting
from fastretrieve.data.errors import DataError
from fastretrieve.data.frames import MAX_FRAMES, PixelBudget, fitted, frame_numbers
from fastretrieve.data.opening import open_file, pixel_limit, refuse_pixels

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo"
_OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}


def read_video(
    path: Path, *, size: int | None = None, max_frames: int = MAX_FRAMES
) -> list[Image.Image]:
    """Decode at most ``max_frames`` frames of the first video stream, spread evenly."""
    with wanting("video", f"{path}: reading video files", error=DataError):
        import av
    frames: list[Image.Image] = []
    try:
        # Frame counts in headers are often missing or wrong, so the packets are counted first:
        # demuxing costs a hundredth of decoding.
        with open_file(path) as file, av.open(file, "r", options=_OPTIONS) as container:
            n_frames = sum(packet.size > 0 for packet in container.demux(video=0))
        budget, wanted = PixelBudget(path), set(frame_numbers(n_frames, max_frames))
        with open_file(path) as file, av.open(file, "r", options=_OPTIONS) as container:
            stream = container.streams.video[0]
            refuse_pixels(path, stream.width * stream.height, pixel_limit())
            decoded: Iterable[Any] = container.decode(video=0)  # typed by some versions only
            for number, frame in enumerate(decoded):
                refuse_pixels(path, frame.width * frame.height, pixel_limit())
                if number in wanted:
                    image = fitted(frame.to_image(), n_frames=len(wanted), size=size)
                    budget.keep(image.size)
                    frames.append(image)
    except DataError:
        raise
    except (av.FFmpegError, IndexError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable video: {error}") from error
    if not frames:
        raise DataError(f"{path}: the video holds no frame")
    return frames
