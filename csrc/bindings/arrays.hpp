// From Python objects to views. Nothing is copied or converted in silence: a wrong type is an
// error.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "core/types.hpp"

namespace fastretrieve::bindings {

namespace py = pybind11;

Metric as_metric(const std::string& name);
DType as_dtype(const std::string& name);

// A NumPy array [n_rows, dim] of float32, float16 or uint16 (the bits of bfloat16), adjacent within
// a row; or the tuple (address, dtype, n_rows, dim, stride) of memory elsewhere.
Matrix as_matrix(const py::handle& object, const char* name);

template <class T>
T* as_address(int64_t address) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(address));
}

}  // namespace fastretrieve::bindings
