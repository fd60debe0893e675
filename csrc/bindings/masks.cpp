#include "bindings/masks.hpp"

#include <pybind11/numpy.h>

#include "bindings/arrays.hpp"
#include "bindings/unlocked.hpp"
#include "core/check.hpp"
#include "cpu/mask.hpp"

namespace fastretrieve::bindings {
namespace {

using Words = py::array_t<uint64_t, py::array::c_style>;
using Numbers = py::array_t<int64_t, py::array::c_style>;

uint64_t* checked(Words& words, int64_t n_masks, int64_t n_rows) {
  const int64_t n_words = (n_rows + 63) / 64;
  FR_CHECK(words.ndim() == 2 && words.shape(0) == n_masks && words.shape(1) == n_words,
           "words must have shape (", n_masks, ", ", n_words, "), got ", words.size(), " words");
  return words.mutable_data();
}

// Columns [begin, begin + n_live) of `mask` belong to the live rows of a segment.
void pack_mask(const py::array_t<bool>& mask, int64_t begin, int64_t n_live, int64_t n_rows,
               int64_t live, Words& words) {
  FR_CHECK(mask.ndim() == 2 && (mask.shape(1) <= 1 || mask.strides(1) == 1),
           "a mask must have two dimensions and be adjacent within a row");
  FR_CHECK(0 <= begin && 0 <= n_live && begin + n_live <= mask.shape(1), "columns ", begin, " to ",
           begin + n_live, " of a mask over ", mask.shape(1), " rows");
  const cpu::PackArgs args{reinterpret_cast<const uint8_t*>(mask.data()) + begin,
                           n_live,
                           mask.shape(0) > 1 ? mask.strides(0) : 0,
                           mask.shape(0),
                           as_address<const uint64_t>(live),
                           n_rows,
                           checked(words, mask.shape(0), n_rows)};
  unlocked([&](Cancel& cancel) { cpu::pack_mask(args, cancel); });
}

void mark_rows(const Numbers& numbers, int64_t first, int64_t n_rows, Words& words) {
  FR_CHECK(numbers.ndim() == 2, "numbers must have two dimensions, got ", numbers.ndim());
  const cpu::MarkArgs args{numbers.data(),   numbers.shape(1),
                           numbers.shape(0), first,
                           n_rows,           checked(words, numbers.shape(0), n_rows)};
  unlocked([&](Cancel& cancel) { cpu::mark_rows(args, cancel); });
}

}  // namespace

void bind_masks(py::module_& m) {
  m.def("pack_mask", &pack_mask, py::arg("mask").noconvert(), py::kw_only(), py::arg("begin"),
        py::arg("n_live"), py::arg("n_rows"), py::arg("live"), py::arg("words").noconvert());
  m.def("mark_rows", &mark_rows, py::arg("numbers").noconvert(), py::kw_only(), py::arg("first"),
        py::arg("n_rows"), py::arg("words").noconvert());
}

}  // namespace fastretrieve::bindings
