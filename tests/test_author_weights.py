"""The authors' files become ours, and nothing else does."""

from __future__ import annotations

import pickle

import pytest
import torch

from pyldfusion.artefact import open_artefact
from pyldfusion.author_weights import import_weights, load_author_files, to_state_dict
from pyldfusion.errors import ArtefactError
from pyldfusion.generator import load_generator

from .author_networks import LDFusion, LDLite, fill, save_author_files


@pytest.mark.parametrize(("network", "variant"), [(LDFusion, "full"), (LDLite, "lite")])
def test_files_become_one_and_compute_the_same(tmp_path, network, variant):
    reference = fill(network())
    files = save_author_files(reference, tmp_path)
    metadata = import_weights(files[::-1], tmp_path / "ours.safetensors")
    artefact = open_artefact(tmp_path / "ours.safetensors")
    assert artefact.variant == metadata["variant"] == variant
    assert artefact.metadata["clip_trained"] == "yes"
    assert all(file.name in artefact.metadata["source"] for file in files)
    planes = torch.rand(2, 1, 1, 24, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(load_generator(artefact)(*planes), reference(*planes), rtol=0, atol=1e-5)


def test_the_published_lite_weights(shared):
    variant, state = to_state_dict(load_author_files([shared / "upstream" / "lite" / "final.pt"]))
    assert variant == "lite" and len(state) == 46


class Evil:
    """What a hostile pickle holds: a call."""

    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"weight": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(ArtefactError, match=r"read safely"):
            load_author_files([tmp_path / name])
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 cut short", b"<html>404</html>", bytes(range(256)) * 40, b"\x80\x02}q\x00."]
)
def test_other_bytes_are_refused(tmp_path, content):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(ArtefactError):
        to_state_dict(load_author_files([tmp_path / "file.pt"]))


def test_every_truncation_is_refused(tmp_path):
    (file,) = save_author_files(fill(LDLite()), tmp_path)
    whole = file.read_bytes()
    for kept in (1, 100, len(whole) // 2, len(whole) - 30):
        file.write_bytes(whole[:kept])
        with pytest.raises(ArtefactError):
            load_author_files([file])


def test_what_is_missing_or_odd_is_named(tmp_path):
    full = fill(LDFusion()).state_dict()
    encoder = {name: tensor for name, tensor in full.items() if name.startswith(("content", "style"))}
    cases = [
        (encoder, r"missing \(.*Dec_final.pt given too"),
        ({**full, "extra.weight": torch.zeros(3)}, r"1 unknown \(extra.weight\)"),
        ({**full, "mlp.model.0.weight": torch.zeros(256, 17)}, r"mlp.model.0.weight has shape \(256, 17\)"),
        ({**full, "mlp.model.0.bias": torch.full((256,), torch.nan)}, r"mlp.model.0.bias is not .* finite"),
        ({"conv.weight": torch.zeros(3)}, "none of the 1 tensors"),
        ({}, "none of the 0 tensors"),
    ]
    for tensors, says in cases:
        with pytest.raises(ArtefactError, match=says):
            to_state_dict(tensors)
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    with pytest.raises(ArtefactError, match="holds list"):
        load_author_files([tmp_path / "list.pt"])
    files = save_author_files(fill(LDLite()), tmp_path)
    with pytest.raises(ArtefactError, match="given twice"):
        load_author_files(files * 2)
    with pytest.raises(ArtefactError, match="no such weight file"):
        load_author_files([tmp_path / "absent.pt"])


def test_half_precision_weights_are_taken(tmp_path):
    reference = fill(LDLite())
    _, state = to_state_dict({name: tensor.half() for name, tensor in reference.state_dict().items()})
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
