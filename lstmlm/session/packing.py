"""A stream as bytes: what was held back, and what the model remembers."""

import hashlib
import struct

import numpy as np
import torch

from lstmlm.errors import SessionStateError
from lstmlm.nn.state import State
from lstmlm.session.reader import Reader
from lstmlm.text import REACH, Incoming, Tokenizer

STATE_VERSION = 1
_MAGIC = b"lstmlm session"
_HEADER = struct.Struct(f"<{len(_MAGIC)}sH16sQHB")  # version, model, position, held bytes, closed
_DIGEST_BYTES = 16
_UTF8_BYTES = 4  # of a character, at most


def _capacity(tokenizer: Tokenizer) -> int:
    """Return how many bytes a stream may hold back: less than `REACH` twice, and part of one."""
    return _UTF8_BYTES * (2 * REACH[tokenizer.kind] + 1)


def pack(incoming: Incoming, state: State, reader: Reader, *, closed: bool) -> bytes:
    """Write a stream as bytes, of a number that depends on the model alone.

    They are the header (what they are, version, fingerprint of the model, position, lengths), what
    is held back, in as much room as it can ever take, the state in float32, and a checksum.
    """
    held = incoming.held.encode("utf-8", "surrogatepass")
    header = _HEADER.pack(
        _MAGIC,
        STATE_VERSION,
        reader.fingerprint,
        incoming.position,
        len(held),
        len(incoming.bytes_held) | closed << 7,
    )
    body = [
        header,
        (held + incoming.bytes_held).ljust(_capacity(reader.tokenizer), b"\0"),
        *(part.float().cpu().numpy().tobytes() for part in state),
    ]
    packed = b"".join(body)
    return packed + hashlib.sha256(packed).digest()[:_DIGEST_BYTES]


def unpack(packed: bytes | None, reader: Reader) -> tuple[Incoming, bool, State]:
    """Read what `pack` wrote; None stands for a stream that begins.

    Raises
    ------
    SessionStateError
        If it is something else, damaged, or of another model.
    """
    if packed is None:
        return Incoming(), False, reader.fresh
    if not isinstance(packed, bytes):
        raise SessionStateError(f"a session's state is bytes, not {type(packed).__name__}.")
    if len(packed) < _HEADER.size or not packed.startswith(_MAGIC):
        raise SessionStateError(f"these {len(packed)} bytes are no session's state.")
    _, version, fingerprint, position, n_held, flags = _HEADER.unpack_from(packed)
    if version != STATE_VERSION:
        raise SessionStateError(
            f"the state has version {version}; this version of lstmlm reads {STATE_VERSION}."
        )
    if fingerprint != reader.fingerprint:
        raise SessionStateError("the state is of a session with another model.")
    if hashlib.sha256(packed[:-_DIGEST_BYTES]).digest()[:_DIGEST_BYTES] != packed[-_DIGEST_BYTES:]:
        raise SessionStateError("the state was cut off or altered.")
    at = _HEADER.size
    held, n_bytes = packed[at : at + n_held], flags & 0x7F
    rest = packed[at + n_held : at + n_held + n_bytes]
    values = np.frombuffer(
        packed, np.float32, offset=at + _capacity(reader.tokenizer),
        count=sum(part.numel() for part in reader.fresh),
    )  # fmt: skip
    hidden, cell = reader.fresh
    numbers = torch.from_numpy(values.copy()).to(hidden)
    cut = hidden.numel()
    state = State(numbers[:cut].reshape(hidden.shape), numbers[cut:].reshape(cell.shape))
    return Incoming(held.decode("utf-8", "surrogatepass"), position, rest), bool(flags >> 7), state
