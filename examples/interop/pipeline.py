"""T(x) as a step of a data pipeline: PIL image in, PIL image out; tensors too."""

from PIL import Image
from small import small

import quasinat as qn
from quasinat.interop import Projection

defended, images, _ = small()
step = Projection(defended.transform)  # torchvision.transforms.Compose([step, ToTensor(), ...]) takes it as it is
picture = Image.fromarray((255 * images[0]).byte().permute(1, 2, 0).numpy())
print(step(picture).size, f"{float(qn.psnr(step(images), images).mean()):.1f} dB")
