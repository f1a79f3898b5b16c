"""Total-variation minimisation: most of the image is forgotten, and what is kept is explained by the flattest image."""

import torch
from torch import Tensor
from torch.nn import functional as F

from quasinat.arrays import Images, PerImage, PerImageBool
from quasinat.attacks.checks import check_count, check_number
from quasinat.defences._kernels import binding
from quasinat.defences.draws import Seed, generators
from quasinat.defences.transformation import Transformation
from quasinat.errors import UsageError

TOLERANCE = 1e-4  # some 50 steps of a photograph, and an objective 0.1 to 0.3 % above the least
LEAST_SIDE = 8  # of a coarser grid
COARSE_STEPS = 20  # at most, on each coarser grid: a start need not be exact
CHECK = 10  # steps between two looks at the change
REACH = 0.01  # tau w, how far one edge can move a pixel in a step; found best for images in [0, 1], whatever w is
SIGMA = 1 / (8 * REACH)  # the largest with which the steps converge: 8 bounds the squared norm of the gradient
PIECES = {"cpu": 2**19}  # how many values at once, for the cache; elsewhere 2**24


def total_variation(
    images: Images,
    *,
    drop: float = 0.5,
    weight: float = 0.03,
    steps: int = 100,
    tolerance: float = TOLERANCE,
    seed: Seed = 0,
) -> Images:
    """Forgets random values of the image and puts the flattest image in its place that agrees with those kept.

    Guo, Rana, Cisse & van der Maaten 2018, "Countering Adversarial Images using Input Transformations", section 4.2.
    A Bernoulli mask m keeps each value of each channel with probability 1 - drop; each channel x becomes the z that
    minimises

        1/2 sum m (z - x)^2 + weight * sum sqrt((z[i+1, j] - z[i, j])^2 + (z[i, j+1] - z[i, j])^2),

    with differences that are 0 beyond the last row and column. Channels are not coupled. See `inpainted` for how.

    What differs from the source, and why. The paper prints the norm of the misfit and a total variation of whole rows
    and columns; the authors' code, with these defaults, minimises the form above by the split Bregman method that the
    paper names, and so does this. But that code, like scikit-image's `denoise_tv_bregman` (whose `weight` is 1 over
    ours), shrinks a gradient of length s to s^2 / (s + weight / 2), where the form above asks for
    max(s - weight / 2, 0): it minimises a smoothed total variation. This is the plain one. Theirs calls a value of 0
    kept when it is dropped; ours draws for each image by itself.

    Args:
        images: `B C H W` in [0, 1].
        drop: probability with which a value is forgotten, in [0, 1), to 1/65536; the authors' code.
        weight: of the total variation, for intensities in [0, 1]; larger is flatter; the authors' code.
        steps: at most, on the image's own grid; the authors' code.
        tolerance: an image is left alone once a step changes it by this root mean square or less.
        seed: of the mask, see `draws.Seed`.

    Raises:
        UsageError: a drop outside [0, 1), a weight that is not positive and finite, a negative tolerance, or no steps.
    """
    _check(drop, weight, steps, tolerance)
    kept = kept_values(images, drop, seed)
    return inpainted(images, kept, weight=weight, steps=steps, tolerance=tolerance, out=kept).clamp_(0, 1)


