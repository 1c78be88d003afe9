"""Procedural faces: soft-edged ellipses painted in order, many faces at once, every factor and its rate known.

Coordinates: a face lives in [-1, 1] x [-1, 1], first axis to the right, second down; edges are one pixel soft, so a face looks the
same at any size. Rates of the rare attributes follow what CelebA has: glasses 12 %, hats 6 %, beards 10 %.
"""

from __future__ import annotations

import numpy as np

# attribute -> value -> rate. Drawn independently, but long hair, which needs hair.
RATES: dict[str, dict[str, float]] = {
    "hair": {"bald": 0.10, "black": 0.36, "brown": 0.27, "blond": 0.18, "grey": 0.063, "red": 0.027},
    "long_hair": {"no": 0.55, "yes": 0.45},
    "skin": {"light": 1 / 3, "medium": 1 / 3, "dark": 1 / 3},
    "pose": {"left": 1 / 3, "front": 1 / 3, "right": 1 / 3},
    "smile": {"no": 0.5, "yes": 0.5},
    "glasses": {"no": 0.88, "yes": 0.12},
    "hat": {"no": 0.94, "yes": 0.06},
    "beard": {"no": 0.90, "yes": 0.10},
}
HAIR = np.array([[0, 0, 0], [30, 24, 22], [96, 60, 36], [214, 176, 96], [158, 156, 152], [172, 70, 30]], dtype=np.float32) / 255
SKIN = np.array([[250, 220, 196], [214, 166, 126], [112, 72, 48]], dtype=np.float32) / 255
CHUNK = 128


