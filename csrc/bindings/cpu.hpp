// The CPU backend as Python sees it.
#pragma once
#include <pybind11/pybind11.h>

namespace fastretrieve::bindings {

void bind_cpu(pybind11::module_& m);

}  // namespace fastretrieve::bindings
