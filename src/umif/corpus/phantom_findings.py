"""Findings drawn into a phantom's layers, each with the region that it takes up.

Every drawing follows from the finding's description alone; `contrast` runs from barely visible to plain.

Shapes: S = size of the picture.
Units: fractions of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from umif.corpus import phantom_description as names
from umif.corpus.phantom_canvas import band, ellipse, ramp, smooth
from umif.corpus.phantom_chest import SIGNS
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from umif.corpus.phantom_anatomy import Layers
    from umif.corpus.phantom_canvas import Points
    from umif.corpus.phantom_description import DrawnFinding

    Mask = NDArray[np.bool_]
    Draw = Callable[[Layers, DrawnFinding, str, np.random.Generator], Mask]

FIRST_BREAKABLE = {"upper": 2, "mid": 4, "lower": 6}


@dataclass(frozen=True, slots=True)
class PhantomRegion:
    """Where a finding is: one per side for what lies on both."""

    name: str
    side: str
    mask: Mask

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of the mask in pixels."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def draw_findings(layers: Layers) -> list[PhantomRegion]:
    """Draw the description's findings and return their regions; before the bones, of which one may be broken."""
    description = layers.chest.description
    regions = []
    for finding in description.findings:
        for side in SIGNS if finding.side == "both" else (finding.side,):
            slot = names.FINDINGS.index(finding.name) * 2 + (side == "left")
            rng = keyed_rng(description.seed, "phantom-finding", step=description.index, slot=slot)
            mask = _DRAW[finding.name](layers, finding, side, rng)
            if mask.any():
                regions.append(PhantomRegion(finding.name, side, mask))
    return regions


def rib_number(finding: DrawnFinding) -> int:
    """Return which rib a fracture breaks, 1 for the uppermost."""
    return FIRST_BREAKABLE[finding.zone] + (finding.along >= 0.5) + 1


def _cardiomegaly(layers: Layers, finding: DrawnFinding, side: str, rng: np.random.Generator) -> Mask:
    # The chest's geometry has made the heart wide already.
    return layers.heart > 0.5


def _effusion(layers: Layers, finding: DrawnFinding, side: str, rng: np.random.Generator) -> Mask:
    """Fluid at the base with a surface that climbs the wall."""
    canvas, chest = layers.canvas, layers.chest
    surface = chest.angle[side] - 0.045 - 0.33 * finding.size**1.3
    outwards = (canvas.u - np.float32(0.5)) * np.float32(SIGNS[side] / chest.half_width)
    climb = 0.03 + 0.06 * finding.size
    below = canvas.v - np.float32(surface) + np.float32(climb) * np.clip((outwards - 0.5) * 2, 0, 1) ** 2
    fluid = layers.lungs[side] * ramp(below, -0.008, 0.03)
    layers.air *= 1 - np.float32(0.22 + 0.72 * finding.contrast) * fluid
    return fluid > 0.5


def _pneumothorax(layers: Layers, finding: DrawnFinding, side: str, rng: np.random.Generator) -> Mask:
    """Air between the wall and a lung that has shrunk towards its root: no vessels, and a thin line."""
    canvas, chest = layers.canvas, layers.chest
    strength = 0.25 + 0.75 * finding.contrast
    shrink = 0.05 + 0.27 * finding.size
    root = np.array([0.5 + SIGNS[side] * 0.04, chest.dome[side] + 0.02])
    keep = np.array([1 - shrink, 1 - 0.75 * shrink])
    outline = root + (chest.lung(side) - root) * keep
    wall = chest.wall_line(side)
    pleura = outline[: len(wall)]
    gap = layers.lungs[side] * canvas.fill(np.concatenate([wall, pleura[::-1]]))
    layers.vessels *= 1 - np.float32(strength) * gap
    layers.air += np.float32(0.10 * strength) * gap * np.minimum(layers.air * 4, 1)
    layers.air *= 1 - np.float32(0.12 * strength * shrink) * canvas.fill(outline)
    layers.extra += np.float32(0.11 * strength) * canvas.stroke([pleura], 0.0055) * layers.lungs[side]
    return gap > 0.5


