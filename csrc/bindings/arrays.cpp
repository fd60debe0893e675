#include "bindings/arrays.hpp"

#include "core/check.hpp"

namespace fastretrieve::bindings {

Metric as_metric(const std::string& name) {
  if (name == "ip") return Metric::ip;
  if (name == "cosine") return Metric::cosine;
  if (name == "sqeuclidean") return Metric::sqeuclidean;
  if (name == "l2") return Metric::l2;
  fail("metric must be cosine, ip, l2 or sqeuclidean, got '", name, "'");
}

DType as_dtype(const std::string& name) {
  if (name == "float32") return DType::float32;
  if (name == "float16") return DType::float16;
  if (name == "bfloat16") return DType::bfloat16;
  fail("dtype must be float32, float16 or bfloat16, got '", name, "'");
}

static Matrix from_tuple(const py::tuple& parts, const char* name) {
  FR_CHECK(parts.size() == 5, name, " must be (address, dtype, n_rows, dim, stride), got ",
           parts.size(), " parts");
  return {as_address<const void>(parts[0].cast<int64_t>()), as_dtype(parts[1].cast<std::string>()),
          parts[2].cast<int64_t>(), parts[3].cast<int64_t>(), parts[4].cast<int64_t>()};
}

Matrix as_matrix(const py::handle& object, const char* name) {
  if (py::isinstance<py::tuple>(object))
    return from_tuple(py::reinterpret_borrow<py::tuple>(object), name);
  FR_CHECK(py::isinstance<py::array>(object), name, " must be a NumPy array, got ",
           py::str(py::type::handle_of(object).attr("__name__")).cast<std::string>());
  const py::array array = py::reinterpret_borrow<py::array>(object);
  const int64_t size = array.itemsize();
  const char kind = array.dtype().kind();
  FR_CHECK((kind == 'f' && (size == 4 || size == 2)) || (kind == 'u' && size == 2), name,
           " must hold float32, float16 or the bits of bfloat16, got ",
           py::str(array.dtype()).cast<std::string>());
  FR_CHECK(array.ndim() == 2, name, " must have two dimensions, got ", array.ndim());
  const int64_t n_rows = array.shape(0), dim = array.shape(1);
  // NumPy gives an empty array any strides.
  FR_CHECK(n_rows == 0 || dim <= 1 || array.strides(1) == size, name,
           " must be adjacent within a row");
  FR_CHECK(n_rows <= 1 || array.strides(0) % size == 0, name,
           " has rows that start between two numbers");
  const DType dtype = kind == 'u' ? DType::bfloat16 : size == 4 ? DType::float32 : DType::float16;
  return {array.data(), dtype, n_rows, dim, n_rows <= 1 ? dim : array.strides(0) / size};
}

}  // namespace fastretrieve::bindings
