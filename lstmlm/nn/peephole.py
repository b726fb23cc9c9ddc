"""LSTM layers whose gates see the cell.

With diagonal peepholes (Gers et al. 2000, equations 1 to 5; Gers and Schmidhuber 2000), p the
peepholes of a gate, one a unit::

    i_t = sigmoid(W_i x_t + U_i h_{t-1} + p_i * c_{t-1} + b_i)        input gate
    f_t = sigmoid(W_f x_t + U_f h_{t-1} + p_f * c_{t-1} + b_f)        forget gate
    g_t =    tanh(W_g x_t + U_g h_{t-1} + b_g)                        candidate
    c_t = f_t * c_{t-1} + i_t * g_t
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + p_o * c_t + b_o)            output gate, of the new cell
    h_t = o_t * tanh(c_t)

With full ones, all four see the cell before, through matrices (often written W_ci, W_cf, W_cc and
W_co)::

    i_t = sigmoid(W_i x_t + U_i h_{t-1} + V_i c_{t-1} + b_i)
    f_t = sigmoid(W_f x_t + U_f h_{t-1} + V_f c_{t-1} + b_f)
    g_t =    tanh(W_g x_t + U_g h_{t-1} + V_g c_{t-1} + b_g)
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + V_o c_{t-1} + b_o)
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)

torch has no kernel for them; their steps are those of `lstmlm.nn.loop`.
"""

import torch
from torch import Tensor, nn

from lstmlm.nn.dropout import dropped_weight
from lstmlm.nn.loop import run_steps
from lstmlm.nn.stepping import Matrix, lstm_state, products


class PeepholeLSTM(nn.Module):
    """One LSTM layer whose gates see the cell; with peepholes of zero it is `LSTM`.

    Peepholes start at zero, all else as in `LSTM`.

    Parameters
    ----------
    input_size, hidden_size : int
        Width of the input and of the state, H.
    peephole : {"diagonal", "full"}
        Peepholes as vectors of shape (H,) for i, f and o, stacked in ``weight_ch`` of shape (3, H);
        or as matrices for i, f, g and o, stacked in ``weight_ch`` of shape (4H, H).
    """

    def __init__(self, input_size: int, hidden_size: int, *, peephole: str) -> None:
        super().__init__()
        self.hidden_size = self.cell_size = hidden_size
        self.full = peephole == "full"
        gates = 4 * hidden_size
        self.weight_ih = nn.Parameter(torch.empty(gates, input_size))
        self.weight_hh = nn.Parameter(torch.empty(gates, hidden_size))
        self.weight_ch = nn.Parameter(torch.empty(gates if self.full else 3, hidden_size))
        self.bias = nn.Parameter(torch.empty(gates))

    @property
    def slow(self) -> list[nn.Parameter]:
        """Weights that learn at a lower rate: those that see the cell, which has no bound.

        At the rate of the others they throw the gates about. In an epoch of half of WikiText-2 at a
        rate of 4e-3 the held-out perplexity was 241 with diagonal peepholes, 213 with a tenth of
        the rate for them; full ones stayed at the perplexity of word frequencies.
        """
        return [self.weight_ch]

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights."""
        with torch.no_grad():
            for rows in torch.split(self.weight_ih, self.hidden_size):
                nn.init.xavier_uniform_(rows, generator=generator)
            for rows in torch.split(self.weight_hh, self.hidden_size):
                nn.init.orthogonal_(rows, generator=generator)
            self.weight_ch.zero_()
            self.bias.zero_()[self.hidden_size : 2 * self.hidden_size] = 1.0

    def matrices(self) -> list[Matrix]:
        """Return what the input, the hidden state and perhaps the cell are multiplied with."""
        seen: list[Matrix] = [(self.weight_ih, self.bias), (self.weight_hh, None)]
        return [*seen, (self.weight_ch, None)] if self.full else seen

    def one_token(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Read a token; see `lstmlm.nn.cells.LSTM.one_token`."""
        first, *others = products((x, hidden, cell), self.matrices())
        return lstm_state(sum(others, first), cell, None if self.full else self.weight_ch)

    def step(
        self,
        x: Tensor,
        hidden: Tensor,
        cell: Tensor,
        *,
        weight_drop: float = 0.0,
        noise: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read a window; see `lstmlm.nn.cells.LSTM.step`. Full peepholes drop weights too."""
        matrices = [self.weight_ih, dropped_weight(self.weight_hh, weight_drop, noise)]
        if self.full:
            matrices.append(dropped_weight(self.weight_ch, weight_drop, noise))
        peepholes = None if self.full else self.weight_ch
        return run_steps(x, hidden, cell, matrices, self.bias, peepholes)
