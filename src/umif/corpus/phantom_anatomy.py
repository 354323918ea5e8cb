"""How much of each kind of matter a ray passes in a phantom's chest.

`Layers` is a chest drawn: pictures of soft tissue, of air in the lungs, of vessels, bone and whatever findings add.
A film is made of their sum in `phantom_film`.

Shapes: S = size of the picture, N = points of an outline.
Units: fractions of the picture; attenuation is relative, about 1 for the whole trunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from umif.corpus.phantom_canvas import Canvas, band, ellipse, ramp, smooth, unit
from umif.corpus.phantom_chest import SIGNS, Chest
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from umif.corpus.phantom_canvas import Picture, Points
    from umif.corpus.phantom_description import Description

_TRUNKS = 12  # vessels that leave a hilum
# Vessels from the hila outwards: width and brightness, the last ones first.
_CALIBRES = ((0.0042, 95), (0.0046, 135), (0.0055, 175), (0.0085, 215))


@dataclass(slots=True)
class Layers:
    """A chest drawn layer by layer; findings change the layers, the film adds them up.

    Attributes:
        tissue: Soft tissue of the trunk without lungs.
        air: How much of it the lungs' air replaces, 0 to 1.
        vessels: Of the lungs, 0 to 1.
        bone: Calcium.
        extra: Anything more, positive or negative.
        lungs: Each lung's share of each pixel, by side.
        heart: Its share of each pixel.
        breaks: Pieces of broken ribs by side and number, posterior part.
    """

    canvas: Canvas
    chest: Chest
    tissue: Picture
    air: Picture
    vessels: Picture
    bone: Picture
    extra: Picture
    lungs: dict[str, Picture]
    heart: Picture
    breaks: dict[tuple[str, int], list[Points]] = field(default_factory=dict)


def draw_chest(description: Description, size: int) -> Layers:
    """Return the layers of a chest without its findings, save for the heart's size."""
    nuisance = description.nuisance
    canvas = Canvas(size, nuisance.rotation_degrees, nuisance.scale, shift=(nuisance.shift_x, nuisance.shift_y))
    chest = Chest(description)
    lungs = {side: canvas.fill(chest.lung(side)) for side in SIGNS}
    heart = canvas.fill(chest.heart())
    middle = canvas.fill(chest.mediastinum())
    # Unevenness of all tissue; the film grain is drawn apart.
    rng = keyed_rng(description.seed, "phantom-texture", step=description.index)
    grain = canvas.texture(rng, (6, 0.045), (24, 0.03), (60, 0.025))
    return Layers(
        canvas=canvas,
        chest=chest,
        tissue=_tissue(canvas, chest),
        air=_air(canvas, chest, lungs, heart, middle, grain),
        vessels=_vessels(canvas, chest) * np.float32(1 + 0.35 * nuisance.perfusion),
        bone=np.zeros((size, size), dtype=np.float32),
        extra=_airways(canvas, chest, grain),
        lungs=lungs,
        heart=heart,
    )


def _tissue(canvas: Canvas, chest: Chest) -> Picture:
    """Trunk, neck and arms; thicker in the middle, so darker towards the skin."""
    body, nuisance = chest.description.habitus, chest.description.nuisance
    skin = chest.half_width + 0.065 + 0.085 * body.fat
    neck = 0.115 + 0.03 * body.fat
    left = [
        (neck + 0.01, -0.2),
        (neck, 0.0),
        (neck + 0.05, 0.055),
        (0.29, 0.085),
        (0.43, 0.115),
        (0.53, 0.17),
        (0.57, 0.25),
        (0.53, 0.34),
        (skin + 0.035, 0.41),
        (skin + 0.005, 0.55),
        (skin, 0.75),
        (skin + 0.02, 1.0),
        (skin + 0.03, 1.2),
    ]
    outline = smooth([(0.5 + x, y) for x, y in left] + [(0.5 - x, y) for x, y in reversed(left)], closed=True)
    trunk = canvas.fill(outline)
    thick = trunk * (0.30 + 0.70 * canvas.blur(trunk, 0.05))
    gap = 0.06 + 0.12 * nuisance.arms
    arms = [
        np.array(
            [(0.5 + sign * x, y) for x, y in ((0.50, 0.22), (0.62, 0.2), (skin + gap + 0.2, 1.2), (skin + gap, 1.2))]
        )
        for sign in SIGNS.values()
    ]
    limbs = canvas.fill(*arms)
    thick = np.maximum(thick, 0.55 * limbs)
    # The belly is thicker than the chest, the neck thinner.
    waist = ramp(canvas.down, 0.45, 0.95)
    top = 1 - ramp(canvas.down, -0.05, 0.16)
    thick = thick * (0.80 + 0.12 * body.fat + 0.22 * waist - 0.22 * top)
    if body.breast > 0:
        thick = thick + _breasts(canvas, chest) * trunk
    return np.asarray(thick, dtype=np.float32)


def _breasts(canvas: Canvas, chest: Chest) -> Picture:
    body = chest.description.habitus
    y, tall = 0.62 + 0.05 * body.breast, 0.13 + 0.04 * body.breast
    x, wide = 0.235 + 0.02 * body.fat, 0.15 + 0.03 * body.breast
    outlines = [ellipse(0.5 + sign * x, y, wide, tall, 28) for sign in SIGNS.values()]
    layer = canvas.fill(*outlines)
    # Dense below, fading upwards: the fold is what one sees.
    return np.asarray(
        canvas.blur(layer, 0.008) * ramp(canvas.down, 0.42, 0.72) * (0.14 * body.breast), dtype=np.float32
    )


