"""Whether weights have changed since something was made of them."""

from torch import Tensor


def version(weights: Tensor) -> int:
    """Return a number that changes when the weights are changed in place.

    Tensors that were made in torch's inference mode don't count their changes; 0 for them.
    """
    return 0 if weights.is_inference() else weights._version
