"""Shape aliases of the tensors that pass between the rooms, and the legend of the paper's symbols.

| paper | here | meaning |
| --- | --- | --- |
| x | `images` | image batch, `B C H W`, in [0, 1] unless a docstring says otherwise |
| f_{k,c} | `filters` | dictionary, `K C S S` |
| z_k | `codes` | sparse feature maps, `B K H W`, shared over the channels |
| T(x) | `reconstruction` | the projection of x on the quasi-natural space |
| lambda | `sparsity` | weight of the l1 term in Eq. (2) |
| rho | `penalty` | penalty parameter of the augmented Lagrangian |
| M, k | `count`, `neighbours` | number of strata; how many training latents vote |

The aliases cost nothing at run time; the tests check them under beartype.
"""

from jaxtyping import Bool, Complex, Float, Int64
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]
Image = Float[Tensor, "channels height width"]
Codes = Float[Tensor, "batch filters height width"]
Filters = Float[Tensor, "filters channels size size"]
Latents = Float[Tensor, "batch features"]
Logits = Float[Tensor, "batch classes"]
Labels = Int64[Tensor, "batch"]
PerImage = Float[Tensor, "batch"]
PerImageInt = Int64[Tensor, "batch"]
PerImageBool = Bool[Tensor, "batch"]
Spectra = Complex[Tensor, "batch channels height half_width"]
CodeSpectra = Complex[Tensor, "batch filters height half_width"]
State = Float[Tensor, "batch maps height width"]
FilterSpectra = Complex[Tensor, "filters channels height half_width"]
Kernels = Complex[Tensor, "#batch channels channels height half_width"]
# Beyond the circular boundary the codes live on a larger domain than the images.
CodesBeyond = Float[Tensor, "batch filters extended_height extended_width"]
ImagesBeyond = Float[Tensor, "batch channels extended_height extended_width"]
StateBeyond = Float[Tensor, "batch maps extended_height extended_width"]
