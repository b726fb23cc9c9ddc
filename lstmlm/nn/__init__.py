"""The parts of the network: states, recurrent layers, dropout, output layers. No text in here."""

import torch

# MKL sets up its logarithms at the first call, and where that comes from two threads at once, one
# of them may compute its half at a lower accuracy: log-likelihoods were 1e-5 off in the first batch
# of one process in ten. So the first logarithm of a process is taken here, by one thread.
torch.ones(1).log()
