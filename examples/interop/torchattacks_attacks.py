"""torchattacks on a defended module as it is.

pip install 'quasinat[interop]' && python examples/interop/torchattacks_attacks.py
"""

import torch
import torchattacks
from small import small

defended, images, labels = small()
for attack in (
    torchattacks.PGD(defended, eps=8 / 255, alpha=2 / 255, steps=10),
    torchattacks.APGD(defended, eps=8 / 255, steps=10),
    torchattacks.CW(defended, c=10, steps=20),
):
    attacked = attack(images, labels)
    with torch.no_grad():
        right = defended(attacked).argmax(1) == labels
    print(f"{type(attack).__name__}: {right.float().mean():.0%} right of {len(labels)}")
