// The Python module `fastretrieve._core`: check layout, release the GIL, call, return. Arithmetic
// is in csrc/cpu and csrc/cuda; defaults and friendly messages are in python/fastretrieve.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/cpu.hpp"
#include "bindings/cuda.hpp"
#include "bindings/inspect.hpp"
#include "bindings/masks.hpp"
#include "bindings/screen.hpp"
#include "bindings/segments.hpp"
#include "core/strip.hpp"
#include "cpu/isa.hpp"
#include "cpu/pool.hpp"
#include "cpu/probe.hpp"

namespace fastretrieve::bindings {

static std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const cpu::Kernels* kernels : cpu::available_kernels()) names.emplace_back(kernels->name);
  return names;
}

static double probe_read_bandwidth(int64_t n_bytes, int threads) {
  const py::gil_scoped_release released;
  return cpu::probe_read_bandwidth(cpu::kernels_by_name(""), n_bytes, threads);
}

static double probe_int8_peak(int threads, double seconds) {
  const py::gil_scoped_release released;
  return cpu::probe_int8_peak(cpu::kernels_by_name(""), threads, seconds);
}

PYBIND11_MODULE(_core, m) {
  py::register_exception<Error>(m, "Error", PyExc_ValueError);
  m.attr("STRIP_ROWS") = kStripRows;
  m.attr("MAX_DIM") = kMaxDim;

  bind_screen(m);
  bind_segments(m);
  bind_masks(m);
  bind_cpu(m);
  bind_cuda(m);
  bind_inspect(m);

  m.def("instruction_sets", &instruction_sets);
  m.def("num_threads", &cpu::num_threads);
  m.def(
      "set_num_threads",
      [](int n) {
        const py::gil_scoped_release released;
        cpu::set_num_threads(n);
      },
      py::arg("n"));
  m.def("probe_read_bandwidth", &probe_read_bandwidth, py::arg("bytes"), py::arg("threads"));
  m.def("probe_int8_peak", &probe_int8_peak, py::arg("threads"), py::arg("seconds"));
}

}  // namespace fastretrieve::bindings
