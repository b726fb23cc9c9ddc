"""What tells a model from all others."""

import hashlib
import json
from typing import Any
from weakref import WeakKeyDictionary

from lstmlm.model import RecurrentLM

# By network: how often its weights were changed, and the fingerprint that they had then.
_known: WeakKeyDictionary[RecurrentLM, tuple[tuple[int, ...], bytes]] = WeakKeyDictionary()


def fingerprint_of(estimator: Any) -> bytes:
    """Return the sha256 of all that a fitted model's figures follow from.

    These are the network, its weights, the tokenizer and its ids, and whether a text's state goes
    on to the next. A saved model has the fingerprint of the one that was saved.
    """
    module, tokenizer = estimator.module_, estimator.tokenizer_
    tensors = sorted([*module.named_parameters(), *module.named_buffers()])
    versions = tuple(tensor._version for _, tensor in tensors)
    known = _known.get(module)
    if known is not None and known[0] == versions:
        return known[1]
    digest = hashlib.sha256()
    facts = [module.cutoffs, module.embedding_scale, tokenizer.kind, estimator.params_["context"]]
    digest.update(json.dumps(facts).encode())
    digest.update(tokenizer.backend.to_str().encode())
    digest.update(tokenizer.ranks.tobytes())
    for name, tensor in tensors:
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    _known[module] = versions, digest.digest()
    return digest.digest()
