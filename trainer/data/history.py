"""Which pairs a run has learnt from, part by part: it may go on with others, and its weights must name them all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .pairs import PairSet
from .provenance import describe_data, provenance_of

__all__ = ["History"]

#: So many names of a kind are listed.
LISTED = 3
#: What is said of a part; see :func:`trainer.data.provenance.describe_data`.
KEYS = ("trained_on", "terms", "data_sha256")


@dataclass
class History:
    """The data of a run so far.

    Attributes:
        parts: in order: what :func:`trainer.data.provenance.describe_data` says, and ``since``, when it began.
        pairs: name -> fingerprint of size, pixels, weight and provenance, of every pair of the last part.
    """

    parts: list[dict[str, str]] = field(default_factory=list)
    pairs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, pairs: PairSet, start: Mapping[str, str] | None = None) -> History:
        """Of a run that begins with these pairs.

        Args:
            pairs: what :func:`trainer.data.pairs.load_pairs` returned.
            start: metadata of the weights that it starts from, if there are any: what those learnt from is in it too.

        Raises:
            InputError: a manifest cannot be read.
        """
        parts = [{"since": "from step 0", **describe_data(pairs)}]
        if start and "trained_on" in start:
            parts.insert(0, {"since": "before, in network.start", **{key: start.get(key, "") for key in KEYS}})
        prints = {
            pair.name: hashlib.sha256(
                repr((pair.height, pair.width, pair.sha256, pair.weight, *said)).encode()
            ).hexdigest()[:16]
            for pair, said in zip(pairs.pairs, provenance_of(pairs), strict=True)
        }
        return cls(parts, prints)

    def follow(self, before: Mapping[str, Any] | None, step: int) -> str:
        """Put what the run learnt from until ``step`` in front of what it goes on with.

        Args:
            before: :meth:`state` of then; None of a checkpoint that has none.

        Returns:
            A line on how the pairs differ, "" if they are the same.
        """
        if not self.parts:  # nobody said what it goes on with
            return ""
        if before is None:
            unknown = "not recorded"
            before = {"parts": [{"since": "from step 0", **dict.fromkeys(KEYS, unknown)}], "pairs": {}}
            line = f"which pairs the first {step} steps learnt from is not recorded"
        else:
            line = _difference(before["pairs"], self.pairs)
        own = {**self.parts[-1], "since": f"from step {step}"}
        self.parts = [*before["parts"], *([own] if line else [])]
        return line

    def state(self) -> dict[str, Any]:
        """For the checkpoint: plain values."""
        return {"parts": self.parts, "pairs": self.pairs}

    def metadata(self) -> dict[str, str]:
        """``trained_on``, ``terms`` and ``data_sha256`` of all parts, for the weights; empty where nothing is known."""
        parts = [
            part
            for k, part in enumerate(self.parts)
            if not k or part["data_sha256"] != self.parts[k - 1]["data_sha256"]
        ]
        if len(parts) < 2:
            return {key: part[key] for part in parts for key in KEYS}
        return {
            "trained_on": "; ".join(f"{part['since']}: {part['trained_on']}" for part in parts),
            "terms": "; ".join(sorted({terms for part in parts for terms in part["terms"].split("; ")})),
            "data_sha256": "; ".join(part["data_sha256"] for part in parts),
        }


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """How two sets of pairs differ, "" if they do not."""
    kinds = {
        "new": [name for name in now if name not in before],
        "gone": [name for name in before if name not in now],
        "changed": [name for name in now if name in before and before[name] != now[name]],
    }
    told = []
    for kind, names in kinds.items():
        more = ", ..." if len(names) > LISTED else ""
        told += [f"{len(names)} {kind} ({', '.join(names[:LISTED])}{more})"] if names else []
    if not told:
        return ""
    return (
        f"resuming with other pairs: {', '.join(told)}; {len(before)} before, {len(now)} now. The place in the "
        "epoch is kept although it is one of the set before: in this epoch pairs may come twice or not at all"
    )
