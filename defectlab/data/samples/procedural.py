"""Images made from formulas alone, to pre-train a backbone on: eight kinds of surface.

Ideas: dead leaves and spectral noise from "Learning to See by Looking at Noise" (Baradad et al., 2021,
arXiv:2106.05963), iterated function systems from "Pre-training without Natural Images" (Kataoka et al., 2020,
arXiv:2101.08515); weaves, gratings, lit bumps, cells and scratches because inspected surfaces look like that.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from defectlab.utils.seeds import stream_seed

Field = NDArray[np.float64]
Image = NDArray[np.uint8]
Draws = np.random.Generator


def procedural_image(kind: str, index: int, *, seed: int = 42, size: int = 256) -> Image:
    """Return image `index` of a kind as RGB (size, size, 3), 0 .. 255; the same arguments give the same pixels.

    Raises:
        KeyError: A kind that is not in `KINDS`.

    """
    draws = np.random.default_rng(stream_seed(seed, f"procedural/{kind}/{index}"))
    picture = KINDS[kind](draws, size)
    picture = picture + draws.normal(0, draws.uniform(0, 0.03), picture.shape)
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)


def spectral_noise(draws: Draws, size: int, slope: float, stretch: float = 1.0, angle: float = 0.0) -> Field:
    """Return noise (size, size) in 0 .. 1 whose amplitude falls as frequency ** -slope, stretched along an angle."""
    fy, fx = np.fft.fftfreq(size).astype(float)[:, None], np.fft.rfftfreq(size).astype(float)[None, :]
    u, v = _turned(fx, fy, angle)
    radius = np.sqrt(u**2 + (v * stretch) ** 2)
    radius[0, 0] = 1.0
    spectrum = np.fft.rfft2(draws.standard_normal((size, size))) * radius**-slope
    spectrum[0, 0] = 0
    return _unit(np.fft.irfft2(spectrum, (size, size)))


def _turned(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _unit(field: Field) -> Field:
    low, high = np.percentile(field, (1, 99))
    return np.clip((field - low) / max(high - low, 1e-9), 0, 1)


def _grid(size: int) -> tuple[Field, Field]:
    y, x = np.mgrid[:size, :size].astype(np.float64)
    return x, y


def _coloured(draws: Draws, field: Field) -> Field:
    """Map values 0 .. 1 to colours along a line of a few random ones: (H, W) -> (H, W, 3)."""
    count = int(draws.integers(2, 5))
    colours = draws.uniform(0, 1, (count, 3))
    if draws.random() < 0.5:  # many surfaces are nearly grey
        colours = colours.mean(1, keepdims=True) + 0.15 * (colours - 0.5)
    stops = np.linspace(0, 1, count)
    return np.stack([np.interp(field, stops, colours[:, channel]) for channel in range(3)], axis=-1)


def _lit(draws: Draws, height: Field, strength: float) -> Field:
    """Return the brightness (H, W) of a height field under light from one side."""
    angle = draws.uniform(0, 2 * np.pi)
    dy, dx = np.gradient(height * strength)
    shade = 0.6 + (dx * np.cos(angle) + dy * np.sin(angle)) / np.sqrt(1 + dx**2 + dy**2)
    return np.clip(shade, 0, 1.4)


def noise(draws: Draws, size: int) -> Field:
    """Clouds, grain, brushed metal: spectral noise with its own slope and direction in each of two layers."""
    field = spectral_noise(draws, size, draws.uniform(0.4, 2.2), draws.choice([1, 1, 3, 10]), draws.uniform(0, np.pi))
    other = spectral_noise(draws, size, draws.uniform(0.4, 2.0))
    return _coloured(draws, _unit(field + draws.uniform(0, 0.7) * other))


def leaves(draws: Draws, size: int) -> Field:
    """Dead leaves: discs, boxes and triangles of sizes from a power law cover each other, each with its own texture."""
    x, y = _grid(size)
    picture = _coloured(draws, spectral_noise(draws, size, 1.2))
    texture = spectral_noise(draws, size, draws.uniform(0.6, 1.6))
    low = draws.uniform(3, 9)
    for _ in range(int(draws.integers(60, 260))):
        radius = min(low * draws.uniform(0.01, 1) ** -0.5, size / 4)
        cx, cy = draws.uniform(0, size, 2)
        left, right = int(max(cx - 1.5 * radius, 0)), int(min(cx + 1.5 * radius + 1, size))
        top, bottom = int(max(cy - 1.5 * radius, 0)), int(min(cy + 1.5 * radius + 1, size))
        part = np.s_[top:bottom, left:right]
        u, v = _turned(x[part] - cx, y[part] - cy, draws.uniform(0, np.pi))
        shape = draws.integers(3)
        if shape == 0:
            inside = u**2 + (v * draws.uniform(1, 2)) ** 2 < radius**2
        elif shape == 1:
            inside = (np.abs(u) < radius) & (np.abs(v) < radius * draws.uniform(0.2, 1))
        else:
            inside = (v < radius / 2) & (np.abs(u) * 1.7 - v < radius)
        colour = draws.uniform(0, 1, 3) + draws.uniform(-0.6, 0.6) * (texture[part][inside][:, None] - 0.5)
        picture[part][inside] = colour
    return picture


def grating(draws: Draws, size: int) -> Field:
    """One or two periodic stripes, smooth or sharp, slightly bent."""
    x, y = _grid(size)
    bend = draws.uniform(0, 6) * spectral_noise(draws, size, 2.0)
    total = np.zeros((size, size))
    for _ in range(int(draws.integers(1, 3))):
        u, _v = _turned(x + bend, y, draws.uniform(0, np.pi))
        wave = np.sin(2 * np.pi * u / draws.uniform(4, 40) + draws.uniform(0, 6))
        total += wave if draws.random() < 0.5 else np.tanh(draws.uniform(2, 8) * wave)
    return _coloured(draws, _unit(total + draws.uniform(0, 0.8) * spectral_noise(draws, size, 0.8)))


def weave(draws: Draws, size: int) -> Field:
    """Threads over and under each other, as in cloth, wire mesh or carpets."""
    x, y = _grid(size)
    bend = draws.uniform(0, 4) * spectral_noise(draws, size, 2.0)
    u, v = _turned(x + bend, y - bend, draws.uniform(0, np.pi))
    pitch = draws.uniform(5, 24)
    i, j = np.floor(u / pitch), np.floor(v / (pitch * draws.uniform(0.6, 1.6)))
    a, b = np.abs(np.sin(np.pi * u / pitch)), np.abs(np.sin(np.pi * v / pitch))
    step = int(draws.integers(1, 3))
    over = (i + step * j) % int(draws.integers(2, 5)) < 1
    field = np.where(over, a, 0.8 * b) ** draws.uniform(0.4, 1.5)
    return _coloured(draws, _unit(field + draws.uniform(0, 0.4) * spectral_noise(draws, size, 0.6)))


def cells(draws: Draws, size: int) -> Field:
    """Voronoi cells: grains, pebbles, leather; from regular to scattered, flat, domed or only outlined."""
    x, y = _grid(size)
    pitch = draws.uniform(10, 44)
    count = int(size / pitch) + 3
    jy, jx = np.mgrid[:count, :count].astype(np.float64)
    spread = draws.uniform(0, 0.5)
    cx = (jx - 1 + 0.5 * (jy % 2) + draws.uniform(-spread, spread, jx.shape)) * pitch
    cy = (jy - 1 + draws.uniform(-spread, spread, jx.shape)) * pitch
    value = draws.uniform(0, 1, count * count)
    centres = np.stack([cx.ravel(), cy.ravel()], axis=-1)
    two, near = cKDTree(centres).query(np.stack([x, y], axis=-1), k=2)  # (H, W, 2) each
    nearest = near[..., 0]
    look = draws.integers(3)
    field = value[nearest] if look == 0 else _unit(two[..., 0]) if look == 1 else _unit(two[..., 1] - two[..., 0])
    mixed = field + draws.uniform(0, 0.6) * spectral_noise(draws, size, 1.0) + 0.3 * value[nearest]
    return _coloured(draws, _unit(mixed))


def bumps(draws: Draws, size: int) -> Field:
    """A rough height field under light from one side: cast metal, plaster, hammered or rippled sheets."""
    height = spectral_noise(draws, size, draws.uniform(1.2, 2.4), draws.choice([1, 2, 6]), draws.uniform(0, np.pi))
    if draws.random() < 0.5:
        height = np.abs(height - 0.5)
    base = _coloured(draws, spectral_noise(draws, size, draws.uniform(0.8, 1.8)))
    return base * _lit(draws, height, draws.uniform(10, 60))[..., None]


def fractal(draws: Draws, size: int) -> Field:
    """The attractor of a few random contractions (an iterated function system), as density over a soft ground."""
    maps = []
    for _ in range(int(draws.integers(2, 5))):
        left, right = (np.linalg.qr(draws.standard_normal((2, 2)))[0] for _ in range(2))
        maps.append((left @ np.diag(draws.uniform(0.3, 0.85, 2)) @ right, draws.uniform(-1, 1, 2)))
    points = draws.uniform(-1, 1, (20000, 2))
    for _ in range(14):
        which = draws.integers(0, len(maps), len(points))
        moved = np.empty_like(points)
        for index, (matrix, shift) in enumerate(maps):
            moved[which == index] = points[which == index] @ matrix.T + shift
        points = moved
    low, high = np.percentile(points, (1, 99), axis=0)
    rows = ((points - low) / np.maximum(high - low, 1e-6) * (size - 1)).astype(int)
    rows = rows[((rows >= 0) & (rows < size)).all(1)]
    density = np.zeros((size, size))
    np.add.at(density, (rows[:, 1], rows[:, 0]), 1.0)
    field = _unit(np.log1p(density)) + 0.3 * spectral_noise(draws, size, 1.6)
    return _coloured(draws, _unit(field))


def marks(draws: Draws, size: int) -> Field:
    """A quiet surface with scratches, dots and rings on it, lighter or darker than the ground."""
    x, y = _grid(size)
    ground = spectral_noise(draws, size, draws.uniform(0.5, 1.8), draws.choice([1, 4, 10]), draws.uniform(0, np.pi))
    field = 0.5 + draws.uniform(0.05, 0.4) * (ground - 0.5)
    for _ in range(int(draws.integers(12, 60))):
        cx, cy = draws.uniform(0, size, 2)
        u, v = _turned(x - cx, y - cy, draws.uniform(0, np.pi))
        reach, width = draws.uniform(3, 40), draws.uniform(0.7, 3)
        kind = draws.integers(3)
        if kind == 0:
            distance = np.maximum(np.abs(u) - reach, 0) + np.abs(v + draws.uniform(-0.01, 0.01) * u**2)
        elif kind == 1:
            distance = np.maximum(np.hypot(u, v * draws.uniform(1, 3)) - reach / 4, 0)
        else:
            distance = np.abs(np.hypot(u, v) - reach / 2)
        field += draws.uniform(-0.5, 0.5) * np.exp(-((distance / width) ** 2))
    return _coloured(draws, np.clip(field, 0, 1))


def parts(draws: Draws, size: int) -> Field:
    """Lit parts on a table: discs, rings, plates and pins with bevelled or domed edges, gloss and a shadow."""
    x, y = _grid(size)
    ground = spectral_noise(draws, size, draws.uniform(0.6, 2.0), draws.choice([1, 1, 4]), draws.uniform(0, np.pi))
    picture = _coloured(draws, 0.5 + draws.uniform(0.1, 1) * (ground - 0.5))
    texture = spectral_noise(draws, size, draws.uniform(0.4, 1.8), draws.choice([1, 3, 10]), draws.uniform(0, np.pi))
    light = draws.uniform(0, 2 * np.pi)
    largest = draws.uniform(20, 80)
    for _ in range(int(draws.integers(4, 22))):
        radius = largest * draws.uniform(0.15, 1)
        cx, cy = draws.uniform(0, size, 2)
        u, v = _turned(x - cx, y - cy, draws.uniform(0, np.pi))
        distance = _outline(draws, u, v, radius)  # pixels, negative inside
        fall = draws.uniform(2, 8)
        shadow = np.roll(distance, (int(fall * np.sin(light)), int(fall * np.cos(light))), (0, 1))
        picture = picture * (1 - draws.uniform(0, 0.6) * np.clip(0.5 - shadow / fall, 0, 1))[..., None]
        edge = radius * draws.uniform(0.08, 1)
        height = np.sqrt(np.clip(-distance / edge, 0, 1)) if draws.random() < 0.5 else np.clip(-distance / edge, 0, 1)
        dy, dx = np.gradient(height * draws.uniform(1, 8) + draws.uniform(0, 3) * texture)
        slope = (dx * np.cos(light) + dy * np.sin(light)) / np.sqrt(1 + dx**2 + dy**2)
        base = draws.uniform(0.05, 0.95, 3)
        if draws.random() < 0.5:
            base = base.mean() + 0.1 * (base - 0.5)
        colour = base + draws.uniform(0, 0.5) * (texture - 0.5)[..., None]
        lit = colour * np.clip(0.75 + slope, 0.1, 1.5)[..., None]
        lit = lit + draws.uniform(0, 0.6) * np.clip(slope, 0, 1)[..., None] ** 4
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        picture = picture * (1 - cover) + lit * cover
    return picture


def _outline(draws: Draws, u: Field, v: Field, radius: float) -> Field:
    """Return the signed distance to a part's outline, in pixels, negative inside."""
    shape = draws.integers(5)
    if shape == 0:
        return np.hypot(u, v) - radius
    if shape == 1:
        return np.abs(np.hypot(u, v) - radius) - radius * draws.uniform(0.1, 0.35)
    if shape == 2:  # a plate with round corners
        corner = radius * draws.uniform(0, 0.5)
        a = np.abs(u) - radius + corner
        b = np.abs(v) - radius * draws.uniform(0.3, 1) + corner
        return np.hypot(np.maximum(a, 0), np.maximum(b, 0)) + np.minimum(np.maximum(a, b), 0) - corner
    if shape == 3:  # a pin
        return np.hypot(np.maximum(np.abs(u) - radius, 0), v) - radius * draws.uniform(0.06, 0.3)
    teeth = draws.integers(3, 13)  # a gear, a star
    return np.hypot(u, v) - radius * (1 + draws.uniform(0.05, 0.3) * np.tanh(3 * np.sin(teeth * np.arctan2(v, u))))


KINDS: dict[str, Callable[[Draws, int], Field]] = {
    "noise": noise,
    "leaves": leaves,
    "grating": grating,
    "weave": weave,
    "cells": cells,
    "bumps": bumps,
    "fractal": fractal,
    "marks": marks,
    "parts": parts,
}
