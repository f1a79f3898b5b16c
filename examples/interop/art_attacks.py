"""ART's own attacks on a defended module, along its true gradient; then the layer as one of ART's defences.

pip install 'quasinat[interop]' && python examples/interop/art_attacks.py
"""

from art.attacks.evasion import AutoProjectedGradientDescent, DeepFool, FastGradientMethod
from art.estimators.classification import PyTorchClassifier
from small import small
from torch import nn

from quasinat.interop.art import ArtPreprocessor, as_art_classifier

defended, images, labels = small()
shape, x, y = tuple(images.shape[1:]), images.numpy(), labels.numpy()

classifier = as_art_classifier(defended, shape=shape, classes=10)
for attack in (
    FastGradientMethod(classifier, eps=8 / 255),
    AutoProjectedGradientDescent(
        classifier, eps=8 / 255, eps_step=2 / 255, max_iter=10, nb_random_init=1, verbose=False
    ),
    DeepFool(classifier, max_iter=10, nb_grads=10, verbose=False),
):
    made = attack.generate(x, y)
    print(f"{type(attack).__name__}: {(classifier.predict(made).argmax(1) == y).mean():.0%} right of {len(y)}")

# The layer before any of ART's classifiers. Its derivative is then the identity: an upper bound on what it withstands.
before = ArtPreprocessor(defended.transform)
loss = nn.CrossEntropyLoss()
plain = PyTorchClassifier(
    defended.classifier, loss, shape, 10, clip_values=(0.0, 1.0), preprocessing_defences=before, device_type="cpu"
)
made = FastGradientMethod(plain, eps=8 / 255).generate(x, y)
print(f"as a preprocessor, FastGradientMethod: {(plain.predict(made).argmax(1) == y).mean():.0%} right of {len(y)}")
