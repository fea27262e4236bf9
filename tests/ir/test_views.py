"""Which reshapes and permutes move no bytes, held against NumPy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pockc.ir import DType, TensorType, f32
from pockc.ir.views import permuted, reshape_is_view, reshape_view_layout


def memory(tensor: TensorType, logical: np.ndarray) -> np.ndarray:
    """Return the elements in the order in which memory holds them."""
    return np.transpose(logical, tensor.order).reshape(-1)


@st.composite
def tensors(draw: st.DrawFn) -> TensorType:
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=0, max_size=4)))
    return TensorType(shape, DType.F32, tuple(draw(st.permutations(range(len(shape))))))


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[TensorType, TensorType]:
    operand = draw(tensors())
    left, shape = operand.size, []
    while left > 1:
        n = draw(st.sampled_from([d for d in range(2, left + 1) if left % d == 0]))
        shape += [n, *[1] * draw(st.integers(0, 1))]
        left //= n
    order = tuple(draw(st.permutations(range(len(shape)))))
    return operand, TensorType(tuple(shape), DType.F32, order)


@given(reshapes())
@settings(max_examples=300)
def test_a_reshape_is_a_view_exactly_if_memory_stays_the_same(
    pair: tuple[TensorType, TensorType],
) -> None:
    operand, result = pair
    logical = np.arange(operand.size).reshape(operand.shape)
    same = np.array_equal(
        memory(operand, logical), memory(result, logical.reshape(result.shape))
    )
    assert reshape_is_view(operand, result) == same


@given(reshapes())
@settings(max_examples=300)
def test_the_layout_under_which_a_reshape_is_a_view_is_found_if_there_is_one(
    pair: tuple[TensorType, TensorType],
) -> None:
    operand, result = pair
    found = reshape_view_layout(operand, result.shape)
    if found is not None:
        assert found.shape == result.shape
        assert reshape_is_view(operand, found)
    elif operand.size:
        assert not reshape_is_view(operand, result)


@given(tensors(), st.data())
def test_a_permute_with_the_layout_it_permutes_to_moves_nothing(
    operand: TensorType, data: st.DataObject
) -> None:
    perm = tuple(data.draw(st.permutations(range(operand.rank))))
    logical = np.arange(operand.size).reshape(operand.shape)
    result = permuted(operand, perm)
    assert result.shape == logical.transpose(perm).shape
    assert np.array_equal(memory(operand, logical), memory(result, logical.transpose(perm)))


def test_splitting_heads_of_a_transposed_tensor_is_a_view() -> None:
    rows = TensorType((8, 16, 64), DType.F32)
    heads = reshape_view_layout(rows, (8, 16, 4, 16))
    assert heads == f32(8, 16, 4, 16)
    assert permuted(heads, (0, 2, 1, 3)) == TensorType((8, 4, 16, 16), DType.F32, (0, 2, 1, 3))
    images = TensorType((8, 3, 5, 5), DType.F32, (0, 2, 3, 1))
    assert reshape_view_layout(images, (8, 75)) is None
    assert reshape_view_layout(images, (8, 3, 25)) is not None
