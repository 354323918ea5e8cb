"""The description of a phantom: everything that its picture, masks, labels and texts follow from.

A description is plain values (`to_json`, `from_json`), drawn from one seed by keyed draws. Patients have two of each
three images as follow-ups: of every six consecutive images one patient has one, one two and one three. The body and
the chronic findings belong to the patient, the acute ones to the image, so a split that tears patients apart can be
noticed. Nuisances come from a draw of their own and know nothing of the findings.

Units: lengths and places are fractions of the picture; a body upright in the middle; `contrast` and `size` are 0 to 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from umif.rng import keyed_rng

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np

Side = Literal["left", "right", "both", "midline"]
Zone = Literal["upper", "mid", "lower", "all"]
State = Literal["present", "absent", "uncertain", "not_mentioned"]

EFFUSION = "Pleural Effusion"
CARDIOMEGALY = "Cardiomegaly"
PNEUMOTHORAX = "Pneumothorax"
CONSOLIDATION = "Consolidation"
NODULE = "Nodule"
ATELECTASIS = "Atelectasis"
EDEMA = "Edema"
FRACTURE = "Fracture"
DEVICES = "Support Devices"
NO_FINDING = "No Finding"
# In the order in which they are drawn and told.
FINDINGS = (
    CARDIOMEGALY,
    EDEMA,
    CONSOLIDATION,
    ATELECTASIS,
    NODULE,
    EFFUSION,
    PNEUMOTHORAX,
    FRACTURE,
    DEVICES,
)
DEVICE_KINDS = ("endotracheal tube", "central venous catheter", "nasogastric tube", "chest tube")

_HEALTHY = 0.20  # of patients
# Probabilities in the other patients; about a quarter of all images ends up without any finding.
_CHRONIC = {CARDIOMEGALY: 0.26, NODULE: 0.22, FRACTURE: 0.22}
_ACUTE = {EDEMA: 0.20, CONSOLIDATION: 0.25, ATELECTASIS: 0.22, EFFUSION: 0.30, PNEUMOTHORAX: 0.20, DEVICES: 0.25}
_IMAGES_PER_BLOCK, _PATIENTS_PER_BLOCK = 6, 3
FAINT = 0.3  # contrast below which a label may say `uncertain`
_SHARE_HEDGED = 0.6  # of faint findings
_SHARE_UNMENTIONED = 0.25  # of absent findings


@dataclass(frozen=True, slots=True)
class Habitus:
    """A patient's body."""

    chest_half_width: float
    apex: float
    fat: float
    breast: float
    rib_drop: float
    rib_width: float
    heart_ratio: float  # of heart to chest, where the heart is not enlarged
    knob: float  # size of the aortic knob
    clavicle_tilt: float
    trachea_shift: float
    vessel_key: int


@dataclass(frozen=True, slots=True)
class DrawnFinding:
    """One finding of one image.

    Attributes:
        along: Where, from the top of its zone (0) to its bottom (1).
        across: Where, from the mediastinum (0) to the chest wall (1).
        kind: What device it is; empty for other findings.
    """

    name: str
    side: Side
    zone: Zone
    size: float
    contrast: float
    along: float
    across: float
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Nuisance:
    """What differs between pictures and means nothing."""

    rotation_degrees: float
    scale: float
    shift_x: float
    shift_y: float
    inspiration: float
    perfusion: float  # how full the vessels are
    gain: float
    gamma: float
    fog: float
    noise: float
    blur_pixels: float  # at 224 pixels
    vignette: float
    collimation: tuple[float, float, float, float]  # left, top, right, bottom
    collimation_grey: float
    marker: str  # L, R or empty
    marker_x: float
    marker_y: float
    marker_degrees: float
    marker_size: float
    word: str  # burnt in, or empty
    arms: float
    gas: float  # of the stomach bubble
    wires: int  # leads on the skin, which are no support devices


@dataclass(frozen=True, slots=True)
class Description:
    """One phantom in words and numbers."""

    seed: int
    index: int
    patient: str
    study: str
    followup: int
    sex: Literal["F", "M"]
    age_years: int
    view: Literal["PA", "AP"]
    habitus: Habitus
    findings: tuple[DrawnFinding, ...]
    labels: tuple[tuple[str, State], ...]
    nuisance: Nuisance

    def finding(self, name: str) -> DrawnFinding | None:
        """Return the finding of that name, `None` where the phantom has none."""
        return next((finding for finding in self.findings if finding.name == name), None)

    def label(self, name: str) -> State:
        """Return the state of that label."""
        return dict(self.labels)[name]

    def without(self, name: str) -> Description:
        """Return the same phantom without that finding; labels stay as they are."""
        return replace(self, findings=tuple(finding for finding in self.findings if finding.name != name))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "labels": dict(self.labels)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Description:
        """Return the description that `to_json` gave `data` for."""
        nuisance = {**data["nuisance"], "collimation": tuple(data["nuisance"]["collimation"])}
        return cls(
            **{
                **data,
                "habitus": Habitus(**data["habitus"]),
                "findings": tuple(DrawnFinding(**finding) for finding in data["findings"]),
                "labels": tuple(data["labels"].items()),
                "nuisance": Nuisance(**nuisance),
            }
        )


