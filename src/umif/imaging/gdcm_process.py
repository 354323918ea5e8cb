"""The process that `umif.imaging.isolated` starts: frames in, samples out, until its input closes.

It is run as a file, and imports nothing of UmiF, so that it starts in a fraction of the time that the package takes.
"""

from __future__ import annotations

import io
import json
import os
import struct
import sys
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pydicom.pixels
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.filereader import read_dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGExtended12Bit

if TYPE_CHECKING:
    import numpy.typing as npt
    from pydicom.dataset import Dataset

# Address space; libraries take their share before the first frame comes.
_MEMORY_BYTES = 4 << 30
_LENGTHS = struct.Struct("<II")


def read_header(data_set: bytes, syntax: str) -> Dataset:
    """Parse a data set without its file's meta group."""
    header = read_dataset(
        io.BytesIO(data_set),
        is_implicit_VR=syntax == ImplicitVRLittleEndian,
        is_little_endian=syntax != ExplicitVRBigEndian,
    )
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = UID(syntax)
    return header


def write_message(stream: IO[bytes], head: dict[str, Any], body: bytes) -> None:
    """Write one message: the lengths of both parts, a JSON head, bytes."""
    text = json.dumps(head).encode()
    stream.write(_LENGTHS.pack(len(text), len(body)))
    stream.write(text)
    stream.write(body)
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Read one message; `None` if the other side is gone."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    head_bytes, body_bytes = _LENGTHS.unpack(lengths)
    head, body = stream.read(head_bytes), stream.read(body_bytes)
    if len(head) < head_bytes or len(body) < body_bytes:
        return None
    return json.loads(head), body


def main() -> None:
    """Serve frames on standard input and output."""
    _bound_memory()
    # Decoders may print; what they print must not get between the messages.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Say that this side is ready; then answer each request, with samples or with a reason, until there are no more."""
    write_message(answers, {"ready": True}, b"")
    while (message := read_message(requests)) is not None:
        head, data_set = message
        try:
            samples = np.ascontiguousarray(_decode(read_header(data_set, head["syntax"])))
        except ImportError:
            reply: dict[str, Any] = {
                "reason": "unsupported",
                "what": "nothing installed decodes this frame",
                "fix": "install python-gdcm",
            }
            write_message(answers, reply, b"")
        except Exception:
            # Its words are left out: they may quote the file.
            reply = {"reason": "malformed", "what": "the compressed frame cannot be decoded", "fix": "copy it again"}
            write_message(answers, reply, b"")
        else:
            write_message(answers, {"dtype": samples.dtype.str, "shape": samples.shape}, samples.tobytes())


def _decode(header: Dataset) -> npt.NDArray[Any]:
    import gdcm

    if header.file_meta.TransferSyntaxUID == JPEGExtended12Bit and header.BitsAllocated > 8:
        return _decode_extended(gdcm, header)
    samples: npt.NDArray[Any] = pydicom.pixels.pixel_array(header, index=0, decoding_plugin="gdcm")
    return samples


def _decode_extended(gdcm: Any, header: Dataset) -> npt.NDArray[np.uint16]:
    """Decode lossy JPEG of 12 bits, which pydicom's own route to GDCM leaves out."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(next(generate_frames(header.PixelData, number_of_frames=1)))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((header.Columns, header.Rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    # GDCM hands its bytes over as text.
    decoded = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(decoded, dtype="<u2").reshape(header.Rows, header.Columns).astype(np.uint16)


def _bound_memory() -> None:
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(hard, _MEMORY_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))


if __name__ == "__main__":
    main()
