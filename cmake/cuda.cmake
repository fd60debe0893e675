# The CUDA backend: compiled by nvcc (ON, AUTO), by g++ for tests (EMU), or left out (OFF).
set(FR_HAVE_CUDA OFF)
message(STATUS "fastretrieve: CUDA ${FR_HAVE_CUDA}")