def describe(
    seed: int, index: int, *, clarity: float = 0.0, spread: float = 1.0, only: Collection[str] = FINDINGS
) -> Description:
    """Return the description of phantom `index` of the series that `seed` names.

    Args:
        seed: Names the series.
        index: Which phantom of it.
        clarity: Least contrast and size of a finding, 0 to 1.
        spread: How far place and exposure stray, as a multiple of the usual; 3 = films taken in a hurry.
        only: Findings that this series may have; no text and no label speaks of the others.
    """
    patient, followup = _patient_of(seed, index)
    who = keyed_rng(seed, "phantom-patient", step=patient)
    sex: Literal["F", "M"] = "F" if who.random() < 0.5 else "M"
    age_years = int(who.integers(19, 91))
    habitus = _draw_habitus(who, sex, age_years)
    healthy = who.random() < _HEALTHY
    chronic = {name: _draw_finding(name, who) for name, share in _CHRONIC.items() if who.random() < share}
    rng = keyed_rng(seed, "phantom", step=index)
    acute = {name: _draw_finding(name, rng) for name, share in _ACUTE.items() if rng.random() < share}
    drawn = {} if healthy else {**chronic, **acute}
    drawn = {name: _clearer(finding, clarity) for name, finding in drawn.items() if name in only}
    findings = tuple(_kept_visible(drawn[name], drawn) for name in FINDINGS if name in drawn)
    return Description(
        seed=seed,
        index=index,
        patient=f"p{patient:05d}",
        study=f"p{patient:05d}s{followup}",
        followup=followup,
        sex=sex,
        age_years=age_years,
        view="PA" if rng.random() < 0.6 else "AP",
        habitus=habitus,
        findings=findings,
        labels=_draw_labels(findings, rng, only),
        nuisance=_strayed(_draw_nuisance(keyed_rng(seed, "phantom-nuisance", step=index)), spread),
    )


def _clearer(finding: DrawnFinding, clarity: float) -> DrawnFinding:
    if not clarity:
        return finding
    size, contrast = (round(clarity + (1 - clarity) * value, 4) for value in (finding.size, finding.contrast))
    return replace(finding, size=size, contrast=contrast)


def _strayed(nuisance: Nuisance, spread: float) -> Nuisance:
    if spread == 1:
        return nuisance
    return replace(
        nuisance,
        rotation_degrees=round(nuisance.rotation_degrees * spread, 4),
        scale=round(1 + (nuisance.scale - 1) * spread, 4),
        shift_x=round(nuisance.shift_x * spread, 4),
        shift_y=round(nuisance.shift_y * spread, 4),
        gain=round(1 + (nuisance.gain - 1) * spread, 4),
        gamma=round(nuisance.gamma**spread, 4),
    )


def _patient_of(seed: int, index: int) -> tuple[int, int]:
    """Return the patient of an image and which of the patient's images it is, without looking at other images."""
    block, place = divmod(index, _IMAGES_PER_BLOCK)
    counts = keyed_rng(seed, "phantom-followups", step=block).permutation(_PATIENTS_PER_BLOCK) + 1
    for patient, count in enumerate(counts.tolist()):
        if place < count:
            return block * _PATIENTS_PER_BLOCK + patient, place
        place -= count
    raise AssertionError("a block's images are those of its patients")


def _rounded(rng: np.random.Generator, low: float, high: float) -> float:
    # Four digits: a description reads well and is the same after a round trip through JSON.
    return round(float(rng.uniform(low, high)), 4)


def _draw_habitus(rng: np.random.Generator, sex: str, age_years: int) -> Habitus:
    small = 0.012 if sex == "F" else 0.0
    return Habitus(
        chest_half_width=round(_rounded(rng, 0.34, 0.395) - small, 4),
        apex=_rounded(rng, 0.06, 0.11),
        fat=_rounded(rng, 0, 1),
        breast=_rounded(rng, 0.25, 1) if sex == "F" else 0.0,
        rib_drop=_rounded(rng, 0.015, 0.055),
        rib_width=_rounded(rng, 0.021, 0.028),
        heart_ratio=_rounded(rng, 0.40, 0.49),
        knob=round(0.4 * _rounded(rng, 0, 1) + 0.6 * (age_years - 19) / 71, 4),
        clavicle_tilt=_rounded(rng, -0.02, 0.05),
        trachea_shift=_rounded(rng, -0.012, 0.006),
        vessel_key=int(rng.integers(1 << 31)),
    )


