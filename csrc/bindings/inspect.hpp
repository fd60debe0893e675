// The promises between stages, exposed for tests: intervals, the float32 filter, the plan.
#pragma once
#include <pybind11/pybind11.h>

namespace fastretrieve::bindings {

void bind_inspect(pybind11::module_& m);

}  // namespace fastretrieve::bindings
