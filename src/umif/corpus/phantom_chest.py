"""A chest's geometry in body coordinates: outlines and places that follow from a description.

The patient's right side is on the picture's left, as on every chest film.

Shapes: S = size of the picture, N = points of an outline.
Units: fractions of the picture.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from umif.corpus.phantom_canvas import mirror, smooth
from umif.corpus.phantom_description import CARDIOMEGALY

if TYPE_CHECKING:
    from umif.corpus.phantom_canvas import Canvas, Picture, Points
    from umif.corpus.phantom_description import Description, Zone

SIGNS = {"right": -1.0, "left": 1.0}
RIBS = 10
# Lung outline from the medial apex to the costophrenic angle: (share of the half width, share of the height).
_WALL = (
    (0.17, 0.14),
    (0.24, 0.05),
    (0.36, 0.0),
    (0.52, 0.025),
    (0.66, 0.09),
    (0.79, 0.20),
    (0.895, 0.35),
    (0.955, 0.5),
    (0.99, 0.7),
    (1.0, 0.87),
    (0.99, 1.0),
)
_WALL_WIDTHS, _WALL_HEIGHTS = np.array(_WALL[2:]).T
_ZONES = {"upper": (0.16, 0.38), "mid": (0.42, 0.62), "lower": (0.66, 0.9)}


@lru_cache(maxsize=1)
def _wall() -> Points:
    """Return the wall's curve once for all chests, which only scale it."""
    return smooth(_WALL, closed=False)


