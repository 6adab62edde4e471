"""Pictures and videos as files: reading, pairing, and writing so that a finished file is always whole."""

from .atomic import atomic_path
from .images import WRITABLE_SUFFIXES, read_image, read_raw, to_eight_bits, write_image
from .pairing import list_images, match_stems

__all__ = [
    "WRITABLE_SUFFIXES",
    "atomic_path",
    "list_images",
    "match_stems",
    "read_image",
    "read_raw",
    "to_eight_bits",
    "write_image",
]
