"""From layers to a film: the exposure, and everything on a picture that means nothing."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from umif.corpus.phantom_canvas import ellipse, ramp, unit
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from umif.corpus.phantom_anatomy import Layers
    from umif.corpus.phantom_canvas import Picture
    from umif.corpus.phantom_description import Nuisance

# How much of the trunk's attenuation a lung's full depth of air takes away, and what a vessel gives back.
_AIR, _VESSEL = np.float32(0.56), np.float32(0.15)
_STEPS = 1024  # of the film curve per unit of attenuation: a quarter of a grey level at the steepest


def expose(layers: Layers) -> NDArray[np.uint8]:
    """Return the film: bright where much is in the ray's way.

    Shapes: (S, S) uint8.
    """
    description = layers.chest.description
    nuisance, canvas = description.nuisance, layers.canvas
    rng = keyed_rng(description.seed, "phantom-noise", step=description.index)
    attenuation = layers.vessels * _VESSEL
    attenuation -= _AIR
    attenuation *= layers.air
    attenuation += layers.tissue
    attenuation += layers.bone
    attenuation += layers.extra
    if nuisance.wires:
        attenuation += _wires(layers, rng) * np.float32(0.12)
    attenuation = canvas.blur(attenuation, nuisance.blur_pixels / 224)
    # Scatter in a thick body veils the picture.
    veil = np.float32(0.10 + 0.25 * description.habitus.fat * nuisance.fog)
    attenuation += (canvas.blur(attenuation, 0.12) - attenuation) * veil
    film = np.take(_curve(nuisance), (attenuation * np.float32(_STEPS)).astype(np.intp), mode="clip")
    film *= 1 - np.float32(0.12 * nuisance.vignette) * _corners(canvas.size)
    grain = _grain(canvas.size, rng)
    film += grain * (np.float32(1.25 * nuisance.noise) - np.float32(0.75 * nuisance.noise) * film)
    film *= 255
    grey: NDArray[np.uint8] = np.clip(film, 0, 255, out=film).astype(np.uint8)
    _collimate(grey, nuisance)
    _mark(grey, nuisance)
    return grey


def _curve(nuisance: Nuisance) -> Picture:
    """Return the film's grey, 0 to 1, over attenuation in steps: dark where the ray passes, bright where it is stopped.

    A table, because an exponential and a power for every pixel take as long as all drawing.
    """
    attenuation = np.arange(int(2.4 * _STEPS)) / _STEPS
    passed = np.exp(-1.75 * nuisance.gain * attenuation)
    film = np.clip((1 - passed) / 0.86, 0, 1) ** (1.45 * nuisance.gamma)
    return np.asarray(film * (1 - 0.30 * nuisance.fog) + 0.16 * nuisance.fog, dtype=np.float32)


@lru_cache(maxsize=4)
def _corners(size: int) -> Picture:
    """Return 0 in the middle of the picture and 1 in its corners. Shapes: (S, S)."""
    away = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size) - np.float32(0.5)
    return ramp(np.hypot(away[:, None], away[None, :]), 0.35, 0.75)


def _grain(size: int, rng: np.random.Generator) -> Picture:
    """Return noise of unit variance: the difference of two random bytes, five times as quick as a normal draw."""
    dots = np.frombuffer(rng.bytes(2 * size * size), dtype=np.uint8).reshape(2, size, size)
    noise: Picture = np.subtract(dots[0], dots[1], dtype=np.float32)
    noise *= np.float32(1 / 104.5)
    return noise


def _wires(layers: Layers, rng: np.random.Generator) -> Picture:
    """Leads on the skin: thin lines with a button, anywhere."""
    lines = []
    layer = layers.canvas.layer()
    for _ in range(layers.chest.description.nuisance.wires):
        start, end = rng.uniform((0.1, 0.2), (0.9, 0.8)), rng.uniform((0.0, 0.9), (1.0, 1.1))
        bend = (start + end) / 2 + rng.uniform(-0.12, 0.12, 2)
        t = np.linspace(0, 1, 20)[:, None]
        lines.append((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end)
        layers.canvas.fill_on(layer, [ellipse(start[0], start[1], 0.012, 0.012, 12)], 255)
    layers.canvas.stroke_on(layer, lines, 170, 0.005)
    return unit(layer)


def _collimate(grey: NDArray[np.uint8], nuisance: Nuisance) -> None:
    size, value = len(grey), round(255 * nuisance.collimation_grey)
    left, top, right, bottom = (round(size * edge) for edge in nuisance.collimation)
    grey[:, :left] = value
    grey[:top] = value
    grey[:, size - right :] = value
    grey[size - bottom :] = value


def _mark(grey: NDArray[np.uint8], nuisance: Nuisance) -> None:
    """Burn in the side marker, on the patient's own side, and now and then a word."""
    size = len(grey)
    if nuisance.marker:
        patch = np.zeros((size // 4, size // 4), dtype=np.uint8)
        middle = size // 8
        height = nuisance.marker_size * size
        font = cv2.FONT_HERSHEY_SIMPLEX
        scale = height / 22
        thick = max(1, round(scale * 3))
        origin = (round(middle - height * 0.4), round(middle + height * 0.5))
        cv2.putText(patch, nuisance.marker, origin, font, scale, 255, thick, cv2.LINE_AA)
        turn = cv2.getRotationMatrix2D((middle, middle), nuisance.marker_degrees, 1.0)
        patch = cv2.warpAffine(patch, turn, patch.shape)
        x = nuisance.marker_x if nuisance.marker == "R" else 1 - nuisance.marker_x
        _burn(grey, patch, round(x * size) - middle, round(nuisance.marker_y * size) - middle)
    if nuisance.word:
        patch = np.zeros((size // 10, size // 2), dtype=np.uint8)
        origin = (2, size // 16)
        cv2.putText(patch, nuisance.word, origin, cv2.FONT_HERSHEY_SIMPLEX, size / 700, 235, 1, cv2.LINE_AA)
        x = 0.03 if nuisance.marker != "R" else 0.70
        _burn(grey, patch, round(x * size), round((0.93 * nuisance.marker_y / 0.22 + 0.02) * size) - size // 16)


def _burn(grey: NDArray[np.uint8], patch: NDArray[np.uint8], left: int, top: int) -> None:
    """Brighten the picture by a patch, as far as it lies inside."""
    rows = slice(max(top, 0), min(top + patch.shape[0], len(grey)))
    columns = slice(max(left, 0), min(left + patch.shape[1], len(grey)))
    inside = patch[rows.start - top : max(rows.stop - top, 0), columns.start - left : max(columns.stop - left, 0)]
    if inside.size:
        np.maximum(grey[rows, columns], inside, out=grey[rows, columns])