def _draw_finding(name: str, rng: np.random.Generator) -> DrawnFinding:
    bilateral = 0.15 if name == EFFUSION else 0.0
    side: Side = "both" if rng.random() < bilateral else ("left" if rng.random() < 0.5 else "right")
    zone: Zone = ("upper", "mid", "lower")[int(rng.integers(3))]
    kind = ""
    if name == CARDIOMEGALY:
        side, zone = "midline", "all"
    elif name == EDEMA:
        side, zone = "both", "all"
    elif name in (EFFUSION, ATELECTASIS):
        zone = "lower" if name == EFFUSION or rng.random() < 0.7 else "mid"
    elif name == PNEUMOTHORAX:
        zone = "upper"
    elif name == DEVICES:
        kind = DEVICE_KINDS[int(rng.integers(len(DEVICE_KINDS)))]
        zone = "all"
        if kind in ("endotracheal tube", "nasogastric tube"):
            side = "midline"
    return DrawnFinding(
        name=name,
        side=side,
        zone=zone,
        size=_rounded(rng, 0, 1),
        contrast=_rounded(rng, 0, 1),
        along=_rounded(rng, 0, 1),
        across=_rounded(rng, 0, 1),
        kind=kind,
    )


def _kept_visible(finding: DrawnFinding, drawn: Mapping[str, DrawnFinding]) -> DrawnFinding:
    """Move what a large effusion on the same side would hide one zone up."""
    effusion = drawn.get(EFFUSION)
    if effusion is None or finding.name not in (NODULE, CONSOLIDATION, ATELECTASIS) or finding.zone != "lower":
        return finding
    hidden = effusion.side in ("both", finding.side) and effusion.size > 0.3
    return replace(finding, zone="mid", along=round(finding.along * 0.5, 4)) if hidden else finding


def _draw_labels(
    findings: tuple[DrawnFinding, ...], rng: np.random.Generator, only: Collection[str]
) -> tuple[tuple[str, State], ...]:
    drawn = {finding.name: finding for finding in findings}
    labels: dict[str, State] = {}
    for name in FINDINGS:
        # Both are drawn for every finding, so that one finding never moves another one's draw.
        hedged, unmentioned = rng.random() < _SHARE_HEDGED, rng.random() < _SHARE_UNMENTIONED
        if name in drawn:
            labels[name] = "uncertain" if hedged and drawn[name].contrast < FAINT else "present"
        else:
            labels[name] = "not_mentioned" if unmentioned or name not in only else "absent"
    if not findings:
        labels[NO_FINDING] = "present"
    else:
        labels[NO_FINDING] = "absent" if "present" in labels.values() else "not_mentioned"
    return tuple(labels.items())


def _draw_nuisance(rng: np.random.Generator) -> Nuisance:
    collimated = rng.random() < 0.35
    edges = tuple(_rounded(rng, 0.01, 0.06) if collimated and rng.random() < 0.5 else 0.0 for _ in range(4))
    marker = ("L", "R", "")[int(rng.choice(3, p=[0.6, 0.15, 0.25]))]
    return Nuisance(
        rotation_degrees=_rounded(rng, -6, 6),
        scale=_rounded(rng, 0.90, 1.10),
        shift_x=_rounded(rng, -0.035, 0.035),
        shift_y=_rounded(rng, -0.03, 0.04),
        inspiration=_rounded(rng, -1, 1),
        perfusion=_rounded(rng, -1, 1),
        gain=_rounded(rng, 0.85, 1.12),
        gamma=_rounded(rng, 0.75, 1.35),
        fog=_rounded(rng, 0, 1) ** 2,
        noise=_rounded(rng, 0.004, 0.02),
        blur_pixels=_rounded(rng, 0.5, 1.1),
        vignette=_rounded(rng, -0.5, 1),
        collimation=(edges[0], edges[1], edges[2], edges[3]),
        collimation_grey=0.0 if rng.random() < 0.7 else 0.95,
        marker=marker,
        marker_x=_rounded(rng, 0.03, 0.12),
        marker_y=_rounded(rng, 0.04, 0.22),
        marker_degrees=_rounded(rng, -25, 25),
        marker_size=_rounded(rng, 0.035, 0.055),
        word=("", "ERECT", "CHEST", "MOBILE", "10:45")[int(rng.choice(5, p=[0.7, 0.1, 0.08, 0.07, 0.05]))],
        arms=_rounded(rng, 0, 1),
        gas=_rounded(rng, -0.5, 1),
        wires=int(rng.choice(4, p=[0.7, 0.1, 0.1, 0.1])),
    )
