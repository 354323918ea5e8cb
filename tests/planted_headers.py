"""DICOM folders whose every header holds what must never leave it: names, numbers, dates, places, free text.

Each folder is the one that its reader's conformance fixture writes. All DICOM files in it are then written anew with
the same labels and codes, and with what `IDENTIFIERS` lists in the places where such things are found.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

if TYPE_CHECKING:
    from types import ModuleType

FIXTURES = Path(__file__).parent / "conformance" / "reader_fixtures"
READERS = ("midrc-ricord-1c", "mimic-cxr", "rsna-pneumonia", "siim-acr-pneumothorax", "vindr-cxr")
SIDE = 40
CODES = ("PA", "AP", "F", "DX", "058Y")
# Keyword → what is planted in it. Names of several parts are searched for part by part.
ELEMENTS = {
    "PatientName": "Quartermain^Ottoline", "PatientBirthName": "Featherstonehaugh",
    "PatientMotherBirthName": "Cholmondeley", "OtherPatientNames": "Zwingliburger^Tamsinora",
    "OtherPatientIDs": "OPID-70031177", "IssuerOfPatientID": "ISSUER-KX4", "PatientBirthDate": "19370514",
    "PatientBirthTime": "031727.905113", "PatientAddress": "Rosengasse 8812",
    "PatientTelephoneNumbers": "+41-555-018-2299", "MedicalRecordLocator": "LOCATOR-31999",
    "MilitaryRank": "Feldzeugmeister", "BranchOfService": "Nachschubtruppe", "CountryOfResidence": "Ruritania",
    "RegionOfResidence": "Zendaland", "EthnicGroup": "Syldavian", "Occupation": "Clavichordmaker",
    "PatientReligiousPreference": "Bokononist", "AdditionalPatientHistory": "fell off penny-farthing",
    "PatientComments": "comment-sesquipedal", "ImageComments": "burnt Quillfeather 77",
    "StudyComments": "studycomment-xylo", "AccessionNumber": "ACC-20480077", "StudyID": "STUDYID-5519",
    "StudyDate": "20190823", "SeriesDate": "20190824", "AcquisitionDate": "20190825", "ContentDate": "20190826",
    "StudyTime": "114233.717", "InstanceCreationDate": "20190827", "InstitutionName": "Klinikum Drachenfels",
    "InstitutionAddress": "Drachenstrasse 4711b", "InstitutionalDepartmentName": "Dept-Oneirology",
    "StationName": "STN-GRYPHON", "ReferringPhysicianName": "Abernathy^Lucasta",
    "ReferringPhysicianAddress": "Thimble Lane 90210x", "PerformingPhysicianName": "Wigglesworth^Pietronella",
    "OperatorsName": "Nettlebed^Cosmogon", "PhysiciansOfRecord": "Brandywine^Isolde",
    "NameOfPhysiciansReadingStudy": "Ptolemaios^Iraklides", "RequestingPhysician": "Haversham^Odovakar",
    "RequestedProcedureDescription": "procedure-tintinnabulum", "StudyDescription": "Thorax Herr Bombazine",
    "SeriesDescription": "series-pamplemousse", "ProtocolName": "protocol-ullage",
    "DeviceSerialNumber": "SN-DEVICE-1177342", "ManufacturerModelName": "Modeltron-Quux", "PlateID": "PLATE-66180",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.77.4040404", "FrameOfReferenceUID": "1.2.826.0.1.3680043.77.5050505",
    "AdmissionID": "ADMIT-881204", "AdmittingDiagnosesDescription": "diagnosis-vellichor",
    "CurrentPatientLocation": "Ward-Kestrel", "ReasonForStudy": "reason-borborygm",
    "DerivationDescription": "derived-susurrus", "AcquisitionComments": "acq-petrichor",
}  # fmt: skip
IN_SEQUENCES = {"item": "SEQ-Mountebank", "deeper": "SEQ-Ragamuffin", "request": "SEQACC-66029"}
PRIVATE = {
    "text": "PRIV-Gallimaufry",
    "number": "PRIV-55501777",
    "wide": "PRIV-Übermütig",
    "sequence": "PRIVSEQ-Skedaddle",
}
ELSEWHERE = {
    "preamble": "PREAMBLE-Hobbledehoy", "title": "AE-WIDDERSHIN", "meta": "META-Taradiddle",
    "padding": "PAD-Lollygagger",
    "view": "VIEW-Bamboozle", "sex": "SEX-Cattywampus", "modality": "MODALITYGUBBINS", "photometric": "PHOTO KERFUFFLE",
    "lut": "LUT-Flibbertigibbet", "overlay": "OVERLAY-Snollygoster",
}  # fmt: skip


class Planted:
    """Writes folders with planted headers, and knows all that it planted."""

    def __init__(self) -> None:
        self.identifiers: set[str] = set()
        self.patients: list[str] = []
        self._files = 0

    def plant(self, text: str) -> str:
        """Note each part of `text` as one that must not be found again; return `text`."""
        self.identifiers.update(part for part in text.split("^") if part)
        return text

    def folder(self, reader: str, root: Path) -> Path:
        """Write the folder of one reader; return it."""
        root.mkdir(parents=True)
        fixture = _fixture(reader)
        fixture.build(root)
        studies: dict[str, str] = {}
        for path in sorted(root.rglob("*")):
            if path.suffix in (".dcm", ".dicom"):
                self._rewrite(reader, path, studies)
            elif path.suffix in (".png", ".jpg") and path.is_file():
                Image.fromarray(self._pixels()).save(path)
        if reader == "midrc-ricord-1c":  # its labels are given to the study by the header's own id
            export = root / fixture.EXPORT
            text = export.read_text(encoding="utf-8")
            for old, new in studies.items():
                text = text.replace(f'"StudyInstanceUID": "{old}"', f'"StudyInstanceUID": "{new}"')
            export.write_text(text, encoding="utf-8")
        return root

    def pictures(self, root: Path, count: int) -> Path:
        """Write a folder of DICOM pictures in two classes; two of them cannot be decoded."""
        for number in range(count):
            self.write(root / ("effusion", "normal")[number % 2] / f"{number:03d}.dcm")
        for name, damage in (("cut", "truncated"), ("odd", "photometric")):
            path = root / "normal" / f"{name}.dcm"
            self.write(path, photometric=self.plant(ELSEWHERE["photometric"]) if damage == "photometric" else None)
            if damage == "truncated":
                path.write_bytes(path.read_bytes()[: -SIDE * SIDE])
        return root

    def write(self, path: Path, codes: dict[str, str] | None = None, photometric: str | None = None) -> None:
        """Write a DICOM file with every identifier; `codes` are the elements that readers look at."""
        self._files += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
        meta.MediaStorageSOPInstanceUID = self.plant(f"1.2.826.0.1.3680043.88.{1_000_000 + self._files}")
        meta.SourceApplicationEntityTitle = self.plant(ELSEWHERE["title"])
        meta.PrivateInformationCreatorUID = "1.2.3.4"
        meta.PrivateInformation = self.plant(ELSEWHERE["meta"]).encode()
        preamble = self.plant(ELSEWHERE["preamble"]).encode().ljust(128, b"\0")
        dataset = FileDataset(str(path), {}, file_meta=meta, preamble=preamble)
        with disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # texts where DICOM wants codes are the point
            self._fill(dataset, codes or {})
            _set_pixels(dataset, self._pixels(), photometric)
            dataset.save_as(path, enforce_file_format=True)

    def _fill(self, dataset: Dataset, codes: dict[str, str]) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 192"
        for keyword, text in ELEMENTS.items():
            setattr(dataset, keyword, self.plant(text))
        dataset.SOPInstanceUID = f"1.2.826.0.1.3680043.88.{1_000_000 + self._files}"
        # Free text where codes are expected, in every second file.
        odd = self._files % 2 == 0
        values = {
            "PatientID": f"MRN-QX{7_310_000 + self._files}",
            "StudyInstanceUID": f"1.2.826.0.1.3680043.99.{1_000_000 + self._files}",
            "ViewPosition": ELSEWHERE["view"] if odd else "PA",
            "PatientSex": ELSEWHERE["sex"] if odd else "F",
            "Modality": "DX",
            "PatientAge": "058Y",
        } | codes
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
            if value not in (*CODES, codes.get("PatientID")):  # given from outside it is a folder's public name
                self.plant(value)
        if "PatientID" not in codes:
            self.patients.append(values["PatientID"])
        inner, item, request = Dataset(), Dataset(), Dataset()
        inner.PatientName = self.plant(IN_SEQUENCES["deeper"])
        item.OtherPatientIDsSequence, item.PatientID = Sequence([inner]), self.plant(IN_SEQUENCES["item"])
        request.AccessionNumber = self.plant(IN_SEQUENCES["request"])
        dataset.ReferencedPatientSequence, dataset.RequestAttributesSequence = Sequence([item]), Sequence([request])
        block = dataset.private_block(0x0009, "ACME 1.1", create=True)
        block.add_new(0x01, "LO", self.plant(PRIVATE["text"]))
        block.add_new(0x02, "LO", self.plant(PRIVATE["number"]))
        block.add_new(0x03, "OB", self.plant(PRIVATE["wide"]).encode("utf-16-le"))
        hidden = Dataset()
        hidden.PatientName = self.plant(PRIVATE["sequence"])
        block.add_new(0x04, "SQ", Sequence([hidden]))
        dataset.add_new(0x60000022, "LO", self.plant(ELSEWHERE["overlay"]))
        dataset.add_new(0xFFFCFFFC, "OB", self.plant(ELSEWHERE["padding"]).encode())
        dataset.PresentationLUTShape = "IDENTITY"
        dataset.WindowCenterWidthExplanation = self.plant(ELSEWHERE["lut"])

    def _rewrite(self, reader: str, path: Path, studies: dict[str, str]) -> None:
        try:
            before = dcmread(path, stop_before_pixels=True)
        except InvalidDicomError:
            before = Dataset()
        codes: dict[str, str] = {}
        if reader == "midrc-ricord-1c":
            # Its folders are named by PatientID, and only some views and modalities are kept.
            folder = next(part for part in path.parts if part.startswith("MIDRC-RICORD-1C-"))
            old = str(before.get("StudyInstanceUID", "none"))
            study = studies.setdefault(old, f"1.2.826.0.1.3680043.66.{1_000_000 + self._files}")
            codes = {"PatientID": folder, "StudyInstanceUID": study, "ViewPosition": "AP"}
            if before.get("Modality") == "CT":
                codes["Modality"] = ELSEWHERE["modality"]
        self.write(path, codes)

    def _pixels(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.random.default_rng(self._files).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)


def _set_pixels(dataset: Dataset, pixels: np.ndarray[Any, np.dtype[np.uint8]], photometric: str | None) -> None:
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.SamplesPerPixel, dataset.PixelRepresentation = 7, 1, 0
    dataset.PhotometricInterpretation = photometric or "MONOCHROME2"
    dataset.PixelData = pixels.tobytes()


def _fixture(reader: str) -> ModuleType:
    path = FIXTURES / f"{reader.replace('-', '_')}.py"
    spec = importlib.util.spec_from_file_location(f"planted_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
