"""Spiking networks in torch: the neuron, its surrogate gradients, layers and models."""
