"""The Triton kernels of `FusedADMM`: the two convolutions of an ADMM step with its pointwise work fused into them.

Both are matrix products on tiles of pixels, rows of pixels flattened (moving by a row is then a circular move of the
flattened map):

- D, from K maps to C: acc[n, (c, dx)] = sum_dy sum_k f_{k,c}[dy, dx] v_k[n - dy W] needs no moves along a row, so that
  the maps are read in whole runs; `fold_kernel` then adds the S columns, c at n - dx, of that scratch.
- D^T, from C to K: an implicit matrix product of the C S S taps (c, dy, dx) of every pixel with the filters.

v = p - 2 clip(p) and the update of p happen in registers, so that a step reads p twice and writes it once. Sums are in
a fixed order, without atomics and without autotuning: the same numbers at every run, whatever the batch.

Importing this module imports Triton, which decides at that moment whether its interpreter runs (TRITON_INTERPRET=1).
The kernels are marked `no_type_check` because Triton compiles their source, not the function that a checker wraps.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from quasinat.arrays import Filters, Images, PerImage, State

# Chosen so that registers and shared memory suffice on compute capability 8.0 and 9.0, not by measurement.
PIXELS, FOLDED, ELEMENTS, TILES = 128, 512, 2048, 256  # of a program
# Products are fused with sums by default in some versions of Triton only; without that, float32 takes twice as long.
LAUNCH = {"num_warps": 8, "num_stages": 2, "enable_fp_fusion": True}


@triton.jit
@no_type_check
def columns_kernel(
    state,  # p, `B K HW`
    filters,  # of `synthesis_matrix`
    columns,  # out, `B CS HW`
    threshold,
    maps_count,
    rows_count,
    rows_padded,
    pixels,
    width,
    SIZE: tl.constexpr,
    MAPS_PADDED: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_MAPS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """columns[(c, dx), n] = sum over dy and k of f_{k,c}[dy, dx] (y - u)_k[n - dy W]."""
    tiles = tl.cdiv(pixels, BLOCK_PIXELS)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    places = tl.program_id(0) % tiles * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    rows = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    inside = places < pixels
    state += image * maps_count * pixels
    acc = tl.zeros((BLOCK_PIXELS, BLOCK_ROWS), dtype=tl.float32)
    # The S moves of the same maps follow each other, so that the later ones find them in the cache.
    for step in range(MAPS_PADDED // BLOCK_MAPS * SIZE):
        dy = step % SIZE
        maps = step // SIZE * BLOCK_MAPS + tl.arange(0, BLOCK_MAPS)
        moved = places - dy * width
        moved = tl.where(moved < 0, moved + pixels, moved)
        known = inside[:, None] & (maps < maps_count)[None, :]
        p = tl.load(state + moved[:, None] + maps[None, :] * pixels, mask=known, other=0.0).to(tl.float32)
        u = tl.minimum(tl.maximum(p, -threshold), threshold)
        f = tl.load(filters + (dy * rows_padded + rows[None, :]) * MAPS_PADDED + maps[:, None])
        acc = tl.dot(p - 2.0 * u, f, acc, input_precision=PRECISION)
    columns += image * rows_count * pixels
    kept = inside[:, None] & (rows < rows_count)[None, :]
    tl.store(columns + rows[None, :] * pixels + places[:, None], acc, mask=kept)


@triton.jit
@no_type_check
def fold_kernel(
    columns,  # `B C S HW`
    images,  # s, `B C HW`
    residual,  # out, `B C HW`
    pixels,
    width,
    SIZE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
):
    """residual_c[y, x] = s_c[y, x] - sum over dx of columns[(c, dx), y, x - dx], around the edge."""
    tiles = tl.cdiv(pixels, BLOCK_PIXELS)
    channel = (tl.program_id(0) // tiles).to(tl.int64)  # of the whole batch
    places = tl.program_id(0) % tiles * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    inside = places < pixels
    x = places % width
    columns += channel * SIZE * pixels
    total = tl.zeros((BLOCK_PIXELS,), dtype=tl.float32)
    for dx in range(SIZE):
        moved = places - dx + tl.where(x < dx, width, 0)
        total += tl.load(columns + dx * pixels + moved, mask=inside, other=0.0)
    s = tl.load(images + channel * pixels + places, mask=inside, other=0.0)
    tl.store(residual + channel * pixels + places, s - total, mask=inside)


@triton.jit
@no_type_check
def update_kernel(
    before,  # p, `B K HW`
    w,  # with its first S - 1 rows and columns again at the end, `B C H+S-1 W+S-1`
    filters,  # of `analysis_matrix`
    after,  # out, `B K HW`
    threshold,
    relaxation,
    maps_count,
    channels,
    pixels,
    width,
    w_pixels,
    SIZE: tl.constexpr,
    TAPS_PADDED: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_MAPS: tl.constexpr,
    BLOCK_TAPS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """p + alpha (D^T w - u), with (D^T w)_k[y, x] = sum over (c, dy, dx) of f_{k,c}[dy, dx] w_c[y + dy, x + dx]."""
    tiles = tl.cdiv(pixels, BLOCK_PIXELS)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    places = tl.program_id(0) % tiles * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    maps = tl.program_id(1) * BLOCK_MAPS + tl.arange(0, BLOCK_MAPS)
    # Pixels and taps beyond the last read the last one's values: the former are not stored, the latter meet zeros.
    known = tl.minimum(places, pixels - 1)
    w_width = width + SIZE - 1
    corners = known // width * w_width + known % width
    w += image * channels * w_pixels
    acc = tl.zeros((BLOCK_PIXELS, BLOCK_MAPS), dtype=tl.float32)
    for start in range(0, TAPS_PADDED, BLOCK_TAPS):
        taps = start + tl.arange(0, BLOCK_TAPS)
        tap = tl.minimum(taps, channels * SIZE * SIZE - 1)
        moves = tap // (SIZE * SIZE) * w_pixels + tap // SIZE % SIZE * w_width + tap % SIZE
        values = tl.load(w + corners[:, None] + moves[None, :])
        f = tl.load(filters + maps[None, :] * TAPS_PADDED + taps[:, None])
        acc = tl.dot(values, f, acc, input_precision=PRECISION)
    before += image * maps_count * pixels
    after += image * maps_count * pixels
    offsets = maps[None, :] * pixels + places[:, None]
    kept = (places < pixels)[:, None] & (maps < maps_count)[None, :]
    p = tl.load(before + offsets, mask=kept, other=0.0).to(tl.float32)
    u = tl.minimum(tl.maximum(p, -threshold), threshold)
    tl.store(after + offsets, (p + relaxation * (acc - u)).to(after.dtype.element_ty), mask=kept)


@triton.jit
@no_type_check
def squares_kernel(
    before,  # p before a step, `B N`
    after,  # and after it
    parts,  # out, `B 5 tiles`
    threshold,
    inverse,  # 1 / alpha
    elements,
    BLOCK: tl.constexpr,
):
    """A tile's share of the squared norms of x - y, x, y, y - y_before and u."""
    tiles = tl.cdiv(elements, BLOCK)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    places = tile * BLOCK + tl.arange(0, BLOCK)
    inside = places < elements
    p_before = tl.load(before + image * elements + places, mask=inside, other=0.0).to(tl.float32)
    p = tl.load(after + image * elements + places, mask=inside, other=0.0).to(tl.float32)
    u = tl.minimum(tl.maximum(p, -threshold), threshold)
    y = p - u
    y_before = p_before - tl.minimum(tl.maximum(p_before, -threshold), threshold)
    x = y_before + inverse * (p - p_before)
    parts += image * 5 * tiles + tile
    tl.store(parts, tl.sum((x - y) * (x - y), 0))
    tl.store(parts + tiles, tl.sum(x * x, 0))
    tl.store(parts + 2 * tiles, tl.sum(y * y, 0))
    tl.store(parts + 3 * tiles, tl.sum((y - y_before) * (y - y_before), 0))
    tl.store(parts + 4 * tiles, tl.sum(u * u, 0))


