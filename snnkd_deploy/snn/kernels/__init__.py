"""The kernels of a training step, as the compilers of their processors read them."""