def _air(
    canvas: Canvas, chest: Chest, lungs: dict[str, Picture], heart: Picture, middle: Picture, grain: Picture
) -> Picture:
    """Depth of air along the ray: little at the lungs' edges, next to none behind heart and mediastinum."""
    nuisance = chest.description.nuisance
    both = np.maximum(lungs["left"], lungs["right"])
    depth = both * (0.42 + 0.58 * ramp(canvas.blur(both, 0.035), 0.40, 1.0))
    blocked = (1 - 0.80 * heart) * (1 - 0.90 * middle)
    # Bases hold more blood than the apices.
    blood = 1.04 - 0.14 * ramp(canvas.down, 0.35, 0.8)
    if nuisance.perfusion > 0:
        full = sum(chest.near_hilum(canvas, side, 0.13, 0.19) for side in SIGNS)
        blocked *= 1 - np.float32(0.16 * nuisance.perfusion) * full
    return np.asarray(depth * blocked * (1 + grain) * blood, dtype=np.float32)


def _vessels(canvas: Canvas, chest: Chest) -> Picture:
    """Branching lines from the hila that thin out towards the wall; the same in all images of a patient."""
    layer = canvas.layer()
    pieces: list[list[Points]] = [[], [], [], []]
    rng = keyed_rng(chest.description.habitus.vessel_key, "phantom-vessels")
    signs = np.repeat(list(SIGNS.values()), _TRUNKS)
    starts = np.repeat([chest.hilum(side) for side in SIGNS], _TRUNKS, axis=0)
    angles = np.tile(np.linspace(-1.25, 1.35, _TRUNKS), 2) + rng.uniform(-0.1, 0.1, 2 * _TRUNKS)
    lengths = 0.22 + 0.10 * np.abs(np.sin(angles))
    for order in range(3):
        paths, bends = _grow(rng, starts, angles, signs, lengths)
        for piece in range(3):
            pieces[min(order + piece, 3)].append(paths[:, 3 * piece : 3 * piece + 4])
        forks = [3, 6] if order == 0 else [5]
        starts = paths[:, forks].reshape(-1, 2)
        turns = rng.uniform(0.35, 0.75, len(starts)) * rng.choice((-1.0, 1.0), len(starts))
        angles = bends[:, [fork - 1 for fork in forks]].ravel() + turns
        lengths, signs = np.repeat(lengths, len(forks)) * 0.5, np.repeat(signs, len(forks))
    for lines, (width, grey) in zip(reversed(pieces), _CALIBRES, strict=True):
        canvas.stroke_on(layer, np.concatenate(lines), grey, width)
    canvas.fill_on(layer, [ellipse(*chest.hilum(side), 0.020, 0.042) for side in SIGNS], 235)
    return unit(layer)


def _grow(
    rng: np.random.Generator, starts: Points, angles: Points, signs: Points, lengths: Points
) -> tuple[Points, Points]:
    """Return winding ways and their direction at each step; 0 leads away from the midline, positive ones down.

    Shapes: starts (N, 2), the others (N,) → (N, 10, 2), (N, 9).
    """
    bends = angles[:, None] + np.cumsum(rng.normal(0, 0.11, (len(angles), 9)), axis=1)
    way = np.stack([signs[:, None] * np.cos(bends), np.sin(bends)], axis=2) * (lengths / 9)[:, None, None]
    return np.concatenate([starts[:, None], starts[:, None] + np.cumsum(way, axis=1)], axis=1), bends


def _airways(canvas: Canvas, chest: Chest, grain: Picture) -> Picture:
    """Trachea and main bronchi, gas in stomach and bowel, and the unevenness of what lies below the diaphragm."""
    shift = chest.description.habitus.trachea_shift
    x, y = chest.carina()
    trachea = smooth([(0.5, -0.15), (0.5 + 0.3 * shift, 0.05), (0.5 + shift, y - 0.1), (x, y)], closed=False)
    layer = canvas.layer()
    for side in SIGNS:
        hilum = chest.hilum(side)
        bronchus = np.array([(x, y - 0.01), ((x + hilum[0]) / 2, y + 0.035), hilum])
        canvas.stroke_on(layer, [bronchus], 110, 0.022)
    canvas.fill_on(layer, [band(trachea, 0.040)], 255)
    extra = -0.16 * canvas.soften(layer, 0.004)
    gas = chest.description.nuisance.gas
    if gas > 0:
        angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        centre, dome = 0.5 + 0.17, chest.dome["left"] + 0.062
        wobble = 1 + 0.12 * np.sin(2 * angle + 6 * gas) + 0.08 * np.sin(3 * angle + 9 * gas)
        bubble = np.stack(
            [
                centre + (0.04 + 0.05 * gas) * wobble * np.cos(angle),
                dome + (0.018 + 0.02 * gas) * wobble * np.sin(angle),
            ],
            axis=1,
        )
        extra = extra - (0.12 + 0.2 * gas) * canvas.blur(canvas.fill(bubble), 0.006)
    belly = ramp(canvas.down, chest.dome["left"], chest.dome["left"] + 0.1)
    return np.asarray(extra + grain * (0.35 * belly), dtype=np.float32)
