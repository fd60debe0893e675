"""Frames of a video file, through PyAV (the package ``av``)."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from fastretrieve.data.errors import DataError
from fastretrieve.data.readers import MAX_FRAMES, frame_numbers
from fastretrieve.needs import wanting


def read_video(path: Path, *, max_frames: int = MAX_FRAMES) -> list[Image.Image]:
    """Decode at most ``max_frames`` frames of the first video stream, spread evenly."""
    with wanting("video", f"{path}: reading video files", error=DataError):
        import av
    try:
        # Frame counts in headers are often missing or wrong, so the packets are counted first:
        # demuxing costs a hundredth of decoding.
        with av.open(str(path)) as container:
            n_frames = sum(packet.size > 0 for packet in container.demux(video=0))
        wanted = set(frame_numbers(n_frames, max_frames))
        with av.open(str(path)) as container:
            frames = [
                frame.to_image() for i, frame in enumerate(container.decode(video=0)) if i in wanted
            ]
    except (av.FFmpegError, IndexError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable video: {error}") from error
    if not frames:
        raise DataError(f"{path}: the video holds no frame")
    return frames
