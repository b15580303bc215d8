import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import ggml_graph as ggml
from tests.ggml_graph import lib

pytestmark = pytest.mark.skipif(ggml.amx() is None, reason="this processor, or this build of llama.cpp, has no AMX")


@pytest.fixture(scope="module", autouse=True)
def kernel():
    """Ends all of this where the library is without the kernel: llama.cpp's own layout is not read by the row."""
    with ggml.graph() as g:
        table = g.amx_weights(np.zeros((32, 1), ggml.Q8_0_BLOCK))
        assert g.supports(lib.ggml_get_rows(g.context, table, g.tensor(np.zeros(1, np.int32))))


def weights(rng, columns, blocks):
    made = np.empty((columns, blocks), ggml.Q8_0_BLOCK)
    made["factor"] = rng.uniform(0.5, 2, made.shape) * rng.choice([-1, 1], made.shape)
    made["whole"] = rng.integers(-128, 128, (*made.shape, 32))
    return made


def multiply(packed, rows, n_threads=1):
    """What the kernel makes of rows of activations, in numpy's order: [..., row, column]."""
    with ggml.graph() as g:
        result = lib.ggml_mul_mat(g.context, g.amx_weights(packed), g.tensor(rows))
        return g.compute(result, (*rows.shape[:-1], len(packed)), n_threads)


def expected(packed, rows):
    """The product in f64, of the activations rounded to eight bits; and the sum of the sizes of what is added up."""
    split = rows.reshape(*rows.shape[:-1], -1, 32)
    most = np.abs(split).max(-1)
    inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > 0)
    whole = np.rint(split * inverse[..., None]).astype(np.float64)
    sums = np.einsum("...bk,nbk->...nb", whole, packed["whole"].astype(np.float64), optimize=True)
    terms = sums * (most / np.float32(127)).astype(np.float64)[..., None, :] * packed["factor"].astype(np.float64)
    return terms.sum(-1), np.abs(terms).sum(-1)


def check(packed, rows, got):
    """Each of the product's sums is as near as f32 can bring it, however it is ordered."""
    right, added = expected(packed, rows)
    most = (packed.shape[1] + 2) * 2.0**-24 * added
    assert (np.abs(got - right) <= most).all()


@settings(max_examples=80, deadline=None)
@given(
    strips=st.integers(1, 7),
    blocks=st.integers(1, 48),
    shape=st.one_of(st.tuples(st.integers(1, 70)), st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 20))),
    n_threads=st.sampled_from([1, 2, 3, 5]),
    size=st.sampled_from([1.0, 1e-20, 1e20]),
    seed=st.integers(0, 2**32 - 1),
)
def test_products(strips, blocks, shape, n_threads, size, seed):
    """Any number of rows, widths and columns, of any size, on any number of threads."""
    rng = np.random.default_rng(seed)
    packed = weights(rng, strips * 16, blocks)
    rows = (rng.standard_normal((*shape, blocks * 32)) * size).astype(np.float32)
    check(packed, rows, multiply(packed, rows, n_threads))


@pytest.mark.parametrize("n_rows", range(1, 34))
def test_each_remainder_of_rows(n_rows):
    """Rows that do not fill a tile are as right as those that do."""
    rng = np.random.default_rng(n_rows)
    packed = weights(rng, 48, 5)
    rows = rng.standard_normal((n_rows, 160)).astype(np.float32)
    check(packed, rows, multiply(packed, rows))


def test_products_are_near_those_of_the_activations_themselves():
    """Rounding activations to eight bits costs at most half a step for each number."""
    rng = np.random.default_rng(1)
    packed = weights(rng, 64, 18)
    rows = rng.standard_normal((20, 18 * 32)).astype(np.float32)
    plain = ggml.dequantized(packed)
    half_steps = np.abs(rows.reshape(20, 18, 32)).max(-1).repeat(32, -1) / 254
    most = half_steps @ np.abs(plain).T * 1.001
    assert (np.abs(multiply(packed, rows) - rows.astype(np.float64) @ plain.T) <= most).all()


def test_a_row_does_not_depend_on_those_beside_it():
    """A row gives the same bits alone, in any place among others, and on any number of threads."""
    rng = np.random.default_rng(2)
    packed = weights(rng, 96, 19)
    rows = rng.standard_normal((50, 19 * 32)).astype(np.float32)
    together = multiply(packed, rows)
    for first, behind in [(0, 1), (49, 50), (3, 5), (7, 16), (1, 17), (10, 23), (16, 48), (5, 50)]:
        for n_threads in (1, 3):
            assert (multiply(packed, rows[first:behind], n_threads) == together[first:behind]).all()