class TotalVariation(Transformation):
    """`total_variation` as a module: the same options under the same names."""

    def __init__(
        self,
        *,
        drop: float = 0.5,
        weight: float = 0.03,
        steps: int = 100,
        tolerance: float = TOLERANCE,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        _check(drop, weight, steps, tolerance)
        self.drop = drop
        self.weight = weight
        self.steps = steps
        self.tolerance = tolerance
        self.seed = seed

    def transform(self, images: Images) -> Images:
        """`total_variation(images)`."""
        options = {"drop": self.drop, "weight": self.weight, "tolerance": self.tolerance}
        return total_variation(images, **options, steps=self.steps, seed=self.seed)


def _check(drop: float, weight: float, steps: int, tolerance: float) -> None:
    if not 0 <= drop < 1:
        raise UsageError(f"drop is {drop}", "give a probability from 0 to below 1")
    check_number("weight", weight)
    check_count("steps", steps)
    check_number("tolerance", tolerance, zero=True)


def kept_values(images: Images, drop: float, seed: Seed) -> Images:
    """1 where a value is kept and 0 where it is dropped, drawn for each image by itself; see `total_variation`."""
    shape, threshold = images.shape[1:], round(drop * 2**16) - 2**15
    kept = torch.empty(images.shape, dtype=images.dtype)
    # Four numbers of 16 bits from each draw of 64 take a third of the time of as many uniform ones.
    bits = torch.empty(-(-shape.numel() // 4), dtype=torch.int64)
    numbers = bits.view(torch.int16)[: shape.numel()].view(shape)
    for mask, generator in zip(kept, generators(images, seed, "total variation"), strict=True):
        torch.randint(-(2**63), 2**63 - 1, bits.shape, generator=generator, out=bits)
        torch.ge(numbers, threshold, out=mask)
    return kept.to(images.device)


def objective(result: Images, images: Images, kept: Images, weight: float) -> PerImage:
    """The sum that `total_variation` minimises, in double precision."""
    z = result.double()
    down, right = F.pad(z.diff(dim=2), (0, 0, 0, 1)), F.pad(z.diff(dim=3), (0, 1))
    misfit = kept.double() * (z - images.double()).square()
    return (misfit / 2 + weight * (down.square() + right.square()).sqrt()).sum((1, 2, 3))


@torch.no_grad()
def inpainted(
    images: Images, kept: Images, *, weight: float, steps: int, tolerance: float, out: Images | None = None
) -> Images:
    """The minimiser of `total_variation`'s sum for a given mask.

    Split Bregman (Goldstein & Osher 2009, section 4.2) introduces d = grad z and the multipliers b. The z-step's
    linear system, which the mask makes a different one for each image, is not solved but linearised about the last z
    (the split inexact Uzawa method: Zhang, Burger & Osher 2011; Esser, Zhang & Chan 2010, PDHGMp), which needs
    neither sweeps nor a transform, and converges. As d = shrink(grad z + b), the next b is the projection of
    grad z + b on a disc, and d drops out; `_Grid.run` has what is left.

    The start is the minimiser on a grid of half the size, whose pixels are sums over 2 x 2 and whose total variation
    weighs twice as much (the same sum, for images that are constant on the squares), found in the same way: holes are
    filled and flat regions levelled where it costs least.

    On a CPU a compiled kernel does the same, a few times sooner, where it was built.

    Args:
        images: `B C H W`; any finite values where `kept` is 0.
        kept: the mask, of the images' shape, or any weights of at least 0. Where a channel keeps nothing it becomes 0.
        weight, steps, tolerance: see `total_variation`.
        out: a contiguous tensor of the images' shape and type for the result, which may be `kept` itself: memory that
            is new takes as long to come by as two steps.
    """
    if binding.takes(images):
        threads = torch.get_num_threads()
        options = binding.Options(weight, REACH, tolerance, steps, COARSE_STEPS, CHECK, LEAST_SIDE, threads)
        return binding.inpainted(images, kept, options, out)
    result = torch.empty_like(images, memory_format=torch.contiguous_format) if out is None else out
    piece = max(1, PIECES.get(images.device.type, 2**24) // max(1, images.shape[1:].numel()))
    grid: _Grid | None = None
    pieces = (tensor.split(piece) for tensor in (images.contiguous(), kept.contiguous(), result))
    for part, mask, into in zip(*pieces, strict=True):
        if part.numel():
            if grid is None or grid.shape != part.shape:
                grid = _Grid(part.shape, part, weight)
            grid.load(part * mask, mask)
            grid.minimise(steps, tolerance)
            into.copy_(grid.z.view(part.shape))
    return result


class _Grid:
    """Images z and the multiplier p of their gradient, at most 1 long, in rows of numbers: a neighbour is a shift.

    What the shifts carry across a frame is 0, because p is 0 in the last column and row. The tensors are made once
    for all pieces of a call: to make them anew takes as long as a few steps.
    """

    def __init__(self, shape: torch.Size, like: Tensor, weight: float) -> None:
        self.shape, self.width, self.weight, self.tau = shape, shape[3], weight, REACH / weight
        self.z, self.right, self.down, self.share, self.pull, self.flow, self.spare = (
            like.new_empty(shape.numel()) for _ in range(7)
        )
        height, width = (-(-side // 2) for side in shape[2:])
        fits = min(height, width) >= LEAST_SIDE
        self.coarse = _Grid(torch.Size((*shape[:2], height, width)), like, 2 * weight) if fits else None

    def load(self, data: Images, kept: Images) -> None:
        """Takes a mask m, and images that are 0 where it is."""
        torch.mul(kept.flatten(), self.tau, out=self.share).add_(1).reciprocal_()  # 1 / (1 + tau m)
        torch.mul(data.flatten(), self.tau, out=self.pull).mul_(self.share)  # tau m x / (1 + tau m)
        if self.coarse is not None:
            self.coarse.load(_halved(data), _halved(kept))
            # The least and the largest z to start from, in tensors that no step needs yet; infinite where m is 0.
            torch.sub(data.flatten(), self.weight, out=self.flow).div_(kept.flatten())
            torch.add(data.flatten(), self.weight, out=self.spare).div_(kept.flatten())
        else:
            mean = data.sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True).clamp(min=1e-6)
            self.z.view(self.shape).copy_(mean.expand(self.shape))

    def minimise(self, steps: int, tolerance: float) -> None:
        """Sets out from the coarser grids."""
        if self.coarse is not None:
            self.coarse.minimise(min(steps, COARSE_STEPS), tolerance)
            self._refine(self.coarse)
        else:
            self.right.zero_()
            self.down.zero_()
        self.run(steps, tolerance)

    def _refine(self, coarse: "_Grid") -> None:
        """z goes to squares of 2 x 2; p is linear across its edges, and so its divergence is the same in a square.

        At the minimum m (z - x) = w div p, and div p is seldom over 1: z is brought as near to the data as that.
        """
        for fine, values, across in ((self.z, coarse.z, 0), (self.right, coarse.right, 3), (self.down, coarse.down, 2)):
            _spread(values.view(coarse.shape), fine.view(self.shape), across)
        torch.clamp(self.z, self.flow, self.spare, out=self.z)

    def run(self, steps: int, tolerance: float) -> None:
        """Steps until each image changes by little; one that does stays as it is, whatever the others need.

        p <- (p + sigma grad z) / max(1, |p + sigma grad z|)
        z <- (z + tau (w div (2 p - last p) + m x)) / (1 + tau m)
        """
        state = [tensor.view(self.shape[0], -1) for tensor in (self.z, self.right, self.down)]
        moving = torch.ones(self.shape[0], dtype=torch.bool, device=self.z.device)
        stopped: list[tuple[PerImageBool, list[Tensor]]] = []
        self._ground()
        self._diverge(self.flow)
        for step in range(1, steps + 1):
            if step % CHECK:
                self._step()
                continue
            before = state[0].clone()
            self._step()
            stops = moving & (before.sub_(state[0]).square_().mean(1).sqrt_() <= tolerance)
            if bool(stops.any()):
                stopped.append((stops, [tensor[stops] for tensor in state]))
                moving &= ~stops
                if not bool(moving.any()):
                    break
        for stops, values in stopped:
            for tensor, value in zip(state, values, strict=True):
                tensor[stops] = value

    def _step(self) -> None:
        z, right, down, width = self.z, self.right, self.down, self.width
        right[:-1].add_(z[1:], alpha=SIGMA).sub_(z[:-1], alpha=SIGMA)
        down[:-width].add_(z[width:], alpha=SIGMA).sub_(z[:-width], alpha=SIGMA)
        self._ground()
        torch.mul(right, right, out=self.spare).addcmul_(down, down).rsqrt_().clamp_(max=1)
        right.mul_(self.spare)
        down.mul_(self.spare)
        self._diverge(self.spare)
        z.add_(torch.sub(self.spare, self.flow, alpha=0.5, out=self.flow), alpha=2 * REACH)
        torch.addcmul(self.pull, self.share, z, out=z)
        self.flow, self.spare = self.spare, self.flow

    def _diverge(self, out: Tensor) -> None:
        """div p."""
        torch.add(self.right, self.down, out=out)
        out[1:].sub_(self.right[:-1])
        out[self.width :].sub_(self.down[: -self.width])

    def _ground(self) -> None:
        """Nothing flows over a frame."""
        self.right.view(self.shape)[..., -1].zero_()
        self.down.view(self.shape)[..., -1, :].zero_()


def _halved(values: Tensor) -> Tensor:
    """Sums over squares of 2 x 2; those that stick out of the frame have zeros in them."""
    height, width = values.shape[2:]
    if height % 2 or width % 2:
        values = F.pad(values, (0, width % 2, 0, height % 2))
    rows = values[:, :, ::2] + values[:, :, 1::2]
    return rows[..., ::2] + rows[..., 1::2]


def _spread(coarse: Tensor, fine: Tensor, across: int) -> None:
    """Each value to a square of 2 x 2; along dimension `across`, the first of two is halfway from the value before."""
    first = coarse
    if across:
        size = coarse.shape[across] - 1
        first = coarse / 2
        first.narrow(across, 1, size).add_(coarse.narrow(across, 0, size), alpha=0.5)
    upper, lower = fine[:, :, ::2], fine[:, :, 1::2]
    _put(first, upper[..., ::2])
    _put(first if across == 2 else coarse, upper[..., 1::2])
    if across == 2:
        _put(coarse, lower[..., ::2])
        _put(coarse, lower[..., 1::2])
    else:
        _put(upper, lower)


def _put(values: Tensor, into: Tensor) -> None:
    into.copy_(values[:, :, : into.shape[2], : into.shape[3]])
