"""Frames of a video: the right ones, whole or none, and nothing but the video is opened."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rebus.core.errors import LimitExceeded, MissingExtra, RebusError, UsageError
from rebus.data import video_frames as module
from rebus.data.video_frames import frames, moments

av = pytest.importorskip("av")

BITS, BAR = 9, 16
WIDTH, HEIGHT = BITS * BAR, 48


def drawn(number: int) -> np.ndarray:
    """The number of the frame in black and white bars, which survive compression."""
    bars = [255 * (number >> bit & 1) for bit in range(BITS)]
    return np.repeat(np.repeat(np.array(bars, dtype=np.uint8), BAR)[None, :, None], HEIGHT, axis=0).repeat(3, axis=2)


def number_in(picture: Image.Image) -> int:
    middles = np.asarray(picture.resize((WIDTH, HEIGHT)))[HEIGHT // 2, BAR // 2 :: BAR, 0]
    return sum(int(value > 127) << bit for bit, value in enumerate(middles))


def film(path: Path, count: int = 100, rate: int = 25, times: Sequence[int] | None = None, **options: Any) -> Path:
    """`count` frames at `rate`, or at `times` counted in frames."""
    flags = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=flags) as container:
        stream = container.add_stream(options.get("codec", "mpeg4"), rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = options.get("gop", 12)
        stream.bit_rate = 2_000_000
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(drawn(number), "rgb24")
            frame.pts = times[number] if times else number
            frame.time_base = 1 / stream.codec_context.framerate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(video: Any, *args: Any, **options: Any) -> list[int]:
    return [number_in(picture) for picture in frames(video, *args, **options)]


def test_the_frame_shown_at_the_middle_of_each_piece(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mp4")
    assert numbers(video, 4) == [12, 37, 62, 87]
    assert numbers(video.read_bytes(), 100) == list(range(100))
    assert numbers(str(video), 4, seconds=(1.0, 2.0)) == [28, 34, 40, 46]
    assert numbers(video, 2, seconds=(3.0, 99.0)) == [81, 93]
    assert numbers(video, 5, seconds=(1.0, 1.04)) == [25] * 5


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi", ".ts", ".mpg"])
def test_jumps_and_steps_give_the_same(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = "mpeg2video" if ending in (".ts", ".mpg") else "mpeg4"
    video = film(tmp_path / f"a{ending}", count=400, codec=codec)
    jumped = numbers(video, 4)
    monkeypatch.setattr(module, "_AHEAD", 1e9)
    assert jumped == numbers(video, 4)
    off = np.abs(np.array(jumped) - [50, 150, 250, 350]).max()
    assert off <= (30 if ending == ".mpg" else 0)  # whose length is guessed from its size


def test_frames_of_uneven_length(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mp4", count=4, times=[0, 10, 80, 90])
    assert numbers(video, 9, seconds=(0, 3.6)) == [0, 1, 1, 1, 1, 1, 1, 1, 2]


def test_random_moments_follow_the_seed(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mp4")
    first = numbers(video, 5, seed=3)
    assert first == numbers(video, 5, seed=3) != numbers(video, 5, seed=4)
    assert all(20 * piece <= number < 20 * (piece + 1) for piece, number in enumerate(first))
    assert moments(2, 4, 4) == [2.25, 2.75, 3.25, 3.75]


def test_size_is_that_of_the_shorter_side(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mp4", count=10)
    assert {picture.size for picture in frames(video, 2, size=24)} == {(WIDTH // 2, 24)}
    assert {picture.size for picture in frames(video, 2, size=500)} == {(WIDTH, HEIGHT)}
    assert {picture.mode for picture in frames(video, 2)} == {"RGB"}


@pytest.mark.parametrize(
    ("matrix", "turned"), [((0, 1, -1, 0), Image.Transpose.ROTATE_270), ((-1, 0, 0, -1), Image.Transpose.ROTATE_180)]
)
def test_a_film_held_on_its_side_comes_upright(tmp_path: Path, matrix: Sequence[int], turned: Image.Transpose) -> None:
    """Telephones write how the image is to be turned into the track's header (90 degrees clockwise, upside down)."""
    video = film(tmp_path / "a.mp4", count=3)
    plain = frames(video, 1, seconds=(0, 0.03))[0]
    content = bytearray(video.read_bytes())
    at = content.index(b"tkhd") + 4 + 4 + 20 + 16  # version and flags, times and ids, layer and volume
    a, b, c, d = (value << 16 for value in matrix)
    for offset, value in ((0, a), (4, b), (12, c), (16, d)):
        content[at + offset : at + offset + 4] = (value & 0xFFFFFFFF).to_bytes(4, "big")
    video.write_bytes(content)
    upright = frames(video, 1, seconds=(0, 0.03))[0]
    assert np.array_equal(np.asarray(upright), np.asarray(plain.transpose(turned)))