def test_zeros():
    """A row of zeros gives zeros, and blocks of zeros add nothing."""
    rng = np.random.default_rng(3)
    packed = weights(rng, 32, 6)
    rows = rng.standard_normal((5, 192)).astype(np.float32)
    rows[2] = 0
    rows[3, 32:96] = 0
    got = multiply(packed, rows)
    assert (got[2] == 0).all()
    check(packed, rows, got)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 3e38, 1e-45, -1e-38])
def test_numbers_that_cannot_be_scaled(odd):
    """What is no number, or too large or small for one, harms no other row, and gives the same bits alone."""
    rng = np.random.default_rng(4)
    packed = weights(rng, 32, 4)
    rows = rng.standard_normal((18, 128)).astype(np.float32)
    right = multiply(packed, rows)
    rows[4, 40] = rows[17] = odd
    others = [i for i in range(18) if i not in {4, 17}]
    got = multiply(packed, rows)
    assert (got[others] == right[others]).all()
    for i in (4, 17):
        np.testing.assert_array_equal(multiply(packed, rows[i : i + 1]), got[i : i + 1])


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(("columns", "blocks"), [(32, 1), (96, 9), (160, 18)])
def test_rows_of_the_table(columns, blocks, n_threads):
    """A word's row is read from the packed weights exactly, from the first to the last."""
    rng = np.random.default_rng(columns)
    packed = weights(rng, columns, blocks)
    wanted = np.array([0, columns - 1, *rng.integers(0, columns, 20), 0], np.int32)
    with ggml.graph() as g:
        result = lib.ggml_get_rows(g.context, g.amx_weights(packed), g.tensor(wanted))
        assert g.supports(result)
        got = g.compute(result, (len(wanted), blocks * 32), n_threads)
    assert (got == ggml.dequantized(packed)[wanted]).all()


OUT_OF_THE_TABLE = """
import sys
import numpy as np
from tests import ggml_graph as ggml
with ggml.graph() as g:
    table = g.amx_weights(np.zeros((32, 1), ggml.Q8_0_BLOCK))
    result = ggml.lib.ggml_get_rows(g.context, table, g.tensor(np.array([int(sys.argv[1])], np.int32)))
    g.compute(result, (1, 32))
    print("read")
"""


@pytest.mark.parametrize(("row", "said"), [("31", "read\n"), ("32", ""), ("-1", "")])
def test_a_row_that_is_not_in_the_table(row, said):
    """It ends the process, as llama.cpp does, and reads nothing beside the table."""
    command, environment = [sys.executable, "-c", OUT_OF_THE_TABLE, row], os.environ | {"GGML_NO_BACKTRACE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode == 0) == (said, bool(said))
    assert said or "GGML_ASSERT" in done.stderr


@pytest.mark.parametrize(("columns", "supported"), [(16, False), (32, True), (40, False), (48, False), (64, True)])
def test_which_weights_are_packed(columns, supported):
    """Weights are put where they are packed only if what they are used for can be computed there."""
    rng = np.random.default_rng(5)
    with ggml.graph() as g:
        packed = g.amx_weights(weights(rng, columns, 2))
        product = lib.ggml_mul_mat(g.context, packed, g.tensor(np.zeros((2, 64), np.float32)))
        assert g.supports(product) == supported


@pytest.mark.parametrize(
    ("name", "columns", "supported"),
    [
        ("token_embd.weight", 64, True),
        ("token_embd.weight", 48, False),  # the last product cannot use it there
        ("token_embd.weight", 40, False),
        ("per_layer_token_embd.weight", 64, False),  # Gemma takes a view of its first row
        ("position_embd.weight", 64, False),
    ],
)
def test_which_tables_are_packed(name, columns, supported):
    """Only the table of words is read where it is packed, and only where it can be multiplied with too."""
    with ggml.graph() as g:
        table = g.amx_weights(weights(np.random.default_rng(6), columns, 2), name)
        rows = lib.ggml_get_rows(g.context, table, g.tensor(np.zeros(3, np.int32)))
        assert g.supports(rows) == supported


def test_packed_weights_are_read_back():
    """Whoever asks for packed weights gets them as they are in the file."""
    packed = weights(np.random.default_rng(7), 48, 7)
    read = np.zeros_like(packed)
    with ggml.graph() as g:
        lib.ggml_backend_tensor_get(g.amx_weights(packed), read.ctypes.data, 0, read.nbytes)
    assert read.tobytes() == packed.tobytes()
