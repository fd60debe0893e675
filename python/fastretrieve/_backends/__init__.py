"""Where searches run: what a backend is, the CPU, CUDA, and which one serves a device."""
