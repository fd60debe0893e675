// The CUDA part of the Python module; in a build without CUDA it says so.
#pragma once
#include <pybind11/pybind11.h>

namespace fastretrieve::bindings {

void bind_cuda(pybind11::module_& m);

}  // namespace fastretrieve::bindings