class Chest:
    """Outlines and places of one phantom's chest."""

    def __init__(self, description: Description) -> None:
        body, nuisance = description.habitus, description.nuisance
        portable = description.view == "AP"
        self.description = description
        self.half_width = body.chest_half_width * (0.97 if portable else 1.0)
        self.apex = body.apex
        right = 0.705 + 0.035 * nuisance.inspiration - (0.03 if portable else 0.0)
        self.dome = {"right": right, "left": right + 0.022}
        self.angle = {side: dome + 0.095 for side, dome in self.dome.items()}
        self.height = right - self.apex
        enlarged = description.finding(CARDIOMEGALY)
        # An enlarged heart takes up more than half of the chest; nearer the tube, or breathed in less, any looks wider.
        ratio = body.heart_ratio if enlarged is None else 0.515 + 0.155 * enlarged.contrast
        looks = (1.06 if portable else 1.0) * (1 - 0.03 * nuisance.inspiration)
        self.heart_width = 2 * self.half_width * ratio * looks

    def level(self, share: float) -> float:
        """Return v at a share of the lungs' height, 0 at the apex and 1 at the right dome."""
        return self.apex + share * self.height

    def walls(self, v: Points) -> Points:
        """Return the distance of the chest's inner wall from the midline at each height. Shapes: any → the same."""
        share = (v - self.apex) / (self.angle["right"] - self.apex)
        widths: Points = np.interp(share, _WALL_HEIGHTS, _WALL_WIDTHS) * self.half_width
        return widths

    def wall_line(self, side: str) -> Points:
        """Return the inner wall from the medial apex down to the costophrenic angle. Shapes: (N, 2)."""
        spread = np.array([self.half_width * SIGNS[side], self.angle[side] - self.apex])
        wall: Points = _wall() * spread + np.array([0.5, self.apex])
        return wall

    def lung(self, side: str) -> Points:
        """Return the outline of a lung: first its wall line, then back over the diaphragm. Shapes: (N, 2)."""
        dome, angle = self.dome[side], self.angle[side]
        q = np.linspace(0, 1, 24)[1:]
        sag = np.where(q < 0.5, (angle - dome) * np.abs(1 - q / 0.5) ** 2.2, 0.045 * np.abs(q / 0.5 - 1) ** 2)
        floor = np.stack([0.5 + 0.99 * self.half_width * (1 - q) + 0.035 * q, dome + sag], axis=1)
        return np.concatenate([self.wall_line(side), floor if side == "left" else mirror(floor)])

    def heart(self) -> Points:
        """Return the outline of the heart. Shapes: (N, 2)."""
        left, right, base = 0.655 * self.heart_width, 0.345 * self.heart_width, self.dome["left"]
        top = self.level(0.46)
        tall = base - top
        return smooth(
            [
                (0.5 - 0.055, top - 0.03),
                (0.5 - 0.75 * right, top + 0.20 * tall),
                (0.5 - right, top + 0.60 * tall),
                (0.5 - 0.93 * right, top + 0.92 * tall),
                (0.5 - 0.4 * right, base + 0.05),
                (0.5 + 0.5 * left, base + 0.06),
                (0.5 + 0.93 * left, base + 0.022),
                (0.5 + left, base - 0.12 * tall),
                (0.5 + 0.93 * left, base - 0.36 * tall),
                (0.5 + 0.70 * left, base - 0.66 * tall),
                (0.5 + 0.40 * left + 0.01, top + 0.05 * tall),
                (0.5 + 0.055, top - 0.05),
            ],
            closed=True,
        )

    def mediastinum(self) -> Points:
        """Return the outline of the upper mediastinum with the aortic knob and the pulmonary trunk. Shapes: (N, 2)."""
        wide = 0.006 if self.description.view == "AP" else 0.0
        knob = 0.062 + 0.030 * self.description.habitus.knob
        return smooth(
            [
                (0.5 - 0.062 - wide, -0.15),
                (0.5 - 0.052 - wide, self.level(0.10)),
                (0.5 - 0.05 - wide, self.level(0.25)),
                (0.5 - 0.056 - wide, self.level(0.42)),
                (0.5 - 0.06, self.level(0.6)),
                (0.5 - 0.03, self.level(1.1)),
                (0.5 + 0.03, self.level(1.1)),
                (0.5 + 0.07, self.level(0.6)),
                (0.5 + 0.075, self.level(0.465)),
                (0.5 + 0.058, self.level(0.40)),
                (0.5 + knob, self.level(0.335)),
                (0.5 + knob - 0.006, self.level(0.285)),
                (0.5 + 0.045 + wide, self.level(0.22)),
                (0.5 + 0.047 + wide, self.level(0.08)),
                (0.5 + 0.062 + wide, -0.15),
            ],
            closed=True,
        )

    def hilum(self, side: str) -> tuple[float, float]:
        """Return where the vessels of a side begin; the left one lies a little higher."""
        return 0.5 + SIGNS[side] * 0.078, self.level(0.50 if side == "right" else 0.465)

    def near_hilum(self, canvas: Canvas, side: str, wide: float, tall: float) -> Picture:
        """Return how near each pixel is to a side's inner lung, 1 at its middle. Shapes: (S, S)."""
        x, y = self.hilum(side)
        x += SIGNS[side] * 0.045
        distance = ((canvas.u - np.float32(x)) * np.float32(1 / wide)) ** 2
        distance += ((canvas.v - np.float32(y + 0.02)) * np.float32(1 / tall)) ** 2
        return np.asarray(cv2.exp(-distance), dtype=np.float32)

    def carina(self) -> tuple[float, float]:
        """Return where the trachea divides."""
        return 0.5 + 0.6 * self.description.habitus.trachea_shift, self.level(0.37)

    def place(self, side: str, zone: Zone, along: float, across: float) -> tuple[float, float]:
        """Return a place in a lung: `along` its zone downwards and `across` from the mediastinum to the wall."""
        low, high = _ZONES[zone]
        v = self.level(low + (high - low) * along)
        inner = 0.085 if zone != "lower" else 0.11
        if side == "left" and zone != "upper":
            # Beside the heart, not behind it.
            inner = max(inner, (0.42 + 0.2 * (zone == "lower")) * self.heart_width)
        outer = float(self.walls(np.array(v))) - 0.045
        return 0.5 + SIGNS[side] * (inner + (outer - inner) * across), v

    def ribs(self, side: str) -> tuple[Points, Points]:
        """Return the middle lines of a side's posterior and anterior rib parts, from the midline outwards.

        Shapes: (ribs, N, 2) each.
        """
        body = self.description.habitus
        number = np.arange(RIBS)[:, None]
        spacing = (self.angle["right"] - self.apex) / (RIBS - 0.9)
        start = self.apex - 0.012 + number * spacing * (0.9 + 0.011 * number)
        drop = np.where(number == 0, 0.045, body.rib_drop + 0.05 + 0.012 * number)
        end = start + drop
        reach = self.walls(end) + 0.006
        s = np.linspace(0, np.pi / 2, 16)
        rise, run = np.sin(s), 1 - np.cos(s)
        posterior = np.stack([0.54 + (reach - 0.04) * rise, start - 0.014 * np.sin(2 * s) + drop * run**1.2], axis=-1)
        inner, fall = 0.13 + 0.012 * number, 0.085 + 0.006 * number
        anterior = np.stack([0.5 + reach - (reach - inner) * run, end + fall * rise**1.1], axis=-1)[:, ::-1]
        return (posterior, anterior) if side == "left" else (mirror(posterior), mirror(anterior))