def _consolidation(layers: Layers, finding: DrawnFinding, side: str, rng: np.random.Generator) -> Mask:
    """A fuzzy patch in which open bronchi stay dark."""
    canvas, chest = layers.canvas, layers.chest
    x, y = _place(layers, finding, side)
    radius = 0.042 + 0.07 * finding.size
    corners = _blob(rng, x, y, radius)
    patch = canvas.blur(canvas.fill(corners), radius * 0.28)
    cloudy = np.clip(patch * (1 + 0.30 * canvas.texture(rng, (22, 1.0))), 0, 1)
    strength = np.float32(0.14 + 0.62 * finding.contrast)
    layers.air *= 1 - strength * cloudy * layers.lungs[side]
    hilum = np.array(chest.hilum(side))
    ends = np.array([x, y]) + rng.uniform(-0.7, 0.7, (3, 2)) * radius
    bronchi = [hilum + (end - hilum) * np.linspace(0.5, 1, 6)[:, None] for end in ends]
    layers.extra -= 0.07 * strength * canvas.stroke(bronchi, 0.006) * patch
    return (patch > 0.5) & (layers.lungs[side] > 0.5)


def _nodule(layers: Layers, finding: DrawnFinding, side: str, rng: np.random.Generator) -> Mask:
    """A ball: the ray passes most of it in the middle."""
    canvas = layers.canvas
    x, y = _place(layers, finding, side)
    radius = 0.014 + 0.026 * finding.size
    distance = ((canvas.u - np.float32(x)) ** 2 + (canvas.v - np.float32(y)) ** 2) * np.float32(1 / radius**2)
    ball = np.sqrt(np.clip(1 - distance, 0, 1))
    layers.extra += np.float32(0.05 + 0.17 * finding.contrast) * ball * layers.lungs[side]
    return (distance < 1) & (layers.lungs[side] > 0.5)


def _atelectasis(layers: Layers, finding: DrawnFinding, side: str, rng: np.random.Generator) -> Mask:
    """One to three plates of airless lung, near the horizontal."""
    canvas = layers.canvas
    x, y = _place(layers, finding, side)
    length = 0.08 + 0.10 * finding.size
    plates = []
    for number in range(1 + int(finding.size * 2.99)):
        tilt = rng.uniform(-0.35, 0.35)
        t = np.linspace(-0.5, 0.5, 8)
        rise = 0.012 * rng.uniform(-1, 1)
        plates.append(
            np.stack(
                [
                    x + length * t * np.cos(tilt) + rng.uniform(-0.01, 0.01),
                    y - 0.034 * number + length * t * np.sin(tilt) + rise * (1 - 4 * t**2),
                ],
                axis=1,
            )
        )
    drawn = canvas.stroke(plates, 0.009 + 0.009 * finding.size) * layers.lungs[side]
    layers.extra += np.float32(0.05 + 0.15 * finding.contrast) * canvas.blur(drawn, 0.003)
    return drawn > 0.4


def _edema(layers: Layers, finding: DrawnFinding, side: str, rng: np.random.Generator) -> Mask:
    """Haze around the hilum, swollen vessels and short lines at the wall of the base."""
    canvas, chest = layers.canvas, layers.chest
    haze = chest.near_hilum(canvas, side, 0.10 + 0.06 * finding.size, 0.17 + 0.06 * finding.size)
    haze *= layers.lungs[side]
    strength = np.float32(0.07 + 0.43 * finding.contrast)
    layers.air *= 1 - strength * haze * (1 + 0.25 * canvas.texture(rng, (16, 1.0)))
    swollen = canvas.blur(layers.vessels, 0.006)
    layers.vessels += strength * swollen * haze
    heights = chest.angle[side] - 0.05 - 0.022 * np.arange(1.0, 4 + round(3 * finding.size))
    reach = chest.walls(heights)
    starts = np.stack([0.5 + SIGNS[side] * (reach - 0.006), heights], axis=1)
    ends = np.stack([0.5 + SIGNS[side] * (reach - 0.034), heights + 0.004], axis=1)
    lines = np.stack([starts, ends], axis=1)
    layers.extra += 0.22 * strength * canvas.stroke(lines, 0.0045) * layers.lungs[side]
    return haze > 0.5


