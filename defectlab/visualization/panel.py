"""Arrangement of many small pictures with captions in one large picture. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from defectlab_runtime import names
from defectlab_runtime.overlays import colour_map

INK = (30, 30, 34)
QUIET = (105, 105, 112)
ALARM = (190, 20, 30)
PAPER = (255, 255, 255)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class PanelRow:
    """Pictures (H, W, 3) uint8 of one size side by side, under a caption and a line of detail; `wrong` is shown red."""

    pictures: Sequence[np.ndarray]
    caption: str
    detail: str
    wrong: bool = False


@dataclass(frozen=True)
class Scale:
    """The colour scale of maps: its ends, the threshold marked on it if there is one, and a label."""

    low: float
    high: float
    threshold: float | None
    label: str


def draw_panel(
    rows: Sequence[PanelRow],
    titles: Sequence[str],
    heading: str,
    legend: Sequence[tuple[Colour, str]] = (),
    scale: Scale | None = None,
    tile: int = 256,
) -> np.ndarray:
    """Arrange rows of pictures under column titles, heading above, scale and legend below: (H, W, 3) uint8.

    Pictures are fitted into tiles of `tile` pixels; rows are as high as their pictures, type is scaled to the tile.
    """
    gap, text = max(4, tile // 40), max(12, tile // 18)
    line = round(text * 1.45)
    sizes = [_fitted(row.pictures[0], tile) for row in rows]
    width = gap + (tile + gap) * len(titles)
    head, foot = 2 * line + 2 * gap, 2 * line + 2 * gap
    heights = [2 * line + gap + size[1] + gap for size in sizes]
    sheet = Image.new("RGB", (width, head + sum(heights) + foot), PAPER)
    draw = ImageDraw.Draw(sheet)
    _text(draw, (gap, gap), heading, width - 2 * gap, font(text, bold=True), INK)
    for column, title in enumerate(titles):
        _text(draw, (gap + column * (tile + gap), gap + line), title, tile, font(text), QUIET)
    top = head
    for row, size, height in zip(rows, sizes, heights, strict=True):
        _text(draw, (gap, top), row.caption, width - 2 * gap, font(text, bold=True), ALARM if row.wrong else INK)
        _text(draw, (gap, top + line), row.detail, width - 2 * gap, font(text), ALARM if row.wrong else QUIET)
        for column, picture in enumerate(row.pictures):
            fitted = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
            sheet.paste(fitted, (gap + column * (tile + gap) + (tile - size[0]) // 2, top + 2 * line + gap // 2))
        top += height
    if scale is not None:
        _draw_scale(draw, sheet, scale, (gap, top + gap), min(width - 2 * gap, 2 * tile), text)
    _draw_legend(draw, legend, (gap, top + gap + line), text)
    return np.asarray(sheet)


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the DejaVu Sans font of matplotlib, which has Latin, Greek and Cyrillic letters."""
    import matplotlib as mpl

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", name)), size)


def _fitted(picture: np.ndarray, tile: int) -> tuple[int, int]:
    """Return the (width, height) of a picture scaled to fit into a square tile."""
    height, width = picture.shape[:2]
    scale = tile / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _text(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    room: int,
    typeface: ImageFont.FreeTypeFont,
    colour: Colour,
) -> None:
    """Draw one line of text; a line that is too long is shortened in the middle, since file names differ at the end."""
    text = names.panel(text)
    if draw.textlength(text, typeface) > room:
        keep = len(text)
        while keep > 2 and draw.textlength(_shortened(text, keep), typeface) > room:
            keep -= 1
        text = _shortened(text, keep)
    draw.text(at, text, font=typeface, fill=colour)


def _shortened(text: str, keep: int) -> str:
    return f"{text[: keep // 2]}…{text[len(text) - (keep - keep // 2) :]}"


def _draw_scale(
    draw: ImageDraw.ImageDraw, sheet: Image.Image, scale: Scale, at: tuple[int, int], width: int, text: int
) -> None:
    """Draw the colour bar between the values of its two ends, with a tick at the threshold."""
    typeface = font(text)
    low, high = f"{names.panel(scale.label)} {scale.low:.4g}", f"{scale.high:.4g}"
    left = at[0] + round(draw.textlength(low, typeface)) + text // 2
    length = max(40, width - left - round(draw.textlength(high, typeface)) - text)
    draw.text(at, low, font=typeface, fill=QUIET)
    bar = colour_map(np.linspace(scale.low, scale.high, length)[None].repeat(text, axis=0), scale.low, scale.high)
    sheet.paste(Image.fromarray(bar), (left, at[1] + 2))
    draw.text((left + length + text // 2, at[1]), high, font=typeface, fill=QUIET)
    if scale.threshold is not None and scale.low < scale.threshold < scale.high:
        place = left + round(length * (scale.threshold - scale.low) / (scale.high - scale.low))
        draw.line([(place, at[1]), (place, at[1] + text + 3)], fill=(255, 255, 255), width=3)
        draw.line([(place, at[1]), (place, at[1] + text + 3)], fill=(0, 160, 80), width=1)


def _draw_legend(
    draw: ImageDraw.ImageDraw, legend: Sequence[tuple[Colour, str]], at: tuple[int, int], text: int
) -> None:
    left, top = at
    for colour, label in ((colour, names.panel(label)) for colour, label in legend):
        draw.rectangle([left, top + text // 4, left + text, top + text], fill=colour, outline=QUIET)
        draw.text((left + round(text * 1.4), top), label, font=font(text), fill=QUIET)
        left += round(text * 3 + draw.textlength(label, font(text)))
