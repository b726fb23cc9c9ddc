"""Recurrent layers.

The LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000)::

    i_t = sigmoid(W_i x_t + U_i h_{t-1} + b_i)        input gate
    f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)        forget gate
    g_t =    tanh(W_g x_t + U_g h_{t-1} + b_g)        candidate
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)        output gate
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)
"""

import torch
from torch import Tensor, nn


class LSTM(nn.LSTM):
    """One LSTM layer on torch's fused kernels.

    The forget gates' bias starts at 1, so that the cell remembers from the first step on
    (Jozefowicz et al. 2015, section 5); matrices start as in Glorot and Bengio (2010) from the
    input and orthogonal (Saxe et al. 2014) from the state.

    Parameters
    ----------
    input_size, hidden_size : int
        Width of the input and of the state, H.
    """

    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights."""
        with torch.no_grad():
            for gate in range(4):
                rows = slice(gate * self.hidden_size, (gate + 1) * self.hidden_size)
                nn.init.xavier_uniform_(self.weight_ih_l0[rows], generator=generator)
                nn.init.orthogonal_(self.weight_hh_l0[rows], generator=generator)
            self.bias_ih_l0.zero_()[self.hidden_size : 2 * self.hidden_size] = 1.0
            self.bias_hh_l0.zero_()

    def step(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read a window.

        Parameters
        ----------
        x : Tensor, shape (B, T, input_size)
            Inputs.
        hidden, cell : Tensor, shape (B, H)
            The state before the window.

        Returns
        -------
        outputs : Tensor, shape (B, T, H)
        hidden, cell : Tensor, shape (B, H)
            The state after the window.
        """
        outputs, (hidden_after, cell_after) = self(
            x, (hidden.unsqueeze(0).contiguous(), cell.unsqueeze(0).contiguous())
        )
        return outputs, hidden_after.squeeze(0), cell_after.squeeze(0)
