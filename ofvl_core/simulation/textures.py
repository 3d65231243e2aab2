"""Pictures for surfaces: each is unique, and none repeats itself.

A painter takes (random generator, height, width, texels per metre) and returns an RGB picture (height,
width, 3), float32 in 0..1. Regular patterns are always drawn over colours that change from place to
place: a pattern that repeats exactly would make two places look the same.
"""

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from ofvl_core.simulation.facets import Painter, Picture

Random = np.random.Generator
Colour = NDArray[np.float32]


def colour(rng: Random, hue: float | None = None, saturation: float = 0.5, value: float = 0.7) -> Colour:
    """An RGB colour (3,) near a hue in 0..1 (any hue without one)."""
    h = (rng.uniform() if hue is None else hue + rng.normal(0, 0.02)) % 1.0
    s = np.clip(saturation + rng.normal(0, 0.06), 0, 1)
    v = np.clip(value + rng.normal(0, 0.05), 0.05, 1)
    hsv = np.array([[[360 * h, s, v]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]


# Channels share most of their noise: it is light and dark rather than red and green. Rows have length 1.
BRIGHTNESS_AND_HUE = 0.5 * np.eye(3, dtype=np.float32) + 0.366


def noise(
    rng: Random,
    size: tuple[int, int],
    coarse: float,
    fine: float,
    *,
    channels: int = 3,
    roughness: float = 0.7,
) -> Picture:
    """Smooth noise of unit spread with features from `coarse` down to `fine` texels.

    `size` is (height, width), the result (height, width, channels); `roughness` is how much of an octave's
    strength the next finer octave has.
    """
    cell, strength, variance = max(coarse, 1.0), 1.0, 0.0
    total = np.zeros((2, 2, channels), np.float32)
    while True:
        rows, columns = (max(2, round(side / cell) + 1) for side in size)
        total = resized(total, (rows, columns), cv2.INTER_CUBIC)
        total += np.float32(strength) * rng.standard_normal((rows, columns, channels), dtype=np.float32)
        variance += 0.5 * strength**2  # interpolation takes about half of a random grid's variance
        if cell / 2 < max(fine, 1.0):
            break
        cell /= 2
        strength *= roughness
    if channels == 3:
        total = np.asarray(cv2.transform(total, BRIGHTNESS_AND_HUE), np.float32)
    return resized(total, size, cv2.INTER_LINEAR) / np.float32(np.sqrt(variance))


def resized(picture: Picture, size: tuple[int, int], interpolation: int) -> Picture:
    """A picture (height, width, channels) at another (height, width); one channel remains an axis."""
    height, width = size
    scaled = cv2.resize(picture, (width, height), interpolation=interpolation)
    return scaled.reshape(height, width, picture.shape[2]).astype(np.float32, copy=False)


def plain(base: Colour, variation: float = 0.05, grain: float = 0.02) -> Painter:
    """One colour that drifts over metres and has a fine grain."""

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        drift = noise(rng, (height, width), 0.8 * density, 0.1 * density)
        fine = noise(rng, (height, width), 0.03 * density, 2.0, channels=1)
        return np.clip(base + variation * drift + grain * fine, 0, 1)

    return paint


def plaster(base: Colour, second: Colour) -> Painter:
    """A painted wall: two colours flowing into each other, with brushed blotches of all sizes."""

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        flow = noise(rng, (height, width), 1.4 * density, 0.35 * density, channels=1)
        share = 1 / (1 + np.exp(-1.8 * flow))
        blotches = noise(rng, (height, width), 0.4 * density, 2.0, roughness=0.65)
        return np.clip(base + (second - base) * share + 0.055 * blotches, 0, 1)

    return paint


def wallpaper(base: Colour, second: Colour, motif: Colour, spacing: float = 0.32) -> Painter:
    """A wall with rows of blossoms; no two are alike in shape and colour."""
    ground = plaster(base, second)

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        picture = np.ascontiguousarray(ground(rng, height, width, density))
        step = spacing * density
        for row, y in enumerate(np.arange(step / 2, height, step)):
            for x in np.arange(step / 2 * (1 + row % 2), width, step):
                tint = np.clip(motif + rng.normal(0, 0.16, 3), 0, 1)
                petals, radius = int(rng.integers(3, 9)), step * rng.uniform(0.10, 0.26)
                for angle in rng.uniform(0, 360) + np.arange(petals) * 360 / petals:
                    towards = radius * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
                    centre = (int(x + towards[0]), int(y + towards[1]))
                    axes = (max(1, int(radius * 0.8)), max(1, int(radius * 0.35)))
                    cv2.ellipse(picture, centre, axes, angle, 0, 360, tint.tolist(), -1, cv2.LINE_AA)
        return picture

    return paint


def stripes(base: Colour, second: Colour, period: float, *, checked: bool = False) -> Painter:
    """Upright stripes, or checks, of uneven width over changing colour."""

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        def wave(length: int) -> NDArray[np.float32]:
            widths = rng.uniform(0.4, 1.6, int(length / (period * density)) + 3) * period * density
            return (np.searchsorted(np.cumsum(widths), np.arange(length)) % 2).astype(np.float32)

        share = np.tile(wave(width), (height, 1))
        if checked:
            share = 0.5 * (share + wave(height)[:, None])
        drift = noise(rng, (height, width), 0.8 * density, 0.05 * density)
        return np.clip(base + (second - base) * share[..., None] + 0.06 * drift, 0, 1)

    return paint


def wood(base: Colour) -> Painter:
    """Grain along the longer side."""

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        long, short = max(height, width), min(height, width)
        stretched = (max(2, short), max(2, long // 16))
        grain = noise(rng, stretched, 0.04 * density, 1.0, channels=1, roughness=0.9)
        grain = resized(grain, (short, long), cv2.INTER_CUBIC)
        if height > width:
            grain = grain.swapaxes(0, 1)
        drift = noise(rng, (height, width), 0.7 * density, 0.1 * density)
        return np.clip(base * (1 + 0.06 * grain) + 0.035 * drift, 0, 1)

    return paint


def planks(base: Colour, plank: float = 0.16) -> Painter:
    """A wooden floor whose boards differ in tint and length."""
    grain = wood(base)

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        picture = np.ascontiguousarray(grain(rng, height, width, density))
        step = plank * density
        for y in np.arange(0, height, step):
            x = -rng.uniform(0, 1.2) * density
            while x < width:
                length = rng.uniform(0.6, 1.6) * density
                board = picture[int(y) : int(y + step), max(0, int(x)) : max(0, int(x + length))]
                board *= np.float32(1 + rng.normal(0, 0.13)) + rng.normal(0, 0.035, 3).astype(np.float32)
                board[:2] *= 0.6
                board[:, :2] *= 0.6
                x += length
        return np.clip(picture + 0.03 * noise(rng, (height, width), density, 0.2 * density), 0, 1)

    return paint


def tiles(base: Colour, second: Colour, side: float = 0.4) -> Painter:
    """A tiled floor: every tile has its own tint and veins."""

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        step = side * density
        rows, columns = int(height / step) + 2, int(width / step) + 2
        share = rng.uniform(0, 0.45, (rows, columns, 1)) + 0.55 * (
            np.indices((rows, columns)).sum(0)[..., None] % 2
        )
        tints = (base + (second - base) * share + rng.normal(0, 0.05, (rows, columns, 3))).astype(np.float32)
        y, x = (np.arange(height) / step), (np.arange(width) / step)
        picture = tints[y.astype(int)][:, x.astype(int)]
        joint = np.minimum.outer(y % 1.0, x % 1.0) < 4 / step
        veins = noise(rng, (height, width), 0.5 * density, 2.0, roughness=0.75)
        picture = picture + 0.045 * veins
        picture[joint] = 0.45
        return np.clip(picture, 0, 1).astype(np.float32)

    return paint


def rug(hue: float) -> Painter:
    """A rug: borders around a field of scattered figures."""

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        picture = np.empty((height, width, 3), np.float32)
        inset = 0
        for _ in range(4):
            picture[inset : height - inset, inset : width - inset] = colour(
                rng, hue + rng.choice([0, 0.08, 0.5]), 0.55, rng.uniform(0.3, 0.85)
            )
            inset += int(rng.uniform(0.04, 0.12) * density)
        for _ in range(int(22 * height * width / density**2)):
            centre = (int(rng.uniform(inset, width - inset)), int(rng.uniform(inset, height - inset)))
            size = max(2, int(rng.uniform(0.03, 0.11) * density))
            tint = colour(rng, hue + rng.choice([0, 0.15, 0.5]), 0.6, rng.uniform(0.3, 0.9)).tolist()
            angles = rng.uniform(0, 6.28) + np.arange(int(rng.integers(3, 7))) * 2 * np.pi / 5
            polygon = np.array(centre) + size * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            cv2.fillConvexPoly(picture, cv2.convexHull(polygon.astype(np.int32)), tint, cv2.LINE_AA)
        weave = noise(rng, (height, width), 0.5 * density, 2.0, roughness=0.8)
        return np.clip(picture + 0.05 * weave, 0, 1)

    return paint


def art(rng: Random, height: int, width: int, density: float) -> Picture:
    """A framed picture: a landscape of hills or an abstract composition."""
    top, bottom = colour(rng, None, 0.45, 0.85), colour(rng, None, 0.45, 0.6)
    fade = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    picture = np.ascontiguousarray(np.broadcast_to(top + (bottom - top) * fade, (height, width, 3)))
    if rng.uniform() < 0.4:
        sun = (int(rng.uniform(0.15, 0.85) * width), int(rng.uniform(0.12, 0.4) * height))
        cv2.circle(picture, sun, max(2, height // 10), colour(rng, 0.12, 0.5, 0.95).tolist(), -1, cv2.LINE_AA)
        hills(rng, picture, 0.45, 4)
    else:
        for _ in range(int(rng.integers(7, 16))):
            centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
            tint = colour(rng, None, rng.uniform(0.2, 0.9), rng.uniform(0.2, 0.95)).tolist()
            reach = min(height, width) * rng.uniform(0.06, 0.4)
            match rng.integers(3):
                case 0:
                    axes = (max(1, int(reach)), max(1, int(reach * rng.uniform(0.3, 1))))
                    cv2.ellipse(picture, centre, axes, rng.uniform(0, 180), 0, 360, tint, -1, cv2.LINE_AA)
                case 1:
                    polygon = np.array(centre) + rng.normal(0, reach, (5, 2))
                    cv2.fillConvexPoly(picture, cv2.convexHull(polygon.astype(np.int32)), tint, cv2.LINE_AA)
                case _:
                    end = np.array(centre) + rng.normal(0, 2 * reach, 2)
                    thickness = max(1, int(reach / 6))
                    cv2.line(picture, centre, end.astype(int).tolist(), tint, thickness, cv2.LINE_AA)
    picture += 0.035 * noise(rng, (height, width), 0.1 * density, 2.0)
    mat = max(3, int(rng.uniform(0.03, 0.07) * density))
    frame = max(3, int(0.025 * density))
    if rng.uniform() < 0.6:
        border(picture, mat + frame, np.full(3, 0.9, np.float32))
    border(picture, frame, colour(rng, None, 0.4, rng.uniform(0.1, 0.8)))
    return np.clip(picture, 0, 1)


def notice(rng: Random, height: int, width: int, density: float) -> Picture:
    """A poster: a title, paragraphs and a diagram."""
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = colour(rng, None, 0.15, 0.9)
    ink = colour(rng, None, 0.7, 0.3)
    picture[: int(height * rng.uniform(0.12, 0.3))] = ink
    y, line = height * 0.34, max(3.0, 0.022 * density)
    while y < height * 0.95:
        if rng.uniform() < 0.15:
            tall = int(min(height * 0.25, height * 0.95 - y))
            x0, x1 = int(width * 0.1), int(width * rng.uniform(0.5, 0.9))
            picture[int(y) : int(y) + tall, x0:x1] = colour(rng, None, 0.6, 0.7)
            y += tall + line
        x, end = width * 0.08, width * rng.uniform(0.6, 0.94)
        while x < end:
            word = rng.uniform(1.0, 4.0) * line
            picture[int(y) : int(y + line * 0.5), int(x) : int(min(x + word, end))] = ink * 1.2
            x += word + line * 0.6
        y += line
    return np.clip(picture + 0.02 * noise(rng, (height, width), 0.3 * density, 3.0), 0, 1)


def hills(rng: Random, picture: Picture, horizon: float, layers: int) -> None:
    """Draw ranges of hills below `horizon` (a share of the height), the near ones darker."""
    height, width = picture.shape[:2]
    x = np.arange(width)
    for layer in range(layers):
        crest = height * (horizon + (1 - horizon) * layer / layers)
        for waves in (1, 2, 5):
            swing = height * 0.06 / waves**0.5
            crest = crest + swing * np.sin(
                2 * np.pi * (waves * rng.uniform(0.6, 1.4) * x / width + rng.uniform())
            )
        tint = colour(rng, rng.uniform(0.22, 0.42), 0.5, 0.75 - 0.45 * layer / layers)
        picture[np.arange(height)[:, None] > crest[None, :]] = tint


def border(picture: Picture, width: int, tint: Colour) -> None:
    """Paint a border of `width` texels."""
    picture[:width] = picture[-width:] = tint
    picture[:, :width] = picture[:, -width:] = tint


def window(rng: Random, height: int, width: int, density: float) -> Picture:
    """A view of sky, hills and trees between white bars."""
    fade = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky = np.array([0.45, 0.66, 0.95], np.float32)
    picture = sky + (np.array([0.9, 0.94, 1.0], np.float32) - sky) * fade
    clouds = noise(rng, (height, width), 0.6 * density, 0.02 * density, channels=1)
    picture = np.ascontiguousarray(picture + 0.22 * np.clip(clouds, 0, 1.5))
    hills(rng, picture, rng.uniform(0.4, 0.6), 3)
    for _ in range(int(rng.integers(2, 7))):
        foot = (rng.uniform(0, width), height * rng.uniform(0.75, 1.0))
        tall = height * rng.uniform(0.15, 0.35)
        green = colour(rng, 0.3, 0.6, rng.uniform(0.2, 0.5))
        for _ in range(25):
            at = (int(foot[0] + rng.normal(0, tall / 4)), int(foot[1] - tall + rng.normal(0, tall / 4)))
            tint = np.clip(green + rng.normal(0, 0.05, 3), 0, 1).tolist()
            cv2.circle(picture, at, max(2, int(tall / 9)), tint, -1, cv2.LINE_AA)
    bar = max(2, int(0.045 * density))
    white = np.full(3, 0.93, np.float32)
    border(picture, bar, white)
    middle = width // 2
    picture[:, middle - bar // 2 : middle + bar // 2] = white
    cross = int(height * rng.uniform(0.25, 0.4))
    picture[cross : cross + bar // 2] = white
    return np.clip(picture, 0, 1)


def door(base: Colour) -> Painter:
    """A panelled door with a handle."""
    grain = wood(base)

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        picture = np.ascontiguousarray(grain(rng, height, width, density))
        margin = int(0.12 * density)
        splits = [0.0, rng.uniform(0.35, 0.6), 1.0]
        for low, high in pairwise(splits):
            top, bottom = int(low * height) + margin, int(high * height) - margin // 2
            panel(picture, top, bottom, margin, width - margin)
        border(picture, max(2, int(0.03 * density)), base * np.float32(0.55))
        knob = (int(width - 0.07 * density), int(height * 0.53))
        cv2.circle(picture, knob, max(2, int(0.03 * density)), (0.85, 0.75, 0.4), -1, cv2.LINE_AA)
        return picture

    return paint


def drawers(base: Colour, rows: int, columns: int) -> Painter:
    """The front of a cabinet: a grid of drawers with knobs, each of its own shade."""
    grain = wood(base)

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        picture = np.ascontiguousarray(grain(rng, height, width, density))
        gap = max(2, int(0.02 * density))
        brass = colour(rng, None, 0.4, rng.uniform(0.15, 0.9)).tolist()
        for row in range(rows):
            for column in range(columns):
                top, bottom = row * height // rows + gap, (row + 1) * height // rows - gap
                left, right = column * width // columns + gap, (column + 1) * width // columns - gap
                picture[top:bottom, left:right] *= np.float32(1 + rng.normal(0, 0.14)) + rng.normal(
                    0, 0.05, 3
                ).astype(np.float32)
                panel(picture, top, bottom, left, right)
                knob = (int((left + right) / 2 + rng.normal(0, 2)), (top + bottom) // 2)
                cv2.circle(picture, knob, max(2, int(0.018 * density)), brass, -1, cv2.LINE_AA)
        return np.clip(picture, 0, 1)

    return paint


def panel(picture: Picture, top: int, bottom: int, left: int, right: int) -> None:
    """Draw a raised panel: light upper and left edges, dark lower and right ones."""
    picture[top : top + 3, left:right] *= 1.3
    picture[top:bottom, left : left + 3] *= 1.2
    picture[bottom - 3 : bottom, left:right] *= 0.55
    picture[top:bottom, right - 3 : right] *= 0.6


def spines(rng: Random, height: int, width: int, density: float) -> Picture:
    """A row of books seen from their backs."""
    picture = np.full((height, width, 3), 0.08, np.float32)
    x = 0
    while x < width:
        thick = max(3, int(rng.uniform(0.015, 0.05) * density))
        top = int(rng.uniform(0, 0.18) * height)
        spine = picture[top:, x : x + thick]
        spine[:] = colour(rng, None, rng.uniform(0.2, 0.8), rng.uniform(0.25, 0.9))
        for _ in range(int(rng.integers(1, 4))):
            band = int(rng.uniform(0.05, 0.9) * len(spine))
            tall = int(rng.uniform(0.02, 0.2) * len(spine)) + 1
            spine[band : band + tall] = colour(rng, None, 0.3, rng.uniform(0.2, 0.95))
        spine[:, :1] *= 0.5
        x += thick
    return picture


def screen(rng: Random, height: int, width: int, density: float) -> Picture:
    """A switched-on screen: windows full of lines."""
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = colour(rng, None, 0.5, 0.4)
    for _ in range(4):
        x, y = int(rng.uniform(0.03, 0.6) * width), int(rng.uniform(0.03, 0.5) * height)
        w, h = int(rng.uniform(0.25, 0.5) * width), int(rng.uniform(0.25, 0.5) * height)
        picture[y : y + h, x : x + w] = colour(rng, None, 0.2, rng.uniform(0.2, 0.95))
        for line in range(y + 4, min(y + h, height) - 4, 6):
            picture[line : line + 2, x + 4 : x + 4 + int(rng.uniform(0.2, 0.9) * w)] = colour(
                rng, None, 0.6, 0.6
            )
    border(picture, max(2, int(0.012 * density)), np.full(3, 0.06, np.float32))
    return picture


def concrete(base: Colour) -> Painter:
    """Bare concrete: clouds of grey, stains and pores."""

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        clouds = noise(rng, (height, width), 1.2 * density, 0.1 * density, channels=1)
        stains = noise(rng, (height, width), 0.5 * density, 0.02 * density, channels=1)
        pores = noise(rng, (height, width), 0.02 * density, 1.0, channels=1)
        dirt = 0.16 * np.clip(stains - 1.0, 0, 1.5)
        return np.clip(base * (1 + 0.07 * clouds + 0.03 * pores - dirt), 0, 1).astype(np.float32)

    return paint


def formwork(base: Colour, panel_width: float = 1.2) -> Painter:
    """A cast wall: joints and tie holes at equal distances over concrete, and a line of paint."""
    ground = concrete(base)

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        picture = np.ascontiguousarray(ground(rng, height, width, density))
        step, joint = panel_width * density, max(1, round(0.012 * density))
        for x in np.arange(rng.uniform(0, step), width, step):
            picture[:, int(x) : int(x) + joint] *= 0.72
            for share in (0.25, 0.75):
                for y in np.arange(height - 0.45 * density, 0, -0.9 * density):
                    hole = (int(x + share * step), int(y))
                    cv2.circle(picture, hole, max(1, round(0.02 * density)), (0.2, 0.2, 0.2), -1, cv2.LINE_AA)
        return picture

    return paint


def banded(base: Colour, band: Colour, low: float, high: float) -> Painter:
    """Concrete with a painted band, between heights in metres above the picture's lower edge."""
    ground = concrete(base)

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        picture = np.ascontiguousarray(ground(rng, height, width, density))
        top, bottom = (max(0, height - round(level * density)) for level in (high, low))
        worn = noise(rng, (height, width), 0.2 * density, 2.0, channels=1)[top:bottom]
        picture[top:bottom] = np.clip(band * (1 + 0.05 * worn), 0, 1)
        return picture

    return paint


def road_paint(base: Colour) -> Painter:
    """A line on the floor, worn."""

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        wear = noise(rng, (height, width), 0.3 * density, 2.0, channels=1, roughness=0.9)
        return np.clip(base * (1 - 0.18 * np.clip(wear, 0, 2))[..., :1], 0, 1).astype(np.float32)

    return paint


def hazard(rng: Random, height: int, width: int, density: float) -> Picture:
    """Slanted stripes of black and yellow."""
    period = 0.2 * density
    slant = np.add.outer(np.arange(height), np.arange(width)) + rng.uniform(0, period)
    share = ((slant / period) % 1.0 < 0.5)[..., None]
    black, yellow = colour(rng, None, 0.0, 0.12), colour(rng, 0.13, 0.8, 0.85)
    dirt = noise(rng, (height, width), 0.3 * density, 2.0)
    return np.clip(np.where(share, yellow, black) + 0.03 * dirt, 0, 1).astype(np.float32)


def lettering(text: str, ink: Colour, ground: Colour) -> Painter:
    """A sign with a few large letters that fill it."""

    def paint(rng: Random, height: int, width: int, density: float) -> Picture:
        picture = np.empty((height, width, 3), np.float32)
        picture[:] = ground
        font, thick = cv2.FONT_HERSHEY_SIMPLEX, max(1, height // 9)
        (wide, tall), _ = cv2.getTextSize(text, font, 1.0, thick)
        scale = min(0.8 * width / wide, 0.65 * height / tall)
        at = (round((width - scale * wide) / 2), round((height + scale * tall) / 2))
        cv2.putText(picture, text, at, font, scale, ink.tolist(), thick, cv2.LINE_AA)
        return np.clip(picture + 0.02 * noise(rng, (height, width), 0.3 * density, 2.0), 0, 1)

    return paint


def glazing(rng: Random, height: int, width: int, density: float) -> Picture:
    """The windows of a car: dark glass with a bright reflection in a frame."""
    fade = np.linspace(0.5, 0.08, height, dtype=np.float32)[:, None, None]
    shine = noise(rng, (height, width), 0.5 * density, 0.1 * density, channels=1)
    picture = np.ascontiguousarray(np.repeat(np.clip(fade + 0.06 * shine, 0, 1), 3, axis=2))
    border(picture, max(2, int(0.03 * density)), np.full(3, 0.05, np.float32))
    return picture
