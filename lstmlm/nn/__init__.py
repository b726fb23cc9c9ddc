"""The parts of the network: states, recurrent layers, dropout, output layers. No text in here."""
