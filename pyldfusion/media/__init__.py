"""Pictures and videos as files: reading, pairing, and writing so that a finished file is always whole."""

from .atomic import atomic_path
from .images import WRITABLE_SUFFIXES, grey_if_grey, read_image, read_raw, to_eight_bits, write_image
from .outputs import PictureOutput, VideoOutput, open_output
from .pairing import list_images, match_stems
from .sources import FilePairs, Pair, StreamPairs, check_not_input, open_pairs, open_stream
from .video import DEFAULT_RATE, FrameStream, VideoReader, VideoWriter

__all__ = [
    "DEFAULT_RATE",
    "WRITABLE_SUFFIXES",
    "FilePairs",
    "FrameStream",
    "Pair",
    "PictureOutput",
    "StreamPairs",
    "VideoOutput",
    "VideoReader",
    "VideoWriter",
    "atomic_path",
    "check_not_input",
    "grey_if_grey",
    "list_images",
    "match_stems",
    "open_output",
    "open_pairs",
    "open_stream",
    "read_image",
    "read_raw",
    "to_eight_bits",
    "write_image",
]