def _fracture(layers: Layers, finding: DrawnFinding, side: str, rng: np.random.Generator) -> Mask:
    """A rib in two pieces, with a gap and a step between them and new bone at both ends."""
    canvas, chest = layers.canvas, layers.chest
    number = rib_number(finding) - 1
    rib = chest.ribs(side)[0][number]
    fine = np.linspace(0, len(rib) - 1, 61)
    rib = np.stack([np.interp(fine, np.arange(len(rib)), rib[:, axis]) for axis in range(2)], axis=1)
    at = round(20 + 30 * finding.across)
    width = chest.description.habitus.rib_width
    along = rib[at + 1] - rib[at - 1]
    along /= np.hypot(*along)
    across = np.array([-along[1], along[0]]) * (1 if rng.random() < 0.5 else -1)
    step = width * (0.3 + 0.30 * finding.size + 0.8 * finding.contrast)
    gap = width * (0.10 + 0.5 * finding.contrast)
    outer = rib[at:] + along * gap + across * step * np.linspace(1, 0.1, len(rib) - at)[:, None]
    layers.breaks[side, number] = [rib[: at + 1], outer]
    # New bone around both ends, and their edges.
    ends = [band(rib[at - 4 : at + 1], 1.15 * width), band(outer[:5], 1.15 * width)]
    rims = [rib[at] + across * width * np.array([[-0.6], [0.6]]), outer[0] + across * width * np.array([[-0.6], [0.6]])]
    fresh = 0.5 * canvas.fill(*ends) + canvas.stroke(rims, 0.0055)
    layers.bone += np.float32(0.015 + 0.10 * finding.contrast) * fresh
    x, y = rib[at]
    return canvas.fill(ellipse(float(x), float(y), 1.6 * width, 1.6 * width)) > 0.5


def _devices(layers: Layers, finding: DrawnFinding, side: str, rng: np.random.Generator) -> Mask:
    """A tube or a line of one of four kinds, on its usual way through the body."""
    canvas = layers.canvas
    way = smooth(_device_way(layers, finding, side), closed=False)
    strength = np.float32(0.06 + 0.20 * finding.contrast)
    if finding.kind == "endotracheal tube":
        wide = 0.017
        outline = band(way, wide)
        half = len(way)
        walls = canvas.stroke([outline[:half], outline[half:]], 0.0042)
        layers.extra += strength * (walls + 0.35 * canvas.fill(outline))
    else:
        wide = 0.010 if finding.kind == "chest tube" else 0.007
        layers.extra += strength * canvas.stroke([way], wide)
    return canvas.stroke([way], max(wide + 0.006, 0.016)) > 0.5


def _device_way(layers: Layers, finding: DrawnFinding, side: str) -> list[tuple[float, float]]:
    chest = layers.chest
    x, y = chest.carina()
    dome = chest.dome["left"]
    if finding.kind == "endotracheal tube":
        shift = chest.description.habitus.trachea_shift
        return [(0.5, -0.2), (0.5 + 0.3 * shift, 0.05), (0.5 + shift, y - 0.1), (x, y - 0.02 - 0.06 * finding.along)]
    if finding.kind == "nasogastric tube":
        reach = 0.08 + 0.09 * finding.along
        return [
            (0.51, -0.2),
            (0.512, y - 0.1),
            (0.506, chest.level(0.75)),
            (0.525, dome + 0.01),
            (0.5 + 0.6 * reach, dome + 0.075),
            (0.5 + reach, dome + 0.095),
        ]
    sign = SIGNS[side]
    if finding.kind == "central venous catheter":
        # Its tip lies in the superior vena cava, which is on the right whichever side it comes from.
        return [
            (0.5 + sign * 0.085, -0.2),
            (0.5 + sign * 0.075, chest.level(0.05)),
            (0.5 + sign * 0.05, chest.level(0.2)),
            (0.5 - 0.035, chest.level(0.33)),
            (0.5 - 0.045, chest.level(0.44 + 0.16 * finding.along)),
        ]
    entry = chest.half_width + 0.12
    return [
        (0.5 + sign * entry, chest.level(0.98)),
        (0.5 + sign * (chest.half_width + 0.01), chest.level(0.85)),
        (0.5 + sign * 0.80 * chest.half_width, chest.level(0.6)),
        (0.5 + sign * 0.62 * chest.half_width, chest.level(0.42 - 0.2 * finding.along)),
    ]


def _place(layers: Layers, finding: DrawnFinding, side: str) -> tuple[float, float]:
    return layers.chest.place(side, finding.zone, finding.along, finding.across)


def _blob(rng: np.random.Generator, x: float, y: float, radius: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wave = sum(rng.uniform(-0.16, 0.16) * np.sin(k * angle + rng.uniform(0, 6.28)) for k in (1, 2, 3, 4))
    reach = radius * (1 + wave)
    return np.stack([x + reach * np.cos(angle), y + 1.15 * reach * np.sin(angle)], axis=1)


_DRAW: dict[str, Draw] = {
    names.CARDIOMEGALY: _cardiomegaly,
    names.EDEMA: _edema,
    names.CONSOLIDATION: _consolidation,
    names.ATELECTASIS: _atelectasis,
    names.NODULE: _nodule,
    names.EFFUSION: _effusion,
    names.PNEUMOTHORAX: _pneumothorax,
    names.FRACTURE: _fracture,
    names.DEVICES: _devices,
}
