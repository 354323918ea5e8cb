"""Bones of a phantom: ribs, whole or broken, spine, clavicles, scapulae and the heads of the humeri.

Shapes: S = size of the picture, N = points of an outline.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from umif.corpus.phantom_canvas import band, ellipse, mirror, ramp, smooth, unit
from umif.corpus.phantom_chest import RIBS, SIGNS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from umif.corpus.phantom_anatomy import Layers
    from umif.corpus.phantom_canvas import Canvas, Points
    from umif.corpus.phantom_chest import Chest

_RIB_BACK, _RIB_FRONT, _OTHER, _BLADE = (np.float32(calcium) for calcium in (0.135, 0.10, 0.16, 0.10))
_EDGE = 0.0042
_VISIBLE_FRONTS = 7  # ribs below end in cartilage


def draw_bones(layers: Layers) -> None:
    """Add all bones to the layers; broken ribs are those that a finding left there."""
    canvas, chest = layers.canvas, layers.chest
    back, front, other, blades = (canvas.layer() for _ in range(4))
    width = chest.description.habitus.rib_width
    taper = np.linspace(0.55, 1.25, 16) * width
    posterior, anterior = (np.stack(parts) for parts in zip(*(chest.ribs(side) for side in SIGNS), strict=True))
    whole = np.array([[(side, number) not in layers.breaks for number in range(RIBS)] for side in SIGNS])
    canvas.bands_on(back, band(posterior[whole], width), (135, 235), _EDGE)
    canvas.bands_on(front, band(anterior[:, :_VISIBLE_FRONTS].reshape(-1, 16, 2), taper), (100, 165), _EDGE)
    # Cortex is denser than marrow, so a rib's edges are brighter.
    for broken in layers.breaks.values():
        for piece in broken:
            canvas.bands_on(back, band(piece, width)[None], (135, 235), _EDGE)
    _draw_spine(canvas, other)
    _draw_shoulders(canvas, chest, other, blades)
    # Cartilage in front holds no calcium: ribs fade towards the sternum. The belly veils what lies below the diaphragm.
    fade = ramp(np.abs(canvas.u - np.float32(0.5)), 0.13, 0.26)
    below = 1 - 0.65 * ramp(canvas.down, chest.dome["right"], chest.dome["right"] + 0.10)
    bones = (unit(back) * _RIB_BACK + unit(front) * _RIB_FRONT * fade) * below
    bones += unit(other) * _OTHER + unit(blades) * _BLADE
    layers.bone += bones


def _draw_spine(canvas: Canvas, layer: NDArray[np.uint8]) -> None:
    bodies, pedicles, spines = _vertebrae()
    canvas.fill_on(layer, bodies, 150)
    canvas.fill_on(layer, pedicles, 235)
    canvas.stroke_on(layer, spines, 220, 0.009)


@lru_cache(maxsize=1)
def _vertebrae() -> tuple[Points, Points, Points]:
    """Return bodies, pedicles and spinous processes from the neck down; all phantoms share them."""
    bodies, pedicles, spines = [], [], []
    v, tall = -0.12, 0.040
    while v < 1.1:
        half = 0.030 + 0.010 * min(max(v, 0.0), 1.0)
        waist, end = half * 0.94, v + tall * 0.86
        corners = [(half, v), (waist, v + tall * 0.43), (half, end)]
        corners += [(-x, y) for x, y in reversed(corners)]
        bodies.append(smooth([(0.5 + x, y) for x, y in corners], closed=True, steps=3))
        pedicles += [ellipse(0.5 + sign * half * 0.62, v + tall * 0.32, 0.006, 0.009, 8) for sign in SIGNS.values()]
        spines.append(np.array([(0.5, v + tall * 0.45), (0.5, v + tall * 1.05)]))
        tall *= 1.028
        v += tall
    return np.stack(bodies), np.stack(pedicles), np.stack(spines)


def _draw_shoulders(canvas: Canvas, chest: Chest, layer: NDArray[np.uint8], blades: NDArray[np.uint8]) -> None:
    """Draw the clavicles, and on a layer of their own scapulae and the heads of the humeri."""
    body = chest.description.habitus
    portable = chest.description.view == "AP"
    rise = 0.6 + (body.clavicle_tilt + (0.03 if portable else 0.0)) / 0.05
    clavicle, blade, head = _shoulder()
    climb = np.where(clavicle[:, 1:] > 0, -rise, -1.0)
    along = np.linspace(0, 1, len(clavicle))
    clavicle = np.concatenate([0.5 + clavicle[:, :1], chest.level(0.12) + clavicle[:, 1:] * climb], axis=1)
    outline = band(clavicle, np.interp(along, (0, 0.15, 0.6, 1), (0.034, 0.024, 0.022, 0.030)))
    canvas.bands_on(layer, _both(outline), (150, 235), _EDGE)
    # From behind, the shoulders are rolled forward and the blades leave the lungs; from the front they lie over them.
    edge = 0.80 if portable else 0.97
    blade = _both(blade * np.array([chest.half_width, 1.0]) + np.array([0.5 + edge * chest.half_width, 0.0]))
    canvas.fill_on(blades, blade, 110)
    canvas.stroke_on(blades, blade, 200, 0.005, closed=True)
    x = 0.5 + chest.half_width + 0.125
    head = _both(head + np.array([x, 0.0]))
    shaft = np.array([(x - 0.031, 0.2), (x + 0.031, 0.2), (x + 0.082, 0.9), (x + 0.038, 0.9)])
    canvas.fill_on(blades, head, 190)
    canvas.fill_on(blades, _both(shaft), 190)
    canvas.stroke_on(blades, head, 240, 0.006, closed=True)


def _both(outline: Points) -> Points:
    """Return an outline of the left side and its mirror image. Shapes: (N, 2) → (2, N, 2)."""
    return np.stack([outline, mirror(outline)])


@lru_cache(maxsize=1)
def _shoulder() -> tuple[Points, Points, Points]:
    """Return clavicle, blade and head of the humerus, which chests only move and scale."""
    return (
        smooth(_CLAVICLE_WAY, closed=False),
        smooth(_BLADE_EDGE, closed=True),
        ellipse(0.0, 0.185, 0.047, 0.05),
    )


# Distance from the midline and height over the inner end.
_CLAVICLE_WAY = ((0.035, -0.006), (0.10, 0.004), (0.19, 0.022), (0.28, 0.045), (0.36, 0.05), (0.44, 0.042))
# Distance from the blade's inner edge, in half widths of the chest, and height.
_BLADE_EDGE = ((0.0, 0.17), (-0.02, 0.30), (0.08, 0.43), (0.22, 0.36), (0.42, 0.22), (0.3, 0.15))