def test_a_film_cut_off_is_refused_where_it_ends(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mp4", count=200)
    whole = video.read_bytes()
    for share in (0.4, 0.6, 0.8):
        cut = whole[: int(len(whole) * share)]
        with pytest.raises(RebusError, match=r"^video: (ends [\d.]+ s too early|no frame|cannot be decoded)"):
            frames(cut, 8)
    assert numbers(whole[: int(len(whole) * 0.8)], 2, seconds=(0, 1)) == [6, 18]


@pytest.mark.parametrize(
    "content", [b"", b"<html>no film</html>", bytes(5000), b"\x89PNG\r\n\x1a\n" + bytes(50), b"\0\0\0\x18ftypmp42"]
)
def test_what_is_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    for video in (content, path):
        with pytest.raises(RebusError) as error:
            frames(video, 2)
        assert "\n" not in str(error.value)
    with pytest.raises(RebusError, match=r"b.mp4: cannot be read"):
        frames(tmp_path / "b.mp4", 2)


def test_a_picture_and_sound_alone_are_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(RebusError, match="holds no images"):
        frames(tmp_path / "a.mkv", 2)


def test_playlists_open_no_other_file(tmp_path: Path) -> None:
    """A list of files, whatever it is called, must not show what lies elsewhere."""
    secret = film(tmp_path / "secret.ts", codec="mpeg2video")
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4.0,\n"
    lists = [
        f"ffconcat version 1.0\nfile '{secret}'\n",
        "ffconcat version 1.0\nfile secret.ts\nduration 4\n",
        f"{head}file://{secret}\n#EXT-X-ENDLIST\n",
        f"{head}secret.ts\n#EXT-X-ENDLIST\n",
    ]
    for content in lists:
        for name in ("innocent.mp4", "list.m3u8", "list.ffconcat"):
            (tmp_path / name).write_text(content)
            with pytest.raises(RebusError, match="cannot be decoded as a video"):
                frames(tmp_path / name, 1)
        with pytest.raises(RebusError, match="cannot be decoded as a video"):
            frames(content.encode(), 1)
    with pytest.raises(RebusError, match="cannot be read"):
        frames("http://127.0.0.1:9/a.mp4", 1)


def test_limits_come_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = film(tmp_path / "a.mp4", count=60)
    with pytest.raises(LimitExceeded, match=r"frames of one video: 1,001 passes the limit MAX_FRAMES = 1,000"):
        frames(video, 1001)
    for limit, value in [("MAX_VIDEO_BYTES", 100), ("MAX_HELD_PIXELS", 2 * WIDTH * HEIGHT - 1), ("MAX_DECODED", 20)]:
        with monkeypatch.context() as patch:
            patch.setattr(module, limit, value)
            with pytest.raises(LimitExceeded, match=limit):
                frames(video, 2)
    monkeypatch.setenv("REBUS_MAX_PIXELS", "1000")
    with pytest.raises(LimitExceeded, match="MAX_PIXELS"):
        frames(video, 2)


def test_calls_that_cannot_mean_anything(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mp4", count=10)
    for number, seconds, size in [(0, None, None), (1, (2.0, 1.0), None), (1, (-1.0, 1.0), None), (1, None, 0)]:
        with pytest.raises(UsageError):
            frames(video, number, seconds=seconds, size=size)
    with pytest.raises(RebusError, match=r"the part begins at 5 s, but the video has 0\.4 s"):
        frames(video, 1, seconds=(5.0, 6.0))


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = film(tmp_path / "a.mp4", count=3)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"rebus-vlm\[video\]"):
        frames(video, 1)