@triton.jit
@no_type_check
def total_kernel(parts, totals, tiles, BLOCKS: tl.constexpr, BLOCK: tl.constexpr):
    """The sum of each row of `rows tiles`, in an order that does not depend on the number of rows."""
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for block in range(BLOCKS):
        places = block * BLOCK + tl.arange(0, BLOCK)
        total += tl.load(parts + row * tiles + places, mask=places < tiles, other=0.0)
    tl.store(totals + row, tl.sum(total, 0))


def _block(count: int, most: int) -> int:
    """The power of two that covers `count`, from 16 (the least that a matrix product takes) to `most`."""
    return min(most, max(16, triton.next_power_of_2(count)))


def _beyond(count: int, most: int) -> int:
    """How far `count` is from a whole number of blocks."""
    return -count % _block(count, most)


def synthesis_matrix(filters: Filters) -> Float[Tensor, "size padded_rows padded_maps"]:
    """f_{k,c}[dy, dx] as `dy (c,dx) k`, with zeros up to whole blocks."""
    count, channels, size, _ = filters.shape
    matrix = filters.permute(2, 1, 3, 0).reshape(size, channels * size, count)
    return F.pad(matrix, (0, _beyond(count, 32), 0, _beyond(channels * size, 64))).contiguous()


def analysis_matrix(filters: Filters) -> Float[Tensor, "padded_maps padded_taps"]:
    """f_{k,c}[dy, dx] as `k (c,dy,dx)`, with zeros up to whole blocks."""
    matrix = filters.flatten(1)
    return F.pad(matrix, (0, _beyond(matrix.shape[1], 32), 0, _beyond(len(matrix), 64))).contiguous()


