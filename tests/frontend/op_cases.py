"""The operations whose import is tested, in families that are captured together."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tests.frontend.helpers import Case, case

MASK = torch.tensor([[True, False, True, True], [True, True, False, True]])
CAUSAL = torch.ones(4, 4, dtype=torch.bool).tril()
LABELS = torch.tensor([2, 0, 3])
CLASS_WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.25], dtype=torch.float64)
ROWS = torch.tensor([3, 0, 3, 1])
COLUMNS = torch.tensor([-1, 2, 0, 2])
ALONG = torch.tensor([[0, 2, 1], [4, 4, 0]])
BOUNDS = torch.tensor([-0.5, 0.1, 1.0], dtype=torch.float64)
SIGNS = torch.tensor([[1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, -1.0, 1.0]], dtype=torch.float64)
M = (2, 4)
IMAGE = (2, 3, 3, 4)


def _unary(name: str, positive: bool = False) -> Case:
    return case(name, getattr(torch, name), M, positive=positive)


def _put(x: Tensor, y: Tensor) -> Tensor:
    z = x * 1.0
    z[:, 1] = y
    z[0] += 2.0
    z[:, 2:4] *= y.unsqueeze(1)
    z[1, ::2] = 0.5
    return z


def _index_put(x: Tensor, y: Tensor) -> Tensor:
    z = x * 1.0
    z[torch.tensor([2, 0])] = y
    return z


FAMILIES: dict[str, list[Case]] = {
    "arithmetic": [
        case("add", lambda x, y: x + y, M, (4,)),
        case("add alpha", lambda x, y: torch.add(x, y, alpha=3), M, M),
        case("sub", lambda x, y: x - y, M, (2, 1)),
        case("sub alpha", lambda x, y: torch.sub(x, y, alpha=0.5), M, M),
        case("rsub", lambda x: 3 - x, M),
        case("mul", lambda x, y: x * y, M, ()),
        case("div", lambda x, y: x / y, M, M, positive=True),
        case("div by number", lambda x: x / 3, M),
        case("number by", lambda x: 2 / x, M, positive=True),
        case("floor division", lambda x, y: x * torch.floor_divide(x, y).detach(), M, M),
        case("remainder", lambda x: torch.remainder(x, 0.7), M),
        case("fmod", lambda x: torch.fmod(x, 0.7), M),
        case("pow", torch.pow, M, M, positive=True),
        case("scalar pow", lambda x: 1.7**x, M),
        *(
            case(f"pow {e}", functools.partial(torch.pow, exponent=e), M, positive=True)
            for e in (0.5, -0.5, 1, 2, 3, 4, -2, 2.5)
        ),
        case("addcmul", lambda x, y, z: torch.addcmul(x, y, z, value=2), M, M, M),
        case(
            "addcdiv", lambda x, y, z: torch.addcdiv(x, y, z, value=2), M, M, M, positive=True
        ),
        case("lerp", lambda x, y: torch.lerp(x, y, 0.3), M, M),
        case("lerp far", lambda x, y: torch.lerp(x, y, 0.8), M, M),
        case("lerp tensor", torch.lerp, M, M, M),
        case("maximum", torch.maximum, M, M),
        case("minimum", torch.minimum, M, M),
        case("clamp", lambda x: x.clamp(-0.5, 0.8), M),
        case("clamp min", lambda x: x.clamp(min=0.1), M),
        case("clamp max", lambda x: x.clamp_max(0.1), M),
        case("where", lambda x, y: torch.where(x > y, x * y, y), M, (4,)),
        case("where number", lambda x: torch.where(MASK, x, 0.0), M),
        case("masked fill", lambda x: x.masked_fill(MASK, -1e4), M),
        case("cast", lambda x: x.float().double() * 0 + x * (x > 0).double(), M),
        case("compare", lambda x, y: (x <= y).double() * x + (x != y) * y, M, M),
        case("logic", lambda x: x * ((x > 0) & ~MASK | (x < -1) ^ MASK), M),
        case("isfinite", lambda x: torch.where(torch.isfinite(x) & ~torch.isnan(x), x, 0), M),
    ],
    "functions": [
        *map(_unary, ("neg", "abs", "exp", "sin", "cos", "tan", "tanh", "erf", "erfc", "sign")),
        *map(_unary, ("sigmoid", "square", "expm1", "exp2", "floor", "ceil", "trunc", "round")),
        *(
            _unary(n, positive=True)
            for n in ("log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal")
        ),
    ],
    "activations": [
        case(f.__name__, f, (3, 8))
        for f in (
            F.relu,
            F.relu6,
            F.gelu,
            F.silu,
            F.mish,
            F.hardswish,
            F.hardtanh,
            F.softplus,
            F.elu,
            F.selu,
            F.celu,
            F.leaky_relu,
            F.logsigmoid,
            F.softsign,
            F.softshrink,
            F.hardshrink,
            F.tanhshrink,
            F.glu,
        )
    ]
    + [
        case("gelu tanh", lambda x: F.gelu(x, approximate="tanh"), (3, 8)),
        case("leaky relu slope", lambda x: F.leaky_relu(x, 0.3), M),
        case("elu alpha", lambda x: F.elu(x, 1.7), M),
        case("softplus beta", lambda x: F.softplus(x * 3, 2.0, 4.0), M),
        case("prelu", F.prelu, (2, 3, 4), (3,)),
        case("threshold", lambda x: F.threshold(x, 0.2, -1.0), M),
        case("relu in place", lambda x: F.relu(x * 1, inplace=True), M),
    ],
    "shapes": [
        case("view", lambda x: x.view(3, 8), (4, 6)),
        case("reshape permuted", lambda x: x.permute(2, 0, 1).reshape(4, 6), (2, 3, 4)),
        case("transpose", lambda x: x.transpose(-1, 0) * 1, (2, 3, 4)),
        case("squeeze", lambda x: x.squeeze(1).unsqueeze(0), (2, 1, 4)),
        case("expand", lambda x: x.expand(3, 2, 4), (2, 1)),
        case("slice", lambda x: x[1:, ::2, -3:], (3, 5, 4)),
        case("select", lambda x: x[-1] + x[0], (3, 4)),
        case("narrow", lambda x: x.narrow(1, 1, 2), (3, 4)),
        case("split", lambda x: x.split([1, 3], 1)[1] * x.split(2, 1)[0].sum(), (3, 4)),
        case("chunk", lambda x: torch.mul(*x.chunk(2, -1)), (3, 4)),
        case("unbind", lambda x: x.unbind(1)[2] * x.unbind(1)[0], (3, 4)),
        case("cat", lambda x, y: torch.cat((x, y, x), 1), (2, 3), (2, 1)),
        case("stack", lambda x, y: torch.stack((x, y), -1), M, M),
        case("repeat", lambda x: x.repeat(2, 1, 3), M),
        case("repeat interleave", lambda x: x.repeat_interleave(2, 0), M),
        case("tile", lambda x: x.tile(2, 2), M),
        case("pad", lambda x: F.pad(x, (1, 2, 0, 1), value=0.5), (2, 3, 4)),
        case("crop", lambda x: F.pad(x, (-1, 2)), M),
        case("flip", lambda x: x.flip(0, 1), (3, 4)),
        case("roll", lambda x: x.roll((1, -2), (0, 1)), (3, 4)),
        case("roll flat", lambda x: x.roll(5), (3, 4)),
        case("tril", lambda x: x.tril(1), (4, 4)),
        case("triu", lambda x: x.triu(-1), (3, 4)),
        case("diagonal below", lambda x: x.diagonal(-1), (4, 5)),
        case("diagonal", lambda x: x.diagonal(1, 1, 2), (2, 4, 4)),
        case("unflatten", lambda x: x.unflatten(1, (2, 2)).flatten(0, 1), M),
        case("pixel unshuffle", lambda x: F.pixel_unshuffle(x, 2), (2, 2, 4, 6)),
        case("pixel shuffle", lambda x: F.pixel_shuffle(x, 2), (2, 8, 3, 3)),
        case("in place", _put, (3, 5), (3,)),
        case(
            "new tensors",
            lambda x: x + torch.zeros_like(x) + x.new_ones(4) + torch.eye(2, 4),
            M,
        ),
        case(
            "ranges",
            lambda x: x * torch.arange(1, 9, 2) + torch.linspace(0, 1, 4, dtype=x.dtype),
            M,
        ),
    ],
    "reductions": [
        case("sum", lambda x: x.sum() * x, M),
        case("sum dim", lambda x: x.sum((0, 2)), (2, 3, 4)),
        case("mean", lambda x: x.mean(1, keepdim=True), M),
        case("mean all", lambda x: x.mean() + x, M),
        case("amax", lambda x: x.amax(1), M),
        case("amin", lambda x: x.amin((0, 1), keepdim=True), M),
        case("max", lambda x: x.max() * x, M),
        case("max dim", lambda x: x.max(1).values, M),
        case("min dim", lambda x: x.min(0, keepdim=True)[0], M),
        case("argmax", lambda x: x * (x.argmax(1, keepdim=True) + x.argmin()), M),
        case("any all", lambda x: x * ((x > 0).any(1, keepdim=True) | (x > 0).all()), M),
        case("prod", lambda x: x.prod(1), (2, 5), positive=True),
        case("cumsum", lambda x: x.cumsum(1), M),
        case("var", lambda x: x.var(1), M),
        case("var biased", lambda x: x.var((0, 1), correction=0, keepdim=True), (2, 3, 4)),
        case("std", lambda x: x.std(), M),
        case("var mean", lambda x: sum(torch.var_mean(x, 1)), M),
        case("norm", lambda x: x.norm(), M),
        case("norm dim", lambda x: torch.linalg.vector_norm(x, dim=1), M),
        case("norm 1", lambda x: x.norm(1, dim=0), M),
        case("norm 3", lambda x: torch.linalg.vector_norm(x, 3), M),
        case("normalize", lambda x: F.normalize(x, dim=-1), M),
        case("logsumexp", lambda x: x.logsumexp(1), M),
        case("softmax", lambda x: x.softmax(0), M),
        case("log softmax", lambda x: x.log_softmax(-1), M),
    ],
    "products": [
        case("mm", torch.mm, (2, 3), (3, 4)),
        case("bmm", torch.bmm, (2, 3, 4), (2, 4, 5)),
        case("matmul broadcast", torch.matmul, (2, 3, 2, 4), (3, 4, 5)),
        case("mv", torch.mv, (3, 4), (4,)),
        case("dot", torch.dot, (5,), (5,)),
        case("linear", F.linear, (2, 3, 4), (5, 4), (5,)),
        case("linear bare", F.linear, (3, 4), (5, 4)),
        case(
            "addmm", lambda c, x, y: torch.addmm(c, x, y, beta=2, alpha=3), (4,), (2, 3), (3, 4)
        ),
        case("baddbmm", torch.baddbmm, (2, 3, 5), (2, 3, 4), (2, 4, 5)),
        case(
            "einsum",
            functools.partial(torch.einsum, "bhid,bhjd->bhij"),
            (2, 2, 3, 4),
            (2, 2, 5, 4),
        ),
        case("einsum outer", functools.partial(torch.einsum, "i,j->ij"), (3,), (4,)),
        case("outer", torch.outer, (3,), (4,)),
    ],
    "attention": [
        case("plain", F.scaled_dot_product_attention, *[(2, 2, 4, 3)] * 3),
        case(
            "causal",
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
            *[(2, 2, 4, 3)] * 3,
        ),
        case(
            "masked",
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=CAUSAL),
            *[(2, 2, 4, 3)] * 3,
        ),
        case(
            "biased",
            lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m),
            *[(2, 2, 4, 3)] * 3,
            (4, 4),
        ),
        case(
            "grouped",
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
            (2, 4, 3, 3),
            (2, 2, 3, 3),
            (2, 2, 3, 3),
        ),
    ],
    "convolutions": [
        case(
            "3x3",
            lambda x, w, b: F.conv2d(x, w, b, padding=1),
            (2, 3, 5, 5),
            (4, 3, 3, 3),
            (4,),
        ),
        case("stride", lambda x, w: F.conv2d(x, w, None, 2, 1), (2, 3, 6, 5), (4, 3, 3, 3)),
        case("dilated", lambda x, w: F.conv2d(x, w, None, 1, 2, 2), (1, 2, 6, 6), (2, 2, 3, 3)),
        case(
            "depthwise",
            lambda x, w, b: F.conv2d(x, w, b, (1, 2), (2, 1), groups=3),
            (2, 3, 5, 6),
            (3, 1, 5, 3),
            (3,),
        ),
        case("grouped", lambda x, w: F.conv2d(x, w, groups=2), (1, 4, 4, 4), (6, 2, 2, 2)),
        case("same", lambda x, w: F.conv2d(x, w, padding="same"), (1, 2, 5, 4), (2, 2, 3, 2)),
        case("1d", lambda x, w, b: F.conv1d(x, w, b, 2, 1), (2, 3, 7), (4, 3, 3), (4,)),
        case(
            "transposed",
            lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1),
            (2, 3, 4, 3),
            (3, 4, 3, 3),
            (4,),
        ),
        case(
            "transposed grouped",
            lambda x, w: F.conv_transpose2d(x, w, None, (1, 2), groups=2),
            (1, 4, 3, 3),
            (4, 2, 2, 3),
        ),
        case(
            "transposed 1d",
            lambda x, w: F.conv_transpose1d(x, w, None, 2),
            (1, 3, 4),
            (3, 2, 3),
        ),
    ],
    "pools": [
        case("max", lambda x: F.max_pool2d(x, 2), (2, 3, 6, 6)),
        case("max overlap", lambda x: F.max_pool2d(x, 3, 2, 1), (2, 3, 6, 5)),
        case("max ceil", lambda x: F.max_pool2d(x, 2, ceil_mode=True), (1, 2, 5, 5)),
        case("max dilated", lambda x: F.max_pool2d(x, 2, 1, 0, 2), (1, 2, 5, 5)),
        case("max 1d", lambda x: F.max_pool1d(x, 2), (2, 3, 6)),
        case("avg", lambda x: F.avg_pool2d(x, 2), (2, 3, 6, 6)),
        case("avg overlap", lambda x: F.avg_pool2d(x, 3, 2, 1), (2, 3, 6, 5)),
        case(
            "avg without pad",
            lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            (1, 2, 6, 6),
        ),
        case("avg 1d", lambda x: F.avg_pool1d(x, 3, 2), (2, 3, 7)),
        case("adaptive one", lambda x: F.adaptive_avg_pool2d(x, 1), (2, 3, 4, 5)),
        case("adaptive even", lambda x: F.adaptive_avg_pool2d(x, (2, 3)), (2, 3, 4, 6)),
        case("adaptive uneven", lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (2, 3, 5, 7)),
        case("adaptive 1d", lambda x: F.adaptive_avg_pool1d(x, 2), (2, 3, 6)),
        case("adaptive max", lambda x: F.adaptive_max_pool2d(x, (2, 1)), (2, 3, 4, 5)),
        case("upsample", lambda x: F.interpolate(x, scale_factor=2), (1, 2, 3, 3)),
    ],
    "resizing": [
        case("bilinear", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), IMAGE),
        case(
            "bilinear scale",
            lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
            IMAGE,
        ),
        case(
            "bilinear corners",
            lambda x: F.interpolate(x, (5, 3), mode="bilinear", align_corners=True),
            IMAGE,
        ),
        case("bicubic", lambda x: F.interpolate(x, (7, 6), mode="bicubic"), IMAGE),
        case("linear", lambda x: F.interpolate(x, 7, mode="linear"), (2, 3, 4)),
        case("nearest", lambda x: F.interpolate(x, (5, 3)), IMAGE),
        case("nearest whole", lambda x: F.interpolate(x, (6, 8)), IMAGE),
        case("nearest exact", lambda x: F.interpolate(x, (5, 7), mode="nearest-exact"), IMAGE),
        case("nearest 1d", lambda x: F.interpolate(x, scale_factor=3), (2, 3, 4)),
        case("reflect", lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"), IMAGE),
        case("reflect 1d", lambda x: F.pad(x, (1, 2), mode="reflect"), (2, 3, 4)),
        case("replicate", lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate"), IMAGE),
        case("circular", lambda x: F.pad(x, (1, 2, 1, 0), mode="circular"), IMAGE),
        case("windows", lambda x: x.unfold(1, 3, 2) * 2, (2, 7, 3)),
        case("im2col", lambda x: F.unfold(x, 2, padding=1), IMAGE),
        case("channel shuffle", lambda x: F.channel_shuffle(x, 2), (2, 4, 3, 3)),
    ],
    "rarer": [
        case("sinh", torch.sinh, M),
        case("cosh", torch.cosh, M),
        case("logaddexp", torch.logaddexp, M, M),
        case("logit", lambda x: torch.logit(x.sigmoid(), eps=1e-6), M),
        case("nan to num", lambda x: torch.nan_to_num(torch.where(MASK, x, math.nan), 0.5), M),
        case("frac", torch.frac, M),
        case("trace", torch.trace, (3, 3)),
        case("addr", lambda c, x, y: torch.addr(c, x, y, beta=2, alpha=3), M, (2,), (4,)),
        case("aminmax", lambda x: torch.sub(*torch.aminmax(x, dim=1)), M),
        case("cross", torch.linalg.cross, (4, 3), (4, 3)),
        case("bilinear layer", F.bilinear, (5, 2), (5, 3), (4, 2, 3), (4,)),
        case("bucketize", lambda x: x * torch.bucketize(x, BOUNDS, right=True), M),
        case("one hot", lambda x: x * F.one_hot(ROWS[:2] % 4, 4), M),
        case("weight norm", lambda v, g: torch._weight_norm(v, g, 0), (3, 4), (3, 1)),
        case("soft margin", lambda x: F.soft_margin_loss(x, SIGNS), M),
        case("triplet", F.triplet_margin_loss, M, M, M),
        case("cosine embedding", lambda x, y: F.cosine_embedding_loss(x, y, SIGNS[:, 0]), M, M),
        case("poisson", F.poisson_nll_loss, M, M),
        case("lp pool", lambda x: F.lp_pool2d(x, 2, 2), (1, 2, 4, 4), positive=True),
    ],
    "norms": [
        case("layer", lambda x, w, b: F.layer_norm(x, (4,), w, b), (2, 3, 4), (4,), (4,)),
        case("layer 2d", lambda x, w: F.layer_norm(x, (3, 4), w), (2, 3, 4), (3, 4)),
        case("layer bare", lambda x: F.layer_norm(x, (4,)), (2, 3, 4)),
        case("group", lambda x, w, b: F.group_norm(x, 2, w, b), (2, 4, 3, 2), (4,), (4,)),
        case("group bare", lambda x: F.group_norm(x, 4), (2, 4, 3)),
        case(
            "instance",
            lambda x, w, b: F.instance_norm(x, weight=w, bias=b),
            (2, 3, 4, 4),
            (3,),
            (3,),
        ),
        case("rms", lambda x, w: F.rms_norm(x, (4,), w), (2, 3, 4), (4,)),
        case("rms bare", lambda x: F.rms_norm(x, (4,), eps=1e-3), (2, 3, 4)),
        case(
            "batch",
            lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
            (4, 3, 2, 2),
            (3,),
            (3,),
        ),
        case("batch flat", lambda x: F.batch_norm(x, None, None, training=True), (5, 3)),
    ],
    "indices": [
        case("embedding", lambda w: F.embedding(ROWS, w), (5, 3)),
        case("embedding padding", lambda w: F.embedding(ROWS, w, padding_idx=3), (5, 3)),
        case("index", lambda x: x[ROWS], (4, 3)),
        case("index middle", lambda x: x[:, COLUMNS], (2, 3, 2)),
        case("index two", lambda x: x[ROWS, COLUMNS], (4, 3, 2)),
        case("index apart", lambda x: x[ROWS, :, COLUMNS], (4, 2, 3)),
        case("index grid", lambda x: x[:, ROWS[:, None], COLUMNS[None]], (2, 4, 3)),
        case("index select", lambda x: x.index_select(1, ROWS), (2, 4)),
        case("gather", lambda x: x.gather(1, ALONG), (2, 5)),
        case("gather small", lambda x: x.gather(1, ALONG[:, :2]), (3, 5)),
        case("take along", lambda x: x.take_along_dim(x.argmax(1, keepdim=True), 1), (2, 5)),
        case("scatter add", lambda x, y: x.scatter_add(1, ALONG, y), (2, 5), (2, 3)),
        case(
            "scatter",
            lambda x, y: x.scatter(1, torch.tensor([[0, 2, 1], [4, 3, 0]]), y),
            (2, 5),
            (2, 3),
        ),
        case("scatter number", lambda x: x.scatter(1, ALONG, 0.5), (2, 5)),
        case("index add", lambda x, y: x.index_add(0, ROWS, y), (5, 3), (4, 3)),
        case("index put", _index_put, (4, 3), (2, 3)),
    ],
    "losses": [
        case("cross entropy", lambda x: F.cross_entropy(x, LABELS), (3, 4)),
        case(
            "cross entropy smooth",
            lambda x: F.cross_entropy(x, LABELS, CLASS_WEIGHTS, label_smoothing=0.1),
            (3, 4),
        ),
        case(
            "cross entropy ignored",
            lambda x: F.cross_entropy(x, LABELS, ignore_index=0),
            (3, 4),
        ),
        case(
            "cross entropy none", lambda x: F.cross_entropy(x, LABELS, reduction="none"), (3, 4)
        ),
        case(
            "cross entropy sum", lambda x: F.cross_entropy(x, LABELS, reduction="sum"), (3, 4)
        ),
        case(
            "cross entropy pixels",
            lambda x: F.cross_entropy(x, LABELS.expand(2, 3)),
            (2, 4, 3),
        ),
        case(
            "cross entropy images",
            lambda x: F.cross_entropy(x, LABELS.expand(2, 2, 3), CLASS_WEIGHTS),
            (2, 4, 2, 3),
        ),
        case("nll", lambda x: F.nll_loss(x.log_softmax(-1), LABELS, CLASS_WEIGHTS), (3, 4)),
        case("soft labels", lambda x, y: F.cross_entropy(x, y.softmax(-1)), (3, 4), (3, 4)),
        case("mse", F.mse_loss, M, M),
        case("mse sum", lambda x, y: F.mse_loss(x, y, reduction="sum"), M, M),
        case("l1", F.l1_loss, M, M),
        case("smooth l1", lambda x, y: F.smooth_l1_loss(x, y, beta=0.4), M, M),
        case("huber", lambda x, y: F.huber_loss(x, y, delta=0.4), M, M),
        case("bce", lambda x, y: F.binary_cross_entropy(x.sigmoid(), (y > 0).double()), M, M),
        case(
            "bce logits",
            lambda x, y: F.binary_cross_entropy_with_logits(
                x, (y > 0).double(), pos_weight=CLASS_WEIGHTS
            ),
            M,
            M,
        ),
        case(
            "kl",
            lambda x, y: F.kl_div(x.log_softmax(1), y.softmax(1), reduction="batchmean"),
            M,
            M,
        ),
        case("cosine", F.cosine_similarity, M, M),
    ],
}
