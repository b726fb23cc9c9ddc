"""The network of a fit: its architecture, its first weights, where it computes."""

import copy
from dataclasses import asdict
from typing import Any

import torch

from lstmlm.attending import make_network
from lstmlm.config import ModelConfig
from lstmlm.defaults import cutoffs, embedding_scale, tail_width
from lstmlm.errors import ParameterError
from lstmlm.fitting.plan import Fitted
from lstmlm.model import RecurrentLM
from lstmlm.nn.processors import has_bf16_products, has_matrix_units, measured_flops
from lstmlm.training import Report, put_weights


def describe_architecture(config: ModelConfig, vocab_size: int) -> dict[str, Any]:
    """Return `RecurrentLM`'s arguments: a settled configuration's plain numbers."""
    described = {"vocab_size": vocab_size, **asdict(config)}
    described["embedding_scale"] = embedding_scale(vocab_size)
    if config.output == "adaptive":
        width = config.embedding_dim if config.tie_weights else config.hidden_size
        described |= {"cutoffs": cutoffs(vocab_size), "tail_width": tail_width(int(width))}
    return described


def build(architecture: dict[str, Any], seed: int) -> RecurrentLM:
    """Build a network on the CPU and draw its first weights."""
    model = allocate(architecture)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


def allocate(architecture: dict[str, Any]) -> RecurrentLM:
    """Build a network of any weights, and leave torch's own random numbers alone."""
    with torch.random.fork_rng(devices=[]):
        return make_network(architecture).eval()


def snapshot(fitted: Fitted, report: Report) -> Fitted:
    """Return a copy of a fit under way, as it would be left if it stopped at its last report."""
    # cuDNN wants a layer's weights in one piece, which a copy's are after a move, be it to nowhere.
    module = copy.deepcopy(fitted.module).to(fitted.module.device).eval()
    if report.best is not None:
        put_weights(module, report.best)
    return Fitted(fitted.tokenizer, module, fitted.plan, list(fitted.history))


def choose_device(device: str | torch.device) -> torch.device:
    """Return the device of a name; "auto" is a CUDA GPU where there is one, else the CPU.

    Raises
    ------
    ParameterError
        If torch doesn't know the name, or the device isn't there.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ParameterError(
            f"device={device!r} can't be used ({reason}); "
            'give "auto", "cpu" or a GPU that is there, such as "cuda" or "cuda:1".'
        ) from error
    return chosen


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether a device computes products in bf16 faster than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and has_bf16_products()


def guessed_flops(device: torch.device) -> float:
    """Return about how many floating-point operations a training's products get in a second.

    A product is timed now, as processors of one make differ by a factor of two. In float32 little
    else counts; in bf16 a training got 0.58 (1,024 units, 22 lanes) to 0.79 (512 units, 64 lanes)
    of it on two cores of a Zen 4. With AMX, where a product alone is several times as fast, it got
    430 G (512 units, 20 lanes) to 680 G (1,024 units, 64 lanes).
    """
    if device.type != "cpu":
        return 2e13
    if has_matrix_units():
        return 3e11 * torch.get_num_threads()
    if has_fast_bf16(device):
        return 0.7 * measured_flops(torch.bfloat16)
    return measured_flops(torch.float32)
