"""Foolbox on a defended module as it is.

pip install 'quasinat[interop]' && python examples/interop/foolbox_attacks.py
"""

import foolbox
from small import small

defended, images, labels = small()
model = foolbox.PyTorchModel(defended, bounds=(0, 1))
for attack in (
    foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=10),
    foolbox.attacks.LinfDeepFoolAttack(steps=10, candidates=10),
):
    _, _, fooled = attack(model, images, labels, epsilons=[2 / 255, 8 / 255])
    for size, row in zip((2, 8), fooled, strict=True):
        print(f"{type(attack).__name__}, {size}/255: {1 - row.float().mean():.0%} right of {len(labels)}")
