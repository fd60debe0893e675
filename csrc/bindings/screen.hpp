// A screen in C++, and the calls that make one.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>

#include "core/screen.hpp"
#include "core/trust.hpp"

namespace fastretrieve::bindings {

// A map with the arrays that it reads.
struct OwnedMap {
  HeadMap map;
  pybind11::object owner;
};

struct OwnedScreen {
  Screen screen;
  pybind11::object owner;
  std::shared_ptr<Trust> trust = std::make_shared<Trust>();
};

void bind_screen(pybind11::module_& m);

}  // namespace fastretrieve::bindings
