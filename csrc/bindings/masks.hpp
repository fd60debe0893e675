// Row masks from arrays of booleans or numbers.
#pragma once
#include <pybind11/pybind11.h>

namespace fastretrieve::bindings {

void bind_masks(pybind11::module_& m);

}  // namespace fastretrieve::bindings