def residual(
    state: State,
    images: Images,
    matrix: Float[Tensor, "size padded_rows padded_maps"],
    threshold: float,
    precision: str,
) -> Images:
    """s - D (y - u) of a contiguous state."""
    (batch, count, height, width), channels = state.shape, images.shape[1]
    size, rows, maps = matrix.shape
    columns = images.new_empty(batch, channels * size, height, width)
    result = torch.empty_like(images)
    tiles = triton.cdiv(height * width, PIXELS)
    block_rows = _block(channels * size, 64)
    with torch.cuda.device_of(state):
        columns_kernel[(batch * tiles, rows // block_rows)](
            *(state, matrix, columns, threshold, count, channels * size, rows, height * width, width),
            SIZE=size,
            MAPS_PADDED=maps,
            BLOCK_PIXELS=PIXELS,
            BLOCK_MAPS=_block(count, 32),
            BLOCK_ROWS=block_rows,
            PRECISION=precision,
            **LAUNCH,
        )
        fold_kernel[(batch * channels * triton.cdiv(height * width, FOLDED),)](
            *(columns, images, result, height * width, width), SIZE=size, BLOCK_PIXELS=FOLDED, **LAUNCH
        )
    return result


def update(
    state: State,
    w: Float[Tensor, "batch channels _ _"],
    matrix: Float[Tensor, "padded_maps padded_taps"],
    threshold: float,
    relaxation: float,
    precision: str,
) -> State:
    """p + alpha (D^T w - u) of a contiguous state; w with its first S - 1 rows and columns again at the end."""
    (batch, count, height, width), channels = state.shape, w.shape[1]
    size = w.shape[-1] - width + 1
    after = torch.empty_like(state)
    block_maps = _block(count, 64)
    grid = (batch * triton.cdiv(height * width, PIXELS), len(matrix) // block_maps)
    with torch.cuda.device_of(state):
        update_kernel[grid](
            *(state, w, matrix, after, threshold, relaxation, count, channels),
            *(height * width, width, w.shape[-2] * w.shape[-1]),
            SIZE=size,
            TAPS_PADDED=matrix.shape[1],
            BLOCK_PIXELS=PIXELS,
            BLOCK_MAPS=block_maps,
            BLOCK_TAPS=_block(channels * size * size, 32),
            PRECISION=precision,
            **LAUNCH,
        )
    return after


def squared_norms(before: State, after: State, threshold: float, relaxation: float) -> tuple[PerImage, ...]:
    """The squared norms of x - y, x, y, y - y_before and u of the step between two contiguous states."""
    batch, elements = len(before), before[0].numel() if len(before) else 0
    tiles = triton.cdiv(elements, ELEMENTS)
    parts = before.new_empty(batch, 5, tiles, dtype=torch.float32)
    totals = parts.new_empty(batch, 5)
    with torch.cuda.device_of(before):
        squares_kernel[(batch * tiles,)](
            *(before, after, parts, threshold, 1 / relaxation, elements), BLOCK=ELEMENTS, **LAUNCH
        )
        total_kernel[(batch * 5,)](parts, totals, tiles, BLOCKS=triton.cdiv(tiles, TILES), BLOCK=TILES, **LAUNCH)
    return totals.unbind(1)
