"""What readers take from a DICOM file's header, and what of it may go on into a corpus.

Headers of one's own hospital name patients. So the few elements that readers ask for leave this module only as what
they are meant to be: identifiers as hashes, codes if they are known codes. Sex and age go through `patients`, which
lets nothing else through. All other elements stay unread.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

KEY_VARIABLE = "UMIF_ID_KEY"
OTHER = "another"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_IDENTIFIERS = frozenset({"PatientID", "StudyInstanceUID"})
# The defined terms, and those that MIMIC-CXR's headers hold besides. Free text in these elements may be a name.
_VIEWS = (
    "AP", "PA", "LL", "RL", "LATERAL", "AP AXIAL", "PA AXIAL", "AP LLD", "AP RLD", "PA LLD", "PA RLD", "LLD", "RLD",
    "LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "AP OBLIQUE", "OBLIQUE", "LORDOTIC", "SWIMMERS", "XTABLE LATERAL",
    "SUPINE", "ERECT", "TAN", "CC", "MLO", "ML", "LM", "LMO",
)  # fmt: skip
_MODALITIES = (
    "CR", "DX", "DR", "RG", "RF", "XA", "MG", "IO", "PX", "CT", "MR", "US", "NM", "PT", "ES", "GM", "OT", "SC", "SR",
    "KO", "PR", "SEG", "DOC", "REG", "ECG", "XC", "BMD", "RTIMAGE", "RTSTRUCT", "RTDOSE", "RTPLAN",
)  # fmt: skip
_CODES = {"ViewPosition": frozenset(_VIEWS), "Modality": frozenset(_MODALITIES)}
_PASSED_THROUGH = frozenset({"PatientSex", "PatientAge"})


def read_dicom_header(path: Path, keywords: tuple[str, ...]) -> dict[str, str] | None:
    """Return the named elements of a DICOM file as text; `None` if its header cannot be read.

    Blank stays blank. `PatientID` and `StudyInstanceUID` come hashed (`hash_identifier`), `ViewPosition` and `Modality`
    as they stand if they are known codes, else as `another`.

    Only the header up to the pixels is read. A deflated file would have to be inflated whole, and without a bound,
    so it counts as not readable.

    Raises:
        ValueError: a keyword that this module has no rule for; a header's free text is for nobody.
    """
    import pydicom
    from pydicom.filereader import read_file_meta_info

    if unknown := set(keywords) - _IDENTIFIERS - _CODES.keys() - _PASSED_THROUGH:
        raise ValueError(f"no rule says what of {sorted(unknown)[0]} may be kept")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if str(read_file_meta_info(path).get("TransferSyntaxUID", "")) == _DEFLATED:
                return None
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(keywords))
            return {keyword: _kept(keyword, str(dataset.get(keyword) or "")) for keyword in keywords}
        except Exception:  # pydicom lets through whatever its parser meets in damaged bytes
            return None


def hash_identifier(value: str) -> str:
    """Return what stands for a header's identifier: BLAKE2b over it, 32 hexadecimal digits.

    The same identifier has the same hash in every run, on every machine and from every dataset, so images of one
    patient or study stay together and corpora can be compared. Whoever has a list of possible identifiers can hash
    them all, unless the environment variable `UMIF_ID_KEY` holds a secret, which then is the hash's key: corpora made
    under different keys share no such ids.
    """
    secret = os.environ.get(KEY_VARIABLE, "")
    key = hashlib.sha256(secret.encode(errors="surrogateescape")).digest() if secret else b""
    data = value.encode(errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=16, key=key, person=b"umif header id").hexdigest()


def _kept(keyword: str, value: str) -> str:
    value = value.strip()
    if not value or keyword in _PASSED_THROUGH:
        return value
    if keyword in _IDENTIFIERS:
        return hash_identifier(value)
    return value if value.upper() in _CODES[keyword] else OTHER