def draw(num_faces: int, *, size: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Faces as (num_faces, size, size, 3) uint8, and the code of each attribute's value (its place in `RATES`), uint8."""
    factors, codes = _factors(num_faces, rng)
    images = np.empty((num_faces, size, size, 3), dtype=np.uint8)
    for first in range(0, num_faces, CHUNK):
        part = slice(first, min(first + CHUNK, num_faces))
        images[part] = _paint({name: value[part] for name, value in factors.items()}, size)
    return images, codes


def _factors(n: int, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Every factor of every face. Continuous ones are uniform; skin, pose and smile are the thirds and halves of theirs."""

    def uniform(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, n).astype(np.float32)

    def chosen(name: str) -> np.ndarray:
        rates = np.array(list(RATES[name].values()))
        return rng.choice(len(rates), size=n, p=rates / rates.sum())

    codes = {name: chosen(name) for name in ("hair", "glasses", "hat", "beard")}
    codes["long_hair"] = ((rng.random(n) < RATES["long_hair"]["yes"] / (1 - RATES["hair"]["bald"])) & (codes["hair"] > 0)).astype(
        int
    )
    skin, yaw, smile = uniform(0, 1), uniform(-1, 1), uniform(-1, 1)
    codes |= {"skin": (skin * 3).astype(int), "pose": ((yaw + 1) * 1.5).astype(int), "smile": (smile > 0).astype(int)}
    codes = {name: np.minimum(codes[name], len(RATES[name]) - 1).astype(np.uint8) for name in RATES}
    shade, weight = skin[:, None] * 2, np.clip(skin[:, None] * 2 - 1, 0, 1)
    skin_colour = SKIN[0] + (SKIN[1] - SKIN[0]) * np.minimum(shade, 1) + (SKIN[2] - SKIN[1]) * weight
    hair_colour = np.clip(HAIR[codes["hair"]] + uniform(-0.04, 0.04)[:, None], 0, 1)
    factors: dict[str, np.ndarray] = {
        "background": _hue(uniform(0, 1), uniform(0.15, 0.5), uniform(0.45, 0.95)),
        "clothes": _hue(uniform(0, 1), uniform(0.2, 0.7), uniform(0.25, 0.75)),
        "hat_colour": _hue(uniform(0, 1), uniform(0.5, 0.9), uniform(0.3, 0.8)),
        "skin": skin_colour,
        "hair_colour": hair_colour,
        "brow_colour": np.where(codes["hair"][:, None] > 0, hair_colour * 0.7, skin_colour * 0.5),
        "yaw": yaw,
        "smile": smile,
        "x": uniform(-0.08, 0.08),
        "y": uniform(-0.04, 0.08),
        "width": uniform(0.40, 0.50),
        "height": uniform(0.54, 0.64),
        "eyes": uniform(0.18, 0.23),
        "light": uniform(-0.18, 0.18),
    }
    factors |= {name: codes[name].astype(np.float32) for name in ("long_hair", "glasses", "hat", "beard")}
    factors["hairy"] = (codes["hair"] > 0).astype(np.float32)
    return factors, codes


def _hue(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Colours (n, 3) in [0, 1] from hue, saturation and value in [0, 1]."""
    k = (np.array([5, 3, 1], dtype=np.float32) + hue[:, None] * 6) % 6
    return value[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(k, 4 - k), 0, 1))


def _paint(f: dict[str, np.ndarray], size: int) -> np.ndarray:
    """The faces of these factors, (n, size, size, 3) uint8: from the background forward."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    u, v, pixel = axis[None, None, :], axis[None, :, None], np.float32(2 / size)

    def across(values: np.ndarray | float) -> np.ndarray:
        return np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)

    def ellipse(x: np.ndarray, y: np.ndarray, a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
        a, b = across(a), across(b)
        radius = np.sqrt(((u - across(x)) / a) ** 2 + ((v - across(y)) / b) ** 2)
        return np.clip(0.5 - (radius - 1) * np.minimum(a, b) / pixel, 0, 1)

    def below(y: np.ndarray) -> np.ndarray:
        return np.clip(0.5 + (v - across(y)) / pixel, 0, 1)

    image = np.empty((len(f["x"]), size, size, 3), dtype=np.float32)
    image[:] = f["background"][:, None, None, :]

    def paint(mask: np.ndarray, colour: np.ndarray) -> None:
        nonlocal image
        colour = np.asarray(colour, dtype=np.float32)
        image += mask[..., None] * ((colour[:, None, None, :] if colour.ndim == 2 else colour) - image)

    x, y, width, height = f["x"], f["y"], f["width"], f["height"]
    turn = x + 0.12 * f["yaw"]  # where the features are: the middle of the face, turned
    paint(ellipse(x, y + 1.05, 0.85, 0.42), f["clothes"])
    paint(
        ellipse(x - 0.05 * f["yaw"], y + 0.05, width * 1.28, height * 1.3) * below(y - 0.4) * across(f["long_hair"]),
        f["hair_colour"],
    )
    paint(ellipse(x, y + height * 0.95, 0.17, 0.28), f["skin"] * 0.85)
    paint(ellipse(x - 0.02 * f["yaw"], y - 0.12, width * 1.16, height * 1.06) * across(f["hairy"]), f["hair_colour"])
    face = ellipse(x, y, width, height)
    shade = 1 + across(f["light"]) * (u - across(x)) / across(width)
    skin = np.clip(f["skin"][:, None, None, :] * shade[..., None], 0, 1)
    image += face[..., None] * (skin - image)
    line = across(y - height * 0.52) + 0.10 * ((u - across(turn)) / across(width)) ** 2  # where the hair begins
    fringe = np.clip(0.5 - (v - line) / pixel, 0, 1)
    paint(face * fringe * across(f["hairy"]), f["hair_colour"])
    paint(face * below(y + 0.2) * across(f["beard"]), f["brow_colour"] * 0.8)
    level = y - 0.06
    for side in (-1, 1):
        eye = turn + side * f["eyes"]
        paint(ellipse(eye, level, 0.085, 0.055), np.array([0.96, 0.96, 0.94]))
        paint(ellipse(eye + 0.02 * f["yaw"], level, 0.042, 0.048), np.array([0.12, 0.10, 0.10]))
        paint(ellipse(eye, level - 0.13, 0.10, 0.028), f["brow_colour"])
        ring = ellipse(eye, level, 0.165, 0.135) - ellipse(eye, level, 0.115, 0.085)
        paint(np.clip(ring, 0, 1) * across(f["glasses"]), np.array([0.05, 0.05, 0.07]))
    paint(ellipse(turn, level, f["eyes"] - 0.14, 0.028) * across(f["glasses"]), np.array([0.05, 0.05, 0.07]))
    paint(ellipse(turn + 0.04 * f["yaw"], y + 0.13, 0.055, 0.085), f["skin"] * 0.82)
    bend = across(y + 0.34) - across(f["smile"]) * 1.1 * ((u - across(turn)) ** 2 - 0.012)
    lips = np.clip(0.5 - (np.abs(v - bend) - 0.032) / pixel, 0, 1) * np.clip(0.5 - (np.abs(u - across(turn)) - 0.19) / pixel, 0, 1)
    paint(lips, f["skin"] * 0.45 + np.array([0.28, 0.02, 0.05], dtype=np.float32))
    crown = ellipse(x, y - height * 0.62, width * 1.1, height * 0.62) * (1 - below(y - height * 0.55))
    brim = ellipse(x + 0.05 * f["yaw"], y - height * 0.55, width * 1.45, 0.075)
    paint(np.maximum(crown, brim) * across(f["hat"]), f["hat_colour"])
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
