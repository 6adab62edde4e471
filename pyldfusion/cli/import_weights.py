"""Turn the authors' weight files (.pt) into a .safetensors file that pyldfusion opens.

LDFusion comes as two files, Enc_final.pt and Dec_final.pt, LD-Lite as one, final.pt; which network it is is told by the
tensors. The files are read as tensors only: no code in them is run.
"""

from __future__ import annotations

import argparse

HELP = "make a model file of the authors' weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="Enc_final.pt and Dec_final.pt, or final.pt")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the .safetensors file to write")


def run(args: argparse.Namespace) -> int:
    from .programs import need

    need("torch", "pyldfusion import-weights", "export")
    from ..author_weights import import_weights

    import_weights(args.files, args.output)
    print(f"{args.output}: written; use it with --model {args.output} or Fuser({args.output!r})")
    return 0
