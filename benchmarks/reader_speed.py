"""How long does reading a MIMIC-CXR of full size take, sections of the reports included, and in how much memory?

    python benchmarks/reader_speed.py 380000 --folder /somewhere/with/room [--out results.json]

Writes an imitation first (unless the folder holds it already): the tables with every column of the release, packed as
they come, and a tree of folders in its layout. Pictures are empty, and reports are hard links to a thousand different
ones, so each folder, name and read is real and only the bytes on disk are few.
"""

import argparse
import gzip
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

from umif.readers.mimic_cxr import LABELS, MimicCxrJpg

REPORTS = 1_000
IMAGES_PER_STUDY = (1, 2, 2)  # 377,110 images of 227,835 studies
STUDIES_PER_SUBJECT = (1, 2, 3, 8)  # 65,379 subjects
SENTENCES = (
    "The lungs are clear without focal consolidation, pleural effusion or pneumothorax.",
    "Heart size is at the upper limit of normal, unchanged since the examination of ___.",
    "There is mild pulmonary vascular congestion, and the costophrenic angles are blunted.",
    "A right internal jugular line ends in the mid superior vena cava, as placed on ___ by Dr. ___.",
    "Multiple old rib fractures are seen on the left; no acute osseous abnormality.",
    "Bibasilar atelectasis has slightly increased, while the small left effusion has become smaller.",
)
METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)


def write_tree(root: Path, images: int) -> None:
    rng = random.Random(0)
    root.mkdir(parents=True)
    texts = _write_reports(root / "texts", rng)
    rows: dict[str, list[str]] = {"metadata": [METADATA], "split": ["dicom_id,study_id,subject_id,split"]}
    rows["chexpert"] = [f"subject_id,study_id,{','.join(LABELS)}"]
    done, subject, study = 0, 10_000_000, 50_000_000
    while done < images:
        subject += rng.randint(1, 130)
        place = root / "files" / f"p{str(subject)[:2]}" / f"p{subject}"
        place.mkdir(parents=True)
        for _ in range(rng.choice(STUDIES_PER_SUBJECT)):
            study += rng.randint(1, 40)
            (place / f"s{study}").mkdir()
            os.link(rng.choice(texts), place / f"s{study}.txt")
            cells = ",".join(rng.choice(("", "", "", "1.0", "0.0", "-1.0")) for _ in LABELS)
            rows["chexpert"].append(f"{subject},{study},{cells}")
            for _ in range(rng.choice(IMAGES_PER_STUDY)):
                dicom = "-".join(f"{rng.getrandbits(32):08x}" for _ in range(5))
                (place / f"s{study}" / f"{dicom}.jpg").touch()
                rows["metadata"].append(
                    f'{dicom},{subject},{study},"CHEST (PA AND LAT)",PA,3056,2544,21800506,213014.53100000002,'
                    '"CHEST (PA AND LAT)",postero-anterior,Erect'
                )
                rows["split"].append(f"{dicom},{study},{subject},train")
                done += 1
    for name, lines in rows.items():
        packed = gzip.compress("\n".join((*lines, "")).encode(), compresslevel=5)
        (root / f"mimic-cxr-2.0.0-{name}.csv.gz").write_bytes(packed)


def _write_reports(folder: Path, rng: random.Random) -> list[Path]:
    folder.mkdir()
    paths = []
    for number in range(REPORTS):
        findings = "\n ".join(rng.choices(SENTENCES, k=rng.randint(3, 8)))
        impression = rng.choice(("As above.", "1.  No acute process.\n 2.  No pneumonia.", "No change."))
        paths.append(folder / f"{number}.txt")
        paths[-1].write_text(
            " " * 33 + f"FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n \n INDICATION:  ___F with cough\n \n"
            f" COMPARISON:  ___.\n \n FINDINGS: \n \n {findings}\n \n IMPRESSION: \n \n {impression}\n"
        )
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=int, nargs="?", default=40_000)
    parser.add_argument("--folder", type=Path, help="where the imitation is, or is to be written; kept")
    parser.add_argument("--out", type=Path, help="where to write the result as JSON")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp()) / "mimic"
    if not folder.exists():
        write_tree(folder, arguments.images)
    before = resource.getrusage(resource.RUSAGE_SELF)
    start, reader, records, texts = time.perf_counter(), MimicCxrJpg(folder), 0, 0
    for record in reader.read():
        records += 1
        texts += bool(record.texts)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = {
        "images": records,
        "with_text": texts,
        "notes": dict(reader.account.notes),
        "wall_s": round(wall, 2),
        "processor_s": round(processor, 2),
        "processor_s_per_10000": round(processor / records * 10_000, 3),
        "peak_mib": after.ru_maxrss // 1024,
        "python": sys.version.split()[0],
        "cpus": os.cpu_count(),
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    if not arguments.folder:
        shutil.rmtree(folder.parent)


if __name__ == "__main__":
    main()
