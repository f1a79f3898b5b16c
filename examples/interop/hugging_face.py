"""An image classifier of Hugging Face behind a layer, attacked with its true gradient.

pip install 'quasinat[interop]' && python examples/interop/hugging_face.py

The classifier is a small one made here, so that nothing is downloaded; `from_pretrained("microsoft/resnet-50")` gives
one that knows something, and `quasinat defend hf:microsoft/resnet-50` measures what the layer costs it.
"""

import torch
from small import small
from transformers import AutoModelForImageClassification, ResNetConfig

import quasinat as qn

defended, images, _ = small()
torch.manual_seed(0)
config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=10)
classifier = AutoModelForImageClassification.from_config(config).eval().requires_grad_(False)

behind = qn.Defended(defended.transform, classifier, output=lambda answer: answer.logits).with_adjoint(qn.Implicit())
with torch.no_grad():
    alone, answers = classifier(images).logits.argmax(1), behind(images).argmax(1)
print(f"the layer leaves {(alone == answers).float().mean():.0%} of {len(images)} answers as they were")
attacked = qn.attacks.pgd(behind, images, answers, budget=qn.Linf(8 / 255), steps=10)
print(f"PGD changes {attacked.success.float().mean():.0%} of them")
