"""A defended classifier small enough for an example: ten photographs, sixteen filters, a network trained on T(x)."""

from functools import cache

import quasinat as qn
from quasinat.arrays import Images, Labels


@cache
def small() -> tuple[qn.Defended, Images, Labels]:
    """The module, with its true gradient named, and test images of 32 pixels that it gets right; half a minute."""
    data = qn.data.photographs(32, colour=True, train_per_class=30, test_per_class=4)
    dictionary = qn.learn_dictionary(data.train_images[:100], filters=16, size=6, sparsity=0.1, passes=2, seed=0)
    layer = qn.SparseTransformationLayer(None, [dictionary], sparsity=0.1)
    projected = qn.project(layer, data.train_images)
    network = qn.networks.vgg("vgg-small", classes=10)
    qn.train_classifier(network, projected, data.train_labels, epochs=8, augment=False)
    defended = qn.Defended(layer, network.requires_grad_(False)).with_adjoint(qn.Implicit()).eval()
    right = defended(data.test_images).argmax(1) == data.test_labels
    return defended, data.test_images[right][:8], data.test_labels[right][:8]
