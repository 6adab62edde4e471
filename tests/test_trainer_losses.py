"""LDFusion's losses: against the original code's numbers, and against the equations written plainly in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyldfusion.errors import DtypeError, InputError  # noqa: E402
from trainer.losses import direction_loss, direction_regularization, fidelity_loss  # noqa: E402


def rows(seed, *shape, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def unit(x):
    return x / np.linalg.norm(x)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def direction_of_row(fused, ir, vis, objective, text_ir, text_vis):
    """Eq. 3 for one picture, as it stands."""
    fused, ir, vis, objective, text_ir, text_vis = (
        unit(x.detach().numpy()) for x in (fused, ir, vis, objective, text_ir, text_vis)
    )
    return 1 - (cosine(fused - vis, objective - text_vis) + cosine(fused - ir, objective - text_ir)) / 2


def test_the_original_code_s_losses_and_gradients(shared):
    saved = np.load(shared / "upstream" / "clip_losses.npz")
    fused, patches, ir, vis, *texts, valid = (
        torch.from_numpy(saved[f"{name}"])
        for name in (
            *("fused_features", "patch_features", "ir_features", "vis_features"),
            *("text_objective", "text_ir", "text_vis", "patch_valid"),
        )
    )
    fused.requires_grad_()
    patches.requires_grad_()
    whole = direction_loss(fused, ir, vis, *texts)
    patch = direction_loss(patches, ir, vis, *texts, weight=valid)
    similarity = direction_regularization(fused, ir, vis) / 2
    total = 2 * whole + 10 * patch + 6 * similarity
    total.backward()
    for got, name in (
        (whole, "loss_direction_global"),
        (patch, "loss_direction_patch"),
        (similarity, "loss_similarity"),
        (total, "total_2_10_6"),
        (fused.grad, "grad_fused"),
        (patches.grad, "grad_patch"),
    ):
        np.testing.assert_allclose(got.detach().numpy(), saved[name], rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("texts", [(1, 1, 1), (5, 5, 5), (5, 1, 1), (1, 5, 5)])
def test_sentences_of_pictures_and_their_gradients_are_those_of_a_plain_loop(tiled, crops, texts):
    """Row m of patches is of picture m % 5, whether the sources come once or tiled crop-major, as they are cut."""
    fused, ir, vis = rows(1, crops * 5, 16), rows(2, 5, 16), rows(3, 5, 16)
    sentences = [rows(4 + k, count, 16) for k, count in enumerate(texts)]
    weight = rows(7, crops * 5).abs()
    leaves = [fused, ir, vis, *sentences]
    for leaf in leaves:
        leaf.requires_grad_()

    def loop():
        total = 0
        for m in range(len(fused)):
            f, i, v, objective, text_ir, text_vis = (
                x[m % len(x)] / x[m % len(x)].square().sum().sqrt() for x in leaves
            )
            cosines = 0
            for source, text in ((v, text_vis), (i, text_ir)):
                a, b = f - source, objective - text
                cosines = cosines + (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()
            total = total + weight[m] * (1 - cosines / 2)
        return total / len(fused)

    sources = (ir.repeat(crops, 1), vis.repeat(crops, 1)) if tiled else (ir, vis)
    got, expected = direction_loss(fused, *sources, *sentences, weight), loop()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)
    for a, b in zip(torch.autograd.grad(got, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("crops", "texts"), [(1, 1), (3, 1), (3, 5)])
def test_direction_loss_row_by_row(crops, texts):
    fused, ir, vis = rows(1, crops * 5, 16), rows(2, 5, 16), rows(3, 5, 16)
    objective, text_ir, text_vis = rows(4, texts, 16), rows(5, 1, 16), rows(6, texts, 16)
    weight = rows(7, crops * 5).abs()
    got = direction_loss(fused, ir, vis, objective, text_ir, text_vis, weight)
    expected = [
        direction_of_row(fused[m], ir[m % 5], vis[m % 5], objective[m % texts], text_ir[0], text_vis[m % texts])
        for m in range(crops * 5)
    ]
    assert float(got) == pytest.approx(np.mean(np.array(expected) * weight.numpy()), abs=1e-12)
    tiled = direction_loss(fused, ir.repeat(crops, 1), vis.repeat(crops, 1), objective[:1], text_ir, text_vis[:1])
    once = direction_loss(fused, ir, vis, objective[:1], text_ir, text_vis[:1])
    torch.testing.assert_close(tiled, once, rtol=0, atol=1e-14)


def test_lengths_do_not_matter():
    arguments = [rows(seed, 3, 8) for seed in range(6)]
    longer = [x * (seed + 0.5) for seed, x in enumerate(arguments)]
    assert float(direction_loss(*longer)) == pytest.approx(float(direction_loss(*arguments)), abs=1e-13)
    phi = float(direction_regularization(*arguments[:3]))
    assert float(direction_regularization(*longer[:3])) == pytest.approx(phi, abs=1e-13)


def test_regularisation_is_the_sum_of_both_angles():
    fused, ir, vis = (rows(seed, 4, 8) for seed in range(3))
    terms = [
        abs(1 - cosine(f.numpy(), v.numpy())) + abs(1 - cosine(f.numpy(), i.numpy()))
        for f, i, v in zip(fused, ir, vis, strict=True)
    ]
    assert float(direction_regularization(fused, ir, vis)) == pytest.approx(np.mean(terms), abs=1e-13)
    assert float(direction_regularization(ir, ir, ir)) == pytest.approx(0, abs=1e-13)
    assert float(direction_regularization(-ir, ir, ir)) == pytest.approx(4, abs=1e-13)


def test_gradients_are_those_of_finite_differences():
    arguments = [rows(seed, 4, 6) for seed in range(3)]
    texts = [rows(seed, 1, 6) for seed in range(3, 6)]
    for leaf in (*arguments, *texts):
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: direction_loss(*x, weight=torch.arange(4.0)), (*arguments, *texts))
    assert torch.autograd.gradcheck(direction_regularization, arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [1.0, 3.7])
def test_coinciding_embeddings_have_no_direction(dtype, length):
    """Cosine 0, gradient 0: at the source itself, at the same embedding of another length, without any embedding."""
    fused, ir, vis = (rows(seed, 4, 64, dtype=dtype) for seed in range(3))
    texts = [rows(seed, 1, 64, dtype=dtype) for seed in range(3, 6)]
    fused[0] = length * vis[0]
    fused[1] = length * ir[1]
    ir[2] = vis[2] = length * fused[2]
    fused[3] = 0
    fused.requires_grad_()
    loss = direction_loss(fused, ir, vis, *texts)
    loss.backward()
    assert torch.isfinite(fused.grad).all()
    assert fused.grad[0].any() and fused.grad[1].any()  # the other source still pulls
    assert fused.grad.abs().max() < 10
    assert not fused.grad[2].any() and not fused.grad[3].any()
    fused.grad = None
    row = direction_loss(fused[2:3], ir[2:3], vis[2:3], *texts)
    assert float(row.detach()) == 1
    same_texts = direction_loss(fused, ir, vis, texts[0], length * texts[0], texts[0])
    same_texts.backward()
    assert float(same_texts.detach()) == 1
    assert not fused.grad.any()
    phi = direction_regularization(fused, ir, vis)
    phi.backward()
    assert torch.isfinite(phi) and torch.isfinite(fused.grad).all()


def test_a_weight_of_zero_counts_in_the_mean_and_passes_no_gradient():
    fused, ir, vis = (rows(seed, 4, 8) for seed in range(3))
    texts = [rows(seed, 1, 8) for seed in range(3, 6)]
    fused.requires_grad_()
    weight = torch.tensor([1.0, 0, 1, 0], dtype=torch.float64)
    loss = direction_loss(fused, ir, vis, *texts, weight)
    loss.backward()
    kept = direction_loss(fused[::2], ir[::2], vis[::2], *texts)
    assert float(loss.detach()) == pytest.approx(float(kept.detach()) / 2, abs=1e-14)
    assert not fused.grad[1::2].any() and fused.grad[::2].all()


def test_half_precision_is_compared_in_single():
    arguments = [rows(seed, 4, 512) for seed in range(6)]
    half = [x.bfloat16() for x in arguments]
    got = direction_loss(*half)
    assert got.dtype == torch.float32
    assert float(got) == pytest.approx(float(direction_loss(*(x.double() for x in half))), abs=1e-6)


def test_fidelity_is_the_error_to_the_larger_feature():
    shapes = [(2, 3, 5, 7), (2, 4, 3, 3)]
    fused, ir, vis = ([rows(10 * k + i, *shape) for i, shape in enumerate(shapes)] for k in range(3))
    expected = sum(
        np.mean((f.numpy() - np.maximum(i.numpy(), v.numpy())) ** 2) for f, i, v in zip(fused, ir, vis, strict=True)
    )
    assert float(fidelity_loss(fused, ir, vis)) == pytest.approx(expected, abs=1e-13)
    for leaf in fused:
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: fidelity_loss(x, ir, vis), fused)
    small = [[x.detach().bfloat16() for x in features] for features in (fused, ir, vis)]
    wide = [[x.double() for x in features] for features in small]
    assert float(fidelity_loss(*small)) == pytest.approx(float(fidelity_loss(*wide)), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("fused", (7, 8)),
        ("fused", (6,)),
        ("fused", (0, 8)),
        ("ir", (4, 8)),
        ("vis", (2, 8)),
        ("vis", (3, 9)),
        ("text_objective", (2, 8)),
        ("text_ir", (6, 8)),
        ("text_vis", (8,)),
        ("weight", (3,)),
        ("weight", (6, 1)),
    ],
)
def test_wrong_shapes_are_named(name, shape):
    arguments = {"fused": (6, 8), "ir": (3, 8), "vis": (3, 8)}
    arguments |= {"text_objective": (1, 8), "text_ir": (1, 8), "text_vis": (3, 8), "weight": (6,)}
    tensors = {key: torch.ones(shape if key == name else usual) for key, usual in arguments.items()}
    with pytest.raises(InputError, match=f"{name} has .*expected"):
        direction_loss(**tensors)


def test_other_wrong_arguments_are_named():
    x = torch.ones(3, 8)
    with pytest.raises(DtypeError, match=r"vis is torch.int64"):
        direction_loss(x, x, x.long(), x, x, x)
    with pytest.raises(InputError, match=r"ir has shape \[1, 8\]; expected \[3,8\]"):
        direction_regularization(x, x[:1], x)
    planes = torch.ones(1, 2, 3, 3)
    with pytest.raises(InputError, match=r"features of \[1, 2, 1\] layers"):
        fidelity_loss([planes], [planes, planes], [planes])
    with pytest.raises(InputError, match=r"features of \[0, 0, 0\] layers"):
        fidelity_loss([], [], [])
    with pytest.raises(InputError, match=r"features_vis\[0\] has shape \[1, 2, 3, 4\]"):
        fidelity_loss([planes], [planes], [torch.ones(1, 2, 3, 4)])
